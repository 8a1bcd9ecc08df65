"""Writes what has changed in a part since it was stored whole, in a backup that is linked beside.

A delta is always against the whole archive, never against another delta. When it grows beyond :data:`REBASE` of the part, the
part is written whole again.

In the archive of a delta, beside the files that are new or have changed much, lies what a shell needs to apply the rest:
``.updater-delta/removed/<n>`` (a path that is gone), and for each file of which blocks have changed
``.updater-delta/blocks/<n>/``: ``path``, ``size``, ``ranges`` (lines of ``first count``, in blocks) and ``data``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO

from updater.backups import archive, index
from updater.backups.archive import Archive, Content
from updater.backups.gather import Found
from updater.backups.index import BLOCK, SUM, Entry
from updater.backups.manifest import Part
from updater.backups.parts import Base, Writing, entry, part_of
from updater.backups.recent import Unchanged
from updater.backups.sqlite import RACY
from updater.backups.stored import CONTROL, delta_names

REBASE = 0.2
"""Share of a part that may have changed before it is written whole again."""

DELTA_FROM = 2 * 1024**2
"""Bytes from which on a part is worth a delta."""

_IN_MEMORY = 8 * 1024**2


class _TooMuch(Exception):
    """More has changed than a delta is worth."""


def since(
    writing: Writing, base: Base, paths: Sequence[Found], recent: Unchanged | None = None
) -> Part | None:
    """Write what has changed since ``base``; None if a whole one is the better choice. ``recent``: a backup on the same base
    that was made just now; what it proves is not read again, and its whole is never written once more."""
    total = sum(map(weight, paths))
    if total < DELTA_FROM and not recent:
        return None
    archive_name, index_name = delta_names(base.part)
    place = writing.directory / archive_name
    done = writing.done
    budget = sys.maxsize if recent else int(REBASE * total)
    try:
        with contextlib.ExitStack() as stack:
            sums = stack.enter_context(_block_sums(base))
            out = stack.enter_context(Archive(place, threads=1, check=writing.look))
            entries = _Delta(writing, base, sums, out, budget, recent).write(paths)
    except _TooMuch:
        place.unlink()
        writing.done = done
        return None
    writing.bases[base.part] = base
    writing.entries[base.part] = entries
    if all(it.stored == "full" for it in entries) and len(entries) == len(base.entries):
        place.unlink()
        writing.entries[base.part] = list(base.entries.values())
        return part_of(base.files[0], None, writing.entries[base.part])
    writing.sums[archive_name] = out.sha256
    writing.index(index_name, entries)
    return part_of(base.files[0], archive_name, entries)


def weight(found: Found) -> int:
    """Bytes that a file may take in a delta, by and large: holes come to nothing."""
    return found.allocated + found.size // 1024 if archive.is_sparse(found) else found.size


@contextlib.contextmanager
def _block_sums(base: Base) -> Iterator[memoryview]:
    """The block sums of a base, mapped: there may be many."""
    import mmap

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
    recent: Unchanged | None = None
    number: int = 0
    carried: dict[str, Found] = field(default_factory=dict)
    """Files that the recent backup's delta holds and that are still as they were."""

    def write(self, paths: Sequence[Found]) -> list[Entry]:
        entries = []
        for found in paths:
            with contextlib.suppress(archive.Vanished):
                entries.append(self._one(found, self.base.entries.get(found.path)))
        if self.recent and self.carried:
            self._carry(self.recent)
        here = {it.path: it.kind for it in entries}
        marker = Found(
            CONTROL, str(self.base.directory), "file", 0o644, (os.geteuid(), os.getegid()), time.time_ns()
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
        if self.recent and (known := self.recent.entry(found)):
            self.writing.passed(found.size)
            if known.stored != "full" and known.kind == "file":
                self.carried[found.path] = replace(found, size=known.size)
            elif known.stored != "full":
                self.out.header(found)
            return known
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
            and max(found.mtime, found.ctime) < self.base.begun - RACY
            and found.offset == 0
        )

    def _whole(self, found: Found) -> Entry:
        self._spend(weight(found))
        content = self.out.file(found)
        self.writing.tell_changed(found, content)
        self.writing.passed(found.size)
        return entry(found, digest=content.digest, stored="delta")

    def _small(self, found: Found, old: Entry) -> Entry:
        self.writing.look()
        data = b"".join(bytes(it) for it in archive.read(found))
        digest = hashlib.sha256(index.block_sums(memoryview(data))).hexdigest()
        content = Content(digest, archive.is_changed(found))
        self.writing.tell_changed(found, content)
        self.writing.passed(found.size)
        if content.digest == old.digest and found.size == old.size:
            return replace(old, mtime=found.mtime)
        self._spend(found.size)
        self.out.text(found, found.path, data)
        return entry(found, digest=content.digest, stored="delta")

    def _blocks(self, found: Found, old: Entry) -> Entry:
        """Read the file once; keep the blocks that differ, in memory or beside, until their number is known."""
        import tempfile

        assert old.start is not None
        first, end = old.start * SUM, (old.start + index.blocks(old.size)) * SUM
        digest = hashlib.sha256()
        numbers: list[int] = []
        at = 0
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self.writing.directory)) as changed:
            for data in archive.read(found):
                self.writing.look()
                mine = index.zero_sums(data) if isinstance(data, int) else index.block_sums(data)
                begin = first + at * SUM
                # a copy: a view that lives on in a traceback would keep the map from being closed
                before = bytes(self.sums[begin : min(begin + len(mine), end)])
                for number in index.differing(mine, before):
                    self._spend(BLOCK)
                    numbers.append(at + number)
                    place = number * BLOCK
                    if isinstance(data, int):
                        changed.write(bytes(min(BLOCK, data - place)))
                    else:
                        changed.write(data[place : place + BLOCK])
                digest.update(mine)
                at += len(mine) // SUM
            content = Content(digest.hexdigest(), archive.is_changed(found))
            self.writing.tell_changed(found, content)
            self.writing.passed(found.size)
            if not numbers and found.size == old.size:
                return replace(old, mtime=found.mtime)
            self._store_blocks(found, numbers, changed)
        return entry(found, digest=content.digest, start=old.start, stored="blocks")

    def _store_blocks(self, found: Found, numbers: Sequence[int], changed: IO[bytes]) -> None:
        lines = b"".join(b"%d %d\n" % it for it in ranges(numbers))
        size = changed.tell()
        changed.seek(0)
        self._put_blocks(found, lines, size, iter(lambda: changed.read(archive.CHUNK), b""))

    def _put_blocks(self, found: Found, ranges: bytes, size: int, data: Iterator[bytes | memoryview]) -> None:
        where = f"{CONTROL}/blocks/{self.number}"
        self.number += 1
        plain = replace(found, mode=0o644)
        self.out.text(plain, f"{where}/path", os.fsencode(found.path))
        self.out.text(plain, f"{where}/size", b"%d\n" % found.size)
        self.out.text(plain, f"{where}/ranges", ranges)
        self.out.pieces(plain, f"{where}/data", size, data)

    def _carry(self, recent: Unchanged) -> None:
        """Take over from the recent backup's delta what it holds of files that are still as they were."""
        for path, ranges, size, data in recent.carried(self.base.part, self.carried.keys()):
            self.writing.look()
            found = self.carried[path]
            if ranges is None:
                self.out.pieces(found, path, size, data)
            else:
                self._put_blocks(found, ranges, size, data)


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
