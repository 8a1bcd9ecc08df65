"""What moves of data leave behind when their deployment was killed, or hindered while it was tidied up. Every command that
changes something looks for it, so it imports nothing of what moves data."""

from __future__ import annotations

import os
from pathlib import Path

from updater import durable, records
from updater.backups import swap
from updater.deployment import journal
from updater.errors import UpdaterError
from updater.layout import Layout


def tidy(layout: Layout) -> None:
    """Tidy up after moves whose deployment has ended.

    After a success what lay there before may go. After anything else both states stay where they are.
    """
    try:
        swap.clear(layout)
        swap.forget_steps(layout)
        if not layout.drained.exists():
            durable.remove(layout.resume)  # a script without its mark: a kill came between the two
        if not journal.unfinished(layout):
            durable.remove(layout.trial)  # what ended it could not remove that
        left = swap.pending(layout)
        if left is None or journal.find(layout, left.id) in journal.unfinished(layout):
            return
        path = journal.find(layout, left.id)
        end = journal.ending(layout, path) if path else None
        if end and end["outcome"] == "succeeded":
            swap.accept(layout)
            return
        for line in set_aside(layout):
            records.log(layout, line, error=True)
    except (UpdaterError, OSError) as failure:
        records.log(layout, f"data that were moved could not be tidied up: {failure}", error=True)


def set_aside(layout: Layout) -> list[str]:
    """Going back has failed for good: both states of the data stay where they are. Returns what to tell."""
    return [f"data that were moved are kept in {place}" for place in swap.set_aside(layout)]


def places(layout: Layout) -> list[Path]:
    """Directories in which moved data are removed from, and a kill may leave temporary names."""
    shared = Path(os.path.realpath(layout.shared))
    try:
        return [shared, *(Path(it.path) for it in os.scandir(shared) if it.is_dir() and it.name != "backups")]
    except OSError:
        return []
