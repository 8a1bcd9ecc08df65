"""Reads a backup back: to prove that it is whole, or to put its content into a directory.

A backup is input like any other: it may be damaged, cut off, or made by somebody else. Names are looked at before anything
is written, symlinks are made last, and every file is compared with its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import zstandard

from updater import durable
from updater.artifacts.decompress import ahead, decompressed
from updater.artifacts.tarstream import Member, TarStream
from updater.backups import index, parts
from updater.backups.gather import shown
from updater.backups.index import BLOCK, SUM, Entry
from updater.backups.manifest import Manifest, Part
from updater.errors import BackupDamaged, VerificationFailed
from updater.records import read_json

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.-]+)")
_READ = 1024**2

Check = Callable[[], None] | None


def manifest(directory: Path) -> Manifest | None:
    """The manifest of the backup in a directory; None if there is none that this updater reads."""
    data = read_json(directory / MANIFEST)
    return Manifest.from_json(data) if data else None


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


class _Source:
    """A file read and hashed in one pass, as it lies on the disk and not as it lies in memory, as far as the system allows."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self._file = open(fd, "rb", buffering=0)  # noqa: SIM115
        self._hash = hashlib.sha256()
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def read(self, count: int = _READ) -> bytes:
        piece = self._file.read(count)
        self._hash.update(piece)
        return piece

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def sum_of(path: Path, check: Check = None) -> str:
    """The SHA-256 of a file."""
    with _Source(path) as source:
        while source.read():
            if check:
                check()
        return source.sha256


def not_as_written(backup: str, name: str, found: str, wanted: str) -> BackupDamaged:
    return BackupDamaged(
        f"{backup}: {name} is not as it was written: its SHA-256 is {found[:12]}…, not {wanted[:12]}…"
    )


class Sink(Protocol):
    """Where the content of a part goes."""

    def path(self, entry: Entry) -> None:
        """A directory or a symlink."""
        ...

    def file(self, entry: Entry, pieces: Iterator[memoryview]) -> bytes:
        """A file, whole; returns the sums of its blocks."""
        ...

    def blocks(self, entry: Entry, ranges: list[tuple[int, int]], pieces: Iterator[memoryview]) -> bytes:
        """Blocks of a file that is there already; returns their sums, in that order."""
        ...


class Proof:
    """A sink that writes nothing: what is read only has to have the right digests."""

    def path(self, entry: Entry) -> None:
        pass

    def file(self, entry: Entry, pieces: Iterator[memoryview]) -> bytes:
        return b"".join(aligned(pieces, lambda data: None))

    def blocks(self, entry: Entry, ranges: list[tuple[int, int]], pieces: Iterator[memoryview]) -> bytes:
        return b"".join(aligned(pieces, lambda data: None))


