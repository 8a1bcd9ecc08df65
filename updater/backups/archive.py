"""Writes one archive of a backup: a GNU tar stream, compressed by zstandard, that ``zstd -dc | tar xf -`` unpacks.

What goes through is hashed on its way: the content by blocks, the compressed bytes as a whole.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import zstandard

from updater import durable
from updater.backups import index
from updater.backups.gather import Found, shown, unreadable
from updater.errors import BackupFailed

LEVEL = 1
"""Of zstandard; on databases and logs higher ones are slower and hardly smaller (measured: 307 MB, 309 MB at level 3)."""

CHUNK = 1024**2
"""Bytes read at once; a multiple of the block."""

_PAD = bytes(tarfile.BLOCKSIZE)
_ZEROS = memoryview(bytes(CHUNK))


class Vanished(Exception):
    """A file went away between the look and the read, as one that is written beside and renamed does: it is left out."""


class Content(NamedTuple):
    """What was read of a file. ``sums``: of its blocks; ``changed``: it was written to meanwhile."""

    sums: bytes
    changed: bool

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sums).hexdigest()


class Archive:
    """A new archive. Use as a context manager; ``sha256`` and ``size`` are of the finished file."""

    def __init__(self, path: Path, *, threads: int, check: Callable[[], None] | None = None) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        self._check = check
        self.size = 0
        self.raw = 0
        """Bytes before compression."""
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115
        compressor = zstandard.ZstdCompressor(level=LEVEL, threads=threads, write_checksum=True)
        self._stream: Any = compressor.stream_writer(
            cast("IO[bytes]", self), write_size=256 * 1024, closefd=False
        )

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *failure: object) -> None:
        try:
            if failure[0] is None:
                self._stream.write(_PAD * 2)
                self._stream.close()
                durable.flush(self._file.fileno())
        finally:
            self._file.close()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Takes the compressed bytes; called by the compressor."""
        view = memoryview(data)
        self._hash.update(view)
        self.size += len(view)
        while view:
            view = view[self._file.write(view) :]
        return len(data)

    def flush(self) -> None:
        """Nothing is held back here."""

    def _put(self, data: memoryview | bytes) -> None:
        self._stream.write(data)
        self.raw += len(data)

    def header(self, found: Found, *, name: str | None = None, size: int | None = None) -> None:
        """The header of a member; its data must follow. ``size``: of the data, if it is not the file's."""
        it = tarfile.TarInfo(name or found.path)
        it.mode, it.mtime = found.mode, found.mtime // 10**9
        it.uid, it.gid = found.owner
        it.type = {"directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}.get(found.kind, tarfile.REGTYPE)
        it.linkname = found.link
        if found.kind == "file":
            it.size = found.size if size is None else size
        self._put(it.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))

    def pad(self, size: int) -> None:
        """What follows the data of a member of ``size`` bytes."""
        self._put(_PAD[: -size % tarfile.BLOCKSIZE])

    def file(self, found: Found) -> Content:
        """Store a regular file.

        Raises:
            BackupFailed: it cannot be read.
        """
        chunks = read(found)
        first = next(chunks, None)  # opened before its header is written: it may have gone
        self.header(found)
        sums = []
        for data in itertools.chain(() if first is None else (first,), chunks):
            if self._check:
                self._check()
            if isinstance(data, int):
                sums.append(index.zero_sums(data))
                for at in range(0, data, CHUNK):
                    self._put(_ZEROS[: min(CHUNK, data - at)])
            else:
                self._put(data)
                sums.append(index.block_sums(data))
        self.pad(found.size)
        return Content(b"".join(sums), is_changed(found))

    def text(self, found: Found, name: str, content: bytes) -> None:
        """Store a small member of our own making; owner and dates are those of ``found``."""
        self.header(found, name=name, size=len(content))
        self._put(content)
        self.pad(len(content))

    def pieces(self, found: Found, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """Store a member from pieces that are ``size`` bytes together."""
        self.header(found, name=name, size=size)
        for piece in pieces:
            self._put(piece)
        self.pad(size)


def is_changed(found: Found) -> bool:
    """Whether a file is not any more as it was when it was found."""
    if found.copied:
        return False
    try:
        now = os.lstat(found.place)
    except OSError:
        return True
    return (now.st_size - found.offset, now.st_mtime_ns, now.st_ino) != (found.size, found.mtime, found.inode)


def read(found: Found) -> Iterator[memoryview | int]:
    """The content of a file in chunks of whole blocks, valid until the next; a number stands for that many zeros (a hole).

    Exactly ``found.size`` bytes: what a file has lost since it was found comes as zeros.
    """
    try:
        fd = os.open(found.place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Vanished(found.path) from None
    except OSError as failure:
        raise unreadable(found.place, failure) from failure
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BackupFailed(f"shared/{shown(found.path)} became something else while it was read")
        yield from _chunks(fd, found)
    except OSError as failure:
        raise unreadable(found.place, failure) from failure
    finally:
        os.close(fd)


def is_sparse(found: Found) -> bool:
    """Whether a file has holes worth skipping."""
    return hasattr(os, "SEEK_DATA") and found.allocated + CHUNK < found.size


def _chunks(fd: int, found: Found) -> Iterator[memoryview | int]:
    buffer = memoryview(bytearray(min(CHUNK, max(found.size, 1))))
    at, end = found.offset, found.offset + found.size
    sparse = is_sparse(found)
    os.lseek(fd, at, os.SEEK_SET)
    while at < end:
        if sparse and (hole := _hole(fd, at, end)):
            yield hole
            at += hole
            os.lseek(fd, at, os.SEEK_SET)
            continue
        wanted = min(len(buffer), end - at)
        have = 0
        while have < wanted and (count := os.readv(fd, [buffer[have:wanted]])):
            have += count
        if have < wanted:
            buffer[have:wanted] = bytes(wanted - have)
        yield buffer[:wanted]
        at += wanted


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
