"""``.env`` files, by the rules of python-dotenv: ``export``, quotes that may go over lines, ``#`` after a blank is a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from updater import redaction
from updater.settings import merging
from updater.settings.merging import Path, Unreadable, Values

_KEY = re.compile(r"[^\S\n]*(?:export[^\S\n]+)?(?:'([^'\n]+)'|([^=#\s'\"][^=#\s]*))[^\S\n]*")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.S)
_AFTER = re.compile(r"[^\S\n]*(?:#[^\n]*)?(?=\n|$)")


@dataclass(frozen=True)
class Setting:
    """One setting; ``first`` and ``end`` are the lines that it goes over, counted from 0, the second not included."""

    name: str
    value: str
    first: int
    end: int


class EnvText:
    name = ".env"

    def values(self, text: str) -> Values:
        return {(it.name,): it.value for it in settings(text)}

    def scalars(self, text: str) -> Iterator[tuple[Path, str]]:
        return (((it.name,), redaction.unquoted(it.value.removeprefix("="))) for it in settings(text))

    def insert(self, text: str, path: Path, defaults: str) -> str | None:
        lines = defaults.splitlines()
        it = [it for it in settings(defaults) if (it.name,) == path][-1]
        new = lines[merging.comment_above(lines, it.first) : it.end]
        mine = text.splitlines(keepends=True)
        return merging.at_line(mine, len(mine), new)

    def keeps(self, before: str, after: str) -> bool:
        return merging.keeps_lines(before, after)


def settings(text: str) -> list[Setting]:
    """The settings of a file, in order.

    Raises:
        Unreadable: a line is neither a setting nor a comment.
    """
    found = []
    place = line = 0
    while place < len(text):
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        if not (stripped := text[place:end].strip()) or stripped.startswith("#"):
            place, line = end + 1, line + 1
            continue
        key = _KEY.match(text, place)
        if key is None or (key.end() < end and text[key.end()] not in "=#"):
            raise Unreadable("it is neither NAME=value nor a comment", line + 1)
        value, end = _value(text, key.end(), end, line)
        lines = text.count("\n", place, end)
        found.append(Setting(key[1] or key[2], value, line, line + lines + 1))
        place, line = end + 1, line + lines + 1
    return found


def _value(text: str, place: int, end: int, line: int) -> tuple[str, int]:
    """The value as it is written, and where its last line ends. A name alone has none."""
    if place >= end or text[place] == "#":
        return "", end
    start = place + 1
    while start < end and text[start] in " \t":
        start += 1
    if start >= end or text[start] not in "'\"":
        plain = text[place + 1 : end]
        return "=" + re.sub(r"\s+#.*", "", plain).strip(), end
    quoted = _QUOTED.match(text, start)
    if quoted is None or not (after := _AFTER.match(text, quoted.end())):
        raise Unreadable("its quotes do not match", line + 1)
    return "=" + quoted[0], after.end()
