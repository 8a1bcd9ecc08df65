"""Compresses what is written as zstandard frames of a megabyte, some of them at the same time.

One frame after the other is what ``zstd -dc`` unpacks as one stream (RFC 8878, section 3). Each is compressed at once, from where it
was read to: the library's own stream copies everything first, and takes a fifth longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard

LEVEL = 1
"""Of zstandard; on databases and logs higher ones are slower and hardly smaller (measured: 307 MB, 309 MB at level 3)."""

FRAME = 1024**2
"""Most bytes of one frame, before compression."""


class _Frame:
    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(FRAME))
        self.used = 0
        self.compressed: Future[bytes] = Future()
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)

    def compress(self) -> bytes:
        return self._compressor.compress(self.buffer[: self.used])


class Frames:
    """``on_frame`` gets the compressed frames, in their order, in the thread that writes; ``threads`` others compress, and twice as
    many frames and two more are in memory."""

    def __init__(self, on_frame: Callable[[bytes], object], threads: int) -> None:
        self._on_frame = on_frame
        self._pool = ThreadPoolExecutor(threads, "compress")
        self._most = 2 * threads + 1  # none runs dry while the writer waits for its turn
        self._busy: deque[_Frame] = deque()
        self._idle: list[_Frame] = []
        self._frame = _Frame()

    def room(self, count: int) -> memoryview:
        """Where at least ``count`` bytes can be put, to be told by :meth:`filled`; they need not be copied then."""
        if FRAME - self._frame.used < count:
            self._hand_on()
        return self._frame.buffer[self._frame.used :]

    def filled(self, count: int) -> None:
        """The first ``count`` bytes of the room are written."""
        self._frame.used += count

    def write(self, data: memoryview | bytes) -> None:
        rest = memoryview(data)
        while rest:
            room = self.room(1)
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            self.filled(count)
            rest = rest[count:]

    def finish(self) -> None:
        """Have ``on_frame`` told everything."""
        while self._busy:
            self._take_oldest()
        if self._frame.used:
            self._on_frame(self._frame.compress())
            self._frame.used = 0

    def close(self) -> None:
        """End the threads, whatever they are at."""
        self._pool.shutdown(cancel_futures=True)

    def _hand_on(self) -> None:
        self._frame.compressed = self._pool.submit(self._frame.compress)
        self._busy.append(self._frame)
        while len(self._busy) >= self._most or (self._busy and self._busy[0].compressed.done()):
            self._take_oldest()
        self._frame = self._idle.pop() if self._idle else _Frame()

    def _take_oldest(self) -> None:
        frame = self._busy.popleft()
        self._on_frame(frame.compressed.result())
        frame.used = 0
        self._idle.append(frame)
