"""YAML files: an entry is put behind the last one of its mapping, at that one's indentation, as the defaults write it.

ruamel.yaml says where everything stands (marks of the composed nodes); nothing is constructed, so tags that only the application
knows (``!secret``) are as good as any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from updater.settings import merging
from updater.settings.merging import EMPTY, Path, Unreadable, Values

Node = Any
"""A node of ruamel.yaml: ``MappingNode``, ``SequenceNode`` or ``ScalarNode``; None for a text without any."""


class YamlText:
    name = "YAML"

    def values(self, text: str) -> Values:
        found: Values = {}
        _walk(found, (), compose(text))
        if found.get(()) == EMPTY:
            del found[()]
        return found

    def scalars(self, text: str) -> Iterator[tuple[Path, str]]:
        return _scalars((), compose(text), ())

    def insert(self, text: str, path: Path, defaults: str) -> str | None:
        source = _entry(compose(defaults), path)
        new = _written(defaults, *source)
        root = compose(text)
        lines = text.splitlines(keepends=True)
        if root is None:
            return merging.at_line(lines, _end_of_empty(lines), _at_column(new, 0))
        table = root if len(path) == 1 else _entry(root, path[:-1])[1]
        if not table.value or table.flow_style or _is_alias(root, path[:-1]):
            return None
        indent = table.value[0][0].start_mark.column
        where = _end_of(text.splitlines(), *table.value[-1])
        return merging.at_line(lines, where, _at_column(new, indent))

    def keeps(self, before: str, after: str) -> bool:
        return merging.keeps_lines(before, after)


def compose(text: str) -> Node:
    """The tree of a document.

    Raises:
        Unreadable: it is no YAML, holds several documents, or a key twice.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        reason = failure.problem or failure.context or "it is no YAML"
        raise Unreadable(reason, mark.line + 1 if mark else None) from None
    except (YAMLError, ValueError, RecursionError) as failure:
        raise Unreadable(str(failure).splitlines()[0] if str(failure) else "it is no YAML") from None


def _walk(found: Values, path: Path, node: Node) -> None:
    if node is None:
        return
    if node.id != "mapping":
        found[path] = _text(node, ())
        return
    own = {}
    for key, value in node.value:
        if key.tag != _MERGE and _name(key) in own:
            raise Unreadable(f"{_name(key)!r} is there twice", key.start_mark.line + 1)
        own[_name(key)] = (key, value)
    if not own:
        found[path] = EMPTY
    for name, (key, value) in own.items():
        if key.tag == _MERGE:
            found[(*path, "<<")] = _text(value, ())
            for merged_name, merged_value in _merged(value).items():
                if merged_name not in own:
                    found[(*path, merged_name)] = _text(merged_value, ())
        else:
            _walk(found, (*path, name), value)


def _scalars(path: Path, node: Node, inside: tuple[int, ...]) -> Iterator[tuple[Path, str]]:
    if node is None or id(node) in inside:
        return
    inside = (*inside, id(node))
    if node.id == "scalar":
        yield path, node.value
    elif node.id == "sequence":
        for it in node.value:
            yield from _scalars(path, it, inside)
    else:
        for key, value in node.value:
            yield from _scalars((*path, _name(key)), value, inside)


_MERGE = "tag:yaml.org,2002:merge"


def _merged(value: Node) -> dict[str, Node]:
    """What ``<<`` brings in, by name."""
    found: dict[str, Node] = {}
    for mapping in value.value if value.id == "sequence" else [value]:
        for key, inner in mapping.value if mapping.id == "mapping" else ():
            found.setdefault(_name(key), inner)
    return found


def _name(key: Node) -> str:
    return key.value if key.id == "scalar" else _text(key, ())


