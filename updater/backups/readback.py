"""Reads an archive back while it is still being written: what is on the disk already is read from there, and compared at the end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import zstandard

from updater.artifacts.decompress import ahead
from updater.artifacts.tarstream import Member, TarStream
from updater.backups import index
from updater.backups.frames import FRAME
from updater.backups.index import Entry
from updater.backups.stored import path_of
from updater.backups.uncached import WINDOW, Reader
from updater.errors import BackupDamaged, VerificationFailed

SEGMENT = 16 * 1024**2
"""Bytes that are read back at once."""


class Grown:
    """How far a file has been written, frame by frame; the writer tells, one reader waits."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._untold: deque[int] = deque()
        self._told: list[int] = []
        self._size = 0
        self._ended = False
        self._failed = False

    def by(self, size: int, *, written: int) -> None:
        """By one more frame of ``size`` bytes; ``written``: how many bytes of the file can be read already."""
        self._untold.append(size)
        if written - self._size >= SEGMENT:
            self._tell(written)

    def ended(self) -> None:
        """It is whole, and on the disk."""
        self._tell(sys.maxsize, ended=True)

    def failed(self) -> None:
        self._tell(0, failed=True)

    def _tell(self, written: int, *, ended: bool = False, failed: bool = False) -> None:
        with self._change:
            while self._untold and self._size + self._untold[0] <= written:
                self._size += self._untold[0]
                self._told.append(self._untold.popleft())
            self._ended, self._failed = ended, failed
            self._change.notify_all()

    def more(self) -> tuple[list[int], bool]:
        """Wait until it has grown or ended: the sizes of the frames since the last call, and whether it has ended.

        Raises:
            BackupDamaged: it will never be whole.
        """
        with self._change:
            self._change.wait_for(lambda: self._told or self._ended or self._failed)
            if self._failed:
                raise BackupDamaged("the archive was given up while it was written")
            told, self._told = self._told, []
            return told, self._ended


class ReadBack:
    """A thread that reads a growing archive to its end. ``check`` may raise to end it early."""

    def __init__(self, path: Path, grown: Grown, *, check: Callable[[], None]) -> None:
        self.path = path
        self._grown = grown
        self._check = check
        self._hash = hashlib.sha256()
        self._members = hashlib.sha256()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"read back {path.name}", daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def confirm(self, entries: Iterable[Entry]) -> str:
        """Wait for its end: what lies on the disk holds what was to be written, path by path, and every frame has the checksum of
        what was put into it. Returns the SHA-256 of the file.

        Raises:
            BackupDamaged, OSError, Cancelled
        """
        self.join()
        if isinstance(self._failure, VerificationFailed | zstandard.ZstdError | ValueError):
            raise BackupDamaged(f"{self.path.name} cannot be read back: {self._failure}") from self._failure
        if self._failure:
            raise self._failure
        written = hashlib.sha256()
        for it in entries:
            written.update(_line(it.path, it.kind, it.size, it.digest))
        if self._members.digest() != written.digest():
            raise BackupDamaged(f"{self.path.name} is not as it was written")
        return self._hash.hexdigest()

    def _run(self) -> None:
        try:
            with Reader(self.path) as file, contextlib.closing(ahead(self._content(file))) as chunks:
                self._read(TarStream(chunks))
        except BaseException as failure:
            self._failure = failure

    def _content(self, file: Reader) -> Iterator[bytes]:
        """What is in the frames of the growing file."""
        decompressor = zstandard.ZstdDecompressor()
        at, ended = 0, False
        while not ended:
            sizes, ended = self._grown.more()
            if not ended:
                file.flush()
            file.drop(at, sum(sizes))
            for frame in _frames(file, at, sizes):
                self._hash.update(frame)
                if zstandard.frame_content_size(frame) > FRAME:
                    raise ValueError("a frame is larger than any that was written")
                yield decompressor.decompress(frame, allow_extra_data=False)
            at += sum(sizes)
        if file.read(at, 1):
            raise ValueError("it is longer than what was written")

    def _read(self, stream: TarStream) -> None:
        for member in stream.members():
            self._check()
            self._members.update(self._seen(member, stream))
        stream.drain(limit=1024**2)

    def _seen(self, member: Member, stream: TarStream) -> bytes:
        digest = ""
        if member.kind == "file":
            sums, whole = index.BlockSums(), hashlib.sha256()
            for piece in stream.pieces(member.size):
                self._check()
                whole.update(sums.of(piece))
            whole.update(sums.rest())
            stream.skip(-member.size % 512)
            digest = whole.hexdigest()
        return _line(path_of(member), member.kind, member.size, digest)


def _line(path: str, kind: str, size: int, digest: str) -> bytes:
    return os.fsencode(f"{kind} {size} {digest} {path}\0")


def _frames(file: Reader, at: int, sizes: Sequence[int]) -> Iterator[memoryview]:
    """Frames of ``sizes`` that begin at ``at``, each valid until the next."""
    window, begin, end = memoryview(b""), at, at + sum(sizes)
    for size in sizes:
        if at + size > begin + len(window):
            window, begin = file.read(at, min(WINDOW, end - at)), at
        yield window[at - begin : at - begin + size]
        at += size
