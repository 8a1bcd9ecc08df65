"""Shows a deployment as it happens: plain lines in a pipe, a progress bar on a terminal. Ctrl-C cancels it."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import click

from updater.cli import output
from updater.cli.output import Face
from updater.deployment.journal import Line
from updater.errors import Cancelled, UpdaterError, from_json
from updater.operations.deploying import Deployment

Json = dict[str, Any]

WORDS = {
    "resolve": "resolving the release",
    "preflight": "checking that an update can succeed",
    "fetch": "fetching and unpacking",
    "verify": "verifying digest and tree",
    "unpack": "moving into releases/",
    "build": "building the environment",
    "seal": "sealing",
    "choose": "choosing the backup",
    "stage": "unpacking what differs beside the data",
    "gate": "asking whether it may be interrupted",
    "backup": "backing up",
    "rehearse": "rehearsing the migration on a copy",
    "drain": "asking once more",
    "stop": "stopping the old processes",
    "restore": "putting the data in place",
    "load": "loading the dumps",
    "migrate": "migrating the databases",
    "activate": "swapping current",
    "start": "starting the new processes",
    "probe": "probing",
    "watch": "watching",
    "commit": "committing",
}


SHOWN_UNDONE = ("stop", "restore", "load", "migrate", "activate", "start", "commit")
"""Phases whose undoing a user of the application could notice."""


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
            self.face.say(
                f"  {output.good('✓')} {WORDS.get(name, name)} {output.dim(f'({took})')}{_found(line)}"
            )
        elif line.kind == "failed":
            self.face.say(f"  {output.bad('✗')} {line.data.get('message', 'failed')}")
        elif line.kind == "undone" and name in SHOWN_UNDONE:
            self.face.say(f"  {output.warning('↩')} undone: {WORDS.get(name, name)}")

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
            self._bar.reset(self._task, total=None, description=WORDS.get(phase, phase), far="")
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
        face.say(output.warning(f"first: {recovered_text(record)}"))
    record = _watch(face, deployment)
    return result(face, record)


def _watch(face: Face, deployment: Deployment) -> Json:
    screen: Screen = Bars(face) if _is_terminal(face) else Lines(face)
    asked = False
    try:
        while True:
            try:
                return deployment.wait(screen.event, screen.progress)
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
    if record.get("error"):
        error: UpdaterError = from_json(record["error"])
        face.fail(error, deployment=record)
        return error.exit_code
    for text in record.get("warnings") or ():
        face.say(output.warning(f"warning: {text}"))
    face.emit({"deployment": record}, lambda: face.say(succeeded_text(record)))
    return 0


def succeeded_text(record: Json) -> str:
    if record["outcome"] == "nothing-to-do":
        return str(record.get("text") or "nothing to do")
    took = output.seconds(record.get("seconds"))
    if record["kind"] == "fetch":
        return output.good(
            f"{record['to']} is installed ({took}); put it into service with `updater activate {record['to']}`"
        )
    if record["kind"] == "restore":
        kept = (
            f"; as it was before: updater backup restore {record['backup']}" if record.get("backup") else ""
        )
        outage = (
            f", interrupted for {output.seconds(record['outage_seconds'])}"
            if record.get("outage_seconds")
            else ""
        )
        return output.good(f"{record['restored']} is restored ({took}{outage})") + kept
    back = f"; back: updater activate {record['from']}" if record.get("from") else ""
    outage = (
        f", interrupted for {output.seconds(record['outage_seconds'])}"
        if record.get("outage_seconds")
        else ""
    )
    return output.good(f"{record['to']} is in service ({took}{outage})") + back


def recovered_text(record: Json) -> str:
    """What became of a deployment that an earlier interruption had left open, and what it was interrupted by."""
    if error := record.get("error"):
        return "\n".join([str(error["message"]), *(f"  {line}" for line in error.get("details") or ())])
    if record.get("kind") == "restore":
        return f"the interrupted restore of {record.get('restored')} was finished"
    return f"the interrupted deployment of {record.get('to')} was finished; it is in service"
