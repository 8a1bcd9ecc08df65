"""Shows a deployment as it happens: plain lines in a pipe, a progress bar on a terminal. Ctrl-C cancels it."""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol

import click

from updater import words
from updater.cli import output
from updater.cli.output import Face
from updater.deployment.journal import Line
from updater.errors import Cancelled, UpdaterError, from_json
from updater.operations.deploying import Deployment

Json = dict[str, Any]


class Screen(Protocol):
    """Where a deployment is shown."""

    def event(self, line: Line) -> None: ...
    def progress(self, found: Json) -> None: ...
    def close(self) -> None: ...


class Lines:
    """Plain lines, one per phase when it is done."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self._begun: dict[str, str] = {}

    def event(self, line: Line) -> None:
        name = line.phase or ""
        if line.kind == "intent":
            self._begun[name] = line.at
        elif line.kind == "done":
            took = output.seconds(_between(self._begun.get(name), line.at))
            self.face.say(f"  {output.good('✓')} {words.phase(name)} {output.dim(f'({took})')}{_found(line)}")
        elif line.kind == "failed":
            self.face.say(f"  {output.bad('✗')} {line.data.get('message', 'failed')}")
        elif line.kind == "undone" and name in words.SHOWN_UNDONE:
            self.face.say(f"  {output.warning('↩')} undone: {words.phase(name)}")

    def progress(self, found: Json) -> None:
        pass

    def close(self) -> None:
        pass


class Bars(Lines):
    """On a terminal: the same lines, and below them a bar for the phase that runs."""

    def __init__(self, face: Face) -> None:
        super().__init__(face)
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("  {task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[far]}"),
            TimeElapsedColumn(), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None, far="")
        self._phase = ""
        self._bar.start()

    def progress(self, found: Json) -> None:
        phase = str(found.get("phase", ""))
        if phase != self._phase:
            self._phase = phase
            self._bar.reset(self._task, total=None, description=words.phase(phase), far="")
        done, total = found.get("done"), found.get("total")
        text = str(found.get("text") or "")[:60]
        if phase == "fetch" and isinstance(done, int | float):
            text = f"{output.size(done)} of {output.size(total)}" if total else output.size(done)
        self._bar.update(self._task, completed=done or 0, total=total or None, far=text)

    def close(self) -> None:
        self._bar.stop()


def _between(begun: str | None, ended: str) -> float | None:
    from updater.records import moment

    first, last = moment(begun), moment(ended)
    return (last - first).total_seconds() if first and last else None


def _found(line: Line) -> str:
    said = line.data.get("say")
    return f": {said}" if isinstance(said, str) else ""


def follow(face: Face, deployment: Deployment) -> int:
    """Show a deployment until it ends, print the result, and return the exit code."""
    for record in deployment.recovered:
        face.say(output.warning(f"first: {words.recovered(record)}"))
    record = _watch(face, deployment)
    return result(face, record)


def _watch(face: Face, deployment: Deployment) -> Json:
    screen: Screen = Bars(face) if _is_terminal(face) else Lines(face)
    asked = False
    try:
        while True:
            try:
                return deployment.wait(screen.event, screen.progress)
            except BrokenPipeError:
                # The reader has seen enough (`| head`); how it ends is told by the exit code all the same.
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            except KeyboardInterrupt:
                if asked:
                    raise Cancelled(
                        "stopped watching; the deployment is being undone in the background",
                        advice="watch it with `updater progress --follow`.",
                    ) from None
                asked = True
                deployment.cancel()
                click.echo(
                    "cancelling; what is not committed yet is put back (Ctrl-C again to stop watching)",
                    err=True,
                )
    finally:
        screen.close()


def _is_terminal(face: Face) -> bool:
    return not face.json and not face.quiet and sys.stdout.isatty()


def result(face: Face, record: Json) -> int:
    """Print how a deployment ended; returns the exit code."""
    if changes := record.get("configuration"):
        from updater.settings import report

        for line in report.lines(changes):
            face.say(line)
    for text in record.get("warnings") or ():
        face.say(output.warning(f"warning: {text}"))
    if record.get("error"):
        error: UpdaterError = from_json(record["error"])
        face.fail(error, deployment=record)
        return error.exit_code
    face.emit({"deployment": record}, lambda: face.say(_succeeded(record)))
    return 0


def _succeeded(record: Json) -> str:
    first, rest = words.succeeded(record)
    return (first if record["outcome"] == "nothing-to-do" else output.good(first)) + rest
