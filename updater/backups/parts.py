"""Writes a part of a backup: whole, or as what has changed since a whole one that another backup holds already.

A whole archive is shared by all backups that build on it, by hard links: each backup's directory holds everything that it
needs, and removing one never harms another. A delta is always against the whole archive, never against another
delta. When it grows beyond :data:`REBASE` of the part, the part is written whole again.

In the archive of a delta, beside the files that are new or have changed much, lies what a shell needs to apply the rest:
``.updater-delta/removed/<n>`` (a path that is gone), and for each file of which blocks have changed
``.updater-delta/blocks/<n>/``: ``path``, ``size``, ``ranges`` (lines of ``first count``, in blocks) and ``data``.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from updater import durable
from updater.backups import archive, index
from updater.backups.archive import Archive, Content
from updater.backups.gather import Found, shown
from updater.backups.index import BLOCK, SUM, Entry
from updater.backups.manifest import Part

REBASE = 0.2
"""Share of a part that may have changed before it is written whole again."""

DELTA_FROM = 2 * 1024**2
"""Bytes from which on a part is worth a delta."""

CONTROL = ".updater-delta"

_RACY = 2 * 10**9
"""Nanoseconds: a file that was written to that shortly before it was read may have changed again without a new date."""

_IN_MEMORY = 8 * 1024**2


@dataclass
class Writing:
    """What all parts of one backup share."""

    directory: Path
    threads: int
    begun: int = field(default_factory=time.time_ns)
    """When the files were looked at, in nanoseconds since the epoch."""
    sums: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file, of the bytes that were meant to be written."""
    linked: set[str] = field(default_factory=set)
    """Parts whose full archive is shared with another backup."""
    check: Callable[[], None] | None = None
    on_bytes: Callable[[int], None] | None = None
    warnings: list[str] = field(default_factory=list)
    done: int = 0

    def passed(self, count: int) -> None:
        self.done += count
        if self.on_bytes:
            self.on_bytes(self.done)

    def index(self, name: str, entries: Sequence[Entry]) -> None:
        """Write an index."""
        raw = index.encode(self.begun, entries)
        durable.write(self.directory / name, raw)
        self.sums[name] = hashlib.sha256(raw).hexdigest()

    def tell_changed(self, found: Found, content: Content) -> None:
        """A log may grow while it is read; anything else that does is worth a word."""
        if content.changed and not found.path.startswith("logs/"):
            self.warnings.append(f"shared/{shown(found.path)} was written to while it was read")


@dataclass(frozen=True)
class Base:
    """A part as another backup holds it whole: where, and what is in it. ``begun``: when its files were looked at, in
    nanoseconds since the epoch."""

    directory: Path
    part: str
    begun: int
    entries: Mapping[str, Entry]

    @property
    def files(self) -> tuple[str, str, str]:
        return names(self.part)


def names(part: str) -> tuple[str, str, str]:
    """The files of a part that is stored whole: archive, index, block sums."""
    return f"{part}.tar.zst", f"{part}.index.zst", f"{part}.blocks"


def delta_names(part: str) -> tuple[str, str]:
    """The files of its delta: archive and index."""
    return f"{part}.delta.tar.zst", f"{part}.delta.index.zst"


def entry(found: Found, **more: Any) -> Entry:
    return replace(
        Entry(
            found.path, found.kind, found.mode, found.mtime, found.owner,
            size=found.size, link=found.link, sparse=found.kind == "file" and archive.is_sparse(found),
        ),
        **more,
    )  # fmt: skip


def whole(writing: Writing, part: str, paths: Sequence[Found]) -> Part:
    """Write a part whole."""
    archive_name, index_name, blocks_name = names(part)
    entries: list[Entry] = []
    kept, kept_sum = 0, hashlib.sha256()
    with (
        open(writing.directory / blocks_name, "xb") as blocks,
        Archive(writing.directory / archive_name, threads=writing.threads, check=writing.check) as out,
    ):
        for found in paths:
            if found.kind != "file":
                out.header(found)
                entries.append(entry(found))
                continue
            try:
                content = out.file(found)
            except archive.Vanished:
                continue
            writing.tell_changed(found, content)
            writing.passed(found.size)
            start = None
            if found.size >= index.BLOCKS_FROM:
                start = kept // SUM
                kept += blocks.write(content.sums)
                kept_sum.update(content.sums)
            entries.append(entry(found, digest=content.digest, start=start))
        blocks.flush()
        durable.flush(blocks.fileno())
    writing.sums |= {archive_name: out.sha256, blocks_name: kept_sum.hexdigest()}
    writing.index(index_name, entries)
    return _part(archive_name, None, entries)


def _part(full: str, delta: str | None, entries: Sequence[Entry]) -> Part:
    files = [it for it in entries if it.kind == "file"]
    return Part(full, delta, len(files), sum(it.size for it in files))


class _TooMuch(Exception):
    """More has changed than a delta is worth."""


def since(writing: Writing, base: Base, paths: Sequence[Found]) -> Part | None:
    """Write what has changed since ``base``; None if a whole one is the better choice."""
    total = sum(found.size for found in paths)
    if total < DELTA_FROM:
        return None
    archive_name, index_name = delta_names(base.part)
    place = writing.directory / archive_name
    done = writing.done
    try:
        with contextlib.ExitStack() as stack:
            sums = stack.enter_context(_block_sums(base))
            out = stack.enter_context(Archive(place, threads=1, check=writing.check))
            delta = _Delta(writing, base, sums, out, budget=int(REBASE * total))
            entries = delta.write(paths)
    except _TooMuch:
        place.unlink()
        writing.done = done
        return None
    if all(it.stored == "full" for it in entries) and len(entries) == len(base.entries):
        place.unlink()
        return _part(base.files[0], None, list(base.entries.values()))
    writing.sums[archive_name] = out.sha256
    writing.index(index_name, entries)
    return _part(base.files[0], archive_name, entries)


