"""releases, history, progress, logs, diff."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from updater import words
from updater.cli import output
from updater.cli.output import Face
from updater.errors import UsageError
from updater.operations import looking
from updater.settings import report

Json = dict[str, Any]


@click.command()
@click.pass_obj
def releases(face: Face) -> None:
    """Installed releases, newest first."""
    found = looking.releases(face.open())

    def text() -> None:
        if not found:
            face.say("no releases are installed")
            return
        output.table(
            ("", "VERSION", "STATE", "SIZE", "INSTALLED", "DIGEST"), [_release_row(it) for it in found]
        )

    face.emit(found, text)


def _release_row(it: Json) -> list[str]:
    if it["state"] in ("unfinished", "damaged"):
        return ["", it["version"], output.warning(it["state"]), "", "", ""]
    colours = {"good": output.good, "bad": output.bad, "installed": output.plain}
    here = "→" if it["in_service"] else "·" if it["previous"] else ""
    state = colours[it["state"]](it["state"]) + (", pinned" if it["pinned"] else "")
    return [
        here,
        it["version"],
        state,
        output.size(it["size"]),
        output.moment(it["installed_at"]),
        it["digest"][7:19],
    ]


@click.command()
@click.argument("identifier", required=False, metavar="[ID]")
@click.option("-n", "limit", default=20, show_default=True, type=click.IntRange(1), help="How many.")
@click.pass_obj
def history(face: Face, identifier: str | None, limit: int) -> None:
    """Past deployments, newest first; or all that is on record of one (`latest`, or the beginning of its id)."""
    root = face.open()
    if identifier is not None:
        one = looking.one_of_history(root, identifier)
        face.emit(one, lambda: _show_record(face, one))
        return
    found = looking.history(root, limit=limit)

    def text() -> None:
        if damaged := looking.damaged_history(root):
            face.warn(f"{damaged} damaged records in shared/logs/update_history.json are not shown")
        elif not found:
            face.say("nothing was ever deployed here")
            return
        output.table(
            ("WHEN", "WHAT", "FROM", "TO", "OUTCOME", "TOOK", "WHY"), [_history_row(it) for it in found]
        )
        face.say(
            output.dim(
                "all of one: updater history latest, or the beginning of its id as updater --json history tells it"
            )
        )

    face.emit(found, text)


def _show_record(face: Face, it: Json) -> None:
    error = it.get("error") or {}
    who = " ".join(filter(None, (it.get("user"), it.get("origin") and f"({it['origin']})")))
    outage = it.get("outage_seconds")
    facts = {
        "id": it.get("id"), "what": f"{it.get('kind')} {it.get('from') or '-'} → {_to(it)}",
        "by": who, "reason": it.get("reason"), "digest": it.get("digest"),
        "began": output.moment(it["started"]), "took": it["seconds"] is not None and output.seconds(it["seconds"]),
        "outage": output.seconds(outage) if outage is not None else it["seconds"] is not None and "none",
        "outcome": f"{it.get('outcome')}{' (forced)' if it.get('forced') else ''}{' (by a recovery)' if it.get('recovered') else ''}",
        "backup": it.get("backup"), "restored": it.get("restored"), "text": it.get("text"),
    }  # fmt: skip
    for name, value in facts.items():
        if value:
            face.say(f"{name:<9}{value}")
    if phases := [f"{phase['name']} {output.seconds(phase['seconds'])}" for phase in it["phases"]]:
        face.say(f"{'phases':<9}{', '.join(phases)}")
    for text in it.get("warnings") or ():
        face.say(output.warning(f"warning: {text}"))
    if error:
        face.say(output.bad(f"error: {error.get('message')}"))
        for line in [
            *(error.get("details") or ()),
            error.get("state"),
            error.get("advice") and f"Next: {error['advice']}",
        ]:
            if line:
                face.say(f"  {line}")


def _history_row(it: Json) -> list[str]:
    outcome = str(it.get("outcome"))
    colour = output.good if outcome in ("succeeded", "nothing-to-do") else output.bad
    why = (it.get("error") or {}).get("message") or it.get("text") or it.get("reason") or ""
    return [
        output.moment(it.get("started")), str(it.get("kind")), it.get("from") or "-", _to(it),
        colour(outcome), "" if it["seconds"] is None else output.seconds(it["seconds"]), why,
    ]  # fmt: skip


def _to(it: Json) -> str:
    """What it led to: a release, or with a restore the backup's data."""
    names = ("wanted",) if it.get("kind") == "restore" else ("to", "wanted")
    return next((str(it[name]) for name in names if it.get(name)), "-")


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Stay until it ends.")
@click.pass_obj
def progress(face: Face, follow: bool) -> None:
    """Where the running deployment stands; else how the last one ended."""
    layout = face.open().layout
    found = looking.progress(layout)
    shown = None
    while follow and found and found["outcome"] is None and not found["interrupted"]:
        line = _progress_line(found)
        if line != shown:
            face.say(line)
            shown = line
        time.sleep(0.2)
        found = looking.progress(layout)
    face.emit(found, lambda: face.say(_progress_line(found) if found else "nothing was ever deployed here"))


