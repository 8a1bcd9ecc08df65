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
    took = seconds(record.get("seconds"))
    if record["kind"] == "fetch":
        return (
            f"{record['to']} is installed ({took}); put it into service with `updater activate {record['to']}`",
            "",
        )
    down = record.get("outage_seconds")
    outage = f", interrupted for {seconds(down)}" if down else ""
    if record["kind"] == "restore":
        kept = record.get("backup")
        return (
            f"{record['restored']} is restored ({took}{outage})",
            f"; as it was before: updater backup restore {kept}" if kept else "",
        )
    before = record.get("from")
    return (
        f"{record['to']} is in service ({took}{outage})",
        f"; back: updater activate {before}" if before not in (None, record["to"]) else "",
    )


def recovered(record: Json) -> str:
    """What became of a deployment that an earlier interruption had left open, and what it was interrupted by."""
    if error := record.get("error"):
        return "\n".join([str(error["message"]), *(f"  {line}" for line in error.get("details") or ())])
    if record.get("kind") == "restore":
        return f"the interrupted restore of {record.get('restored')} was finished"
    return f"the interrupted deployment of {record.get('to')} was finished; it is in service"


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