@contextlib.contextmanager
def _block_sums(base: Base) -> Iterator[memoryview]:
    """The block sums of a base, mapped: there may be many."""
    with open(base.directory / base.files[2], "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield memoryview(b"")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                yield view
            finally:
                view.release()


@dataclass
class _Delta:
    writing: Writing
    base: Base
    sums: memoryview
    out: Archive
    budget: int
    number: int = 0

    def write(self, paths: Sequence[Found]) -> list[Entry]:
        entries = []
        for found in paths:
            with contextlib.suppress(archive.Vanished):
                entries.append(self._one(found, self.base.entries.get(found.path)))
        here = {it.path: it.kind for it in entries}
        marker = Found(
            CONTROL, self.base.directory, "file", 0o644, (os.geteuid(), os.getegid()), time.time_ns()
        )
        gone = [it.path for it in self.base.entries.values() if here.get(it.path) != it.kind]
        for number, path in enumerate(sorted(gone)):
            self._spend(512)
            self.out.text(marker, f"{CONTROL}/removed/{number}", os.fsencode(path))
        return entries

    def _spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise _TooMuch

    def _one(self, found: Found, old: Entry | None) -> Entry:
        alike = old is not None and (old.kind, old.mode, old.owner) == (found.kind, found.mode, found.owner)
        if found.kind != "file":
            if old is None or not alike or old.link != found.link:
                self.out.header(found)
                return entry(found, stored="delta")
            return old
        if old is None or not alike:
            return self._whole(found)
        if self._untouched(found, old):
            self.writing.passed(found.size)
            return old
        if old.start is None or found.offset:
            return self._small(found, old) if found.size < index.BLOCKS_FROM else self._whole(found)
        return self._blocks(found, old)

    def _untouched(self, found: Found, old: Entry) -> bool:
        """By size and dates, the one that nobody can set back among them; not for a database, and not if too young to tell."""
        return (
            not found.copied
            and (found.size, found.mtime) == (old.size, old.mtime)
            and max(found.mtime, found.ctime) < self.base.begun - _RACY
            and found.offset == 0
        )

    def _whole(self, found: Found) -> Entry:
        self._spend(found.size)
        content = self.out.file(found)
        self.writing.tell_changed(found, content)
        self.writing.passed(found.size)
        return entry(found, digest=content.digest, stored="delta")

    def _small(self, found: Found, old: Entry) -> Entry:
        data = b"".join(bytes(it) for it in archive.read(found))
        content = Content(index.block_sums(memoryview(data)), archive.is_changed(found))
        self.writing.tell_changed(found, content)
        self.writing.passed(found.size)
        if content.digest == old.digest and found.size == old.size:
            return replace(old, mtime=found.mtime)
        self._spend(found.size)
        self.out.text(found, found.path, data)
        return entry(found, digest=content.digest, stored="delta")

    def _blocks(self, found: Found, old: Entry) -> Entry:
        """Read the file once; keep the blocks that differ, in memory or beside, until their number is known."""
        assert old.start is not None
        theirs = bytes(  # a copy: a view that lives on in a traceback would keep the map from being closed
            self.sums[old.start * SUM : (old.start + index.blocks(old.size)) * SUM]
        )
        sums: list[bytes] = []
        numbers: list[int] = []
        at = 0
        import tempfile

        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self.writing.directory)) as changed:
            for data in archive.read(found):
                if self.writing.check:
                    self.writing.check()
                mine = index.zero_sums(data) if isinstance(data, int) else index.block_sums(data)
                before = theirs[at * SUM : at * SUM + len(mine)]
                for number in index.differing(mine, before):
                    self._spend(BLOCK)
                    numbers.append(at + number)
                    begin = number * BLOCK
                    if isinstance(data, int):
                        changed.write(bytes(min(BLOCK, data - begin)))
                    else:
                        changed.write(data[begin : begin + BLOCK])
                sums.append(mine)
                at += len(mine) // SUM
            content = Content(b"".join(sums), archive.is_changed(found))
            self.writing.tell_changed(found, content)
            self.writing.passed(found.size)
            if not numbers and found.size == old.size:
                return replace(old, mtime=found.mtime)
            self._store_blocks(found, numbers, changed)
        return entry(found, digest=content.digest, start=old.start, stored="blocks")

    def _store_blocks(self, found: Found, numbers: Sequence[int], changed: IO[bytes]) -> None:
        where = f"{CONTROL}/blocks/{self.number}"
        self.number += 1
        plain = replace(found, mode=0o644)
        self.out.text(plain, f"{where}/path", os.fsencode(found.path))
        self.out.text(plain, f"{where}/size", b"%d\n" % found.size)
        self.out.text(plain, f"{where}/ranges", b"".join(b"%d %d\n" % it for it in ranges(numbers)))
        size = changed.tell()
        changed.seek(0)
        self.out.pieces(plain, f"{where}/data", size, iter(lambda: changed.read(archive.CHUNK), b""))


def ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Numbers in ascending order as (first, count)."""
    first = last = -2
    for number in numbers:
        if number != last + 1:
            if first >= 0:
                yield first, last - first + 1
            first = number
        last = number
    if first >= 0:
        yield first, last - first + 1