def _text(node: Node, inside: tuple[int, ...]) -> str:
    """A node as a text to compare by: what it is and what it holds, not how it is written."""
    if id(node) in inside:
        return "(itself)"
    inside = (*inside, id(node))
    tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
    if node.id == "scalar":
        return f"{tag} {node.value!r}"
    if node.id == "sequence":
        return f"{tag} [{', '.join(_text(it, inside) for it in node.value)}]"
    return f"{tag} {{{', '.join(f'{_text(key, inside)}: {_text(it, inside)}' for key, it in node.value)}}}"


def _entry(node: Node, path: Path) -> tuple[Node, Node]:
    """The key and the value that stand at ``path``, which is there."""
    key = node
    for name in path:
        key, node = next((key, it) for key, it in node.value if _name(key) == name)
    return key, node


def _is_alias(root: Node, path: Path) -> bool:
    """Whether one of the tables on the way is only referred to: what it holds is written elsewhere."""
    node = root
    for name in path:
        key, node = _entry(node, (name,))
        if node.start_mark.index < key.start_mark.index:
            return True
    return False


def _written(text: str, key: Node, value: Node) -> list[str]:
    """The lines of an entry, with the comment above it, moved to the left edge."""
    lines = text.splitlines()
    first, column = key.start_mark.line, key.start_mark.column
    if lines[first][:column].strip():  # inside { a flow mapping }
        end = max(value.end_mark.index, key.end_mark.index)
        return [line.strip() for line in text[key.start_mark.index : end].splitlines()]
    found = lines[merging.comment_above(lines, first) : _end_of(lines, key, value)]
    return [line[column:] if not line[:column].strip() else line.lstrip() for line in found]


def _at_column(lines: list[str], column: int) -> list[str]:
    return [" " * column + line if line.strip() else line for line in lines]


def _end_of(lines: list[str], key: Node, value: Node) -> int:
    """The line behind an entry, without the blank lines and comments that may follow it."""
    after_key: int = key.end_mark.line + 1
    if value.start_mark.index < key.start_mark.index:  # an alias
        return after_key
    return max(after_key, _end_of_value(lines, value, key.start_mark.column))


def _end_of_value(lines: list[str], value: Node, column: int) -> int:
    """The line behind a value; the marks of ruamel.yaml are right for what is written on one line or in brackets, else they
    are those of whatever comes next."""
    if value.id == "scalar" and value.style in ("|", ">"):
        end = int(value.end_mark.line) + (value.end_mark.column > 0)
        header = lines[value.start_mark.line][value.start_mark.column :].split("#")[0]
        keeps_blanks = "+" in header
        return end if keeps_blanks else _without_blanks(lines, end, column)
    if value.id == "scalar" or value.flow_style or not value.value:
        is_nothing = value.end_mark.index == value.start_mark.index
        return 0 if is_nothing else int(value.end_mark.line) + 1
    last = value.value[-1]
    if value.id == "mapping":
        return _end_of(lines, *last)
    return _end_of_item(lines, last)


def _end_of_item(lines: list[str], item: Node) -> int:
    """The line behind the last item of a list. One without anything has the marks of what comes after it."""
    mark = item.start_mark
    if item.end_mark.index > mark.index:
        return max(int(mark.line) + 1, _end_of_value(lines, item, mark.column - 1))
    line: int = mark.line
    upto: int | None = mark.column
    while line > 0 and (line >= len(lines) or not lines[line][:upto].lstrip().startswith("-")):
        line, upto = line - 1, None
    return line + 1


def _without_blanks(lines: list[str], end: int, column: int) -> int:
    while end > 0 and (
        not (line := lines[end - 1].strip()) or _is_outer_comment(lines[end - 1], line, column)
    ):
        end -= 1
    return end


def _is_outer_comment(line: str, stripped: str, column: int) -> bool:
    return stripped.startswith("#") and len(line) - len(line.lstrip()) <= column


def _end_of_empty(lines: list[str]) -> int:
    """Where the first entry of a document without any goes: behind everything, but before its end mark."""
    return next((number for number, line in enumerate(lines) if line.startswith("...")), len(lines))
