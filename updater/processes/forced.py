"""The note of a forced stop: what is at work on the root meanwhile must not start behind the user's back what was killed."""

from __future__ import annotations

import contextlib
import time

from updater import durable
from updater.layout import Layout
from updater.subprocesses import as_lines, read_fields


def note(layout: Layout, deployment: str | None) -> None:
    """Note a forced stop before anything is killed; ``deployment`` is the one that has not ended, if any.

    A disk that cannot be written does not stop it: it is for when nothing else helps.
    """
    with contextlib.suppress(OSError):
        durable.write_quick(layout.forced, as_lines({"at": time.time(), "deployment": deployment or ""}))


def stopped(layout: Layout, deployment: str) -> bool:
    """Whether everything was stopped by force during this deployment."""
    return read_fields(layout.forced).get("deployment") == deployment


def last(layout: Layout) -> str:
    """When everything was last stopped by force; empty if never. Only for comparing with what it was before: a clock that was
    put back since must not make an old stop a new one."""
    return read_fields(layout.forced).get("at", "")
