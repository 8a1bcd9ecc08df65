"""Received bytes → the bytes of the tar: gzip, zstd, xz, bzip2 or none, told by the first bytes and never by the name.

Memory stays bounded however much a small input expands to: each step yields at most :data:`PIECE` bytes.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from updater.artifacts.zstdframes import ZstdFrames
from updater.errors import VerificationFailed

READ = 256 * 1024
PIECE = 256 * 1024


class Reader(Protocol):
    """Where an artifact comes from: a file, a download."""

    def read(self, count: int, /) -> bytes:
        """At most ``count`` bytes; ``b""`` at the end."""
        ...


def decompressed(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The decompressed bytes, piece by piece.

    Raises:
        VerificationFailed: the compressed stream is cut off, damaged, or followed by something else.
    """
    head = b""
    while len(head) < 6 and (chunk := read(READ)):
        head += chunk
    if not head:
        raise VerificationFailed(
            "the artifact is empty", advice="the published file itself is broken: ask the publisher."
        )
    chunks = _chunks(head, read)
    if head.startswith(b"\x1f\x8b"):
        return _gzip(chunks)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(chunks)
    if head.startswith(b"\xfd7zXZ\x00"):
        return _members(chunks, _new_xz, "xz", b"\xfd7zXZ\x00")
    if head.startswith(b"BZh"):
        return _members(chunks, _new_bzip2, "bzip2", b"BZh")
    return chunks


def ahead(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """The same pieces, made in a thread a few ahead: inflating and hashing release the interpreter's lock."""
    line: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=3)
    stop = threading.Event()

    def put(item: bytes | BaseException | None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                line.put(item, timeout=0.1)
                return True
        return False

    def produce() -> None:
        try:
            for piece in pieces:
                if not put(piece):
                    return
            put(None)
        except BaseException as failure:
            put(failure)

    thread = threading.Thread(target=produce, name="decompress", daemon=True)
    thread.start()
    try:
        while (item := line.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(timeout=60)


def _chunks(head: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    yield head
    while chunk := read(READ):
        yield chunk


def damaged(kind: str, failure: Exception | None = None) -> VerificationFailed:
    why = f": {failure}" if failure else " before its end"
    return VerificationFailed(
        f"the artifact's {kind} stream is {'damaged' if failure else 'cut off'}{why}",
        advice="run the command again; if it stays so, the published file itself is broken.",
    )


def _demand_member(data: bytes, magic: bytes, kind: str) -> None:
    """What follows a member must be another one (as far as it is here), or it does not belong there."""
    if not data.startswith(magic[: len(data)]):
        raise _foreign(kind, data)


def _foreign(kind: str, data: bytes) -> VerificationFailed:
    return VerificationFailed(
        f"behind the end of the artifact's {kind} stream lies something that does not belong to it",
        details=[f"it begins with {data[:8]!r}"],
        advice="the published file itself is broken: ask the publisher.",
    )


def _gzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """One or more gzip members (RFC 1952); zero bytes behind the last are padding, anything else is refused."""
    new, errors = _inflater()
    engine = new()
    ended = False
    for chunk in chunks:
        data = chunk
        while data:
            if ended:
                data = data.lstrip(b"\0")
                if not data:
                    break
                _demand_member(data, b"\x1f\x8b", "gzip")
                engine, ended = new(), False
            try:
                piece = engine.decompress(data, PIECE)
            except errors as failure:
                raise damaged("gzip", failure) from failure
            if piece:
                yield piece
            data = engine.unused_data if engine.eof else engine.unconsumed_tail
            ended = engine.eof
    while not ended and (piece := engine.decompress(engine.unconsumed_tail, PIECE)):
        yield piece
        ended = engine.eof
    if not ended:
        raise damaged("gzip")


def _inflater() -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    """Intel's ISA-L inflates some three times as fast as zlib; where there is no build of it, zlib does."""
    try:
        from isal import igzip_lib, isal_zlib
    except ImportError:
        return _zlib_engine, (zlib.error,)

    def isal_engine() -> Any:
        return isal_zlib.decompressobj(wbits=31)

    wrong: Any = igzip_lib.IsalError  # its stub does not say that it is an exception's class
    return isal_engine, (zlib.error, wrong)


def _zlib_engine() -> Any:
    return zlib.decompressobj(wbits=31)


def _zstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """zstd frames (RFC 8878), each to its very end: the library takes a cut-off one for whole."""
    import zstandard

    # A window of 128 MB is what `zstd --long` writes; more would be memory that a stranger chooses.
    engine = zstandard.ZstdDecompressor(max_window_size=2**27)
    file = _File(chunks)
    try:
        with engine.stream_reader(file, read_size=READ, read_across_frames=True) as reader:  # type: ignore[arg-type]
            while piece := reader.read(PIECE):
                yield piece
    except zstandard.ZstdError as failure:
        if file.frames.foreign is None:
            raise damaged("zstd", failure) from failure
    if file.frames.foreign is not None:
        raise _foreign("zstd", file.frames.foreign)
    if not file.frames.ended:
        raise damaged("zstd")


class _File:
    """Chunks as a file, and the frames in them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.frames = ZstdFrames()

    def read(self, count: int) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
            self.frames.feed(self._rest)
        piece, self._rest = self._rest[:count], self._rest[count:]
        return piece


class _Engine(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _new_xz() -> _Engine:
    import lzma

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=128 * 1024**2)


def _new_bzip2() -> _Engine:
    import bz2

    return bz2.BZ2Decompressor()


def _members(chunks: Iterator[bytes], new: Callable[[], _Engine], kind: str, magic: bytes) -> Iterator[bytes]:
    """xz and bzip2: one or more streams one behind the other."""
    import lzma

    engine, fresh = new(), True
    for chunk in chunks:
        data = chunk
        while data or not engine.needs_input:
            if engine.eof:
                data = (engine.unused_data + data).lstrip(b"\0")
                engine, fresh = new(), True
                if not data:
                    break
                _demand_member(data, magic, kind)
            try:
                piece = engine.decompress(data, PIECE)
            except (lzma.LZMAError, OSError, EOFError, ValueError) as failure:
                raise damaged(kind, failure) from failure
            fresh, data = False, b""
            if piece:
                yield piece
    if not engine.eof and not fresh:
        raise damaged(kind)
