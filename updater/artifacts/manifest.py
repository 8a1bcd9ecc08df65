"""The manifest of a release: its files with their SHA-256, and the addresses computed over it.

Format, version 1. The first line is ``updater-manifest 1``; then one line per path, sorted by the bytes of the path::

    F <sha256> <size> <path>     a regular file
    X <sha256> <size> <path>     a regular file that is executable
    D <path>                     a directory
    L <path>\\t<target>           a symlink

Paths are relative, with ``/``, in the bytes of the archive (usually UTF-8); control characters are refused when unpacking,
so neither tab nor newline occurs in one. The content address is ``sha256:`` over exactly these bytes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

HEADER = b"updater-manifest 1\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path. ``kind``: ``F`` file, ``X`` executable file, ``D`` directory, ``L`` symlink. ``size`` in bytes."""

    path: str
    kind: str
    size: int = 0
    sha256: bytes = b""
    target: str = ""

    @property
    def is_file(self) -> bool:
        return self.kind in ("F", "X")

    def line(self) -> bytes:
        path = encode(self.path)
        if self.is_file:
            return b"%c %s %d %s\n" % (self.kind.encode(), self.sha256.hex().encode(), self.size, path)
        if self.kind == "L":
            return b"L %s\t%s\n" % (path, encode(self.target))
        return b"D %s\n" % path


def encode(path: str) -> bytes:
    """The bytes of a path as they are on the disk."""
    return path.encode("utf-8", "surrogateescape")


def decode(path: bytes) -> str:
    """A path from its bytes; what is not UTF-8 survives as surrogates (PEP 383)."""
    return path.decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Manifest:
    """All paths of a release, sorted. ``tree_id`` is the Git tree id; empty where it was not computed."""

    entries: tuple[Entry, ...]
    tree_id: str = ""

    @classmethod
    def of(cls, entries: Iterable[Entry], tree_id: str = "") -> Manifest:
        found = list(entries)
        if all(entry.path.isascii() for entry in found):  # the order of the bytes, without a copy of them
            found.sort(key=attrgetter("path"))
        else:
            found.sort(key=lambda entry: encode(entry.path))
        return cls(tuple(found), tree_id)

    @functools.cached_property
    def digest(self) -> str:
        """The content address: ``sha256:`` and 64 hex digits."""
        hashed = hashlib.sha256(HEADER)
        for entry in self.entries:
            hashed.update(entry.line())
        return f"sha256:{hashed.hexdigest()}"

    @property
    def file_count(self) -> int:
        return sum(entry.is_file for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def as_bytes(self) -> bytes:
        return HEADER + b"".join(entry.line() for entry in self.entries)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Manifest:
        """Read :meth:`as_bytes` back.

        Raises:
            ValueError: it is not a manifest of this version.
        """
        if not raw.startswith(HEADER) or not raw.endswith(b"\n"):
            raise ValueError("not a manifest of version 1")
        return cls(tuple(_parse(line) for line in raw[len(HEADER) :].split(b"\n")[:-1]))

    def sums(
        self, *, moved: Mapping[str, str] | None = None, extra: Mapping[str, str] | None = None
    ) -> bytes:
        """The files in the format of ``sha256sum``, for a shell to check; ``moved`` gives files that lie elsewhere now,
        ``extra`` further files with their SHA-256 in hex."""
        moved = moved or {}
        lines = [
            _sum(entry.sha256.hex(), _moved(entry.path, moved)) for entry in self.entries if entry.is_file
        ]
        lines += [_sum(digest, path) for path, digest in (extra or {}).items()]
        return b"".join(lines)


def _moved(path: str, moved: Mapping[str, str]) -> str:
    """Where a path lies now, if it or a directory above it was moved."""
    for old, new in moved.items():
        if path == old or path.startswith(f"{old}/"):
            return new + path[len(old) :]
    return path


def _sum(digest: str, path: str) -> bytes:
    raw = encode(path)
    if raw == b"-":  # which sha256sum takes for its input
        raw = b"./-"
    if b"\\" in raw:  # coreutils marks an escaped name by a backslash in front of the line
        return b"\\" + digest.encode() + b"  " + raw.replace(b"\\", b"\\\\") + b"\n"
    return digest.encode() + b"  " + raw + b"\n"


def _parse(line: bytes) -> Entry:
    kind, _, rest = line.partition(b" ")
    if kind in (b"F", b"X"):
        digest, size, path = rest.split(b" ", 2)
        return Entry(decode(path), kind.decode(), int(size), bytes.fromhex(digest.decode("ascii")))
    if kind == b"D":
        return Entry(decode(rest), "D")
    if kind == b"L":
        path, sign, target = rest.partition(b"\t")
        if sign:
            return Entry(decode(path), "L", target=decode(target))
    raise ValueError(f"not a line of a manifest: {line[:80]!r}")


_MODES = {"F": b"100644", "X": b"100755", "L": b"120000"}


def git_tree(paths: Iterable[tuple[str, str, str, bytes | None]]) -> str:
    """The Git tree id of these paths: each with its kind, its link target, and its blob id if it is a file.

    As ``git write-tree`` computes it (gitformat-tree): names sorted as bytes with ``/`` behind directories, and no
    empty directories.
    """
    rows: dict[bytes, list[bytes]] = {b"": []}
    for path, kind, target, known in paths:
        if kind == "D":
            continue
        parent, _, name = encode(path).rpartition(b"/")
        blob = known if known is not None else blob_id(encode(target))
        row = _MODES[kind] + b" " + name + b"\0" + blob
        if parent in rows:
            rows[parent].append(row)
            continue
        rows[parent] = [row]
        while parent:  # the directories above come into being with it
            parent = parent.rpartition(b"/")[0]
            if parent in rows:
                break
            rows[parent] = []
    for directory in sorted(rows, key=lambda it: it.count(b"/"), reverse=True):
        if directory:
            parent, _, name = directory.rpartition(b"/")
            rows[parent].append(b"40000 " + name + b"\0" + _tree(rows.pop(directory)))
    return _tree(rows[b""]).hex()


def blob_id(content: bytes) -> bytes:
    """The Git blob id of some bytes."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).digest()


def _tree(rows: list[bytes]) -> bytes:
    ordered = sorted(rows, key=_place)
    body = b"".join(ordered)
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).digest()


def _place(row: bytes) -> bytes:
    """Git sorts directories as if their names ended in a slash."""
    mode, _, rest = row.partition(b" ")
    return rest[: rest.index(b"\0")] + (b"/" if mode == b"40000" else b"")
