"""Inserts into a user's file what a release's defaults have and it has not; every line of the user's stays as it is.

No document is ever written anew from what a parser understood of it: lines are inserted into the text, and the result counts only
if another look at it finds every line of the user's, every value of the user's, and the new keys with their defaults. What
cannot be inserted so (into ``{ an inline table }``, say) is left for a person and named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from updater.releases.shared import is_environment

Path = tuple[str, ...]
"""Where a key stands: the names of its tables, then its own."""

Values = dict[Path, str]
"""Each key that holds a value, with the value as a text to compare by. A list is one value; an empty table is :data:`EMPTY`."""

EMPTY = "{}"

LIMIT = 1024**2
"""Bytes; a larger file is no settings file that people edit."""


class Unreadable(Exception):
    """A file that does not hold what its name says. ``line`` counts from 1; None: no one line is to blame."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


class Format(Protocol):
    """One kind of file. Texts have ``\\n`` at the ends of their lines."""

    name: str

    def values(self, text: str) -> Values:
        """All keys. Raises Unreadable."""

    def scalars(self, text: str) -> Iterator[tuple[Path, str]]:
        """Each value as the application gets it, those in lists one by one; what is no text or number is left out. Raises
        Unreadable."""

    def insert(self, text: str, path: Path, defaults: str) -> str | None:
        """``text`` with what stands at ``path`` in ``defaults`` inserted; None where there is no place for a line of its own."""

    def keeps(self, before: str, after: str) -> bool:
        """Whether everything of ``before`` is in ``after``, in its order."""


class Merged(NamedTuple):
    """``text`` of the user's file afterwards; which keys were ``added``, and which could not be, ``by_hand``."""

    text: str
    added: Sequence[Path]
    by_hand: Sequence[Path]


def format_of(name: str) -> Format | None:
    """What reads and writes a file of that name; None if it is of no kind that is understood."""
    path = PurePosixPath(name)
    if is_environment(name):
        from updater.settings.env_text import EnvText

        return EnvText()
    if path.suffix == ".toml":
        from updater.settings.toml_text import TomlText

        return TomlText()
    if path.suffix in (".yaml", ".yml"):
        from updater.settings.yaml_text import YamlText

        return YamlText()
    if path.suffix == ".json":
        from updater.settings.json_text import JsonText

        return JsonText()
    return None


def decode(content: bytes) -> str:
    """The text of a file, its line ends as ``\\n``, without a byte order mark.

    Raises:
        Unreadable: it is no UTF-8, or holds a NUL.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = content[: failure.start].count(b"\n") + 1
        raise Unreadable("it is not UTF-8 text", line) from None
    if "\0" in text:
        raise Unreadable("it holds a NUL byte", text[: text.index("\0")].count("\n") + 1)
    return text.replace("\r\n", "\n")


def encode(text: str, like: bytes) -> bytes:
    """The bytes of a text, with the line ends and the byte order mark of the file that it was."""
    mark = b"\xef\xbb\xbf" if like.startswith(b"\xef\xbb\xbf") else b""
    body = text.encode()
    if b"\r\n" in like:
        body = body.replace(b"\n", b"\r\n")
    return mark + body


def is_mixed(content: bytes) -> bool:
    """Whether lines end now so, now so: such a file cannot be put together again byte for byte from its text."""
    return encode(decode(content), content) != content


def read(form: Format, content: bytes) -> Values:
    """All keys of a file. Raises Unreadable."""
    return form.values(decode(content))


def merged(form: Format, user: str, defaults: str, known: Collection[Path] = ()) -> Merged:
    """Add to ``user`` what only ``defaults`` have.

    ``known``: keys that the user has seen before, in the defaults of an earlier release. What is missing of those was taken
    out on purpose, and stays out; so do keys that are new in a table which the user has taken out.

    Raises:
        Unreadable: one of the two texts.
    """
    have, brought = form.values(user), form.values(defaults)
    text, added, by_hand = user, list[Path](), list[Path]()
    for top, leaves in missing(have, brought, known).items():
        inserted = None if conflicting(have, top) else form.insert(text, top, defaults)
        if inserted is not None and _is_sound(form, text, inserted, {path: brought[path] for path in leaves}):
            text = inserted
            added += leaves
        else:
            by_hand += leaves
    return Merged(text, added, by_hand)


def missing(have: Values, brought: Values, known: Collection[Path] = ()) -> dict[Path, list[Path]]:
    """What only the defaults have, by the largest part that can be taken over whole: a key, or a table with all its keys."""
    tables = {path[:depth] for path in have for depth in range(len(path))} | {()}
    tables |= {path for path, value in have.items() if value == EMPTY}
    taken_out = {path[:depth] for path in known for depth in range(len(path) + 1)}
    parts: dict[Path, list[Path]] = {}
    for path in brought:
        if path in have or path in tables:
            continue
        top = next(path[:depth] for depth in range(len(path) + 1) if path[:depth] not in tables)
        if top not in taken_out:
            parts.setdefault(top, []).append(path)
    return parts


def conflicting(have: Values, top: Path) -> bool:
    """Whether the user has a plain value where the defaults have a table: then the user's stands."""
    return top in have


