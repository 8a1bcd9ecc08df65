"""What a deployment does to the settings: planned from what is on the disk, then written; both can be seen before it happens."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from updater import durable
from updater.errors import StorageFailed
from updater.layout import Layout
from updater.settings import comparing, files, merging, sets
from updater.settings.files import File, Held
from updater.settings.merging import Format, Unreadable, Values
from updater.settings.report import Report, keys


class Move(NamedTuple):
    """From which release to which. ``add``: whether new keys are inserted. ``restore``: whether the settings that ``target`` last ran
    with come back."""

    origin: str | None
    target: str
    add: bool = True
    restore: bool = True


@dataclass
class Changes:
    """``files``: what each file that changes will hold. ``edited``: what of the present ones is to be kept aside."""

    files: dict[str, Held] = field(default_factory=dict)
    edited: dict[str, Held] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    warnings: list[str] = field(default_factory=list)


def plan(layout: Layout, links: Mapping[str, str], move: Move) -> Changes:
    """What a move from one release to another changes. Reads only.

    A release that was in service before gets the settings that it ran with then; any other gets the present ones, with the keys
    that are new in its defaults.
    """
    changes = Changes()
    back = _kept_of(layout, changes, move.target) if move.restore and move.target != move.origin else {}
    left = _kept_of(layout, changes, move.origin) if back and move.origin else {}
    for file in _concerned(layout, links, back):
        try:
            now = files.read(layout, file)
            if file.below in back:
                _restore(layout, file, now, back[file.below], left.get(file.below), changes)
            else:
                _merge(layout, file, now, move, changes)
        except Unreadable as why:
            line = f":{why.line}" if why.line else ""
            changes.warnings.append(f"{file.shown}{line}: {why.reason}; it is left alone")
    return changes


def _kept_of(layout: Layout, changes: Changes, version: str) -> dict[str, Held]:
    try:
        return sets.bound(layout, version) or {}
    except StorageFailed as failure:
        changes.warnings.append(f"{failure.message}; the present settings stay")
        return {}


def _concerned(layout: Layout, links: Mapping[str, str], back: Mapping[str, Held]) -> list[File]:
    concerned = {file.below: file for file in files.found(layout, links)}
    for below in back:
        if file := files.covered(links, below):
            concerned.setdefault(below, file)
    return [concerned[below] for below in sorted(concerned)]


def _restore(
    layout: Layout, file: File, now: Held | None, back: Held, left: Held | None, changes: Changes
) -> None:
    if now is not None and now.content == back.content:
        return
    _refuse_if_barred(layout, file)
    changes.files[file.below] = Held(back.content, now.mode, now.owner) if now else back
    changes.report.restored.append(file.shown)
    if now is not None and (left is None or left.content != now.content):
        changes.edited[file.below] = now


def _refuse_if_barred(layout: Layout, file: File) -> None:
    if why := files.barred(files.place(layout, file)):
        raise Unreadable(why)


def _merge(layout: Layout, file: File, now: Held | None, move: Move, changes: Changes) -> None:
    found = files.defaults(layout, move.target, file)
    form = merging.format_of(file.below)
    if found is None:
        return
    name, content = found
    if now is None:
        source, place = f"releases/{move.target}/{name}", f"shared/{file.below}"
        made = f"mkdir -p {shlex.quote(str(PurePosixPath(place).parent))} && cp {shlex.quote(source)} {shlex.quote(place)}"
        needed = files.published(layout, move.target, file.inside) is not None
        changes.report.missing.append({"file": file.shown, "command": made, "needed": needed})
        return
    if form is None:
        return
    try:
        brought_text = merging.decode(content)
        brought = form.values(brought_text)
    except Unreadable as why:
        where = f"{name}:{why.line}" if why.line else name
        changes.warnings.append(
            f"the defaults in {move.target}, {where}: {why.reason}; {file.shown} stays as it is"
        )
        return
    old = _defaults(layout, move.origin, file, form) if move.origin else None
    have = merging.read(form, now.content)
    changes.report.note(file.shown, comparing.compare(old, brought, have))
    if move.origin is None:
        # Nothing ran here before: what a file that was made for this very release does not have is not new.
        left_out = merging.missing(have, brought).values()
        changes.report.offered += keys(file.shown, (path for paths in left_out for path in paths))
        return
    done = merging.merged(form, merging.decode(now.content), brought_text, known=old or ())
    changes.report.by_hand += keys(file.shown, done.by_hand)
    if not done.added:
        return
    if not move.add:
        changes.report.offered += keys(file.shown, done.added)
        return
    if merging.is_mixed(now.content):
        raise Unreadable(f"its line ends are mixed, and {len(done.added)} new keys could not be added")
    _refuse_if_barred(layout, file)
    changes.report.added += keys(file.shown, done.added)
    changes.files[file.below] = Held(merging.encode(done.text, now.content), now.mode, now.owner)


def _defaults(layout: Layout, version: str, file: File, form: Format) -> Values | None:
    """A release's defaults; None if it has none that can be read."""
    found = files.defaults(layout, version, file)
    try:
        return merging.read(form, found[1]) if found else None
    except Unreadable:
        return None


