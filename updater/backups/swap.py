"""Puts staged data in the place of what lies below ``shared/``, by renames alone, and takes it back.

What is to be moved is on the disk in ``.updater/swap.json`` before the first rename. Each path has a number: what lay there
goes to ``old/<number>`` and what takes its place comes from ``new/<number>``, in a directory ``.updater-<id>`` on the same
filesystem. Which of them are there tells how far a path has come, so going on and going back may both be killed and repeated.

``.updater/swap.steps`` says the same for a shell; it is there before the first rename, and counts only with ``swap.json``.

The rename of ``swap.json`` to ``swapped.json`` is the point from which the new state counts: before it everything can be
taken back, after it what lay there before is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from updater import durable
from updater.backups import sqlite
from updater.backups.gather import ASIDE, shown
from updater.errors import BackupFailed, UpdaterError
from updater.layout import Layout
from updater.shellwords import escaped

Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One path below ``shared/``: whether something lay there before, and whether something does, or may, after.

    ``holder``: the directory below ``shared/`` in which old and new lie, ``""`` for ``shared/`` itself.
    """

    path: str
    holder: str
    number: int
    before: bool
    after: bool


@dataclass(frozen=True)
class Folder:
    """A directory that must be there, with its mode and owner. ``was``: how it was before; None: it is made. One in which
    something is moved is among them if it may not be written to."""

    path: str
    mode: int
    owner: tuple[int, int]
    was: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Swap:
    """What is moved. ``purpose``: ``restore``, ``migrate`` or ``undo``. Without ``ready`` nothing has been moved yet.

    ``emptied``: directories that the new state does not have; they go when nothing is left in them. ``keep``: what gives way is
    nowhere else, so it is kept aside when the new state counts.
    """

    id: str
    purpose: str
    holders: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    folders: tuple[Folder, ...] = ()
    emptied: tuple[str, ...] = ()
    ready: bool = False
    keep: bool = False

    def as_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Swap | None:
        """A record; None if it is none. Names in it never lead out of ``shared/``."""
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            found = cls(
                id=str(data["id"]),
                purpose=str(data["purpose"]),
                holders=tuple(map(str, data["holders"])),
                steps=tuple(Step(**it) for it in data["steps"]),
                folders=tuple(_folder(it) for it in data["folders"]),
                emptied=tuple(map(str, data["emptied"])),
                ready=bool(data["ready"]),
                keep=bool(data.get("keep")),  # older updaters did not write it
            )
            paths = [*(it.path for it in found.steps), *(it.path for it in found.folders), *found.emptied]
            places = [*found.holders, *(it.holder for it in found.steps)]
            if found.id.isprintable() and "/" not in found.id and all(map(_is_below, paths)) and all(
                not it or _is_below(it) for it in places
            ):  # fmt: skip
                return found
        return None


def _folder(data: Mapping[str, Any]) -> Folder:
    was = data["was"]
    uid, gid = data["owner"]
    return Folder(
        str(data["path"]),
        int(data["mode"]),
        (int(uid), int(gid)),
        None if was is None else (was[0], was[1], was[2]),
    )


def _is_below(path: str) -> bool:
    return bool(path) and "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def pending(layout: Layout) -> Swap | None:
    """What is being moved and does not count yet.

    Raises:
        UpdaterError: the record cannot be read; nothing can be taken back by itself then.
    """
    return _read(layout, layout.swap)


def _read(layout: Layout, record: Path) -> Swap | None:
    try:
        raw = durable.read(record, limit=1024**3)
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise _unreadable(layout, record, str(failure.strerror)) from failure
    with contextlib.suppress(ValueError, RecursionError):
        if found := Swap.from_json(json.loads(raw)):
            return found
    raise _unreadable(layout, record, "it is damaged")


def _unreadable(layout: Layout, record: Path, why: str) -> UpdaterError:
    return UpdaterError(
        f"{record} cannot be read: {why}",
        details=[f"the data that were moved lie in directories {ASIDE}… below {layout.shared}"],
        advice="`updater backup list` shows the states that can be restored; move the record away to go on.",
    )


