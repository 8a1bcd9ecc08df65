"""TOML files: a key is put behind the last one of its table, as the defaults write it; a table that is missing goes to the end.

Where each statement stands is found by going through the text once; what it means, :mod:`tomllib` says. tomlkit knows how the
defaults write a value that has no line of its own there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from updater.settings import merging
from updater.settings.merging import Path, Unreadable, Values


@dataclass(frozen=True)
class Statement:
    """A header, or a key with its value.

    ``kind``: ``table``, ``array`` (``[[...]]``) or ``key``. ``path``: of the table or of the key, from the top; ``section``: of the
    header that a key stands below. ``first`` and ``end`` are lines, counted from 0, the second not included.
    """

    kind: str
    path: Path
    section: Path
    first: int
    end: int

    @property
    def written(self) -> Path:
        """The names as they stand in the text."""
        return self.path[len(self.section) :]


class TomlText:
    name = "TOML"

    def values(self, text: str) -> Values:
        return merging.flat(self._tree(text))

    def scalars(self, text: str) -> Iterator[tuple[Path, str]]:
        return merging.scalars(self._tree(text))

    @staticmethod
    def _tree(text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as failure:
            reason, _, where = str(failure).partition(" (at ")
            line = re.match(r"line (\d+)", where)
            raise Unreadable(reason, int(line[1]) if line else None) from None
        except RecursionError:
            raise Unreadable("it is nested too deeply") from None

    def insert(self, text: str, path: Path, defaults: str) -> str | None:
        lines, found = defaults.splitlines(), list(statements(defaults))
        inside = [it for it in found if it.path[: len(path)] == path]
        if not inside:
            return _put(text, path, _of_inline(path, defaults), path[-1:], [])
        if any(it.kind == "array" for it in inside):  # whole sections, one after the other, as they are
            return _appended(text, lines[merging.comment_above(lines, inside[0].first) : inside[-1].end])
        heads = {it.path: _with_comment(lines, it) for it in found if it.kind == "table"}
        for it in inside:
            if it.kind == "key":
                text = _put(text, it.path, _with_comment(lines, it), it.written, heads.get(it.path[:-1]))
            elif not any(other.path[: len(it.path)] == it.path for other in inside if other is not it):
                text = _appended(text, heads[it.path])  # a table without anything in it
        return text

    def keeps(self, before: str, after: str) -> bool:
        return merging.keeps_lines(before, after)


def statements(text: str) -> Iterator[Statement]:
    """What stands in a text that :mod:`tomllib` accepts, in order."""
    section: Path = ()
    place = line = 0
    while place < len(text):
        end = _line_end(text, place)
        body = text[place:end].strip()
        if body.startswith("["):
            kind, section = ("array" if body.startswith("[[") else "table"), _path_of(body)
            yield Statement(kind, section, section, line, line + 1)
        elif body and not body.startswith("#"):
            sign = _after_key(text, place)
            end = _after_value(text, sign + 1)
            names = _path_of(f"{text[place:sign]} = 0")
            yield Statement("key", (*section, *names), section, line, line + text.count("\n", place, end) + 1)
        line += text.count("\n", place, end) + 1
        place = end + 1


def _path_of(statement: str) -> Path:
    """The names in a header or a key."""
    path, here = [], tomllib.loads(statement)
    while isinstance(here, dict) and here:
        (name, here), *_ = here.items()
        path.append(name)
    return tuple(path)


def _line_end(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end


def _after_key(text: str, place: int) -> int:
    """Where the equals sign of a key stands."""
    while text[place] != "=":
        place = _after_string(text, place) if text[place] in "\"'" else place + 1
    return place


def _after_value(text: str, place: int) -> int:
    """The end of the line on which a value, with the comment behind it, ends."""
    depth = 0
    while place < len(text):
        character = text[place]
        if character in "\"'":
            place = _after_string(text, place)
            continue
        if character == "#":
            place = _line_end(text, place)
            continue
        if character == "\n" and not depth:
            break
        depth += (character in "[{") - (character in "]}")
        place += 1
    return place


_STRINGS = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'", re.S
)


def _after_string(text: str, place: int) -> int:
    found = _STRINGS.match(text, place)
    return found.end() if found else place + 1


def _with_comment(lines: Sequence[str], it: Statement) -> list[str]:
    return list(lines[merging.comment_above(lines, it.first) : it.end])


def _of_inline(path: Path, defaults: str) -> list[str]:
    """A key that the defaults have in ``{ an inline table }``, as a line of its own."""
    import tomlkit

    value: Any = tomlkit.parse(defaults)
    for name in path:
        value = value[name]
    return [f"{_dotted(path[-1:])} = {tomlkit.item(value).as_string().strip()}"]  # it gives out a bool bare


def _put(text: str, path: Path, new: list[str], written: Path, header: list[str] | None) -> str:
    """The text with one more key: in its table, among the dotted keys that make up its table, or in a table of its own."""
    mine, lines, table = list(statements(text)), text.splitlines(keepends=True), path[:-1]
    if opened := [it for it in mine if it.kind == "table" and it.path == table]:
        within = [it for it in mine if it.kind == "key" and it.section == table]
        return merging.at_line(lines, (within or opened)[-1].end, _named(new, written, path[-1:]))
    if not table:
        within = [it for it in mine if it.kind == "key" and not it.section]
        where = within[-1].end if within else _before_first_header(lines, mine)
        gap = [""] if not within and where < len(lines) else []
        return merging.at_line(lines, where, [*_named(new, written, path[-1:]), *gap])
    if dotted := [it for it in mine if it.kind == "key" and _makes(it, table)]:
        last = dotted[-1]
        return merging.at_line(lines, last.end, _named(new, written, path[len(last.section) :]))
    return _appended(text, [*(header or [f"[{_dotted(table)}]"]), *_named(new, written, path[-1:])])


def _makes(it: Statement, table: Path) -> bool:
    """Whether a dotted key (``server.port = 1``) makes a table, or one that it lies in."""
    outermost = it.path[: len(it.section) + 1]
    return len(it.written) > 1 and table[: len(outermost)] == outermost


def _named(new: list[str], written: Path, wanted: Path) -> list[str]:
    """The lines of a key with another name before the equals sign."""
    if written == wanted:
        return new
    text = "\n".join(new)
    key = next(number for number, line in enumerate(new) if not line.lstrip().startswith("#"))
    start = sum(len(line) + 1 for line in new[:key])
    return f"{text[:start]}{_dotted(wanted)} {text[_after_key(text, start) :]}".split("\n")


def _dotted(path: Path) -> str:
    import tomlkit

    return ".".join(tomlkit.key(name).as_string() for name in path)


def _appended(text: str, new: list[str]) -> str:
    lines = text.splitlines(keepends=True)
    return merging.at_line(lines, len(lines), [""] * bool(text.strip()) + new)


def _before_first_header(lines: Sequence[str], mine: Sequence[Statement]) -> int:
    """Where the first key that is in no table goes: above the first header and its comment."""
    header = next((it for it in mine if it.kind != "key"), None)
    return merging.comment_above(lines, header.first) if header else len(lines)