def aligned(pieces: Iterator[memoryview], take: Callable[[memoryview], None]) -> Iterator[bytes]:
    """Hand pieces on to ``take``, and yield the sums of their blocks wherever the pieces begin and end."""
    carry = bytearray()
    for piece in pieces:
        take(piece)
        if carry:
            missing = min(BLOCK - len(carry), len(piece))
            carry += piece[:missing]
            piece = piece[missing:]
            if len(carry) < BLOCK:
                continue
            yield index.block_sums(memoryview(bytes(carry)))
            carry.clear()
        whole = len(piece) - len(piece) % BLOCK
        if whole:
            yield index.block_sums(piece[:whole])
        carry += piece[whole:]
    if carry:
        yield index.block_sums(memoryview(bytes(carry)))


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
        _, index_name, _ = parts.names(self.name)
        self._before = self._index(index_name)
        self._now = self._index(parts.delta_names(self.name)[1]) if self.part.delta else self._before

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
        source = _Source(self.directory / name)
        with source, contextlib.closing(ahead(decompressed(source.read))) as chunks:
            stream = TarStream(chunks)
            for member in stream.members():
                if self.check:
                    self.check()
                yield member, stream
            stream.drain(limit=1024**2)
            wanted = self.sums.get(name, "nothing") if self.sums is not None else None
            if wanted and wanted != source.sha256:
                raise not_as_written(self.directory.name, name, source.sha256, wanted)

    def _full(self) -> None:
        left = set(self._before)
        for member, stream in self._members(self.part.full):
            entry = self._before.get(_path(member))
            if entry is None or entry.path not in left:
                raise self._damaged(f"{shown(_path(member))} is in the archive but not in its index")
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
            path = _path(member)
            if path.startswith(f"{parts.CONTROL}/blocks/") and path.endswith("/path"):
                patched.discard(self._patch(member, stream, members))
            elif path.startswith(f"{parts.CONTROL}/"):
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

    def _take(self, stored: Entry, wanted: Entry, member: Member, stream: TarStream, sink: Sink) -> None:
        """Read one member: it must be what its archive's index says, and goes out as what the backup wants."""
        if member.kind != stored.kind or member.size != stored.size:
            raise self._damaged(f"{shown(stored.path)} is not what the index says")
        if stored.kind != "file":
            sink.path(wanted)
            return
        sums = sink.file(wanted, stream.pieces(member.size))
        stream.skip(-member.size % 512)
        if hashlib.sha256(sums).hexdigest() != stored.digest:
            raise self._damaged(f"{shown(stored.path)} is not as it was: its digest differs")

    def _patch(self, member: Member, stream: TarStream, members: Iterator[tuple[Member, TarStream]]) -> str:
        """Four members: path, size, ranges, data."""
        where = _path(member).removesuffix("/path")
        entry = self._now.get(os.fsdecode(bytes(stream.padded(member.size))))
        if entry is None or entry.stored != "blocks" or entry.start is None:
            raise self._damaged(f"{where} changes a file that the index does not know")
        stream.padded(self._next(members, f"{where}/size").size)
        ranges = _ranges(bytes(stream.padded(self._next(members, f"{where}/ranges").size)))
        data = self._next(members, f"{where}/data").size
        sums = self.sink.blocks(entry, ranges, stream.pieces(data))
        stream.skip(-data % 512)
        if hashlib.sha256(self._patched(entry, ranges, sums)).hexdigest() != entry.digest:
            raise self._damaged(f"{shown(entry.path)} is not as it was: its digest differs")
        return entry.path

    def _next(self, members: Iterator[tuple[Member, TarStream]], name: str) -> Member:
        member, _ = next(members, (None, None))
        if member is None or _path(member) != name:
            raise self._damaged(f"{name} is missing")
        return member

    def _patched(self, entry: Entry, ranges: list[tuple[int, int]], sums: bytes) -> bytes:
        """The block sums of a file after its changed blocks were put in."""
        old = self._before[entry.path]
        assert old.start is not None
        with open(self.directory / parts.names(self.name)[2], "rb") as file:
            file.seek(old.start * SUM)
            known = file.read(index.blocks(old.size) * SUM)
        if hashlib.sha256(known).hexdigest() != old.digest:
            raise self._damaged(f"the block sums of {shown(entry.path)} are not as they were")
        size = index.blocks(entry.size) * SUM
        found = bytearray(known[:size].ljust(size, b"\0"))
        at = 0
        for first, count in ranges:
            found[first * SUM : (first + count) * SUM] = sums[at : at + count * SUM]
            at += count * SUM
        if at != len(sums) or len(found) != size:
            raise self._damaged(f"the ranges of {shown(entry.path)} do not fit its data")
        return bytes(found)


def _path(member: Member) -> str:
    return os.fsdecode(member.name.rstrip(b"/"))


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
    place = parts.delta_names(name)[1] if part.delta else parts.names(name)[1]
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
    check: Check = None,
) -> None:
    """Read the archives of one part to their end. ``linked``: the full one is shared with another backup, and was looked at.

    Raises:
        BackupDamaged
    """
    Reading(directory, name, part, Proof(), check, sums=sums, everything=not linked, trusted=linked).run()


def prove_records(directory: Path, *, linked: Collection[str] = (), check: Check = None) -> Manifest:
    """Everything in a backup but its archives: it is all there, and as it was written. Returns the manifest.

    ``linked``: parts whose full archive is shared with another backup and was looked at already.

    Raises:
        BackupDamaged
    """
    found = manifest(directory)
    if found is None:
        raise BackupDamaged(f"{directory.name}: {MANIFEST} is missing, damaged, or of a newer updater")
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
        names += parts.names(name)
        if part.delta:
            names += parts.delta_names(name)
    return names
