"""An incremental parser for tar: ustar, pax and GNU headers (POSIX.1-2001 pax; GNU tar manual, "Basic Tar Format").

Not :mod:`tarfile`: that is some four times slower here, and its extraction filter has known escapes in interpreters
that are in use (CVE-2025-4517 and its kin). This parser only reads; what may be written is decided in ``unpack``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from updater.errors import HostileArchive, Truncated, VerificationFailed

BLOCK = 512
META = 1024**2
"""Largest pax or long-name header, in bytes."""

ANNOUNCED = 8
"""Extended headers before one member; writers make at most one of each kind."""

_ZERO = bytes(BLOCK)
_KEPT = ("path", "linkpath", "size", "GNU.sparse")
_FILES = (b"0", b"\0", b"7")


@dataclass(slots=True)
class Member:
    """One member of the archive, as it says it is. ``kind``: file, directory, symlink, hardlink, or ``other:<typeflag>``."""

    name: bytes
    kind: str
    size: int
    executable: bool
    linkname: bytes


class TarStream:
    """Members one after the other; the data of each must be taken before the next is asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = memoryview(b"")
        self._at = 0
        self.announced = 0
        """Bytes of the headers that announced members so far."""
        self.commit: str | None = None
        """The commit id that ``git archive`` writes into a global header."""

    def _more(self) -> bool:
        chunk = next(self._chunks, b"")
        if not chunk:
            return False
        rest = self._buffer[self._at :]
        self._buffer = memoryview(bytes(rest) + chunk if rest else chunk)
        self._at = 0
        return True

    def take(self, count: int) -> memoryview:
        """Exactly ``count`` bytes; valid until the next call."""
        begin = self._at
        end = begin + count
        if end <= len(self._buffer):
            self._at = end
            return self._buffer[begin:end]
        while len(self._buffer) - self._at < count:
            if not self._more():
                raise Truncated(
                    "the archive is cut off",
                    advice="run the command again; if it stays so, the published file is broken.",
                )
        begin, self._at = self._at, self._at + count
        return self._buffer[begin : self._at]

    def padded(self, count: int) -> memoryview:
        """``count`` bytes, and past the padding behind them."""
        return self.take(count + -count % BLOCK)[:count]

    def buffered(self, count: int) -> bool:
        """Whether ``count`` bytes are at hand without growing the buffer beyond a chunk."""
        return count <= len(self._buffer) - self._at or count <= 256 * 1024

    def pieces(self, count: int) -> Iterator[memoryview]:
        """``count`` bytes in pieces, without ever holding all of them."""
        while count:
            have = len(self._buffer) - self._at
            if not have:
                self.take(1)
                self._at -= 1
                continue
            size = min(have, count)
            yield self.take(size)
            count -= size

    def skip(self, count: int) -> None:
        for _ in self.pieces(count):
            pass

    def drain(self, limit: int) -> None:
        """Read what is behind the end of the archive: padding, at most ``limit`` bytes."""
        seen = len(self._buffer) - self._at
        for chunk in self._chunks:
            seen += len(chunk)
            if seen > limit:
                raise HostileArchive("there is more behind the end of the archive than padding")

    def members(self) -> Iterator[Member]:
        """Every member, long names and pax headers applied.

        Raises:
            Truncated, HostileArchive, VerificationFailed: the archive is not one.
        """
        overrides: dict[str, bytes] = {}
        announced = 0
        while True:
            header = bytes(self.take(BLOCK))
            if header == _ZERO:
                if overrides:
                    raise _damaged("it ends behind a header that announces more")
                return
            flag = header[156:157]
            size = _number(_checked(header)[124:136])
            if flag in b"xgLK" and flag:
                announced += 1
                if announced > ANNOUNCED:
                    raise HostileArchive(f"more than {ANNOUNCED} headers that announce one member")
                self._meta(flag, size, overrides)
                continue
            yield _member(header, flag, size, overrides)
            overrides, announced = {}, 0

    def _meta(self, flag: bytes, size: int, overrides: dict[str, bytes]) -> None:
        if size > META:
            raise HostileArchive(f"a header of {size} bytes")
        body = bytes(self.padded(size))
        self.announced += BLOCK + size
        if flag in b"LK":
            overrides["path" if flag == b"L" else "linkpath"] = body.rstrip(b"\0")
            return
        records = _pax(body)
        if flag == b"g":
            comment = records.get("comment", b"").decode("ascii", "replace")
            self.commit = comment if len(comment) in (40, 64) else self.commit
            return
        overrides.update({key: value for key, value in records.items() if key.startswith(_KEPT)})