def begin(layout: Layout, identifier: str, purpose: str, holders: Iterable[str]) -> Swap:
    """Make the directories in which old and new will lie. Their names are on the disk before they are.

    What an earlier move has left to be removed goes first: in it lie numbers that mean other paths.
    """
    if (other := pending(layout)) is not None:
        raise UpdaterError(
            f"data of {other.id} ({other.purpose}) are still being moved", advice="run: updater recover"
        )
    clear(layout)
    _keep_what_no_record_names(layout, identifier, holders := tuple(dict.fromkeys(holders)))
    found = Swap(identifier, purpose, holders)
    durable.remove(layout.swap_steps)  # of an earlier move, perhaps of the same deployment
    _write(layout, found)
    for holder in found.holders:
        place = directory(layout, found, holder)
        place.mkdir(0o700, exist_ok=True)
        for name in ("old", "new"):
            (place / name).mkdir(0o700, exist_ok=True)
        durable.flush_directory(place)
        durable.flush_directory(place.parent)
    return found


def _keep_what_no_record_names(layout: Layout, identifier: str, holders: Iterable[str]) -> None:
    """Somebody has moved a record away, and what it told of lies in the directories that are to be used: it may be nowhere else."""
    swap = Swap(identifier, "", tuple(holders))
    for place in moved_to(layout, swap):
        durable.rename(place, _free_name(place.with_name(f"{ASIDE}kept-{identifier}")))


def _write(layout: Layout, swap: Swap) -> None:
    durable.write(layout.swap, json.dumps(swap.as_json(), separators=(",", ":")) + "\n", mode=0o600)


def for_shells(swap: Swap) -> bytes:
    """What a shell needs to take everything back; ``docs/format.md`` has the form."""
    lines = [b"id=%b purpose=%b keep=%d\n" % (escaped(swap.id), escaped(swap.purpose), swap.keep)]
    for step in swap.steps:
        place = b"%b\t%b" % (escaped(step.holder or "."), escaped(step.path))
        lines.append(b"S %d %d %d %d %b\n" % (_depth(step), step.number, step.before, step.after, place))
    for folder in swap.folders:
        was = "-" if folder.was is None else f"{folder.was[0]:o}"
        lines.append(b"F %d %o %b %b\n" % (_depth(folder), folder.mode, was.encode(), escaped(folder.path)))
    return b"".join(lines)


def forget_steps(layout: Layout) -> None:
    """Remove what a kill has left for shells although nothing is being moved."""
    if not os.path.lexists(layout.swap):
        durable.remove(layout.swap_steps)


def directory(layout: Layout, swap: Swap, holder: str) -> Path:
    """Where old and new of a holder lie."""
    return Path(os.path.realpath(layout.shared / holder)) / f"{ASIDE}{swap.id}"


def forward(layout: Layout, swap: Swap) -> None:
    """Move everything to its place; what is there already stays. What was staged must be on the disk.

    Raises:
        BackupFailed: a path is in the way. OSError. In both cases :func:`undo` takes everything back.
    """
    assert swap.ready
    durable.write(layout.swap_steps, for_shells(swap), mode=0o600)
    _write(layout, swap)
    touched: set[Path] = set()
    _open(layout, swap)
    for step in sorted(swap.steps, key=_depth, reverse=True):
        if step.before:
            _take_away(_Places.of(layout, swap, step), touched)
    for folder in sorted(swap.folders, key=_depth):
        _make(layout, folder, touched)
    for step in sorted(swap.steps, key=_depth):
        if step.after:
            _put(_Places.of(layout, swap, step), touched)
    for folder in sorted(swap.folders, key=_depth, reverse=True):
        if _is_directory(layout, folder.path):
            _set(_inside(layout, folder.path), folder.mode, folder.owner)
    _flush(touched)


