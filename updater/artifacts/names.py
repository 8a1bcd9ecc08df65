"""Which names and links a release may hold. Pure: decides, and touches no disk.

Refused: absolute names, ``..``, NUL and other control characters, too long or too deep, twice the same, equal but for case
or Unicode form (one file on macOS), a file below a file or below a symlink, links that lead out of the tree by any
route, and names that belong to updater.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from updater.artifacts.manifest import decode
from updater.errors import HostileArchive

RESERVED = (".venv", ".release")
MAX_NAME = 255
"""Bytes of one component; what every filesystem in use takes."""
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_PLAIN = re.compile(
    rb"(?:[^\x00-\x1f\x7f/.][^\x00-\x1f\x7f/]{0,254}/)*[^\x00-\x1f\x7f/.][^\x00-\x1f\x7f/]{0,254}/?"
)
"""What nearly all names are: no empty component, and none that begins with a dot."""


def clean(raw: bytes, *, max_length: int, max_depth: int) -> str:
    """A member's name as a relative path without ``.``; ``""`` for the top itself.

    Raises:
        HostileArchive
    """
    if len(raw) <= max_length and raw.count(b"/") < max_depth and _PLAIN.fullmatch(raw):
        return decode(raw.rstrip(b"/"))
    if raw.startswith(b"/"):
        raise HostileArchive(f"an absolute name: {shown(raw)}")
    if not raw or len(raw) > max_length:
        raise HostileArchive(
            "an empty name" if not raw else f"a name of {len(raw)} bytes: {shown(raw[:80])}…"
        )
    if _CONTROL.search(raw):
        raise HostileArchive(f"a name with a control character: {shown(raw)}")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise HostileArchive(f"a name with '..': {shown(raw)}")
    if len(parts) > max_depth:
        raise HostileArchive(f"a path {len(parts)} deep: {shown(raw[:80])}…")
    if any(len(part) > MAX_NAME for part in parts):
        raise HostileArchive(f"a name longer than {MAX_NAME} bytes: {shown(raw[:80])}…")
    return decode(b"/".join(parts))


def target(raw: bytes, *, max_length: int) -> str:
    """Where a symlink leads; whether it may is for :func:`check_links`, once all are known.

    Raises:
        HostileArchive: it is longer than filesystems take.
    """
    if len(raw) >= max_length:
        raise HostileArchive(f"a symlink with a target of {len(raw)} bytes: {shown(raw[:80])}…")
    return decode(raw)


def shown(raw: bytes | str) -> str:
    """A name for a message: whatever it holds, on one line."""
    return ascii(decode(raw) if isinstance(raw, bytes) else raw)


def folded(path: str) -> str:
    """What a filesystem that ignores case and Unicode form takes the path for."""
    if path.isascii():
        lower = path.lower()
        return path if lower == path else lower  # one text in memory, not two
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


class Names:
    """The paths seen so far, and what each is: ``F``, ``X``, ``D`` or ``L``."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self._folded: dict[str, str] = {}

    def add(self, path: str, kind: str) -> list[str]:
        """Register a path; returns the parent directories that come into being with it.

        Raises:
            HostileArchive: it clashes with one that is there.
        """
        new = self._parents(path)
        known = self.kinds.get(path)
        if known is not None and not (known == kind == "D"):
            raise HostileArchive(f"the same name twice: {shown(path)}")
        if known is None:
            self._put(path, kind)
        return new

    def _parents(self, path: str) -> list[str]:
        parent, _, name = path.rpartition("/")
        if not name or not parent:
            return []
        known = self.kinds.get(parent)
        if known == "D":
            return []
        if known is not None:
            what = "a symlink" if known == "L" else "a file"
            raise HostileArchive(f"a path below {what}: {shown(path)}")
        new = [*self._parents(parent), parent]
        self._put(parent, "D")
        return new

    def _put(self, path: str, kind: str) -> None:
        other = self._folded.setdefault(folded(path), path)
        if other != path:
            raise HostileArchive(
                f"names that differ only in case or Unicode form: {shown(other)} and {shown(path)}"
            )
        self.kinds[path] = kind


def check_links(links: Mapping[str, str]) -> None:
    """Every symlink must stay inside the tree, whatever route it takes: followed through other links as well, and where a
    filesystem ignores case and Unicode form.

    Raises:
        HostileArchive
    """
    known = {folded(path): target for path, target in links.items()}
    for path, target in links.items():
        if not target or target.startswith("/") or "\0" in target:
            raise HostileArchive(
                f"a symlink with an absolute or empty target: {shown(path)} -> {shown(target)}"
            )
        if any(ord(char) < 0x20 or ord(char) == 0x7F for char in target):
            raise HostileArchive(f"a symlink with a control character in its target: {shown(path)}")
        _follow(path, target, known)


def _follow(path: str, target: str, links: Mapping[str, str]) -> None:
    """``links``: by their folded paths."""
    place: list[str] = path.split("/")[:-1]
    ahead = target.split("/")[::-1]
    for _ in range(4096):
        if not ahead:
            return
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not place:
                raise HostileArchive(
                    f"a symlink that leads out of the release: {shown(path)} -> {shown(target)}"
                )
            place.pop()
            continue
        place.append(part)
        further = links.get(folded("/".join(place)))
        if further is not None:
            place.pop()
            ahead += further.split("/")[::-1]
    raise HostileArchive(f"a symlink that goes in circles: {shown(path)} -> {shown(target)}")
