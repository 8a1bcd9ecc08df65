"""The ``updater.toml`` that ``updater init`` writes: every key, explained, with its default."""

from __future__ import annotations

import json
import textwrap

from updater.configkeys import ABOUT, DUMP, PROBE, PROCESS, SECTIONS, Key
from updater.durable import encodable


def render(*, name: str, repository: str | None = None, directory: str | None = None) -> str:
    """A complete, commented ``updater.toml`` for an application. Keys that keep their default are commented out."""
    given = {("app", "name"): _quoted(name)}
    if directory is not None:
        given |= {("source", "type"): '"directory"', ("source", "path"): _quoted(directory)}
    if repository is not None:
        given[("source", "repository")] = _quoted(repository)
    parts = [
        "# The configuration of this root. A line that starts with # shows a default or an example.\n"
        "# `updater preflight` checks it."
    ]
    for section, keys in SECTIONS.items():
        parts.append(
            f"[{section}]\n{_comment(ABOUT[section])}\n"
            + "\n".join(_key(key, given.get((section, key.name))) for key in keys)
        )
        if section == "releases":
            parts.append(_SHARED)
        if section == "environment":
            parts.append(_processes())
        if section == "backup":
            parts.append(_dumps())
    return "\n\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML, which but for one character is a string of JSON."""
    return json.dumps(encodable(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: Key, value: str | None) -> str:
    line = f"{key.name} = {value}" if value is not None else f"# {key.name} = {key.default or key.example}"
    return f"{_comment(key.doc)}\n{line}"


def _comment(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# "))


EXAMPLES_SHARED = ('"config/settings.toml" = "config/settings.toml"', '"data" = "data"', '"logs" = "logs"')
_SHARED = "\n".join(["[shared]", _comment(ABOUT["shared"]), *(f"# {line}" for line in EXAMPLES_SHARED)])


def _commented(keys: tuple[Key, ...]) -> str:
    lines = "\n".join(_key(key, None) for key in keys)
    return "\n".join(line if line.startswith("#") else f"# {line}" for line in lines.splitlines())


def _processes() -> str:
    return (
        f"{_comment(ABOUT['processes'])}\n# [processes.bot]\n{_commented(PROCESS)}\n#\n"
        f"{_comment(ABOUT['probes'])}\n# [[processes.bot.probes]]\n" + _commented(PROBE)
    )


def _dumps() -> str:
    return f"{_comment(ABOUT['dumps'])}\n# [backup.dumps.postgres]\n" + _commented(DUMP)
