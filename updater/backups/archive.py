"""Writes one archive of a backup: a GNU tar stream, compressed by zstandard, that ``zstd -dc | tar xf -`` unpacks.

What goes through is hashed on its way, by blocks.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from updater.backups import index
from updater.backups.frames import Frames
from updater.backups.gather import Found, unreadable, unsteady
from updater.backups.readback import Grown
from updater.backups.uncached import Writer

CHUNK = 256 * 1024
"""Bytes read at once; a multiple of the block."""

HOLE = 64 * CHUNK
"""Bytes of a hole told at once."""

_PAD = bytes(tarfile.BLOCKSIZE)
_ZEROS = memoryview(bytes(CHUNK))


class Vanished(Exception):
    """A file went away between the look and the read, as one that is written beside and renamed does: it is left out."""


class Content(NamedTuple):
    """What was read of a file. ``changed``: it was written to meanwhile."""

    digest: str
    changed: bool


class Archive:
    """A new archive. Use as a context manager; ``sha256`` and ``size`` are of the finished file. ``summed``: False if its sum is only
    taken when it is read back."""

    def __init__(
        self, path: Path, *, threads: int, summed: bool = True, check: Callable[[], None] | None = None
    ) -> None:
        self.path = path
        self.size = 0
        self.grown = Grown()
        """How much of it can be read back."""
        self._hash = hashlib.sha256() if summed else None
        self._check = check
        self._whole = False
        self._file = Writer(path)
        self._frames = Frames(self._write, threads)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *failure: object) -> None:
        try:
            if failure[0] is None:
                self._frames.write(_PAD * 2)
                self._frames.finish()
                self._file.finish()
                self.grown.ended()
                self._whole = True
        finally:
            self._frames.close()
            self._file.close()
            if not self._whole:
                self.grown.failed()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest() if self._hash else ""

    def _write(self, frame: bytes) -> None:
        """Take a compressed frame."""
        if self._hash:
            self._hash.update(frame)
        self._file.write(frame)
        self.size += len(frame)
        self.grown.by(len(frame), written=self._file.written)

    def header(self, found: Found, *, name: str | None = None, size: int | None = None) -> None:
        """The header of a member; its data must follow. ``size``: of the data, if it is not the file's."""
        it = tarfile.TarInfo(name or found.path)
        # a shell that is not root's puts into a directory later what belongs there; the index has its mode
        it.mode = found.mode | (0o700 if found.kind == "directory" else 0)
        it.mtime = found.mtime // 10**9
        it.uid, it.gid = found.owner
        it.type = {"directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}.get(found.kind, tarfile.REGTYPE)
        it.linkname = found.link
        if found.kind == "file":
            it.size = found.size if size is None else size
        self._frames.write(it.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))

    def pad(self, size: int) -> None:
        """What follows the data of a member of ``size`` bytes."""
        self._frames.write(_PAD[: -size % tarfile.BLOCKSIZE])

    def file(self, found: Found, on_sums: Callable[[bytes], object] | None = None) -> Content:
        """Store a regular file; ``on_sums`` gets the sums of its blocks, piece by piece.

        Raises:
            Vanished: it is not there any more. BackupFailed: it cannot be read.
        """
        digest = hashlib.sha256()
        with _open(found) as file:  # before its header is written: it may have gone
            self.header(found)
            for data in _chunks(file, found, self._frames.room):
                if self._check:
                    self._check()
                if isinstance(data, int):
                    sums = index.zero_sums(data)
                    for at in range(0, data, CHUNK):
                        self._frames.write(_ZEROS[: min(CHUNK, data - at)])
                else:
                    sums = index.block_sums(data)
                    self._frames.filled(len(data))
                digest.update(sums)
                if on_sums:
                    on_sums(sums)
        self.pad(found.size)
        return Content(digest.hexdigest(), is_changed(found))

    def text(self, found: Found, name: str, content: bytes) -> None:
        """Store a small member of our own making; owner and dates are those of ``found``."""
        self.header(found, name=name, size=len(content))
        self._frames.write(content)
        self.pad(len(content))

    def pieces(self, found: Found, name: str, size: int, pieces: Iterator[bytes | memoryview]) -> None:
        """Store a member from pieces that are ``size`` bytes together."""
        self.header(found, name=name, size=size)
        for piece in pieces:
            self._frames.write(piece)
        self.pad(size)


def is_changed(found: Found) -> bool:
    """Whether a file is not any more as it was when it was found."""
    if found.copied:
        return False
    try:
        now = os.lstat(found.where)
    except OSError:
        return True
    return (now.st_size - found.offset, now.st_mtime_ns, now.st_ino) != (found.size, found.mtime, found.inode)


def read(found: Found) -> Iterator[memoryview | int]:
    """The content of a file in chunks of whole blocks, valid until the next; a number stands for that many zeros (a hole).

    Exactly ``found.size`` bytes: what a file has lost since it was found comes as zeros. No piece is larger than :data:`HOLE`.

    Raises:
        Vanished: it is not there any more. Unsteady: it is no file any more. BackupFailed: it cannot be read.
    """
    buffer = memoryview(bytearray(min(CHUNK, max(found.size, 1))))
    with _open(found) as file:
        yield from _chunks(file, found, lambda _: buffer)


def _open(found: Found) -> FileIO:
    try:
        fd = os.open(found.where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise Vanished(found.path) from None
    except OSError as failure:
        if failure.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise unsteady(found.path) from None
        raise unreadable(found.where, failure) from failure
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise unsteady(found.path)
    return FileIO(fd)


def is_sparse(found: Found) -> bool:
    """Whether a file has holes worth skipping."""
    return hasattr(os, "SEEK_DATA") and found.allocated + CHUNK < found.size


def _chunks(file: FileIO, found: Found, room: Callable[[int], memoryview]) -> Iterator[memoryview | int]:
    """See :func:`read`. ``room``: where that many bytes at least can be read to."""
    fd = file.fileno()
    at, end = found.offset, found.offset + found.size
    sparse = is_sparse(found)
    try:
        os.lseek(fd, at, os.SEEK_SET)
        while at < end:
            if sparse and (hole := min(_hole(fd, at, end), HOLE)):
                yield hole
                at += hole
                os.lseek(fd, at, os.SEEK_SET)
                continue
            wanted = min(CHUNK, end - at)
            buffer = room(wanted)[:wanted]
            have = 0
            while have < wanted and (count := os.readv(fd, [buffer[have:]])):
                have += count
            if have < wanted:
                buffer[have:] = bytes(wanted - have)
            yield buffer
            at += wanted
    except OSError as failure:
        raise unreadable(found.where, failure) from failure


def _hole(fd: int, at: int, end: int) -> int:
    """How many bytes of nothing begin at ``at``, in whole chunks; 0 if there are data."""
    try:
        data = os.lseek(fd, at, os.SEEK_DATA)
    except OSError:
        data = end  # ENXIO: nothing but a hole up to the end
    finally:
        os.lseek(fd, at, os.SEEK_SET)
    if data >= end:
        return end - at
    return (data - at) // CHUNK * CHUNK