def _is_sound(form: Format, before: str, after: str, added: Values) -> bool:
    try:
        was, now = form.values(before), form.values(after)
    except Unreadable:
        return False
    return _filled({**was, **added}) == _filled(now) and form.keeps(before, after)


def _filled(values: Values) -> Values:
    """Without the tables that are empty no more."""
    tables = {path[:depth] for path in values for depth in range(len(path))}
    return {path: value for path, value in values.items() if not (value == EMPTY and path in tables)}


def flat(tree: object, text: Mapping[str, object] | None = None) -> Values:
    """The keys of nested tables. Of what is no table the ``repr`` is its text."""
    found: Values = {}

    def walk(path: Path, value: object) -> None:
        if not isinstance(value, dict):
            found[path] = repr(value)
        elif not value:
            found[path] = EMPTY
        for name, inner in value.items() if isinstance(value, dict) else ():
            walk((*path, name), inner)

    walk((), tree)
    if found.get(()) == EMPTY:
        del found[()]
    return found


def scalars(tree: object, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """The texts and numbers in nested tables and lists."""
    if isinstance(tree, dict):
        for name, inner in tree.items():
            yield from scalars(inner, (*path, name))
    elif isinstance(tree, list):
        for inner in tree:
            yield from scalars(inner, path)
    elif isinstance(tree, str | int | float) and not isinstance(tree, bool):
        yield path, str(tree)


def keeps_lines(before: str, after: str) -> bool:
    """Whether every line of ``before`` is in ``after``, in order."""
    rest = iter(after.splitlines())
    return all(line in rest for line in before.splitlines())


def keeps_characters(before: str, after: str) -> bool:
    """Whether every character of ``before`` is in ``after``, in order."""
    rest = iter(after)
    return all(character in rest for character in before)


def at_line(lines: Sequence[str], number: int, new: Sequence[str]) -> str:
    """The text of ``lines`` (each with its end) with ``new`` ones before line ``number``, which counts from 0."""
    head, tail = list(lines[:number]), list(lines[number:])
    if head and not head[-1].endswith("\n"):
        head[-1] += "\n"
    return "".join([*head, *(f"{line}\n" for line in new), *tail])


def comment_above(lines: Sequence[str], number: int) -> int:
    """The first line of the comment that stands right above line ``number``; that line itself if there is none."""
    while number > 0 and lines[number - 1].lstrip().startswith("#"):
        number -= 1
    return number


def shown(path: Path) -> str:
    """A key for people: ``server.port``; a name with dots or blanks in it in quotes."""
    plain = all(part and not (set(part) & set(". \t\n\"'")) for part in path)
    return ".".join(path) if plain else ".".join(f'"{part}"' for part in path)
