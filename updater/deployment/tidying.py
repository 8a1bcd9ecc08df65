"""What a deployment leaves behind when it was killed, hindered while it was tidied up, or lost its journal. Every command that
changes something looks for it, so it imports nothing of what moves data."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from updater import durable, records
from updater.backups import sqlite, swap
from updater.backups.gather import ASIDE, shown
from updater.deployment import journal
from updater.errors import UpdaterError
from updater.layout import Layout
from updater.releases import service

SHOWN = 5
"""Paths that are named one by one."""


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
        if left is None or (outcome := _outcome(layout, left)) == "":
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
            _note(layout, found)
        swap.set_aside(layout)
    except (UpdaterError, OSError) as failure:
        records.log(layout, f"data that were moved could not be tidied up: {failure}", error=True)


def _note(layout: Layout, found: Sequence[tuple[str, Path]]) -> None:
    """Add what is missing to what has been for longer."""
    earlier: Mapping[str, Path] = {}
    try:
        earlier = _noted(layout)
    except UpdaterError as failure:  # what can be said now is worth more than a record that says nothing
        records.log(layout, failure.message, error=True)
    noted = {path: str(place) for path, place in [*earlier.items(), *found]}
    durable.write(layout.missing, json.dumps(noted) + "\n")


def _outcome(layout: Layout, moved: swap.Swap) -> str | None:
    """How the deployment that moved data has ended; ``""``: it has not, None: nothing is left that could tell."""
    path = journal.find(layout, moved.id)
    if path is None:
        return None
    end = journal.ending(layout, path)
    return str(end["outcome"]) if end else ""


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
        return told + _not_in_place(layout, left)
    except UpdaterError as failure:
        return [failure.message, *failure.details]
    except OSError as failure:
        return [
            f"{layout.swap} tells which data were moved; where they lie could not be looked at: {failure}"
        ]


def _not_in_place(layout: Layout, moved: swap.Swap) -> list[str]:
    """What is missing since data were moved, and where it lies, for people."""
    return _told(_still_missing(layout, dict(swap.missing(layout, moved))))


def _told(found: Sequence[tuple[str, Path]]) -> list[str]:
    told = [f"shared/{shown(path)} is not in its place: it is {place}" for path, place in found[:SHOWN]]
    return told + ([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])


def never_came_back(layout: Layout) -> list[str]:
    """What is missing since a way back was given up, for people: until it is back, or a backup was put back, or a release is in service
    all the same, whatever starts would begin without it. What cannot be read is taken for a reason, too."""
    try:
        return _told(_still_missing(layout, {**_noted(layout), **_given_up(layout)}))
    except UpdaterError as failure:
        return [failure.message, *failure.details]


def forget_what_came_back(layout: Layout) -> None:
    """Everything is in its place: what the application removes later is its own affair. What is to be seen nowhere is not back: it
    may lie on a disk that is not mounted."""
    with contextlib.suppress(OSError, UpdaterError):  # a start does not depend on it
        noted = _noted(layout)
        if noted and all(_is_back(layout, path, noted) for path in noted):
            durable.remove(layout.missing)


def _noted(layout: Layout) -> dict[str, Path]:
    """What :func:`tidy`, or a script, has found missing, and where it lies.

    Raises:
        UpdaterError: the record cannot be read.
    """
    why = "it is damaged"
    try:
        found = json.loads(durable.read(layout.missing))
        if isinstance(found, dict) and all(isinstance(it, str) for it in found.values()):
            return {path: Path(place) for path, place in found.items()}
    except FileNotFoundError:
        return {}
    except OSError as failure:
        why = str(failure.strerror)
    except (ValueError, RecursionError):
        pass
    raise UpdaterError(
        f"{layout.missing} cannot be read: {why}",
        details=[
            f"it names data that are not in their place, and lie in directories {ASIDE}… below {layout.shared}"
        ],
    )


def _given_up(layout: Layout) -> dict[str, Path]:
    """What is missing since a move that has ended and that :func:`tidy` could not note, or has not come to.

    Raises:
        UpdaterError: the record of the move cannot be read.
    """
    left = swap.pending(layout)
    if left is None or not left.ready or _outcome(layout, left) in ("", "succeeded"):
        return {}
    return dict(swap.missing(layout, left))


def _still_missing(layout: Layout, places: Mapping[str, Path]) -> list[tuple[str, Path]]:
    """What has not come back. The log of a database goes with that: beside another database that stands in its place it would do harm."""

    return [
        (path, place)
        for path, place in places.items()
        if os.path.lexists(place) and not _is_back(layout, path, places)
    ]


def _is_back(layout: Layout, path: str, places: Mapping[str, Path]) -> bool:
    if os.path.lexists(layout.shared / path):
        return True
    database = next((path.removesuffix(end) for end in sqlite.SIBLINGS if path.endswith(end)), path)
    if database == path or not os.path.lexists(layout.shared / database):
        return False
    another = database not in places or os.path.lexists(places[database])
    return another or not os.path.lexists(places[path])  # a log comes and goes with its database


def without_data(layout: Layout) -> str:
    """What to do where data never came back."""
    return (
        "move each back to its place (mv), or put a backup back: updater backup restore ID (see updater backup list); "
        f"to begin without them: rm {shlex.quote(str(layout.missing))}"
        + (f"; mv {shlex.quote(str(layout.swap))} away" if os.path.lexists(layout.swap) else "")
    )


def places(layout: Layout) -> list[Path]:
    """Directories in which moved data are removed from, and a kill may leave temporary names."""
    shared = Path(os.path.realpath(layout.shared))
    try:
        return [shared, *(Path(it.path) for it in os.scandir(shared) if it.is_dir() and it.name != "backups")]
    except OSError:
        return []
