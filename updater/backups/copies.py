"""Copies of the databases, each as it is at one moment, checked while the rest of the backup is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from updater.backups import copying, gather, sqlite
from updater.backups.gather import Found, Gathered, shown, unsteady
from updater.backups.manifest import Database
from updater.errors import BackupFailed


@dataclass
class Copies:
    """Copies in ``directory``. ``accept_damaged``: one that cannot be copied is kept as it is."""

    directory: Path
    patience: copying.Patience
    accept_damaged: bool
    check: Callable[[], None]
    states: dict[str, sqlite.State] = field(default_factory=dict)
    """Those that nobody wrote to while they were copied."""
    _made: list[Database] = field(default_factory=list)
    _checks: dict[str, Future[str]] = field(default_factory=dict)

    def make(self, gathered: Gathered, pool: ThreadPoolExecutor, kept: Mapping[str, Database]) -> None:
        """Put copies in the place of the databases. ``kept``: what a recent backup knows of those that are still the same."""
        for number, found in enumerate(gathered.databases):
            if known := kept.get(found.path):
                self._made.append(known)
                continue
            place = self.directory / str(number)
            facts = self._copy(gathered, found, place)
            if facts is None:
                continue
            _put(gathered, found, place)
            self._checks[found.path] = pool.submit(sqlite.integrity, place)
            self._made.append(Database(found.path, place.stat().st_size, *facts))

    def checked(self) -> list[Database]:
        """The databases, when all are checked."""
        return [
            replace(it, integrity=self._checks[it.path].result()) if it.path in self._checks else it
            for it in self._made
        ]

    def _copy(self, gathered: Gathered, found: Found, place: Path) -> sqlite.Facts | None:
        before = sqlite.state(found.place)
        try:
            facts = copying.copy(found.place, place, patience=self.patience, check=self.check)
        except copying.Gone:
            gathered.drop(found)
            gathered.warnings.append(f"shared/{shown(found.path)} went away before it was copied")
            return None
        except BackupFailed as failure:
            if _is_another(found):
                raise unsteady(found.path) from failure
            if not self.accept_damaged:
                raise
            _keep_as_it_is(gathered, found, failure)
            return None
        after = sqlite.state(found.place)
        # not the ctime: SQLite itself sets it when root opens a log
        if before and after and after.is_content_of(before):
            self.states[found.path] = after
        return facts


def _is_another(found: Found) -> bool:
    try:
        now = os.lstat(found.where)
    except OSError:
        return True
    return (now.st_dev, now.st_ino) != (found.device, found.inode)


def _put(gathered: Gathered, found: Found, place: Path) -> None:
    status = place.stat()
    copy = replace(found, where=str(place), size=status.st_size, allocated=status.st_size, copied=True)
    part = gathered.parts[gather.part_of(found.path)]
    part[next(at for at, it in enumerate(part) if it is found)] = copy


def _keep_as_it_is(gathered: Gathered, found: Found, failure: BackupFailed) -> None:
    """A corrupt database with everything beside it, byte by byte: somebody may still mend it."""
    part = gathered.parts[gather.part_of(found.path)]
    for it in sqlite.siblings(found.place):
        part.append(Found.of(found.path + it.name.removeprefix(found.place.name), it, it.stat()))
    gathered.warnings.append(
        f"shared/{shown(found.path)} is corrupt and was kept as it is: {failure.message}"
    )
