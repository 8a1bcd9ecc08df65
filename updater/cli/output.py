"""How things are said: one JSON document for machines, plain lines for pipes, colour and tables on a terminal."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from updater.durable import encodable
from updater.errors import UpdaterError
from updater.words import moment, seconds, size

if TYPE_CHECKING:
    from updater.operations import Root

__all__ = [
    "Face", "as_json", "bad", "bar", "bold", "confirm", "dim", "good", "moment", "plain", "safe", "seconds", "size", "table",
    "warning",
]  # fmt: skip


@dataclass
class Face:
    """What the global options say; ``root`` is the argument of ``--root``."""

    root: str | None = None
    json: bool = False
    verbose: bool = False
    quiet: bool = False

    def open(self) -> Root:
        """The root, for a command that must work whatever is wrong with ``updater.toml``; what is wrong, and what is used
        instead, is told."""
        from updater import operations

        root = operations.open_root(self.root, tolerant=True)
        if root.wrong is not None:
            self.warn(root.wrong.line)
            if root.instead:
                self.warn(f"until it is corrected, used instead: {root.instead}")
        return root

    def emit(self, data: Any, text: Callable[[], None]) -> None:
        """Print the result: ``data`` as the one JSON document, or ``text()`` for people."""
        if self.json:
            click.echo(as_json(data))
        else:
            text()

    def say(self, line: str = "") -> None:
        """A line for people; nothing with --json or -q."""
        if not self.json and not self.quiet:
            click.echo(safe(line))

    def warn(self, line: str) -> None:
        """A warning for people, on standard error; nothing with --json."""
        if not self.json:
            click.echo(warning(safe(f"warning: {line}")), err=True)

    def fail(self, error: UpdaterError, **data: Any) -> None:
        """Print an error: on standard error for people, as the one JSON document for machines."""
        if self.json:
            click.echo(as_json({**data, "error": error.as_json()}))
            return
        first, *rest = error.as_text().splitlines()
        click.echo(click.style(safe(first), fg="red", bold=True), err=True)
        for line in rest:
            click.echo(safe(line), err=True)


_CONTROL = "(\x1b\\[[0-9;]*m)|[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"


def as_json(data: Any) -> str:
    """The one JSON document, printable whatever is in it."""
    return encodable(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def safe(text: str) -> str:
    """Text that may come from elsewhere (a tag, an answer, a log) without the control characters that could rewrite the
    screen or the clipboard; colours stay."""
    if text.isprintable():  # nearly every line; compiling the pattern takes as long as much of a look
        return text
    return re.sub(_CONTROL, lambda found: found[1] or "\N{REPLACEMENT CHARACTER}", text)


def plain(text: str) -> str:
    return text


def bold(text: str) -> str:
    return click.style(text, bold=True)


def good(text: str) -> str:
    return click.style(text, fg="green")


def bad(text: str) -> str:
    return click.style(text, fg="red")


def warning(text: str) -> str:
    return click.style(text, fg="yellow")


def dim(text: str) -> str:
    return click.style(text, dim=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table: drawn by rich on a terminal, plain columns in a pipe."""
    body = [[safe(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(len(click.unstyle(row[i])) for row in (head, *body)) for i in range(len(head))]
        for row in (head, *body):
            cells = (click.unstyle(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in body:
        drawn.add_row(*(Text.from_ansi(cell) for cell in row))
    Console().print(drawn)


@contextlib.contextmanager
def bar(face: Face, text: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of bytes on a terminal, which gets bytes done and in all (0: not known yet); None elsewhere."""
    if face.json or face.quiet or not sys.stdout.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn(text), BarColumn(bar_width=24), DownloadColumn(), TimeRemainingColumn(), transient=True
    ) as shown:
        task = shown.add_task(text, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total or None)


def confirm(question: str, *, yes: bool, face: Face) -> None:
    """Ask before something that cannot be taken back.

    Raises:
        UsageError: nobody is there to be asked, and ``--yes`` was not given.
        Cancelled: the answer was no.
    """
    from updater.errors import Cancelled, UsageError

    if yes:
        return
    if face.json or not sys.stdin.isatty():
        raise UsageError(
            f"{question} Nobody is there to answer.", state="Nothing was changed.", advice="give --yes."
        )
    if not click.confirm(question):
        raise Cancelled("cancelled at the question", state="Nothing was changed.")
