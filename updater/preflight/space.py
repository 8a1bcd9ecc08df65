"""Is there room for everything that this deployment writes, on every filesystem that it writes to? (F25)"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from updater.backups import catalogue, gather
from updater.config import Config
from updater.errors import BackupFailed
from updater.layout import Layout
from updater.preflight import Finding, ok, warning
from updater.preflight.plan import Plan
from updater.releases import service, store

MARGIN = 64 * 1024**2
"""Bytes that must stay free beyond what the deployment needs."""

UNPACKED_PER_BYTE = 6
"""A cautious guess: a source tarball unpacks to some five times its size."""

UNKNOWN_ARTIFACT = 20 * 1024**2
"""Bytes of an artifact whose size nobody tells."""

FIRST_ENVIRONMENT = (150 * 1024**2, 10_000)
"""Bytes and inodes that a first environment is guessed to need; later ones are guessed from the present one."""

FIRST_RELEASE = 5_000
"""Inodes, likewise, of a first release."""

MARGIN_INODES = 1_000


class Need(NamedTuple):
    """Room for one thing: below which directory, bytes and inodes."""

    what: str
    place: Path
    bytes: int
    inodes: int = 10


@dataclass
class _Filesystem:
    place: Path
    needs: list[Need]

    @property
    def bytes(self) -> int:
        return sum(it.bytes for it in self.needs) + MARGIN

    @property
    def inodes(self) -> int:
        return sum(it.inodes for it in self.needs) + MARGIN_INODES


class Needs:
    """What a deployment needs at most, from the sizes of what is there."""

    def __init__(self, layout: Layout, config: Config, plan: Plan) -> None:
        self._layout, self._config, self._plan = layout, config, plan

    def bytes(self) -> Finding:
        texts, short = [], False
        for it in self._filesystems:
            found = os.statvfs(it.place)
            free = found.f_bavail * found.f_frsize
            wanted = max(it.bytes, self._config.min_free if self._needs_room else 0)
            short = short or free < wanted
            names = ", ".join(need.what for need in it.needs)
            told = f"{_mb(free)} free, {_mb(wanted)} needed on the filesystem of {self._shown(it.place)}"
            texts.append(f"{told} ({names})" if names else told)
        text = "; ".join(texts)
        if not short:
            return ok(text)
        if not self._needs_room:
            return warning(
                text, "nothing, if the backup fits: going to a release that is installed needs no more"
            )
        return self._plan.problem(
            text,
            "remove old releases (`updater prune`), old backups (`updater backup prune`) or old logs, or give the disk more room; "
            "where little must do: [releases] min_free in updater.toml",
        )

    def inodes(self) -> Finding:
        texts, short = [], False
        for it in self._filesystems:
            found = os.statvfs(it.place)
            if found.f_files == 0:
                texts.append(f"the filesystem of {self._shown(it.place)} makes inodes as it needs them")
                continue
            short = short or found.f_favail < it.inodes
            texts.append(
                f"{found.f_favail:,} inodes free, {it.inodes:,} needed on the filesystem of {self._shown(it.place)}"
            )
        text = "; ".join(texts)
        if not short:
            return ok(text)
        remedy = "remove old releases (`updater prune`) or directories with very many small files"
        return self._plan.problem(text, remedy) if self._needs_room else warning(text, remedy)

    @property
    def _needs_room(self) -> bool:
        """Going to what is installed must not fail for want of room: it is the way out of a full disk."""
        return self._plan.builds

    def _shown(self, place: Path) -> str:
        """The root where a place lies on its filesystem, else the place."""
        root = self._layout.root
        return str(root) if place.stat().st_dev == root.stat().st_dev else str(place)

    @cached_property
    def _filesystems(self) -> list[_Filesystem]:
        found: dict[int, _Filesystem] = {}
        for need in self._all():
            place = next(it for it in (need.place, *need.place.parents) if it.is_dir())
            found.setdefault(place.stat().st_dev, _Filesystem(place, [])).needs.append(need)
        return list(found.values())

    def _all(self) -> Iterator[Need]:
        layout = self._layout
        if self._plan.builds:
            yield from self._release()
        if self._plan.kind != "fetch":
            with contextlib.suppress(BackupFailed):  # the check of the databases says why
                yield from self._data()
        yield Need("records", layout.own, 1024**2)
        yield Need("logs", layout.logs, 1024**2)

    def _release(self) -> Iterator[Need]:
        layout, plan = self._layout, self._plan
        here = service.in_service(layout).release
        present = layout.release(here) if here else None
        if not plan.installed:
            size = plan.artifact_size or UNKNOWN_ARTIFACT
            record = store.read(present) if present else None
            yield Need("download", layout.cache, size)
            yield Need(
                "release", layout.releases, size * UNPACKED_PER_BYTE,
                (record.record.files if record else FIRST_RELEASE) * 2,
            )  # fmt: skip
        size, inodes = _tree(present / ".venv") if present else (0, 0)
        if not inodes:
            size, inodes = FIRST_ENVIRONMENT
        yield Need("environment", layout.releases, size, inodes)

    def _data(self) -> Iterator[Need]:
        """The backup: copies of the databases and the dumps, and all of it if the latest cannot be built upon. A dump is taken to be
        as large as its last one. And the migration: a rehearsal on copies, then copies of the databases again."""
        layout, config = self._layout, self._config
        found = gather.gather(layout, config.backup, accept_damaged=True)
        earlier = catalogue.found(layout)
        last = earlier[-1].manifest.dumps if earlier else ()
        dumped = sum(it.size for it in last if it.name in config.backup.dumps)
        databases = sum(it.size for it in found.databases)
        paths = [it for part in found.parts.values() for it in part]
        everything = sum(min(it.size, it.allocated) for it in paths) + dumped
        yield Need(
            "backup",
            layout.backups,
            databases + dumped + (everything // 4 if earlier else everything * 3 // 4),
            50,
        )
        if config.migrate.command and self._plan.kind == "deploy":
            if config.migrate.rehearse:
                yield Need("rehearsal", layout.own, everything, len(paths))
            yield Need("migration", layout.shared, databases)


def _tree(top: Path) -> tuple[int, int]:
    """Bytes and inodes of a tree."""
    size = count = 0
    for directory, below, names in os.walk(top):
        count += len(below) + len(names)
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return size, count


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
