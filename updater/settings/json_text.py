"""JSON files: members are put before the one that they precede in the defaults, else before the last, so that no line of the
user's needs a comma more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from updater.settings import merging
from updater.settings.merging import Path, Unreadable, Values

BLANK = " \t\n\r"


@dataclass
class Member:
    """``start``: of its name; ``end``: behind its value. Offsets into the text."""

    name: str
    start: int
    value: Thing
    end: int


@dataclass
class Thing:
    """A value and its place; ``members`` are those of an object, None for anything else."""

    start: int
    end: int
    members: list[Member] | None = None

    def find(self, path: Path) -> Thing | None:
        here: Thing = self
        for name in path:
            inner = next((it.value for it in here.members or () if it.name == name), None)
            if inner is None:
                return None
            here = inner
        return here


class JsonText:
    name = "JSON"

    def values(self, text: str) -> Values:
        return merging.flat(self._tree(text))

    def scalars(self, text: str) -> Iterator[tuple[Path, str]]:
        return merging.scalars(self._tree(text))

    @staticmethod
    def _tree(text: str) -> object:
        try:
            return json.loads(text, object_pairs_hook=_once)
        except json.JSONDecodeError as failure:
            raise Unreadable(failure.msg, failure.lineno) from None
        except RecursionError:
            raise Unreadable("it is nested too deeply") from None

    def insert(self, text: str, path: Path, defaults: str) -> str | None:
        table, source = scan(text).find(path[:-1]), scan(defaults).find(path[:-1])
        if table is None or source is None or table.members is None:
            return None
        order = [it.name for it in source.members or ()]
        mine = next(it for it in source.members or () if it.name == path[-1])
        member = defaults[mine.start : mine.end]
        if not table.members:
            return _into_empty(text, table, member, _indent(defaults, mine.start))
        later = order[order.index(path[-1]) + 1 :]
        before = next((it for it in table.members if it.name in later), table.members[-1])
        indent, own_line = _indent(text, before.start), _begins_line(text, before.start)
        member = _indented(member, _indent(defaults, mine.start), indent)
        gap = f"\n{indent}" if own_line else " "
        return f"{text[: before.start]}{member},{gap}{text[before.start :]}"

    def keeps(self, before: str, after: str) -> bool:
        return merging.keeps_characters(before, after)


def _into_empty(text: str, table: Thing, member: str, was: str) -> str:
    indent = _indent(text, table.start)
    inner = text[table.start + 1 : table.end - 1]
    member = _indented(member, was, f"{indent}  ")
    tail = inner if "\n" in inner else f"{inner}\n{indent}"
    return f"{text[: table.start + 1]}\n{indent}  {member}{tail}{text[table.end - 1 :]}"


def _indent(text: str, place: int) -> str:
    """The blanks at the beginning of the line on which something stands."""
    line = text[text.rfind("\n", 0, place) + 1 :]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _begins_line(text: str, place: int) -> bool:
    return not text[text.rfind("\n", 0, place) + 1 : place].strip()


def _indented(member: str, was: str, now: str) -> str:
    first, *rest = member.split("\n")
    return "\n".join([first, *(now + line.removeprefix(was) for line in rest)])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Unreadable(f"{twice!r} is there twice")
    return dict(pairs)


def scan(text: str) -> Thing:
    """Where each value of a text that ``json`` accepts stands."""
    return _Scanner(text).value(_blank(text, 0))


def _blank(text: str, place: int) -> int:
    while place < len(text) and text[place] in BLANK:
        place += 1
    return place


@dataclass
class _Scanner:
    text: str
    decoder: json.JSONDecoder = field(default_factory=json.JSONDecoder)

    def value(self, start: int) -> Thing:
        if self.text[start] != "{":
            return Thing(start, self.decoder.raw_decode(self.text, start)[1])
        members: list[Member] = []
        place = _blank(self.text, start + 1)
        while self.text[place] != "}":
            if self.text[place] == ",":
                place = _blank(self.text, place + 1)
            name, after = self.decoder.raw_decode(self.text, place)
            colon = _blank(self.text, after)
            value = self.value(_blank(self.text, colon + 1))
            members.append(Member(name, place, value, value.end))
            place = _blank(self.text, value.end)
        return Thing(start, place + 1, members)
