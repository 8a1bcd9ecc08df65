"""Reads and writes the archives of backups past the system's cache (O_DIRECT), where system and filesystem know how.

What is read is then what lies on the disk and not what lies in memory, nothing is copied twice, and what the application uses stays
cached. Elsewhere what was cached is dropped before it is read, as far as the system allows.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
from pathlib import Path
from types import TracebackType

from updater import durable

PAGE = 4096
"""Direct reads and writes begin and end at multiples of it, as the sectors of every disk do."""

WINDOW = 4 * 1024**2
"""Bytes read or written at once."""


class _File:
    def __init__(self, path: Path, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        self._direct = self._set_direct(True)
        self._buffer = memoryview(mmap.mmap(-1, WINDOW + PAGE))  # begins at a page

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def _set_direct(self, wanted: bool) -> bool:
        if sys.platform != "linux":
            return False
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
        except OSError:
            return False  # the filesystem does not know it
        return wanted

    def _gave_up(self, failure: OSError) -> bool:
        """Whether a failed direct read or write is worth another try: through the cache, which knows no alignment."""
        if not self._direct or failure.errno != errno.EINVAL:
            return False
        self._direct = self._set_direct(False)
        return True


class Reader(_File):
    """A file that may grow while it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDONLY)

    def __enter__(self) -> Reader:
        return self

    def flush(self) -> None:
        """Have what was written reach the disk; what has not is never dropped."""
        if sys.platform == "linux":
            os.fdatasync(self._fd)

    def drop(self, offset: int = 0, size: int = 0) -> None:
        """Have it leave the cache; ``size`` 0: all that is behind ``offset``."""
        if sys.platform == "linux":
            os.posix_fadvise(self._fd, offset, size, os.POSIX_FADV_DONTNEED)

    def read(self, offset: int, size: int) -> memoryview:
        """``size`` bytes, at most :data:`WINDOW`; fewer only at the end of the file. Valid until the next call."""
        begin = offset - offset % PAGE
        wanted = offset - begin + size
        have = 0
        while have < wanted and (count := self._into(begin + have, have, wanted)):
            have += count
        return self._buffer[offset - begin : max(offset - begin, min(have, wanted))]

    def _into(self, offset: int, have: int, wanted: int) -> int:
        room = self._buffer[have : wanted + -wanted % PAGE]
        try:
            return os.preadv(self._fd, [room], offset)
        except OSError as failure:
            if not self._gave_up(failure):
                raise
            return os.preadv(self._fd, [room], offset)


class Writer(_File):
    """A new file. ``written``: bytes that can be read from it already."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self.written = 0
        self._used = 0

    def __enter__(self) -> Writer:
        return self

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            count = min(len(rest), WINDOW - self._used)
            self._buffer[self._used : self._used + count] = rest[:count]
            self._used += count
            rest = rest[count:]
            if self._used == WINDOW:
                self._put(0, WINDOW)
                self._used = 0

    def finish(self) -> None:
        """Bring everything to the disk."""
        whole = self._used - self._used % PAGE
        self._put(0, whole)
        if self._used > whole:
            self._direct = self._set_direct(False)
            self._put(whole, self._used)
        self._used = 0
        durable.flush(self._fd)

    def _put(self, begin: int, end: int) -> None:
        while begin < end:
            try:
                count = os.write(self._fd, self._buffer[begin:end])
            except OSError as failure:
                if not self._gave_up(failure):
                    raise
                continue
            begin += count
            self.written += count
