"""What a root should be like, whatever is done to it; and how a process of updater's is let die by itself, for the model test."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import dataclass, field
from typing import Any

CALLS = ("fsync", "replace", "symlink", "unlink", "mkdir", "link", "write")


def arm(name: str, number: int) -> None:
    """Have this process kill itself right before its n-th ``os.NAME``: nothing of updater is replaced."""
    seen = itertools.count(1)
    real = getattr(os, name)

    def call(*arguments: Any, **more: Any) -> Any:
        if next(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)

    setattr(os, name, call)


@dataclass(frozen=True)
class Published:
    """A release of the application: how it behaves, and which schema its migration makes (0: it has none)."""

    tag: str
    behaviour: str = "good"
    schema: int = 0
    writes: bool = False

    @property
    def viable(self) -> bool:
        """Whether it is healthy whenever it is started."""
        return self.behaviour in ("good", "breaks")

    @property
    def place(self) -> int:
        return int(self.tag.split(".")[1])


@dataclass
class Kept:
    """A backup: the rows in it, and the release whose data they are."""

    rows: frozenset[str]
    release: str | None
    label: bool = False


@dataclass
class Model:
    """What a root should be like, in the words of the design page."""

    published: dict[str, Published] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)
    bad: set[str] = field(default_factory=set)
    pinned: set[str] = field(default_factory=set)
    order: dict[str, int] = field(default_factory=dict)
    """Good releases, and their place in the order in which they were good."""
    current: str | None = None
    """What the link names, whether that is there or not."""
    good: str | None = None
    previous: str | None = None
    up: str | None = None
    """The release that the process runs from."""
    held: bool = False
    rows: set[str] = field(default_factory=set)
    ever: set[str] = field(default_factory=set)
    """Every row ever committed, but for those that somebody has pruned with their backups."""
    backups: dict[str, Kept] = field(default_factory=dict)
    """In the order in which they were made."""
    edited: dict[str, set[str]] = field(default_factory=dict)
    version_link: bool = True
    dates: list[str] = field(default_factory=list)
    """Installed releases, in the order in which they were installed."""

    @property
    def here(self) -> str | None:
        """The release in service; none where the link names nothing that is there."""
        return self.current if self.current in self.installed else None

    def viable(self, version: str | None) -> bool:
        return version is not None and self.published[version].viable

    def mend(self) -> None:
        """What a deployment does first with a link to nothing."""
        if self.current is not None and self.here is None:
            self.current = next((it for it in (self.up, self.good) if it in self.installed), self.current)

    def newest(self, *, force: bool) -> str | None:
        usable = [it for it in self.published if force or it not in self.bad]
        return max(usable, key=lambda it: self.published[it].place, default=None)

    def back(self, here: str | None) -> str | None:
        """Where a rollback leads: the last good one before, else the latest good of the others."""
        others = {
            v: at for v, at in self.order.items() if v in self.installed and v not in self.bad and v != here
        }
        mine = self.order.get(here) if here else None
        earlier = {v: at for v, at in others.items() if mine is not None and at < mine}
        return max(earlier or others, key=lambda v: others[v], default=None)

    def commit(self, kind: str, target: str) -> None:
        """A release has become good."""
        leaving = self.here
        places = [*self.order.values(), 0]
        if kind != "rollback" or target not in self.order:
            self.order[target] = max(places) + 1
        elif leaving in self.order and leaving is not None:
            self.order[leaving] = min(places) - 1
        self.bad.discard(target)
        self.current = self.good = self.up = target
        self.previous = self.back(target)
        self.version_link = True

    def install(self, version: str) -> None:
        if version not in self.installed:
            self.installed.add(version)
            self.dates.append(version)

    def remove(self, version: str) -> None:
        """Its directory has gone."""
        self.installed.discard(version)
        self.dates.remove(version)
        self.edited.pop(version, None)

    def prune(self, keep: int) -> set[str]:
        """Which releases may go, and do."""
        good = sorted(
            (v for v in self.installed if v in self.order and v not in self.bad), key=lambda v: -self.order[v]
        )
        bad = [v for v in reversed(self.dates) if v in self.bad]
        fetched = [v for v in reversed(self.dates) if v not in self.order and v not in self.bad]
        stays = {self.current, self.good, self.previous, self.up} | self.pinned
        gone = {v for v in (*good[keep:], *bad[1:], *fetched[keep:]) if v not in stays}
        for version in gone:
            self.remove(version)
            self.order.pop(version, None)
            self.pinned.discard(version)
        return gone

    def prune_backups(self, keep: int) -> set[str]:
        stays = set([*self.backups][-keep:]) | {name for name, it in self.backups.items() if it.label}
        for version in self.installed:
            own = [name for name, it in self.backups.items() if it.release == version]
            stays |= set(own[-1:])
        gone = set(self.backups) - stays
        for name in gone:
            del self.backups[name]
        return gone