def _progress_line(found: Json) -> str:
    what = f"{found['kind'] or 'a deployment'} {found['to'] or found['wanted'] or ''}".strip()
    if found["outcome"]:
        why = f": {found['error']['message']}" if found.get("error") else ""
        return f"{what}: {found['outcome']}{f' ({by})' if (by := found['ended_by']) else ''}{why}"
    if found["interrupted"]:
        return f"{what}: {words.broken_off(found)}; updater recover brings it to an end"
    far = ""
    if found.get("percent"):
        far = f" {found['percent']:.0f} %"
    return f"{what}: {'rolling back' if found['rolling_back'] else found['phase']}{far} {found.get('text') or ''}".rstrip()


@click.command()
@click.argument("process", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on as it is written.")
@click.option("-n", "lines", default=50, show_default=True, type=click.IntRange(0), help="How many lines.")
@click.pass_obj
def logs(face: Face, process: str | None, follow: bool, lines: int) -> None:
    """The log of PROCESS; without one, updater's own (`errors`: only what went wrong)."""
    root = face.open()
    path = looking.log_file(root, process)
    if face.json:
        if follow:
            raise UsageError(
                "--json prints one document; --follow never ends", advice="leave one of them out."
            )
        face.emit({"file": str(path), "lines": looking.tail(path, lines)[0]}, lambda: None)
        return
    found, end = looking.tail(path, lines)
    for line in found:
        click.echo(line)
    if follow:
        _follow_file(path, end)


def _follow_file(path: Path, place: int) -> None:
    """Print what is appended after a place in bytes, also across a rotation."""
    while True:
        size = path.stat().st_size if path.exists() else 0
        if size < place:
            place = 0
        if size > place:
            with looking.open_log(path) as file:
                file.seek(place)
                chunk = file.read(size - place)
            click.echo(chunk.decode(errors="replace"), nl=False)
            place = size
        time.sleep(0.2)


@click.command()
@click.argument("version", required=False)
@click.pass_obj
def diff(face: Face, version: str | None) -> None:
    """What changes from the release in service to VERSION (else the previous good one): files, packages and default settings."""
    found = looking.diff(face.open(), version)

    def text() -> None:
        face.say(output.bold(f"{found['from']} → {found['to']}"))
        for title, sign, colour in (
            ("added", "+", output.good),
            ("removed", "-", output.bad),
            ("changed", "~", output.warning),
        ):
            for path in found[title]:
                face.say(colour(f"  {sign} {path}"))
        for name, (old, new) in found["packages"].items():
            face.say(f"  package {name}: {old or 'none'} → {new or 'none'}")
        settings = report.lines(found["configuration"], between=True)
        for line in settings:
            face.say(f"  {line}")
        if not settings and not any(found[key] for key in ("added", "removed", "changed", "packages")):
            face.say("  no difference")

    face.emit(found, text)
