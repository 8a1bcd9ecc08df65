"""Makes the state of a backup ready to take the place of the present one: what differs is unpacked beside it.

A file that is as the backup has it stays where it is. Whether it is, its size and dates tell, the one that nobody can set
among them; a database is never taken for unchanged.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from updater import durable
from updater.backups import gather, reading, sqlite, swap
from updater.backups.gather import Found, Gathered, LeftOut, shown
from updater.backups.index import Entry
from updater.backups.manifest import Manifest
from updater.backups.swap import Folder, Step, Swap
from updater.backups.unpacking import Unpacking
from updater.config import BackupConfig
from updater.errors import BackupDamaged
from updater.layout import Layout

IN_PLACE = ("config", "data", "logs")
"""Parts that lie below ``shared/``."""

_RACY = 2 * 10**9
"""Nanoseconds: a file that was changed that shortly before it was looked at may have changed again without a new date."""


@dataclass(frozen=True)
class Wanted:
    """One path of the backup, and when it was looked at (nanoseconds since the epoch)."""

    entry: Entry
    part: str
    begun: int


@dataclass
class Staging:
    """The state of a backup on its way into ``shared/``. Make it, then :meth:`stage`, as often as wanted, then :meth:`put`.

    ``directory``: of the backup. ``parts``: of :data:`IN_PLACE`.
    """

    layout: Layout
    config: BackupConfig
    directory: Path
    parts: Collection[str]
    identifier: str
    purpose: str
    check: Callable[[], None] | None = None
    leave: Collection[str] = ()
    """Paths that stay as they are."""
    keep: bool = False
    """What gives way is nowhere else, and is kept aside."""
    _swap: Swap | None = None
    _numbers: dict[str, tuple[str, int]] = field(default_factory=dict)
    """path -> holder and number of what is staged for it."""
    _next: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        found = reading.manifest(self.directory)
        if found is None:
            raise BackupDamaged(f"{self.directory.name} is no backup that this updater reads")
        self.manifest: Manifest = found
        self._left_out = LeftOut(replace(self.config, logs=True))
        self._databases = {it.path: it for it in found.databases}
        self._wanted = dict(self._entries())

    def _entries(self) -> Iterator[tuple[str, Wanted]]:
        for name in self.parts:
            if part := self.manifest.parts.get(name):
                begun, entries = reading.entries(self.directory, name, part)
                self._refuse_what_leads_elsewhere(entries)
                for path, entry in entries.items():
                    if not self._left_alone(path):
                        yield path, Wanted(entry, name, begun)

    def _refuse_what_leads_elsewhere(self, entries: Mapping[str, Entry]) -> None:
        """A backup is input: what lies below a link of its own would be put to where that leads."""
        for path in entries:
            above = path.rpartition("/")[0]
            if above in entries and entries[above].kind != "directory":
                raise BackupDamaged(f"{self.directory.name}: {shown(path)} lies below what is no directory")

    def _left_alone(self, path: str) -> bool:
        """What the configuration leaves out of backups stays as it is, and so do updater's own records."""
        pieces = path.split("/")
        if path in self.leave or (pieces[0] == "logs" and _is_record(self.layout, path)):
            return True
        return any(map(self._left_out, itertools.accumulate(pieces, "{}/{}".format)))

    def stage(self) -> int:
        """Unpack what differs from the present state beside it, check every digest and every database. Returns the bytes.

        Raises:
            BackupDamaged: the backup is not whole. OSError.
        """
        plan = self._plan()
        holders = sorted(plan.holders)
        if self._swap is None:
            self._swap = swap.begin(self.layout, self.identifier, self.purpose, holders)
        elif new := set(holders) - set(self._swap.holders):
            raise BackupDamaged(f"a filesystem was mounted below shared/ meanwhile: {', '.join(new)}")
        missing = {path: place for path, place in plan.staged.items() if path not in self._numbers}
        self._numbers |= missing
        sink = _Beside(self.directory, self._places(missing))
        for name in {self._wanted[path].part for path in missing}:
            part = self.manifest.parts[name]
            sums = reading.known_sums(self.directory)
            reading.Reading(self.directory, name, part, sink, self.check, sums=sums).run()
        sink.finish()
        for holder in holders:
            durable.flush_tree(swap.directory(self.layout, self._swap, holder))
        self._check_databases(missing)
        return sum(self._wanted[path].entry.size for path in missing)

    def put(self) -> Swap:
        """Move the staged state to its place. Nobody writes to the data any more.

        Raises:
            BackupFailed, OSError: it did not come to an end; ``swap.undo`` takes back what was done.
        """
        self.stage()  # what was written since
        plan = self._plan()
        assert self._swap is not None
        ready = replace(
            self._swap,
            steps=tuple(self._steps(plan)),
            folders=tuple(plan.folders),
            emptied=tuple(plan.emptied),
            ready=True,
            keep=self.keep,
        )
        swap.forward(self.layout, ready)
        return ready

    def _places(self, paths: Mapping[str, tuple[str, int]]) -> dict[str, Path]:
        assert self._swap is not None
        return {
            path: swap.directory(self.layout, self._swap, holder) / "new" / str(number)
            for path, (holder, number) in paths.items()
        }

    def _check_databases(self, paths: Mapping[str, tuple[str, int]]) -> None:
        for path, place in self._places(paths).items():
            if (database := self._databases.get(path)) and database.integrity == "ok":
                found = sqlite.integrity(place)
                if found != "ok":
                    raise BackupDamaged(f"{self.directory.name}: shared/{shown(path)} is corrupt: {found}")

    def _steps(self, plan: _Plan) -> Iterator[Step]:
        for path, (holder, number) in plan.staged.items():
            yield Step(path, holder, number, before=path in plan.away, after=True)
        for path in sorted(plan.away.keys() - plan.staged.keys()):
            yield Step(path, plan.away[path], next(self._next), before=True, after=False)

    def _plan(self) -> _Plan:
        """What differs between the present state and the wanted one."""
        present = self._present()
        holders = _Holders(self.layout)
        plan = _Plan(holders={holders.of(path) for path in (*present, *self._wanted)})
        for path, want in self._wanted.items():
            here = present.get(path)
            if want.entry.kind == "directory":
                self._folder(plan, path, want.entry, here, holders)
            elif here is None or not (self._is_same(here, want) or self._has_grown(here, want)):
                place = self._numbers.get(path) or (holders.of(path), next(self._next))
                plan.staged[path] = place
                if here is not None:
                    plan.away[path] = place[0]
        for path, here in present.items():
            if path in plan.away or path in self._wanted or gather.part_of(path) == "logs":
                continue  # a log that is younger than the backup stays
            if here.kind == "directory" and path not in self._wanted:
                plan.emptied.append(path)
            elif here.kind != "directory":
                plan.away[path] = holders.of(path)
        plan.folders += self._closed(plan, present)
        return plan

    @staticmethod
    def _closed(plan: _Plan, present: Mapping[str, Found]) -> Iterator[Folder]:
        """Directories that stay as they are but may not be written to, in which something is moved."""
        known = {it.path for it in plan.folders}
        moved = {path.rpartition("/")[0] for path in (*plan.staged, *plan.away, *known)}
        for path in sorted(moved - known):
            here = present.get(path)
            if here and here.kind == "directory" and here.mode & 0o300 != 0o300:
                yield Folder(path, here.mode & 0o3777, here.owner, (here.mode & 0o7777, *here.owner))

    @staticmethod
    def _folder(plan: _Plan, path: str, entry: Entry, here: Found | None, holders: _Holders) -> None:
        mode = entry.mode & 0o3777
        if here is None or here.kind != "directory":
            plan.folders.append(Folder(path, mode, entry.owner))
            if here is not None:
                plan.away[path] = holders.of(path)
        elif (here.mode & 0o3777, here.owner) != (mode, entry.owner):
            plan.folders.append(Folder(path, mode, entry.owner, (here.mode & 0o7777, *here.owner)))

    def _is_same(self, here: Found, want: Wanted) -> bool:
        entry = want.entry
        if (here.kind, here.mode, here.owner) != (
            entry.kind,
            entry.mode,
            entry.owner,
        ) or entry.path in self._databases:
            return False
        if here.kind == "symlink":
            return here.link == entry.link
        return (here.size, here.mtime) == (entry.size, entry.mtime) and max(
            here.mtime, here.ctime
        ) < want.begun - _RACY

    @staticmethod
    def _has_grown(here: Found, want: Wanted) -> bool:
        """A log that has grown holds what the backup has of it, and more: of a long one the backup has the end only."""
        return want.part == "logs" and here.kind == want.entry.kind == "file" and here.size > want.entry.size

    def _present(self) -> dict[str, Found]:
        seen = Gathered()
        config = replace(self.config, logs="logs" in self.parts, max_log_size=2**62)
        return {
            it.path: it
            for it in gather.walk(self.layout, config, seen)
            if gather.part_of(it.path) in self.parts
            and it.path not in self.leave
            and not _is_record(self.layout, it.path)
        }


