"""Data that a way back could not put back: what they are, and where they lie. Whatever starts would begin without them, and a trading bot
would forget what it holds; so nothing starts before they are back, or somebody has decided to go on without."""

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

SHOWN = 5
"""Paths that are named one by one."""


def told(layout: Layout) -> list[str]:
    """What is missing since a way back was given up, for people: until it is back, or a backup was put back, or a release is in service
    all the same, whatever starts would begin without it. What cannot be read is taken for a reason, too."""
    try:
        return _for_people(_still_missing(layout, {**_noted(layout), **_given_up(layout)}))
    except UpdaterError as failure:
        return [failure.message, *failure.details]
    except OSError as failure:
        return [f"what became of data that were moved cannot be read: {failure}"]


def forget_what_came_back(layout: Layout) -> None:
    """Everything is in its place: what the application removes later is its own affair. What is to be seen nowhere is not back: it
    may lie on a disk that is not mounted."""
    with contextlib.suppress(OSError, UpdaterError):  # a start does not depend on it
        noted = _noted(layout)
        if noted and all(_is_back(layout, path, noted) for path in noted):
            durable.remove(layout.missing)


def _noted(layout: Layout) -> dict[str, Path]:
    """What :func:`tidying.tidy`, or a script, has found missing, and where it lies.

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
    """What is missing since a move that has ended and that :func:`tidying.tidy` could not note, or has not come to.

    Raises:
        UpdaterError: the record of the move cannot be read.
    """
    left = swap.pending(layout)
    if left is None or not left.ready or journal.outcome(layout, left.id) in ("", "succeeded"):
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


def way_out(layout: Layout) -> str:
    """What to do where data never came back."""
    moved, aside = (shlex.quote(f"{layout.swap}{end}") for end in ("", ".aside"))
    return (
        "move each back to its place (mv), or put a backup back: updater backup restore ID (see updater backup list); "
        f"to begin without them: rm -r {shlex.quote(str(layout.missing))}"
        + (f"; mv {moved} {aside}" if os.path.lexists(layout.swap) else "")
    )


def note(layout: Layout, found: Sequence[tuple[str, Path]]) -> None:
    """Add what is missing to what has been for longer."""
    earlier: Mapping[str, Path] = {}
    try:
        earlier = _noted(layout)
    except UpdaterError as failure:  # what can be said now is worth more than a record that says nothing
        records.log(layout, failure.message, error=True)
    noted = {path: str(place) for path, place in [*earlier.items(), *found]}
    durable.write(layout.missing, json.dumps(noted) + "\n")


def since(layout: Layout, moved: swap.Swap) -> list[str]:
    """What is missing since data were moved, and where it lies, for people."""
    return _for_people(_still_missing(layout, dict(swap.missing(layout, moved))))


def _for_people(found: Sequence[tuple[str, Path]]) -> list[str]:
    lines = [f"shared/{shown(path)} is not in its place: it is {place}" for path, place in found[:SHOWN]]
    return lines + ([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])
