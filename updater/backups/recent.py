"""What a backup has seen of each file, for the one that follows within the same process: the top-up after the stop.

A file counts as unchanged when device, inode, size and both dates are the same; nobody can set back the date of its last change
(ctime). Within one tick of the clock a file may be written to again without a new date: one whose dates were not older
than the look by :data:`sqlite.RACY` is not remembered ("racy git"). A database is what changes it: its own file, its log and its
journal, and their headers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from updater.backups import sqlite, stored
from updater.backups.gather import Found, Gathered
from updater.backups.index import Entry
from updater.backups.manifest import Database, Manifest
from updater.backups.parts import Base, Writing

_PACKED = struct.Struct("QQqqq")


class Mark(NamedTuple):
    """By what a file is known again. Dates in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, status: os.stat_result) -> Mark:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def packed(self) -> bytes:
        """The same in little memory."""
        return _PACKED.pack(*self)

    def is_older_than(self, moment: int) -> bool:
        """Whether it was left alone for so long before ``moment`` that any later change shows."""
        return max(self.mtime, self.ctime) < moment - sqlite.RACY


def mark(found: Found) -> Mark:
    return Mark(found.device, found.inode, found.size + found.offset, found.mtime, found.ctime)


@dataclass(frozen=True)
class Recent:
    """A backup that this process has made and read back, and what it was made of."""

    directory: Path
    manifest: Manifest
    sums: Mapping[str, str]
    """SHA-256 of its files."""
    bases: Mapping[str, Base]
    entries: Mapping[str, Sequence[Entry]]
    """What each part holds."""
    files: Mapping[str, bytes]
    """What was read, as it was then: the packed mark of each."""
    databases: Mapping[str, sqlite.State]
    own: Mapping[str, Mark]
    """The files of the backup itself."""

    @classmethod
    def of(
        cls, directory: Path, manifest: Manifest, writing: Writing, gathered: Gathered,
        databases: Mapping[str, sqlite.State],
    ) -> Recent:  # fmt: skip
        """Remember a backup that lies in ``directory`` now."""
        files = {
            it.path: seen.packed()
            for part in gathered.parts.values()
            for it in part
            if it.kind == "file" and not it.copied and it.path not in writing.changed
            if (seen := mark(it)).is_older_than(writing.begun)
        }
        old = {path: it for path, it in databases.items() if it.is_older_than(writing.begun)}
        own = {it.name: Mark.of(it.stat()) for it in directory.iterdir()}
        return cls(
            directory, manifest, dict(writing.sums), writing.bases, writing.entries, files, old, own
        )  # fmt: skip

    def is_whole(self) -> bool:
        """Whether its files still are those that were read back. Their ctime says nothing: it changes with every link."""
        try:
            now = {it.name: Mark.of(it.stat()) for it in self.directory.iterdir()}
        except OSError:
            return False
        return {name: it[:4] for name, it in now.items()} == {name: it[:4] for name, it in self.own.items()}

    def is_plain(self, found: Found) -> bool:
        """Whether it is known to be no database."""
        return self.files.get(found.path) == mark(found).packed()

    def against(self, gathered: Gathered) -> Unchanged:
        """Compare it with what is there now."""
        same: dict[str, Entry] = {}
        for name, paths in gathered.parts.items():
            entries = {it.path: it for it in self.entries.get(name, ())}
            same |= {it.path: old for it in paths if (old := entries.get(it.path)) and self._is_same(it, old)}
        return Unchanged(self, same)

    def _is_same(self, found: Found, old: Entry) -> bool:
        if (found.kind, found.mode, found.owner, found.link) != (old.kind, old.mode, old.owner, old.link):
            return False
        if found.kind != "file":
            return True
        if known := self.databases.get(found.path):
            return known == sqlite.state(found.place)
        return self.is_plain(found)


@dataclass(frozen=True)
class Unchanged:
    """What is still as a recent backup holds it: path -> entry."""

    recent: Recent
    entries: Mapping[str, Entry]

    def entry(self, found: Found) -> Entry | None:
        return None if found.copied else self.entries.get(found.path)

    @property
    def databases(self) -> dict[str, Database]:
        """The databases among it."""
        return {it.path: it for it in self.recent.manifest.databases if it.path in self.entries}

    def is_all(self, part: str, paths: Sequence[Found]) -> bool:
        """Whether a part is as the recent backup holds it, path by path."""
        known = self.recent.entries.get(part)
        return known is not None and len(known) == len(paths) and all(map(self.entry, paths))

    def carried(
        self, part: str, paths: Collection[str]
    ) -> Iterator[tuple[str, bytes | None, int, Iterator[memoryview]]]:
        """What the recent backup's delta holds of ``paths``: path, the ranges of its blocks (None: it is there whole),
        size of the data, the data, which must be taken."""
        name = str(self.recent.manifest.parts[part].delta)
        members = stored.members(self.recent.directory, name)
        for member, stream in members:
            path = stored.path_of(member)
            if path.startswith(f"{stored.CONTROL}/blocks/"):
                owner = os.fsdecode(bytes(stream.padded(member.size)))
                stream.padded(next(members)[0].size)
                ranges = bytes(stream.padded(next(members)[0].size))
                size, whose = next(members)[0].size, owner
            else:
                ranges, size, whose = None, member.size, path
            if whose in paths and member.kind == "file":
                yield whose, ranges, size, stream.pieces(size)
            else:
                stream.skip(size)
            stream.skip(-size % 512)
