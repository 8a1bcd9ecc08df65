"""status. A module of its own: it must start fast, so it imports nothing that it does not need."""

from __future__ import annotations

from typing import Any

import click

from updater import operations, words
from updater.cli import output
from updater.cli.output import Face


@click.command()
@click.pass_obj
def status(face: Face) -> None:
    """What is in service, and does it run? Read from the disk at this moment."""
    from updater.operations import looking

    found = looking.status(operations.find_root(face.root))
    face.emit(found, lambda: _text(face, found))


def _text(face: Face, found: dict[str, Any]) -> None:
    here = found["in_service"]
    face.say(f"{output.bold(found['name'])} in {found['root']}")
    known = " (good)" if found["good"] == here["version"] and here["version"] else ""
    face.say(f"in service  {output.bold(str(here['version'] or 'nothing'))}{known}")
    if found["good"] and found["good"] != here["version"]:
        face.say(f"good        {found['good']}")
    face.say(f"previous    {found['previous'] or 'none'}")
    for process in found["processes"]:
        state = process["state"]
        shown = output.good(state) if state == "running" else output.bad(state)
        about = (
            f"pid {process['pid']}, {process['release']}, up {output.seconds(process['uptime'])}"
            if process["pid"]
            else ""
        )
        face.say(f"process     {process['name']}: {shown}{f' ({about})' if about else ''}")
    _deployment(face, found["deployment"])
    if last := found["last"]:
        face.say(f"last        {words.ended(last)}, {output.moment(last['ended'])}")
        if last.get("error"):
            face.say(f"            {last['error']['message']}")
    for line in found["advice"]:
        face.say(output.warning(f"! {line}"))


def _deployment(face: Face, running: dict[str, Any] | None) -> None:
    if running is None:
        return
    what = f"{running['kind'] or 'a deployment'} {running['to'] or running['wanted'] or ''}".strip()
    if running["interrupted"]:
        face.say(f"deployment  {what}: {output.bad(words.broken_off(running))}")
    else:
        stale = "; no progress for 30 minutes" if running["stale"] else ""
        face.say(
            f"deployment  {what}: {running['phase']}{' (rolling back)' if running['rolling_back'] else ''}{stale}"
        )