def claim(layout: Layout, swap: Swap) -> Swap:
    """What comes to lie beside a database that was put in its place (its log, its journal) is the new state's from here on:
    :func:`undo` takes it away as well, else SQLite would read it into the database that comes back. Call it before anybody
    uses the new state; what lies there already belongs to what gave way, and goes to it. Returns the record as it is then.

    Raises:
        BackupFailed, OSError: :func:`undo` takes everything back.
    """
    steps, number = {it.path: it for it in swap.steps}, max((it.number for it in swap.steps), default=0)
    for it in swap.steps:
        if not (it.after and sqlite.is_database(_inside(layout, it.path))):
            continue
        for end in sqlite.SIBLINGS:
            path = it.path + end
            if path in steps:
                steps[path] = replace(steps[path], after=True)
                continue
            number += 1
            steps[path] = Step(path, it.holder, number, os.path.lexists(layout.shared / path), after=True)
    claimed = replace(swap, steps=tuple(steps.values()))
    if claimed == swap:
        return swap
    durable.write(layout.swap_steps, for_shells(claimed), mode=0o600)
    _write(layout, claimed)
    touched: set[Path] = set()
    for step in claimed.steps[len(swap.steps) :]:
        if step.before:
            _take_away(_Places.of(layout, claimed, step), touched)
    _flush(touched)
    return claimed


def undo(layout: Layout, *, keep: bool = False) -> list[Path]:
    """Take everything back that :func:`forward` moved, and forget what was staged. Harmless when nothing was.

    What somebody put into a place that was empty meanwhile is kept beside it. ``keep``: what had taken the place is not
    removed; returns the directories in which it lies.
    """
    swap = pending(layout)
    if swap is None:
        return []
    touched: set[Path] = set()
    _open(layout, swap)
    for step in sorted(swap.steps, key=_depth, reverse=True):
        if step.after and _reachable(layout, step.path):
            _take_back(_Places.of(layout, swap, step), touched)
    for folder in sorted(swap.folders, key=_depth, reverse=True):
        if _reachable(layout, folder.path):
            _unmake(layout, folder, touched)
    for step in sorted(swap.steps, key=_depth):
        if step.before:
            _put_back(_Places.of(layout, swap, step), swap.id, touched)
    for folder in sorted(swap.folders, key=_depth, reverse=True):
        if folder.was is not None and _is_directory(layout, folder.path):
            _set(_inside(layout, folder.path), folder.was[0], folder.was[1:])
    _flush(touched)
    aside = _keep_directories(layout, swap, layout.swap) if keep else []
    _remove_directories(layout, swap)
    durable.remove(layout.swap)
    durable.remove(layout.swap_steps)
    return aside


def _keep_directories(layout: Layout, swap: Swap, record: Path) -> list[Path]:
    """Keep what has been moved, with a list of what lay where; what holds nothing goes. Where the list cannot be written, the
    record of the move is kept instead."""
    for holder in swap.holders:
        place = directory(layout, swap, holder)
        if not _holds_moved(place):
            durable.remove_tree(place)
            continue
        lines = "".join(f"{it.number}  {it.path}\n" for it in swap.steps if it.holder == holder)
        try:
            durable.write(place / "PATHS", lines, mode=0o600)
        except OSError:  # a full disk must not cost what is to be kept
            with contextlib.suppress(OSError):
                os.link(record, _kept_record(layout, swap))
        durable.rename(place, _free_name(place.with_name(f"{ASIDE}kept-{swap.id}")))
    return kept(swap.id, (directory(layout, swap, it).parent for it in swap.holders))


def _holds_moved(place: Path) -> bool:
    return any((place / name).is_dir() and any((place / name).iterdir()) for name in ("old", "new"))


def _free_name(wanted: Path) -> Path:
    """A deployment may keep something aside twice: what a release wrote, and what gave way to the data from the stop."""
    names = (wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 1000))
    return next(it for it in (wanted, *names) if not os.path.lexists(it))


def kept(identifier: str, places: Iterable[Path]) -> list[Path]:
    """The directories in these places in which a deployment has kept data aside."""
    return [it for place in places for it in sorted(place.glob(f"{ASIDE}kept-{identifier}*")) if it.is_dir()]


