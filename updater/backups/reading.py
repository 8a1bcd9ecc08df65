"""Reads a backup back: to prove that it is whole, or to put its content into a directory.

A backup is input like any other: it may be damaged, cut off, or made by somebody else. Names are looked at before anything
is written, symlinks are made last, and every file is compared with its digest.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import zstandard

from updater import durable
from updater.artifacts.tarstream import Member, TarStream
from updater.backups import index, stored
from updater.backups import manifest as manifests
from updater.backups.gather import shown
from updater.backups.index import SUM, Entry
from updater.backups.manifest import Manifest, Part
from updater.backups.stored import MANIFEST, SUMS, Check, not_as_written, sum_of
from updater.errors import BackupDamaged, VerificationFailed
from updater.records import read_json

_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.-]+)")
_STEP = 64 * 1024
"""Block sums looked at at once."""


def manifest(directory: Path) -> Manifest | None:
    """The manifest of the backup in a directory; None if there is none that this updater reads."""
    data = read_json(directory / MANIFEST)
    return Manifest.from_json(data) if data else None


def why_unread(directory: Path) -> str:
    """Why there is no manifest that this updater reads, in words."""
    data = read_json(directory / MANIFEST)
    made = data.get("format") if data else None
    if isinstance(made, int) and made > manifests.FORMAT:
        by = f" {data.get('updater')}" if data and isinstance(data.get("updater"), str) else ""
        return (
            f"it was made by a newer updater{by} in format {made}; this one reads format {manifests.FORMAT}"
        )
    return f"{MANIFEST} is missing or damaged"


def known_sums(directory: Path) -> dict[str, str]:
    """``SHA256SUMS``: file -> SHA-256.

    Raises:
        BackupDamaged: it is missing or damaged.
    """
    try:
        lines = durable.read(directory / SUMS).decode("ascii").splitlines()
        return {found[2]: found[1] for line in lines if (found := _strict(line))}
    except (OSError, ValueError) as failure:
        raise BackupDamaged(f"{directory.name}: {SUMS} cannot be read: {failure}") from failure


def _strict(line: str) -> re.Match[str]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"{line[:80]!r} is no line of it")
    return found


class Sink(Protocol):
    """Where the content of a part goes."""

    def path(self, entry: Entry) -> None:
        """A directory or a symlink."""
        ...

    def file(self, entry: Entry, pieces: Iterator[memoryview]) -> None:
        """A file, whole; every piece must be taken."""
        ...

    def blocks(self, entry: Entry, ranges: list[tuple[int, int]], pieces: Iterator[memoryview]) -> None:
        """Blocks of a file that is there already; every piece must be taken."""
        ...


class Proof:
    """A sink that writes nothing: what is read only has to have the right digests."""

    def path(self, entry: Entry) -> None:
        pass

    def file(self, entry: Entry, pieces: Iterator[memoryview]) -> None:
        for _ in pieces:
            pass

    def blocks(self, entry: Entry, ranges: list[tuple[int, int]], pieces: Iterator[memoryview]) -> None:
        for _ in pieces:
            pass


@dataclass
class Reading:
    """One part of a backup, read from beginning to end."""

    directory: Path
    name: str
    part: Part
    sink: Sink
    check: Check = None
    sums: Mapping[str, str] | None = None
    """The SHA-256 that each archive must have; None: they are not looked at."""
    everything: bool = False
    """Also what the full archive holds and this backup does not need any more."""
    trusted: bool = False
    """The full archive is known to be whole, and what is in it is not asked for."""
    known: tuple[Sequence[Entry], Sequence[Entry]] | None = None
    """What the full archive and the backup hold, where that is known from elsewhere than the indexes beside."""
    _before: dict[str, Entry] = field(default_factory=dict)
    _now: dict[str, Entry] = field(default_factory=dict)

    def run(self) -> None:
        """Read it.

        Raises:
            BackupDamaged: it is not as its index says.
        """
        try:
            self._indexes()
            if not self.trusted:
                self._full()
            if self.part.delta:
                self._delta()
        except BackupDamaged:
            raise
        except (VerificationFailed, zstandard.ZstdError, ValueError) as failure:
            raise self._damaged(str(failure)) from failure
        except FileNotFoundError as failure:
            raise self._damaged(f"{failure.filename} is missing") from failure

    def _damaged(self, why: str) -> BackupDamaged:
        return BackupDamaged(f"{self.directory.name}: part {self.name}: {why}")

    def _indexes(self) -> None:
        if self.known:
            self._before, self._now = ({it.path: it for it in entries} for entries in self.known)
            return
        _, index_name, _ = stored.names(self.name)
        self._before = self._index(index_name)
        self._now = self._index(stored.delta_names(self.name)[1]) if self.part.delta else self._before

    def _index(self, name: str) -> dict[str, Entry]:
        try:
            _, found = index.read(self.directory / name)
        except OSError as failure:
            raise self._damaged(f"{name} cannot be read: {failure.strerror}") from failure
        for entry in found:
            if not is_safe(entry.path):
                raise self._damaged(f"a path that leads elsewhere: {shown(entry.path)}")
        return {entry.path: entry for entry in found}

    def _members(self, name: str) -> Iterator[tuple[Member, TarStream]]:
        return stored.members(self.directory, name, sums=self.sums, check=self.check)

    def _full(self) -> None:
        left = set(self._before)
        for member, stream in self._members(self.part.full):
            entry = self._before.get(stored.path_of(member))
            if entry is None or entry.path not in left:
                raise self._damaged(f"{shown(stored.path_of(member))} is in the archive but not in its index")
            left.remove(entry.path)
            now = self._now.get(entry.path)
            wanted = now is not None and now.stored in ("full", "blocks")
            if wanted or self.everything:
                self._take(
                    entry, now if wanted and now else entry, member, stream, self.sink if wanted else Proof()
                )
            else:
                stream.skip(member.size + -member.size % 512)
        self._nothing_left(left)

    def _delta(self) -> None:
        left = {it.path for it in self._now.values() if it.stored == "delta"}
        patched = {it.path for it in self._now.values() if it.stored == "blocks"}
        self._nothing_left(
            {it.path for it in self._now.values() if it.stored == "full"} - self._before.keys()
        )
        members = self._members(str(self.part.delta))
        for member, stream in members:
            path = stored.path_of(member)
            if path.startswith(f"{stored.CONTROL}/blocks/") and path.endswith("/path"):
                patched.discard(self._patch(member, stream, members))
            elif path.startswith(f"{stored.CONTROL}/"):
                stream.padded(member.size)  # what a shell needs; the index says the same
            elif path in left:
                left.remove(path)
                entry = self._now[path]
                self._take(entry, entry, member, stream, self.sink)
            else:
                raise self._damaged(f"{shown(path)} is in the delta but not in its index")
        self._nothing_left(left | patched)

    def _nothing_left(self, left: Collection[str]) -> None:
        if left:
            raise self._damaged(f"{len(left)} paths are missing, {shown(min(left))} among them")

    def _take(self, kept: Entry, wanted: Entry, member: Member, stream: TarStream, sink: Sink) -> None:
        """Read one member: it must be what its archive's index says, and goes out as what the backup wants."""
        if member.kind != kept.kind or member.size != kept.size:
            raise self._damaged(f"{shown(kept.path)} is not what the index says")
        if kept.kind != "file":
            sink.path(wanted)
            return
        digest = hashlib.sha256()
        sink.file(wanted, self._summed(stream.pieces(member.size), digest.update))
        stream.skip(-member.size % 512)
        if digest.hexdigest() != kept.digest:
            raise self._damaged(f"{shown(kept.path)} is not as it was: its digest differs")

    def _summed(
        self, pieces: Iterator[memoryview], on_sums: Callable[[bytes], object]
    ) -> Iterator[memoryview]:
        """The same pieces; at their end the sums of all their blocks have been told."""
        sums = index.BlockSums()
        for piece in pieces:
            if self.check:
                self.check()
            on_sums(sums.of(piece))
            yield piece
        on_sums(sums.rest())

    def _patch(self, member: Member, stream: TarStream, members: Iterator[tuple[Member, TarStream]]) -> str:
        """Four members: path, size, ranges, data."""
        where = stored.path_of(member).removesuffix("/path")
        entry = self._now.get(os.fsdecode(bytes(stream.padded(member.size))))
        if entry is None or entry.stored != "blocks" or entry.start is None:
            raise self._damaged(f"{where} changes a file that the index does not know")
        stream.padded(self._next(members, f"{where}/size").size)
        ranges = _ranges(bytes(stream.padded(self._next(members, f"{where}/ranges").size)))
        data = self._next(members, f"{where}/data").size
        sums = bytearray()
        self.sink.blocks(entry, ranges, self._summed(stream.pieces(data), sums.extend))
        stream.skip(-data % 512)
        if self._patched(entry, ranges, sums) != entry.digest:
            raise self._damaged(f"{shown(entry.path)} is not as it was: its digest differs")
        return entry.path

    def _next(self, members: Iterator[tuple[Member, TarStream]], name: str) -> Member:
        member, _ = next(members, (None, None))
        if member is None or stored.path_of(member) != name:
            raise self._damaged(f"{name} is missing")
        return member

    def _patched(self, entry: Entry, ranges: list[tuple[int, int]], sums: bytearray) -> str:
        """The digest of a file after its changed blocks were put in."""
        old = self._before[entry.path]
        assert old.start is not None
        count = index.blocks(entry.size)
        before, after = hashlib.sha256(), hashlib.sha256()
        if sum(count for _, count in ranges) * SUM != len(sums):
            raise self._damaged(f"the ranges of {shown(entry.path)} do not fit its data")
        changes = _Changes(ranges, sums)
        with open(self.directory / stored.names(self.name)[2], "rb") as file:
            file.seek(old.start * SUM)
            for at in range(0, max(count, index.blocks(old.size)), _STEP):
                known = file.read(max(0, min(_STEP, index.blocks(old.size) - at)) * SUM)
                before.update(known)
                size = max(0, min(_STEP, count - at)) * SUM
                after.update(changes.into(at, bytearray(known[:size].ljust(size, b"\0"))))
        if before.hexdigest() != old.digest:
            raise self._damaged(f"the block sums of {shown(entry.path)} are not as they were")
        if not changes.are_all_in():
            raise self._damaged(f"the ranges of {shown(entry.path)} do not fit its data")
        return after.hexdigest()


