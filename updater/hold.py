"""A hold: somebody has said that no other release may go into service, and why. It outlives reboots and is lifted by hand.

It is no lock: nobody is at work. While ``.updater/hold`` is there, ``deploy`` and ``activate`` are refused; every way back stays open.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from updater import durable, records
from updater.layout import Layout

LONGEST = 500
"""Characters of a reason or a name."""


class Hold(NamedTuple):
    """Who holds updates since when (ISO 8601, UTC), and why; each is empty where it is not known."""

    reason: str
    by: str
    at: str

    def describe(self) -> str:
        """On one line, for people."""
        from updater import words

        who = f" by {self.by}" if self.by else ""
        since = f" since {words.moment(self.at)}" if self.at else ""
        return f"updates are held{who}{since}{f': {self.reason}' if self.reason else ''}"

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def read(layout: Layout) -> Hold | None:
    """The hold; None if there is none. A file that cannot be read holds all the same: somebody has put it there."""
    if not os.path.lexists(layout.hold):
        return None
    found = records.read_json(layout.hold) or {}
    at = found.get("at")
    return Hold(
        _line(found.get("reason")), _line(found.get("by")), str(at) if records.moment(at) is not None else ""
    )


def put(layout: Layout, reason: str, by: str) -> Hold:
    """Hold updates from now on; durable when it returns."""
    made = Hold(_line(reason), _line(by), records.stamp())
    durable.make_directory(layout.own)
    durable.write(layout.hold, json.dumps(made.as_json(), ensure_ascii=False) + "\n")
    return made


def take(layout: Layout) -> Hold | None:
    """Lift the hold. Returns the one that was there."""
    found = read(layout)
    durable.remove(layout.hold)
    return found


def _line(value: object) -> str:
    return " ".join(value.split())[:LONGEST] if isinstance(value, str) else ""