def commit(layout: Layout) -> None:
    """From here on the new state counts. Harmless when repeated."""
    if os.path.lexists(layout.swap):
        durable.rename(layout.swap, layout.swapped)


def accept(layout: Layout) -> None:
    """The new state counts; what lay there before is removed, or kept aside if it is nowhere else. Harmless when repeated."""
    commit(layout)
    clear(layout)


def clear(layout: Layout) -> None:
    """Finish what :func:`accept` began."""
    swap = _read(layout, layout.swapped)
    if swap is None:
        return
    durable.remove(layout.swap_steps)
    for path in sorted(swap.emptied, key=lambda it: it.count("/"), reverse=True):
        with contextlib.suppress(OSError):  # not empty: somebody else's
            os.rmdir(layout.shared / path)
    if swap.keep:
        _keep_directories(layout, swap, layout.swapped)
    else:
        _remove_directories(layout, swap)
    durable.remove(layout.swapped)


def written_to(layout: Layout, swap: Swap, states: Mapping[str, sqlite.State]) -> list[str]:
    """The databases that were moved away and are not any more as in ``states`` (path -> state): somebody wrote to them before
    the rename, and nothing else holds that."""
    steps = {it.path: it for it in swap.steps if it.before}
    found = []
    for path, known in states.items():
        if step := steps.get(path):
            log = steps.get(f"{path}-wal")
            lies = _old(layout, swap, log) if log else layout.shared / f"{path}-wal"  # made since
            now = sqlite.state(_old(layout, swap, step), lies)
            if now is None or not now.is_content_of(known):
                found.append(path)
    return found


def _old(layout: Layout, swap: Swap, step: Step) -> Path:
    return directory(layout, swap, step.holder) / "old" / str(step.number)


def set_aside(layout: Layout) -> list[Path]:
    """Leave everything where it lies and forget about it: for when going back has failed for good. Returns the directories in
    which the data that were moved lie; nothing removes them."""
    swap = pending(layout)
    if swap is None:
        return []
    left = moved_to(layout, swap)
    durable.rename(layout.swap, _kept_record(layout, swap))
    durable.remove(layout.swap_steps)
    return left


def missing(layout: Layout, swap: Swap) -> list[tuple[str, Path]]:
    """The paths at which nothing lies although something was moved away from there, and where it is."""
    return [
        (it.path, old)
        for it in swap.steps
        if it.before
        and os.path.lexists(old := _old(layout, swap, it))
        and not os.path.lexists(layout.shared / it.path)
    ]


def moved_to(layout: Layout, swap: Swap) -> list[Path]:
    """The directories in which something lies that was moved, or was to be."""
    places = (directory(layout, swap, holder) for holder in swap.holders)
    return [place for place in places if _holds_moved(place)]


def _kept_record(layout: Layout, swap: Swap) -> Path:
    """Where the record of a move is kept that tells what lies under which number."""
    return layout.own / f"swap-{swap.id}.kept.json"


@dataclass(frozen=True)
class _Places:
    here: Path
    old: Path
    new: Path
    step: Step

    @classmethod
    def of(cls, layout: Layout, swap: Swap, step: Step) -> _Places:
        place = directory(layout, swap, step.holder)
        return cls(
            _inside(layout, step.path),
            place / "old" / str(step.number),
            place / "new" / str(step.number),
            step,
        )

    def rename(self, source: Path, target: Path, touched: set[Path]) -> None:
        os.rename(source, target)
        touched |= {source.parent, target.parent}


def _inside(layout: Layout, path: str) -> Path:
    """Where a path lies. Below the first directory no symlink may lead elsewhere.

    Raises:
        BackupFailed: one does.
    """
    first, *rest = path.split("/")
    place = layout.shared / first
    for name in rest:
        if place.is_symlink() and place != layout.shared / first:
            raise BackupFailed(f"shared/{shown(path)} lies behind a symlink; it is left alone")
        place = place / name
    return place


