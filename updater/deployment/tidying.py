"""What a deployment leaves behind when it was killed, hindered while it was tidied up, or lost its journal. Every command that
changes something looks for it, so it imports nothing of what moves data."""

from __future__ import annotations

import os
from pathlib import Path

from updater import durable, records
from updater.backups import swap
from updater.deployment import journal, missing
from updater.errors import UpdaterError
from updater.layout import Layout
from updater.releases import service


def tidy(layout: Layout) -> None:
    """Tidy up after deployments that have ended, and moves of data of theirs.

    After a success what lay there before may go. After anything else both states stay where they are.
    """
    try:
        _end_trial(layout)
        swap.clear(layout)
        swap.forget_steps(layout)
        if not layout.drained.exists():
            durable.remove(layout.resume)  # a script without its mark: a kill came between the two
        left = swap.pending(layout)
        if left is None or (outcome := journal.outcome(layout, left.id)) == "":
            return
        if outcome == "succeeded":
            swap.accept(layout)
            return
        if not left.ready:  # nothing had been moved
            swap.undo(layout)
            return
        for line in where(layout):
            records.log(layout, line, error=True)
        if found := swap.missing(layout, left):
            missing.note(layout, found)
        swap.set_aside(layout)
    except (UpdaterError, OSError) as failure:
        records.log(layout, f"data that were moved could not be tidied up: {failure}", error=True)


def _end_trial(layout: Layout) -> None:
    """A good release is on no trial that nothing would ever end. One that has not been judged stays on trial, whoever has lost
    the journal: to put it into service judges it."""
    if layout.trial.exists() and not journal.unfinished(layout):
        here = service.in_service(layout).release
        if here is not None and here == service.named_by(layout, layout.good):
            durable.remove(layout.trial)


def where(layout: Layout) -> list[str]:
    """What to tell where going back has failed for good: both states of the data stay where they are. That is set aside only when the
    end is on record: until then the way back may be gone on with."""
    try:
        left = swap.pending(layout)
        if left is None or not left.ready:
            return []
        told = [f"data that were moved are kept in {place}" for place in swap.moved_to(layout, left)]
        return told + missing.since(layout, left)
    except UpdaterError as failure:
        return [failure.message, *failure.details]
    except OSError as failure:
        return [
            f"{layout.swap} tells which data were moved; where they lie could not be looked at: {failure}"
        ]


def places(layout: Layout) -> list[Path]:
    """Directories in which moved data are removed from, and a kill may leave temporary names."""
    shared = Path(os.path.realpath(layout.shared))
    try:
        return [shared, *(Path(it.path) for it in os.scandir(shared) if it.is_dir() and it.name != "backups")]
    except OSError:
        return []
