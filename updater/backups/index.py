"""What an archive of a backup holds, entry by entry, and the digests by which a change is found.

A file's content is known by its blocks of 4 KiB: 16 bytes of the SHA-256 of each, and as ``digest`` the SHA-256 over
those. So one pass finds which pages of a database have changed, and proves the whole when it is put together again.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from updater import durable

BLOCK = 4096
"""Bytes; the usual page of a SQLite database."""

SUM = 16
"""Bytes kept of a block's SHA-256."""

BLOCKS_FROM = 64 * 1024
"""Bytes from which on a file's block sums are kept, so that later only its changed blocks are stored."""

_sha256 = hashlib.sha256


@dataclass(frozen=True, slots=True)
class Entry:
    """One path. ``kind``: ``file``, ``directory`` or ``symlink``.

    ``stored``: ``full`` or ``delta``, the archive that holds it whole, or ``blocks``: the full archive holds it as it
    was, the delta its changed blocks. ``mtime`` in nanoseconds. ``start`` is the first block's place in the file of block
    sums, None without. ``sparse``: it had holes.
    """

    path: str
    kind: str
    mode: int
    mtime: int
    owner: tuple[int, int]
    size: int = 0
    digest: str = ""
    link: str = ""
    start: int | None = None
    stored: str = "full"
    sparse: bool = False

    def as_json(self) -> list[Any]:
        return [
            self.path, self.kind, self.mode, self.mtime, *self.owner,
            self.size, self.digest, self.link, self.start, self.stored, self.sparse,
        ]  # fmt: skip

    @classmethod
    def from_json(cls, it: list[Any]) -> Entry:
        path, kind, mode, mtime, uid, gid, size, digest, link, start, stored, sparse = it
        # one string for all that say the same: there may be millions
        kind, stored = sys.intern(kind), sys.intern(stored)
        return cls(path, kind, mode, mtime, (uid, gid), size, digest, link, start, stored, sparse)


def encode(begun: int, entries: Iterable[Entry]) -> bytes:
    """An index: JSON lines, compressed; the first is ``begun``, when the files were looked at, in nanoseconds since the epoch.

    Names that are no UTF-8 survive as lone surrogates (PEP 383).
    """
    as_line = json.JSONEncoder(separators=(",", ":")).encode
    text = bytearray(b"%d\n" % begun)
    for entry in entries:
        text += as_line(entry.as_json()).encode("ascii") + b"\n"
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(text)


def read(path: Path, limit: int = 2 * 1024**3) -> tuple[int, list[Entry]]:
    """Read an index: when it was begun, and its entries.

    Raises:
        OSError, ValueError, zstandard.ZstdError: it is not there, or damaged.
    """
    raw = durable.read(path, limit=256 * 1024**2)
    lines = io.BytesIO(zstandard.ZstdDecompressor().decompress(raw, max_output_size=limit))
    try:
        begun = int(next(lines, b""))
        return begun, [Entry.from_json(json.loads(line)) for line in lines]
    except TypeError as failure:
        raise ValueError(f"{path.name} is not an index of a backup") from failure


def block_sums(data: memoryview) -> bytes:
    """The sums of the blocks of ``data``; only the last one may be short."""
    if len(data) > BLOCK and not data[0] and not data[-1] and is_zero(data):
        return zero_sums(len(data))
    return b"".join([_sha256(data[at : at + BLOCK]).digest()[:SUM] for at in range(0, len(data), BLOCK)])


_NOTHING = bytes(1024**2)
_ZEROS = bytes(BLOCK)
_ZERO_SUM = _sha256(_ZEROS).digest()[:SUM]


def zero_sums(count: int) -> bytes:
    """The sums of ``count`` bytes of zeros, without looking at them."""
    whole, rest = divmod(count, BLOCK)
    return _ZERO_SUM * whole + (block_sums(memoryview(_ZEROS)[:rest]) if rest else b"")


def is_zero(data: memoryview) -> bool:
    """Whether there is nothing but zeros."""
    return len(data) <= len(_NOTHING) and bytes(data) == _NOTHING[: len(data)]


class BlockSums:
    """The sums of the blocks of what comes in pieces, wherever those begin and end."""

    def __init__(self) -> None:
        self._carry = bytearray()

    def of(self, piece: memoryview) -> bytes:
        """The sums of the blocks that are whole with this piece."""
        first = b""
        if self._carry:
            missing = min(BLOCK - len(self._carry), len(piece))
            self._carry += piece[:missing]
            piece = piece[missing:]
            if len(self._carry) < BLOCK:
                return b""
            first = self.rest()
        whole = len(piece) - len(piece) % BLOCK
        self._carry += piece[whole:]
        return first + block_sums(piece[:whole]) if whole else first

    def rest(self) -> bytes:
        """The sum of what is left at the end, if anything is."""
        left = bytes(self._carry)
        self._carry.clear()
        return block_sums(memoryview(left))


def blocks(size: int) -> int:
    """How many blocks a file of ``size`` bytes has."""
    return -(-size // BLOCK)


def differing(mine: bytes, theirs: bytes) -> Iterator[int]:
    """The blocks that differ, by number; what ``theirs`` does not have differs."""
    if mine == theirs:
        return
    for number in range(len(mine) // SUM):
        at = number * SUM
        if mine[at : at + SUM] != theirs[at : at + SUM]:
            yield number