def _reachable(layout: Layout, path: str) -> bool:
    """Whether no symlink lies on the way: one that is still there has not been moved, so nothing was put behind it either."""
    try:
        _inside(layout, path)
    except BackupFailed:
        return False
    return True


def _take_away(it: _Places, touched: set[Path]) -> None:
    """What was there before goes to ``old``. Is it there already, then what is at the place is the new one."""
    if os.path.lexists(it.old) or not os.path.lexists(it.here):
        return
    if stat.S_ISDIR(os.lstat(it.here).st_mode) and _holds_anything(it.here):
        raise BackupFailed(
            f"shared/{shown(it.step.path)} is a directory in which something is left that no backup holds; "
            "the backup has a file of that name",
            advice="move what is in it elsewhere, then restore again.",
        )
    it.rename(it.here, it.old, touched)


def _holds_anything(place: Path) -> bool:
    with os.scandir(place) as entries:
        return any(not it.is_dir(follow_symlinks=False) or _holds_anything(Path(it.path)) for it in entries)


def _put(it: _Places, touched: set[Path]) -> None:
    if not os.path.lexists(it.new):
        return  # it is in its place
    if os.path.lexists(it.here):
        raise BackupFailed(
            f"shared/{shown(it.step.path)} came into being meanwhile; something still writes there"
        )
    it.rename(it.new, it.here, touched)


def _take_back(it: _Places, touched: set[Path]) -> None:
    moved = (
        it.new.parent.is_dir()
        and not os.path.lexists(it.new)
        and (not it.step.before or os.path.lexists(it.old))
    )
    if moved and os.path.lexists(it.here):
        it.rename(it.here, it.new, touched)


def _put_back(it: _Places, identifier: str, touched: set[Path]) -> None:
    if not os.path.lexists(it.old):
        return
    if os.path.lexists(it.here):
        it.rename(it.here, it.here.with_name(f"{it.here.name}.kept-{identifier}"), touched)
    it.rename(it.old, it.here, touched)


def _make(layout: Layout, folder: Folder, touched: set[Path]) -> None:
    place = _inside(layout, folder.path)
    if folder.was is None and not place.is_dir():
        os.mkdir(place, 0o700)
        touched |= {place, place.parent}


def _open(layout: Layout, swap: Swap) -> None:
    """Who is not root can rename only in directories that may be written to; they get their modes at the end."""
    for folder in sorted(swap.folders, key=_depth):
        if _is_directory(layout, folder.path):
            place = _inside(layout, folder.path)
            mode = stat.S_IMODE(place.stat().st_mode)
            with contextlib.suppress(PermissionError):  # somebody else's: the rename will tell
                if mode & 0o700 != 0o700:
                    os.chmod(place, mode | 0o700)


def _is_directory(layout: Layout, path: str) -> bool:
    """Whether a directory lies there that is ours to change; directly below ``shared/`` it may be a link to one."""
    place = layout.shared / path
    return _reachable(layout, path) and place.is_dir() and not ("/" in path and place.is_symlink())


def _unmake(layout: Layout, folder: Folder, touched: set[Path]) -> None:
    place = _inside(layout, folder.path)
    if folder.was is not None or not place.is_dir() or place.is_symlink():
        return
    with contextlib.suppress(OSError):  # something else lies in it by now
        os.rmdir(place)
        touched.add(place.parent)


def _set(place: Path, mode: int, owner: tuple[int, int]) -> None:
    found = os.lstat(place)
    if os.geteuid() == 0 and (found.st_uid, found.st_gid) != owner:
        os.chown(place, *owner, follow_symlinks=False)
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(place, mode)


def _depth(it: Step | Folder) -> int:
    return it.path.count("/")


def _flush(touched: Iterable[Path]) -> None:
    for place in touched:
        if place.is_dir():
            durable.flush_directory(place)


def _remove_directories(layout: Layout, swap: Swap) -> None:
    for holder in swap.holders:
        durable.remove_tree(directory(layout, swap, holder))
