"""Puts the content of a backup into a new directory: for a look, or to take the place of what is in service."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from updater import durable
from updater.backups import index, reading
from updater.backups.gather import shown
from updater.backups.index import BLOCK, Entry
from updater.backups.stored import Check
from updater.errors import BackupDamaged

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Unpacking:
    """A sink that writes below ``into``. Symlinks come last: until then no name can lead through one."""

    into: Path
    _symlinks: list[Entry] = field(default_factory=list)
    _directories: list[Entry] = field(default_factory=list)
    _owned: bool = field(default_factory=lambda: os.geteuid() == 0)

    def place(self, entry: Entry) -> Path:
        """Where a path goes."""
        return self.into / entry.path

    def path(self, entry: Entry) -> None:
        if entry.kind == "symlink":
            self._symlinks.append(entry)
            return
        self._make(self.place(entry))
        self._directories.append(entry)

    def _make(self, directory: Path) -> None:
        directory.mkdir(0o700, parents=True, exist_ok=True)

    def file(self, entry: Entry, pieces: Iterator[memoryview]) -> None:
        place = self.place(entry)
        self._make(place.parent)
        fd = os.open(place, _NEW, 0o600)
        with open(fd, "wb", buffering=0) as file:
            for data in pieces:
                _write(fd, data, sparse=entry.sparse)
            if entry.sparse:
                file.truncate()
            self._finish(fd, entry, still=0o200 if entry.stored == "blocks" else 0)

    def blocks(self, entry: Entry, ranges: list[tuple[int, int]], pieces: Iterator[memoryview]) -> None:
        fd = os.open(self.place(entry), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, entry.size)
            places = _Places(fd, ranges)
            for data in pieces:
                places.write(data)
            self._finish(fd, entry)
        finally:
            os.close(fd)

    def _finish(self, fd: int, entry: Entry, *, still: int = 0) -> None:
        """``still``: bits of the mode that are needed until its changed blocks are in."""
        if self._owned:
            os.fchown(fd, *entry.owner)
        os.fchmod(fd, entry.mode & 0o777 | still)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def finish(self) -> None:
        """Symlinks, then the modes and dates of directories, the deepest first."""
        for entry in self._symlinks:
            place = self.place(entry)
            self._make(place.parent)
            os.symlink(entry.link, place)
            if self._owned:
                os.lchown(place, *entry.owner)
        for entry in sorted(self._directories, key=lambda it: it.path.count("/"), reverse=True):
            place = self.place(entry)
            if self._owned:
                os.chown(place, *entry.owner, follow_symlinks=False)
            os.chmod(place, entry.mode & 0o3777)
            os.utime(place, ns=(entry.mtime, entry.mtime))


def _write(fd: int, data: memoryview, *, sparse: bool) -> None:
    if sparse and index.is_zero(data):
        os.lseek(fd, len(data), os.SEEK_CUR)
        return
    while data:
        data = data[os.write(fd, data) :]


class _Places:
    """Writes a stream of blocks to where its ranges say."""

    def __init__(self, fd: int, ranges: list[tuple[int, int]]) -> None:
        self._fd = fd
        self._ranges = iter(ranges)
        self._at = self._left = 0

    def write(self, data: memoryview) -> None:
        while data:
            if not self._left:
                first, count = next(self._ranges, (0, 0))
                if not count:
                    raise ValueError("there are more blocks than places for them")
                self._at, self._left = first * BLOCK, count * BLOCK
            size = min(len(data), self._left)
            written = os.pwrite(self._fd, data[:size], self._at)
            self._at += written
            self._left -= written
            data = data[written:]


def unpack(directory: Path, into: Path, names: Collection[str], *, check: Check = None) -> None:
    """Unpack parts of a backup below the new directory ``into``, every file compared with its digest, on the disk at the end.

    Raises:
        BackupDamaged: the backup is not whole; ``into`` holds a part of it.
        OSError: ``into`` cannot be written.
    """
    found = reading.manifest(directory)
    if found is None:
        raise BackupDamaged(f"{shown(directory.name)} is no backup that this updater reads")
    into.mkdir(0o700)
    sink = Unpacking(into)
    try:
        for name in names:
            if part := found.parts.get(name):
                reading.Reading(directory, name, part, sink, check).run()
        sink.finish()
    except FileExistsError as failure:
        raise BackupDamaged(
            f"{directory.name}: the same path twice: {shown(str(failure.filename))}"
        ) from failure
    durable.flush_tree(into)
