"""Every command, as the command line itself tells it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from updater.cli.app import COMMANDS, exit_codes, updater
from updater.errors import EXIT_CODES


def reference() -> str:
    whole = click.Context(updater, info_name="updater")
    lines = ["## Options of every command", "", "They stand before or behind it.", ""]
    lines += _parameters(updater, whole)
    for title, names in COMMANDS.items():
        lines += ["", f"## {title}"]
        for name in names:
            found = updater.get_command(whole, name)
            assert found is not None
            context = click.Context(found, parent=whole, info_name=name)
            if isinstance(found, click.Group):
                for inner, one in found.commands.items():
                    lines += _command(
                        f"{name} {inner}", one, click.Context(one, parent=context, info_name=inner)
                    )
            else:
                lines += _command(name, found, context)
    return "\n".join(lines) + "\n"


def _command(name: str, command: click.Command, context: click.Context) -> list[str]:
    usage = " ".join(["updater", name, *command.collect_usage_pieces(context)]).replace(" [OPTIONS]", "")
    return [
        "", f"### updater {name}", "", f"`{usage}`", "", inspect.cleandoc(command.help or ""), "",
        *_parameters(command, context), f"- [Exit codes](exit-codes.md): {_exits(name)}",
    ]  # fmt: skip


def _parameters(command: click.Command, context: click.Context) -> list[str]:
    return [f"- `{names}`: {about}" for names, about in _options(command, context)]


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for it in command.params:
        if isinstance(it, click.Option) and (record := it.get_help_record(context)):
            names, about = record
            yield names, re.sub(r" *\[(default: .*)\]$", r" (\1)", about)


def _exits(name: str) -> str:
    told = exit_codes(name).items()
    return ", ".join(f"{code}{f' ({it})' if it != EXIT_CODES[code].meaning else ''}" for code, it in told)
