"""What outlives a release: symlinks inside it that lead to ``shared/``.

A path that the release itself brings is moved to ``.release/shadowed/`` first, never removed: it is part of what was
published, and ``verify`` looks for it there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from updater import durable
from updater.errors import PreflightFailed, VerificationFailed
from updater.layout import Layout, ReleaseFiles
from updater.records import read_json


class Missing(NamedTuple):
    """A shared file that the release needs and that nobody but its owner can provide (F26)."""

    inside: str
    below: str
    example: Path
    """The release's own file, to start from."""


def link(layout: Layout, version: str, wanted: Mapping[str, str]) -> None:
    """Make the links of a release what the configuration wants. Doing it twice is harmless.

    Raises:
        PreflightFailed: a file is missing under ``shared/``; the message says how to provide it.
        VerificationFailed: a path leads out of the release through a symlink that it brings.
    """
    release = layout.release(version)
    before = links(layout, version)
    if before != wanted:
        _remember(
            release, {**before, **wanted}
        )  # a kill in between leaves a record of every link there may be
    for inside in before.keys() - wanted.keys():
        _unlink_one(release, inside)
    missing = [gap for inside, below in wanted.items() if (gap := _link_one(layout, release, inside, below))]
    if before != wanted:
        _remember(release, wanted)
    if missing:
        raise _asked_for(layout, missing)


def links(layout: Layout, version: str) -> dict[str, str]:
    """The links into ``shared/`` that a release was given: path inside it -> path under ``shared/``."""
    found = read_json(layout.release(version) / ReleaseFiles.LINKS) or {}
    return {inside: below for inside, below in found.items() if isinstance(below, str) and _is_inside(inside)}


def _remember(release: Path, wanted: Mapping[str, str]) -> None:
    durable.write(release / ReleaseFiles.LINKS, json.dumps(dict(wanted), indent=1, sort_keys=True) + "\n")


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and ".." not in parts and not PurePosixPath(path).is_absolute()


def shadowed(layout: Layout, version: str, links_now: Mapping[str, str]) -> dict[str, str]:
    """Where published paths lie that a link has taken the place of: path -> path inside the release."""
    release = layout.release(version)
    return {
        inside: f"{ReleaseFiles.SHADOWED}/{inside}"
        for inside in links_now
        if os.path.lexists(release / ReleaseFiles.SHADOWED / inside)
    }


def _link_one(layout: Layout, release: Path, inside: str, below: str) -> Missing | None:
    place, target = release / inside, layout.shared / below
    _stay_inside(release, place)
    text = os.path.relpath(target, place.parent)
    aside = release / ReleaseFiles.SHADOWED / inside
    if not (place.is_symlink() and os.readlink(place) == text):
        if os.path.lexists(place):
            if os.path.lexists(aside):
                raise VerificationFailed(
                    f"{place} and {aside} are both there; one of them was put there by hand"
                )
            durable.make_directory(aside.parent)
            durable.rename(place, aside)
        durable.make_directory(place.parent)
        durable.swap_symlink(place, text)
    if os.path.lexists(target):
        return None
    if aside.is_file():
        return Missing(inside, below, aside)
    if aside.is_dir() or not (PurePosixPath(below).suffix or is_environment(below)):
        durable.make_directory(target)
    else:
        durable.make_directory(target.parent)  # a file that the application makes itself
    return None


def is_environment(name: str) -> bool:
    """Whether a path is one of a file of environment variables: ``.env``, ``.env.local``, ``bot.env``."""
    base = PurePosixPath(name).name
    return base == ".env" or base.startswith(".env.") or base.endswith(".env")


def _unlink_one(release: Path, inside: str) -> None:
    """Undo a link that the configuration no longer wants, and put back what it had shadowed."""
    _stay_inside(release, release / inside)
    durable.remove_symlink(release / inside)
    aside = release / ReleaseFiles.SHADOWED / inside
    if os.path.lexists(aside):
        durable.rename(aside, release / inside)


def _stay_inside(release: Path, place: Path) -> None:
    inside = os.path.realpath(release)
    if not (os.path.realpath(place.parent) + os.sep).startswith(inside + os.sep):
        raise VerificationFailed(
            f"{place.relative_to(release)} leads out of the release through a symlink that the release brings",
            state="Nothing was changed.",
        )


def _asked_for(layout: Layout, missing: list[Missing]) -> PreflightFailed:
    details = []
    for gap in missing:
        target = layout.shared / gap.below
        example = gap.example.relative_to(layout.root)
        details.append(
            f"shared/{gap.below} is missing; to start from the release's own: mkdir -p {target.parent} && cp {example} {target}"
        )
    return PreflightFailed(
        f"{len(missing)} shared file{'s' if len(missing) > 1 else ''} must be provided first",
        details=details,
        advice="provide what is missing, look through it, and run the command again.",
    )