def between(layout: Layout, links: Mapping[str, str], one: str, other: str) -> Report:
    """What differs in two releases' defaults, whatever the user's files hold. What cannot be read is left out."""
    report = Report()
    for file in files.found(layout, links):
        form = merging.format_of(file.below)
        if form is None:
            continue
        old, new = (_defaults(layout, version, file, form) for version in (one, other))
        if new is not None:
            differences = comparing.compare(old, new)
            report.note(file.shown, differences)
            report.added += keys(file.shown, differences.added)
    return report


def present(layout: Layout, links: Mapping[str, str]) -> dict[str, Held]:
    """All settings as they are now; what cannot be read is left out."""
    found = {}
    for file in files.found(layout, links):
        try:
            held = files.read(layout, file)
        except Unreadable:
            continue
        if held is not None:
            found[file.below] = held
    return found


def put(layout: Layout, below: str, held: Held) -> None:
    """Write one file, with the permissions that it is to have; what it held must be kept already."""
    place = files.place(layout, File(below, below))
    durable.make_directory(place.parent)
    durable.write(place, held.content, mode=held.mode, owner=_owner(held))


def take_away(layout: Layout, below: str) -> None:
    """Remove a file of which there is a copy."""
    durable.remove(files.place(layout, File(below, below)))


def _owner(held: Held) -> tuple[int, int] | None:
    return held.owner if held.owner != (os.geteuid(), os.getegid()) else None


def keep_aside(layout: Layout, below: str, held: Held, when: str) -> str:
    """Keep a copy beside a file. ``when``: ``YYYYMMDD_HHMMSS``. Returns its path from the root; the same content is kept once."""
    place = files.place(layout, File(below, below))
    for number in range(1, 1000):
        aside = place.with_name(f"{place.name}.kept-{when}{f'-{number}' if number > 1 else ''}")
        if not os.path.lexists(aside):
            durable.write(aside, held.content, mode=held.mode, owner=_owner(held))
        elif _content(aside) != held.content:
            continue
        return f"shared/{aside.relative_to(os.path.realpath(layout.shared)).as_posix()}"
    raise StorageFailed(f"there are a thousand copies of {place} already")


def drop_aside(layout: Layout, below: str, held: Held, when: str) -> None:
    """Remove the copy that :func:`keep_aside` made, if it is one of ``held`` still."""
    place = files.place(layout, File(below, below))
    aside = place.with_name(f"{place.name}.kept-{when}")
    if _content(aside) == held.content:
        durable.remove(aside)


def _content(path: Path) -> bytes | None:
    try:
        return durable.read(path, merging.LIMIT)
    except OSError:
        return None
