"""Who is at work on a root, and whether it gets on."""

from __future__ import annotations

import time
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
    last = max((path.stat().st_mtime for path in signs if path.exists()), default=time.time())
    return Holder(owner, max(0.0, time.time() - last))
