"""Commands that messages and pages name, read by the real command line as if they had been typed; nothing is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePath

import click

from updater.cli.app import COMMANDS, _global_options_first, updater

NAMES = {name for section in COMMANDS.values() for name in section}

QUOTED = re.compile(r"`(?:sudo [^`]*?)?updater ([^`]*)`")
BARE = re.compile(
    r"(?<![\w`/.-])updater ((?:[a-z-]+(?![\w']))(?: (?:--?[a-z][a-z-]*|[A-Z]+/[A-Z]+|[A-Z]+\b|create\b|list\b))*)"
)
HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
BEFORE = {
    "sudo",
    "exec",
    "command",
    "nohup",
    "time",
    "env",
    "!",
    "{",
    "if",
    "then",
    "else",
    "elif",
    "while",
    "until",
    "do",
    "for",
}
"""Words that may stand before a command."""


def commands_in(text: str) -> Iterator[str]:
    """What stands behind ``updater`` where it is a command: all of it between backticks, else words up to the first that
    cannot belong to it. Prose ("updater holds still") is told from a command by its first word."""
    yield from QUOTED.findall(text)
    for found in BARE.finditer(QUOTED.sub("", text)):
        if found[1].split()[0] in NAMES:
            yield found[1]


def shell_commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell script, without assignments, redirections and what a heredoc holds."""
    lines = iter(text.splitlines())
    for line in lines:
        while line.endswith("\\"):
            line = line[:-1] + next(lines, "")
        while True:
            try:
                words = _words(line)
                break
            except ValueError:  # a quotation that goes on
                more = next(lines, None)
                if more is None:
                    raise
                line += "\n" + more
        for found in HEREDOC.finditer(line):
            while next(lines, found[2]).strip() != found[2]:
                pass
        yield from _simple(words)


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _simple(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    target = False  # the next word is where a redirection leads
    for word in [*words, ";"]:
        if re.fullmatch(r"[();<>|&]+", word):
            target = word[0] in "<>" or word.endswith(">")
            if target and command and command[-1].isdigit():
                command.pop()  # the 2 of 2>
            if not target and command:
                yield command
                command = []
        elif target:
            target = False
        elif command or not (word in BEFORE or re.fullmatch(r"\w+=.*", word, re.DOTALL)):
            command.append(word)


def parsed(command: str) -> None:
    """Let click read a command as if it had been typed. Raises click.ClickException."""
    plain = re.sub(r"[\[\]…]|\.\.\.", "", command)
    try:
        words = shlex.split(plain)
    except ValueError:  # an apostrophe
        words = plain.split()
    parsed_words(words)


def parsed_words(typed: list[str]) -> None:
    """The same of words. What stands for something (``TAG``, ``"$tag"``) is taken for a 7."""
    words = [
        word
        for word in _global_options_first(typed)
        if word not in ("--json", "-v", "-q", "--verbose", "--quiet")
    ]
    group: click.Group = updater
    here = click.Context(updater, info_name="updater")
    while words:
        name = words.pop(0)
        if name == "--root":
            if words and words[0] not in NAMES:
                words.pop(0)  # its directory is left out in messages
            continue
        if name in ("--help", "-h", "--version") or name.startswith("--root="):
            continue
        found = group.get_command(here, name)
        if found is None:
            raise click.UsageError(f"no such command: {name}")
        if not isinstance(found, click.Group):
            arguments = [re.sub(r"^([A-Z]+|.*\$.*)$", "7", word) for word in words]
            if not {"--help", "-h"} & set(arguments):
                found.make_context(name, arguments)
            return
        group, here = found, click.Context(found, info_name=name)


def is_updater(word: str) -> bool:
    return PurePath(word).name == "updater"