class _Changes:
    """Changed blocks by ascending ranges, put in window by window."""

    def __init__(self, ranges: list[tuple[int, int]], sums: bytearray) -> None:
        self._numbers = [number for first, count in ranges for number in range(first, first + count)]
        self._sums = sums
        self._at = 0

    def into(self, begin: int, window: bytearray) -> bytearray:
        end = begin + len(window) // SUM
        while self._at < len(self._numbers) and begin <= (number := self._numbers[self._at]) < end:
            place = (number - begin) * SUM
            window[place : place + SUM] = self._sums[self._at * SUM : (self._at + 1) * SUM]
            self._at += 1
        return window

    def are_all_in(self) -> bool:
        return self._at == len(self._numbers)


def is_safe(path: str) -> bool:
    """Whether a path stays below the directory that it is relative to."""
    pieces = path.split("/")
    return (
        bool(path)
        and "\0" not in path
        and not PurePosixPath(path).is_absolute()
        and not {"", ".", ".."} & set(pieces)
    )


def _ranges(raw: bytes) -> list[tuple[int, int]]:
    found = []
    for line in raw.splitlines():
        first, _, count = line.partition(b" ")
        found.append((int(first), int(count)))
    if any(first < 0 or count < 1 for first, count in found):
        raise ValueError("a range that cannot be")
    return found


