"""Who is at work on a root, and whether it gets on."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import NamedTuple

from updater import lock
from updater.deployment import journal
from updater.layout import Layout


class Holder(NamedTuple):
    """Who holds the lock, and for how long it has made no progress (seconds)."""

    owner: lock.Owner
    idle: float

    @property
    def stale(self) -> bool:
        return self.idle > lock.STALE_AFTER


def holder(layout: Layout) -> Holder | None:
    """Who holds the lock now; None if nobody does."""
    owner = lock.owner(layout)
    if owner is None:
        return None
    signs = [layout.lock_owner, layout.progress, *journal.unfinished(layout)]
    last = max(filter(None, map(_changed, signs)), default=time.time())
    return Holder(owner, max(0.0, time.time() - last))


def _changed(path: Path) -> float | None:
    with contextlib.suppress(OSError):  # it may end while it is looked at
        return path.stat().st_mtime
    return None
