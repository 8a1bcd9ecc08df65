"""releases, history, progress, logs, diff."""

from __future__ import annotations

import time
from typing import Any

import click

from updater.cli import output
from updater.cli.output import Face
from updater.errors import UsageError
from updater.operations import looking

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
@click.option("-n", "limit", default=20, show_default=True, type=click.IntRange(1), help="How many.")
@click.pass_obj
def history(face: Face, limit: int) -> None:
    """Past deployments, newest first."""
    root = face.open()
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

    face.emit(found, text)


def _history_row(it: Json) -> list[str]:
    outcome = str(it.get("outcome"))
    colour = output.good if outcome in ("succeeded", "nothing-to-do") else output.bad
    why = (it.get("error") or {}).get("message") or it.get("text") or it.get("reason") or ""
    return [
        output.moment(it.get("started")), str(it.get("kind")), it.get("from") or "-", _to(it),
        colour(outcome), output.seconds(it.get("seconds")), why,
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
    root = face.open()
    found = looking.progress(root)
    shown = None
    while follow and found and found["outcome"] is None and not found["interrupted"]:
        line = _progress_line(found)
        if line != shown:
            face.say(line)
            shown = line
        time.sleep(0.2)
        found = looking.progress(root)
    face.emit(found, lambda: face.say(_progress_line(found) if found else "nothing was ever deployed here"))


def _progress_line(found: Json) -> str:
    what = f"{found['kind']} {found['to'] or found['wanted'] or ''}".strip()
    if found["outcome"]:
        why = f": {found['error']['message']}" if found.get("error") else ""
        return f"{what}: {found['outcome']}{why}"
    if found["interrupted"]:
        return (
            f"{what}: interrupted in phase {found['phase'] or 'begin'}; updater recover brings it to an end"
        )
    far = ""
    if found.get("done") and found.get("total"):
        far = f" {100 * found['done'] / found['total']:.0f} %"
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
        face.emit({"file": str(path), "lines": list(looking.tail(path, lines))}, lambda: None)
        return
    for line in looking.tail(path, lines):
        click.echo(line)
    if follow:
        _follow_file(path)


def _follow_file(path: Any) -> None:
    """Print what is appended, also across a rotation."""
    place = path.stat().st_size if path.exists() else 0
    while True:
        size = path.stat().st_size if path.exists() else 0
        if size < place:
            place = 0
        if size > place:
            with path.open("rb") as file:
                file.seek(place)
                chunk = file.read(size - place)
            click.echo(chunk.decode(errors="replace"), nl=False)
            place = size
        time.sleep(0.2)


@click.command()
@click.argument("version", required=False)
@click.pass_obj
def diff(face: Face, version: str | None) -> None:
    """What changes from the release in service to VERSION (else the previous good one): files and packages."""
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
        if not any(found[key] for key in ("added", "removed", "changed", "packages")):
            face.say("  no difference")

    face.emit(found, text)
