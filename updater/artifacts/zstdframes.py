"""Where zstd frames end (RFC 8878, section 3), told from their headers alone."""

from __future__ import annotations

from collections.abc import Generator

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
"""The last three bytes of a skippable frame's magic number; the first is 0x50 to 0x5F."""
_RLE = 1
"""A block that holds one byte, whatever its size says."""


class ZstdFrames:
    """Follows a stream of frames chunk by chunk, and knows whether it stands between two of them."""

    def __init__(self) -> None:
        self.foreign: bytes | None = None
        """What stands where a frame should begin, and is none."""
        self._between = True
        self._headers = self._follow()
        self._wanted = next(self._headers)
        self._seen = bytearray()
        self._skip = 0

    @property
    def ended(self) -> bool:
        """Whether the bytes so far are whole frames."""
        return self._between and not self._skip and not self._seen

    def feed(self, chunk: bytes) -> None:
        at = 0
        while at < len(chunk) and self.foreign is None:
            if self._skip:
                step = min(self._skip, len(chunk) - at)
                self._skip -= step
            else:
                step = min(self._wanted - len(self._seen), len(chunk) - at)
                self._seen += chunk[at : at + step]
                if len(self._seen) == self._wanted:
                    self._wanted = self._headers.send(bytes(self._seen))
                    self._seen.clear()
            at += step

    def _follow(self) -> Generator[int, bytes, None]:
        """Yields how many bytes it must see next, after those that it wants skipped."""
        while True:
            self._between = True
            magic = yield 4
            self._between = False
            if magic == _MAGIC:
                yield from self._frame()
            elif magic[1:] == _SKIPPABLE and 0x50 <= magic[0] <= 0x5F:
                self._skip = int.from_bytes((yield 4), "little")
            else:
                self.foreign = magic

    def _frame(self) -> Generator[int, bytes, None]:
        descriptor = (yield 1)[0]
        single = descriptor >> 5 & 1
        content_size = (single, 2, 4, 8)[descriptor >> 6]
        self._skip = (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size
        last = 0
        while not last:
            header = int.from_bytes((yield 3), "little")
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            self._skip = 1 if kind == _RLE else size
        self._skip += 4 * (descriptor >> 2 & 1)