def _damaged(why: str) -> VerificationFailed:
    return VerificationFailed(
        f"the archive is damaged: {why}",
        advice="run the command again; if it stays so, the published file itself is broken: ask the publisher.",
    )


def _checked(header: bytes) -> bytes:
    """A header whose checksum fits: the sum of its bytes, with spaces in place of the checksum.

    Adler-32 (RFC 1950) has that sum, plus one, modulo 65521 in its lower half, and computes it in no time.
    """
    try:
        wanted = _number(header[148:156])
    except VerificationFailed:
        wanted = -1
    if wanted < 0 or (wanted - _adler(header[:148] + b"        " + header[156:])) % 65521:
        raise _damaged("a header's checksum does not fit, or it is no tar archive at all")
    return header


def _adler(header: bytes) -> int:
    return (zlib.adler32(header) & 0xFFFF) - 1


def _number(field: bytes) -> int:
    """An octal number, or a base-256 one (GNU) if its first bit is set and it is not below nothing, by its second."""
    digits = field.rstrip(b"\0 ")
    if not digits.isdigit():
        if field[0] & 0xC0 == 0x80:
            return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
        digits = field.split(b"\0", 1)[0].strip() or b"0"
    if digits.isdigit() and not digits.strip(b"01234567"):
        return int(digits, 8)
    raise _damaged("a header holds no number where one belongs")


_MATTERS = (b"path=", b"size=", b"comment=", b"sparse")


def _pax(body: bytes) -> dict[str, bytes]:
    """The records ``"%d %s=%s\\n"`` of a pax header."""
    records: dict[str, bytes] = {}
    if not any(key in body for key in _MATTERS):
        return records  # times and owners only, as most of them are
    at = 0
    while at < len(body):
        length, sign, _ = body[at:].partition(b" ")
        if not sign or not length.isdigit() or len(length) > 8:
            raise _damaged("a pax header is malformed")
        end = at + int(length)
        record = body[at + len(length) + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(body) or not record.endswith(b"\n") or not equals:
            raise _damaged("a pax header is malformed")
        records[key.decode("utf-8", "replace")] = value[:-1]
        at = end
    return records


def _member(header: bytes, flag: bytes, size: int, overrides: dict[str, bytes]) -> Member:
    if any(key.startswith("GNU.sparse") for key in overrides):
        raise HostileArchive("it holds a sparse file")
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    name = overrides.get("path", name)
    link = overrides.get("linkpath", header[157:257].split(b"\0", 1)[0])
    if "size" in overrides:
        if not overrides["size"].isdigit() or len(overrides["size"]) > 20:
            raise _damaged("a pax size is no number")
        size = int(overrides["size"])
    if flag in _FILES:
        kind = "directory" if flag == b"\0" and name.endswith(b"/") else "file"
    else:
        kind = {b"5": "directory", b"2": "symlink", b"1": "hardlink"}.get(
            flag, f"other:{flag.decode('latin-1')}"
        )
    # The usual "0000644\0": an odd digit is an execute bit.
    usual = header[107] == 0 and header[100:107].isdigit() and not header[100:107].strip(b"01234567")
    bits = header[104] | header[105] | header[106] if usual else _number(header[100:108]) & 0o111
    executable = bool(bits & (1 if usual else 0o111))
    return Member(name, kind, size if kind == "file" or kind.startswith("other") else 0, executable, link)
