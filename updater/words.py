"""What both faces say: sizes, durations and moments for people, what each phase does, and how a deployment ended."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

PHASES = {
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
    "configure": "adapting the settings",
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


def phase(name: str) -> str:
    """What a phase does, in words."""
    return PHASES.get(name, name)


def succeeded(record: Json) -> tuple[str, str]:
    """How a deployment succeeded, and what leads back."""
    if record["outcome"] == "nothing-to-do":
        return str(record.get("text") or "nothing to do"), ""
    if record["outcome"] != "succeeded":
        return ended(record), ""
    to, kind, down = record.get("to") or "?", record.get("kind"), record.get("outage_seconds")
    told = [
        record.get("seconds") is not None and seconds(record["seconds"]),
        down and f"interrupted for {seconds(down)}",
        # What was put into service by somebody else says by what.
        record.get("origin") == "script" and record.get("text"),
    ]
    how = ", ".join(str(it) for it in told if it)
    how = f" ({how})" if how else ""
    if kind == "fetch":
        return f"{to} is installed{how}; put it into service with `updater activate {to}`", ""
    if kind == "restore":
        kept = record.get("backup")
        return (
            f"{record.get('restored') or record.get('wanted') or 'a backup'} is restored{how}",
            f"; as it was before: updater backup restore {kept}" if kept else "",
        )
    before = record.get("from")
    return (
        f"{to} is in service{how}",
        f"; back: updater activate {before}" if before not in (None, to) else "",
    )


def recovered(record: Json) -> str:
    """What became of a deployment that an earlier interruption had left open, and what it was interrupted by."""
    if error := record.get("error"):
        return "\n".join([str(error["message"]), *(f"  {line}" for line in error.get("details") or ())])
    if record.get("outcome") not in (None, "succeeded"):
        return f"an interrupted deployment had been ended already: {ended(record)}"
    if record.get("kind") == "restore":
        return f"the interrupted restore of {record.get('restored')} was finished"
    return f"the interrupted deployment of {record.get('to')} was finished; it is in service"


def broken_off(found: Json) -> str:
    """Where a deployment stands that nobody is at work on: ``found`` is as a look at its journal tells it."""
    if found["rolling_back"]:
        return "failed, and its way back has not come to its end"
    return f"interrupted in phase {found['phase'] or 'begin'}"


def ended(record: Json) -> str:
    """How anything ended, in a line: what, from where to where, and how."""
    if record.get("kind") == "restore":
        what = f"restore {record.get('restored') or record.get('wanted') or ''}".strip()
    else:
        to = record.get("to") or record.get("wanted") or "?"
        what = f"{record.get('kind') or 'change'} {record.get('from') or 'nothing'} → {to}"
    text = record.get("text")
    return f"{what}: {record.get('outcome') or 'unknown'}{f' ({text})' if text else ''}"


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "?"
    for unit in ("B", "KB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def seconds(count: float | None) -> str:
    """A duration for people."""
    if count is None:
        return "?"
    if count < 60:
        return f"{count:.1f} s"
    minutes, rest = divmod(int(count), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def moment(text: str | None) -> str:
    """A recorded moment in local time."""
    from updater import records

    found = records.moment(text)
    return found.astimezone().strftime("%Y-%m-%d %H:%M:%S") if found else "?"
