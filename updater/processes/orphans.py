"""What a dead updater's child has left behind: a migration's or a build's own children, which do not die with it."""

from __future__ import annotations

import contextlib
import os
import signal

from updater import lock
from updater.layout import Layout
from updater.processes import family, state
from updater.subprocesses import Identity, read_fields

TIMEOUT = 10.0
"""Seconds within which what is killed must be gone."""


def end(layout: Layout) -> None:
    """End everything left of the session of a dead updater's child. What runs outside of this root is none of it: the record
    may be a copy of another root's.

    Call it under the lock and before anything is undone: what goes on writing would spoil what is put back.
    """
    record = lock.child_record(layout)
    child = Identity.parse(read_fields(record))
    if child is not None:
        left = family.remains(layout, family.table(), child)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        state.wait_until(lambda: not any(family.look(pid) for pid in left), TIMEOUT)
    record.unlink(missing_ok=True)