@dataclass
class _Plan:
    staged: dict[str, tuple[str, int]] = field(default_factory=dict)
    away: dict[str, str] = field(default_factory=dict)
    folders: list[Folder] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    holders: set[str] = field(default_factory=set)


def _is_record(layout: Layout, path: str) -> bool:
    """Whether it is one of updater's own records among the logs: the past is not put back."""
    records = (layout.history, layout.progress, layout.update_log, layout.errors_log)
    return any(path == f"logs/{it.name}" or path.startswith(f"logs/{it.name}.") for it in records)


def holders(layout: Layout, paths: Collection[str]) -> dict[str, str]:
    """For each path the directory below ``shared/`` that lies on its filesystem, ``""`` for ``shared/`` itself."""
    found = _Holders(layout)
    return {path: found.of(path) for path in paths}


class _Holders:
    """On which filesystem a path lies, and the directory below ``shared/`` that is used for it there."""

    def __init__(self, layout: Layout) -> None:
        self._shared = layout.shared
        self._known: dict[str, tuple[str, int]] = {"": ("", os.stat(layout.shared).st_dev)}

    def of(self, path: str) -> str:
        return self._of_directory(path.rpartition("/")[0])[0]

    def _of_directory(self, path: str) -> tuple[str, int]:
        if path not in self._known:
            above = self._of_directory(path.rpartition("/")[0])
            place = self._shared / path
            follow = "/" not in path
            try:
                status = os.stat(place, follow_symlinks=follow)
            except OSError:  # nothing, a file or a link stands in the way: it goes first
                return above  # it will be made there
            own = stat.S_ISDIR(status.st_mode) and status.st_dev != above[1]
            self._known[path] = (path, status.st_dev) if own else above
        return self._known[path]


class _Beside(Unpacking):
    """Writes the files and symlinks that are asked for to their places, and only reads the rest."""

    def __init__(self, into: Path, places: Mapping[str, Path]) -> None:
        super().__init__(into)
        self._places = places
        self._proof = reading.Proof()

    def place(self, entry: Entry) -> Path:
        return self._places[entry.path]

    def path(self, entry: Entry) -> None:
        if entry.kind == "symlink" and entry.path in self._places:
            super().path(entry)

    def file(self, entry: Entry, pieces: Iterator[memoryview]) -> None:
        if entry.path in self._places:
            super().file(entry, pieces)
        else:
            self._proof.file(entry, pieces)

    def blocks(self, entry: Entry, ranges: list[tuple[int, int]], pieces: Iterator[memoryview]) -> None:
        if entry.path in self._places:
            super().blocks(entry, ranges, pieces)
        else:
            self._proof.blocks(entry, ranges, pieces)