def entries(directory: Path, name: str, part: Part) -> tuple[int, dict[str, Entry]]:
    """What a part holds: when its files were looked at (nanoseconds since the epoch), and path -> entry.

    Raises:
        BackupDamaged: its index cannot be read, or names a path that leads elsewhere.
    """
    place = stored.delta_names(name)[1] if part.delta else stored.names(name)[1]
    try:
        begun, found = index.read(directory / place)
    except (OSError, ValueError, zstandard.ZstdError) as failure:
        raise BackupDamaged(f"{directory.name}: {place} cannot be read: {failure}") from failure
    if odd := next((it.path for it in found if not is_safe(it.path)), None):
        raise BackupDamaged(f"{directory.name}: a path that leads elsewhere: {shown(odd)}")
    return begun, {it.path: it for it in found}


def prove(directory: Path, *, check: Check = None) -> None:
    """Read a backup to its end: every file has the sum that was written down, every path in it the digest.

    Raises:
        BackupDamaged: the message names the file.
    """
    found = prove_records(directory, check=check)
    sums = known_sums(directory)
    for name, part in found.parts.items():
        prove_part(directory, name, part, sums, check=check)


def prove_part(
    directory: Path,
    name: str,
    part: Part,
    sums: Mapping[str, str],
    *,
    linked: bool = False,
    known: tuple[Sequence[Entry], Sequence[Entry]] | None = None,
    check: Check = None,
) -> None:
    """Read the archives of one part to their end. ``linked``: the full one is shared with another backup, and was looked at.
    ``known``: what the full one and the backup hold, if the indexes need not be asked.

    Raises:
        BackupDamaged
    """
    Reading(
        directory, name, part, Proof(), check, sums=sums, everything=not linked, trusted=linked, known=known
    ).run()


def prove_records(directory: Path, *, linked: Collection[str] = (), check: Check = None) -> Manifest:
    """Everything in a backup but its archives: it is all there, and as it was written. Returns the manifest.

    ``linked``: parts whose full archive is shared with another backup and was looked at already.

    Raises:
        BackupDamaged
    """
    found = manifest(directory)
    if found is None:
        raise BackupDamaged(f"{directory.name}: {why_unread(directory)}")
    sums = known_sums(directory)
    archives = {it for part in found.parts.values() for it in (part.full, part.delta) if it}
    for name in _files(found):
        if name not in sums:
            raise BackupDamaged(f"{directory.name}: {name} is not in {SUMS}")
    for name, wanted in sums.items():
        if name in archives or (name.split(".", 1)[0] in linked and ".delta." not in name):
            continue
        try:
            seen = sum_of(directory / name, check)
        except OSError as failure:
            raise BackupDamaged(f"{directory.name}: {name} cannot be read: {failure.strerror}") from failure
        if seen != wanted:
            raise not_as_written(directory.name, name, seen, wanted)
    return found


def _files(found: Manifest) -> list[str]:
    """The files that a backup must have, by its manifest."""
    names = [MANIFEST]
    for name, part in found.parts.items():
        names += stored.names(name)
        if part.delta:
            names += stored.delta_names(name)
    return names
