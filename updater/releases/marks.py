"""Good, bad and pinned: one small file per mark, so that damage stays in one place and a shell can read them.

``.updater/marks/<version>.good`` holds ``seq=``, its place in the order in which releases were good: a deployment puts
its release on top; a rollback puts the release it leaves at the bottom, so that rolling back again goes further
back and comes round to it last. The order never comes from names or time stamps (F18).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from updater import durable
from updater.layout import Layout
from updater.records import stamp
from updater.subprocesses import as_lines, read_fields

KINDS = ("good", "bad", "pinned")


@dataclass(frozen=True)
class Marks:
    """All marks of a root. ``good`` maps a release to its place in the order, ``bad`` and ``pinned`` to the reason."""

    good: Mapping[str, int] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)
    pinned: Mapping[str, str] = field(default_factory=dict)

    def state(self, version: str) -> str:
        """``good``, ``bad`` or ``installed``."""
        return "bad" if version in self.bad else "good" if version in self.good else "installed"

    def order(self, version: str, *, leaving: str | None, going_back: bool) -> dict[str, int]:
        """The new places when ``version`` is committed after ``leaving``; only those that change."""
        places = [*self.good.values(), 0]
        if not going_back or version not in self.good:
            return {version: max(places) + 1}
        return {leaving: min(places) - 1} if leaving in self.good and leaving is not None else {}


def rollback_target(marks: Marks, current: str | None, installed: Iterable[str]) -> str | None:
    """The last release that was good before the current one; bad and missing ones are skipped.

    Without an earlier one, the latest good of the others: a release that was rolled back from is a way out as well.
    """
    candidates = {
        v: marks.good[v] for v in installed if v in marks.good and v not in marks.bad and v != current
    }
    if not candidates:
        return None
    here = marks.good.get(current, None) if current is not None else None
    earlier = {v: place for v, place in candidates.items() if here is not None and place < here}
    return max(earlier or candidates, key=lambda v: (earlier or candidates)[v])


def read(layout: Layout) -> Marks:
    """Read all marks. An unreadable one counts as what its name says, with an empty reason and the lowest place."""
    found: dict[str, dict[str, dict[str, str]]] = {kind: {} for kind in KINDS}
    with contextlib.suppress(FileNotFoundError):
        for path in layout.marks.iterdir():
            version, _, kind = path.name.rpartition(".")
            if kind in found and version and not version.startswith("."):
                found[kind][version] = read_fields(path)
    return Marks(
        good={version: _place(fields) for version, fields in found["good"].items()},
        bad={version: fields.get("reason", "") for version, fields in found["bad"].items()},
        pinned={version: fields.get("reason", "") for version, fields in found["pinned"].items()},
    )


def _place(fields: Mapping[str, str]) -> int:
    try:
        return int(fields.get("seq", ""))
    except ValueError:
        return -(2**31)


def given_by(layout: Layout, found: Marks, deployment: str) -> bool:
    """Whether a deployment has given out its places already: a recovery that settles again must not do so twice."""
    fields = (read_fields(layout.marks / f"{version}.good") for version in found.good)
    return any(it.get("deployment") == deployment for it in fields)


def put(layout: Layout, version: str, kind: str, **fields: object) -> None:
    """Mark a release, durably. Marking twice is harmless; the newer reason stands."""
    durable.make_directory(layout.marks)
    durable.write(layout.marks / f"{version}.{kind}", as_lines({"at": stamp(), **fields}))


def take(layout: Layout, version: str, kind: str) -> None:
    """Remove a mark; none is fine."""
    durable.remove(layout.marks / f"{version}.{kind}")


def forget(layout: Layout, version: str) -> None:
    """Remove every mark of a release that is no longer installed."""
    for kind in KINDS:
        take(layout, version, kind)
