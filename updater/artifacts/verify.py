"""Is a tree still what its manifest says? Reads every byte, follows no link, changes nothing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from updater.artifacts.manifest import Entry, Manifest, decode, encode

_READ = 1024**2


class Difference(NamedTuple):
    """One path that is not as it was. ``what``: changed, missing, added, type, executable or target."""

    path: str
    what: str


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    return _sha256(os.fspath(path)).hex()


def compare(
    tree: Path,
    manifest: Manifest,
    *,
    ignore: Callable[[str], bool] = lambda _: False,
    moved: Mapping[str, str] | None = None,
) -> list[Difference]:
    """Every difference between a tree and its manifest.

    ``ignore`` tells for a path that it is nobody's business; ``moved`` maps a path to where it lies now, below the same
    tree (a directory stands for all below it).
    """
    moved = moved or {}
    root = os.fspath(tree)
    found = []
    known = {entry.path for entry in manifest.entries}
    for entry in manifest.entries:
        place = _place(entry.path, moved)
        if place is None and ignore(entry.path):
            continue
        what = _differs(os.path.join(root, place or entry.path), entry)
        if what:
            found.append(Difference(entry.path, what))
    found += [Difference(path, "added") for path in _paths(root, ignore) if path not in known]
    return sorted(found, key=lambda difference: difference.path)


def _place(path: str, moved: Mapping[str, str]) -> str | None:
    for old, new in moved.items():
        if path == old or path.startswith(f"{old}/"):
            return new + path[len(old) :]
    return None


def _differs(place: str, entry: Entry) -> str | None:
    raw = encode(place)
    try:
        seen = os.lstat(raw)
    except OSError:
        return "missing"
    if entry.kind == "D":
        return None if stat.S_ISDIR(seen.st_mode) else "type"
    if entry.kind == "L":
        if not stat.S_ISLNK(seen.st_mode):
            return "type"
        return None if os.readlink(raw) == encode(entry.target) else "target"
    if not stat.S_ISREG(seen.st_mode):
        return "type"
    if bool(seen.st_mode & 0o100) != (entry.kind == "X"):
        return "executable"
    try:
        same = seen.st_size == entry.size and _sha256(place) == entry.sha256
    except OSError:
        same = False
    return None if same else "changed"


def _sha256(place: str) -> bytes:
    """One read for a small file: faster than ``hashlib.file_digest`` for the thousands there are."""
    fd = os.open(encode(place), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        content = os.read(fd, _READ)
        hashed = hashlib.sha256(content)
        while len(content) == _READ:
            content = os.read(fd, _READ)
            hashed.update(content)
        return hashed.digest()
    finally:
        os.close(fd)


def _paths(root: str, ignore: Callable[[str], bool]) -> Iterator[str]:
    """Every path below ``root`` that is not ignored; what is ignored is not entered."""
    pending = [b""]
    base = encode(root)
    while pending:
        directory = pending.pop()
        with os.scandir(os.path.join(base, directory) if directory else base) as entries:
            for entry in entries:
                path = os.path.join(directory, entry.name) if directory else entry.name
                if ignore(decode(path)):
                    continue
                yield decode(path)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
