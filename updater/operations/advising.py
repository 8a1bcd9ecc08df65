"""What a person should do about what a look at a root has found, in words with the commands to type; nothing where all is well."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from updater import by_hand, lock, records, words
from updater.deployment import journal
from updater.layout import Layout
from updater.processes import state
from updater.processes.family import Marked
from updater.releases import service
from updater.subprocesses import read_fields

Json = dict[str, Any]


def half_done(layout: Layout) -> list[str]:
    """An emergency rollback that was killed, or has not ended yet."""
    version = read_fields(layout.emergency).get("to")
    if not version or lock.owner(layout):
        return []
    again = by_hand.script(layout.root, "emergency_rollback.sh") or f"updater activate {version}"
    return [f"an emergency rollback to {version} was interrupted; to go on with it: {again}"]


def not_in_the_history(layout: Layout) -> list[str]:
    """What has ended, and could not be written into the history: its journal stays until the next command has done it."""
    found = []
    for path in journal.unfinished(layout) if lock.owner(layout) is None else ():
        with contextlib.suppress(OSError):
            log = journal.read(path)
            if log.end is not None:
                ended = words.ended(records.whole({"id": log.id, **log.end}))
                found.append(f"not in the history yet, which could not be written: {ended}: updater recover")
    return found


def without_data(layout: Layout) -> list[str]:
    """Data that a way back could not put back: nothing starts before that is decided."""
    if not any(os.path.lexists(it) for it in (layout.missing, layout.swap)):
        return []
    from updater.deployment import (
        missing,
    )  # a look at a root where nothing is missing needs none of what moves data

    told = missing.told(layout)
    return [*told, f"nothing starts without them: {missing.way_out(layout)}"] if told else []


def lost(it: state.Status) -> str:
    return f"{it.name} (pid {it.pid}) runs, but its pid file is lost: `updater start` writes it again"


def left_behind(left: list[Marked]) -> list[str]:
    """Advice about what runs on although the process that started it is gone."""
    shown = ", ".join(f"pid {it.row.pid} of {it.name} ({it.release})" for it in left)
    return (
        [f"left behind and still running: {shown}; `updater stop` or `updater restart` ends it"]
        if left
        else []
    )


def mistake(wrong: str | None, instead: str) -> list[str]:
    if not wrong:
        return []
    rest = f"everything else goes by {instead}" if instead else "nothing can be started"
    return [
        f"{wrong}; correct it: until then nothing new is looked for, fetched or deployed, nothing is pruned, and {rest}"
    ]


def in_service(
    layout: Layout,
    here: service.InService,
    good: str | None,
    running: Json | None,
    found: list[Json],
    last: Json | None,
    *,
    may_start: bool,
) -> list[str]:
    """What a person should do, if anything."""
    advice: list[str] = []
    if here.problem:
        advice.append(f"{here.problem}; {_way_out(layout, here, good)}")
    elif here.kind == "dangling":
        advice.append(f"`current` names {here.version}, which is gone: updater activate {good or 'VERSION'}")
    elif here.kind == "none" and good and running is None:
        advice.append(f"`current` is gone; by the records {good} was in service: updater activate {good}")
    elif here.kind == "none":
        advice.append("nothing is in service: updater deploy")
    elif here.version and here.version != good and running is None:
        advice.append(_changed_outside(layout, here.version, good, last))
    if running is None and here.kind == "release":
        advice += [
            f"{it['name']} runs from {it['release']} while {here.version} is in service: updater restart"
            for it in found
            if it["state"] == "running" and it["release"] not in (None, "", here.version)
        ]
    if running and running["interrupted"]:
        advice.append(
            "the way back from a deployment that failed has not come to its end: updater recover"
            if running["rolling_back"]
            else "a deployment was interrupted: updater recover"
        )
    down = [it["name"] for it in found if it["state"] != "running"]
    if down and here.kind == "release" and running is None:
        advice.append(f"not running: {', '.join(down)}{': updater start' if may_start else ''}")
    return advice


def _way_out(layout: Layout, here: service.InService, good: str | None) -> str:
    """What to do about a `current` that names no release of this root. A link is often only written from another directory:
    its text counts from the root."""
    meant = Path(here.target)
    if here.kind == "foreign" and meant.parent.name == "releases" and layout.release(meant.name).is_dir():
        return f"if {meant.name} is meant: {by_hand.flip(layout.root, meant.name)}"
    return f"move it away and run `updater activate {good or 'VERSION'}`"


def _changed_outside(layout: Layout, here: str, good: str | None, last: Json | None) -> str:
    """Somebody has swapped the link with `ln`: what it was by the records, what it is, and what that is worth."""
    from updater.releases import marks, store

    by_script = last is not None and records.by_script(last) and last["to"] == here
    who = f"by a script ({last['text'] or last['id']})" if last and by_script else "outside of updater"
    told = f"`current` was changed {who}: by the records {good or 'nothing'} was in service, now {here} is"
    if store.read(layout.release(here)) is None:
        return f"{told}, and that is no whole release: updater activate {good or 'VERSION'}"
    found = marks.read(layout)
    if here in found.bad:
        told += f", which is marked bad ({found.bad[here] or 'nothing tells why'})"
    elif here not in found.good:
        told += ", which was never good here"
    return f"{told}. It is taken as the truth; `updater activate {here}` checks it and puts it on record"
