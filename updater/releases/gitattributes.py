"""What a repository's ``.gitattributes`` say of a path (gitattributes(5)). Pure, but for the loader that it is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Values = dict[str, str | bool | None]
"""Attribute → True (set), False (unset), a text, or None (unspecified again)."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(.*)')
_PLAIN = re.compile(r"(\S+)\s*(.*)")
_BINARY: Values = {"binary": True, "diff": False, "merge": False, "text": False}


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    by_name: bool
    """The pattern has no slash, so that it fits the last component, in whatever directory."""
    directories: bool
    values: Values

    def fits(self, below: str, directory: bool) -> bool:
        if self.directories and not directory:
            return False
        return bool(self.pattern.fullmatch(below.rpartition("/")[2] if self.by_name else below))


class Attributes:
    """``load`` gives the text of the ``.gitattributes`` of a directory (``""`` for the top), or None."""

    def __init__(self, load: Callable[[str], str | None]) -> None:
        self._load = load
        self._rules: dict[str, list[_Rule]] = {}
        self._macros: dict[str, Values] = {"binary": _BINARY}

    def of(self, path: str, *, directory: bool = False) -> Values:
        """All attributes of a path: a later line goes before an earlier one, a deeper file before one above it."""
        found: Values = {}
        parts = path.split("/")
        for depth in range(len(parts)):
            for rule in self._in("/".join(parts[:depth])):
                if rule.fits("/".join(parts[depth:]), directory):
                    for name, value in rule.values.items():
                        found |= self._macros.get(name, {}) if value is True else {}
                        found[name] = value
        return found

    def left_out(self, path: str) -> bool:
        """Whether an archive leaves a path out: it, or a directory above it, has ``export-ignore``."""
        parts = path.split("/")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        return self.of(path).get("export-ignore") is True or any(
            self.of(it, directory=True).get("export-ignore") is True for it in above
        )

    def _in(self, directory: str) -> list[_Rule]:
        if directory not in self._rules:
            self._rules[directory] = list(self._parse(self._load(directory) or "", top=not directory))
        return self._rules[directory]

    def _parse(self, text: str, *, top: bool) -> Iterator[_Rule]:
        for line in map(str.strip, text.removeprefix("\ufeff").splitlines()):
            match = _QUOTED.fullmatch(line) or _PLAIN.fullmatch(line)
            if match is None or line.startswith(("#", "!")):
                continue
            pattern, values = match[1], dict(map(_value, match[2].split()))
            if match.re is _QUOTED:
                pattern = re.sub(r"\\(.)", r"\1", pattern)
            elif pattern.startswith("[attr]"):
                if top:
                    self._macros[pattern.removeprefix("[attr]")] = values
                continue
            if rule := _rule(pattern, values):
                yield rule


def _value(word: str) -> tuple[str, str | bool | None]:
    name, sign, value = word.partition("=")
    if word[0] in "-!":
        return word[1:], False if word[0] == "-" else None
    return name, value if sign else True


def _rule(pattern: str, values: Values) -> _Rule | None:
    body = pattern.removesuffix("/")
    try:
        compiled = re.compile(_translated(body.removeprefix("/")), re.DOTALL)
    except re.error:  # a pattern that fits nothing
        return None
    return _Rule(compiled, "/" not in body, pattern.endswith("/"), values)


def _translated(pattern: str) -> str:
    """Git's wildcards as a regular expression: only ``**`` between slashes crosses them."""
    out, at = "", 0
    while at < len(pattern):
        rest = pattern[at:]
        start = at == 0 or pattern[at - 1] == "/"
        if start and rest.startswith("**/"):
            out, at = out + "(?:.*/)?", at + 3
        elif start and rest == "**":
            out, at = out + ".*", at + 2
        elif rest[0] == "*":
            out, at = out + "[^/]*", at + len(rest) - len(rest.lstrip("*"))
        elif rest[0] == "?":
            out, at = out + "[^/]", at + 1
        elif match := re.match(r"\[([!^]?)(\]?[^\]]*)\]", rest):
            inside = re.sub(r"[\\\[\]&|~]", r"\\\g<0>", match[2])
            out, at = out + f"(?!/)[{'^' if match[1] else ''}{inside}]", at + match.end()
        else:
            at += rest[0] == "\\" and len(rest) > 1
            out, at = out + re.escape(pattern[at]), at + 1
    return out
