"""What belongs into a backup: everything below ``shared/``, sorted into parts. Reads names and dates, no contents.

Databases are set aside, wherever they lie: they are copied by SQLite. Sockets, pipes and devices cannot be kept and are
told. A directory directly below ``shared/`` may be a link to another disk; what it leads to is kept. Links further down are
kept as links; those that lead out of ``shared/`` are told.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from updater import durable
from updater.backups import sqlite
from updater.backups.index import BLOCK
from updater.config import BackupConfig
from updater.errors import BackupFailed, Unsteady
from updater.layout import Layout

ASIDE = ".updater-"
"""Prefix of directories in which data lie beside themselves during a restore or a migration; no backup looks into them."""


LINKS_TOLD = 10
"""Links out of ``shared/`` that are named one by one."""


_KINDS = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


@dataclass(frozen=True, slots=True)
class Found:
    """One path of a part. ``path`` is its name in the archive, ``where`` its content lies.

    ``kind``: ``file``, ``directory`` or ``symlink``. ``mtime`` in nanoseconds. ``size`` and ``allocated`` in bytes.
    ``offset``: bytes at the beginning of a long log that are left out; ``size`` does not count them.
    """

    path: str
    where: str
    kind: str
    mode: int
    owner: tuple[int, int]
    mtime: int
    ctime: int = 0
    """When anything about it was last changed, by the system's own account; nobody can set it back. Nanoseconds."""
    size: int = 0
    allocated: int = 0
    inode: int = 0
    device: int = 0
    link: str = ""
    offset: int = 0
    copied: bool = False
    """``where`` lies a copy of our own: its dates say nothing, and nobody writes to it."""

    @property
    def place(self) -> Path:
        return Path(self.where)

    @classmethod
    def of(cls, path: str, place: str | Path, status: os.stat_result, *, link: str = "") -> Found:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "file")
        return cls(
            path, os.fspath(place), kind, stat.S_IMODE(status.st_mode), _owner(status.st_uid, status.st_gid),
            status.st_mtime_ns, ctime=status.st_ctime_ns, size=status.st_size if kind == "file" else 0,
            allocated=status.st_blocks * 512, inode=status.st_ino, device=status.st_dev, link=link,
        )  # fmt: skip


@functools.lru_cache
def _owner(uid: int, gid: int) -> tuple[int, int]:
    return uid, gid  # one for all files of an owner: there may be millions


@dataclass
class Gathered:
    """The paths of each part, in the order in which they are stored, databases among them, and what a person should know."""

    parts: dict[str, list[Found]] = field(default_factory=lambda: {"config": [], "data": [], "logs": []})
    databases: list[Found] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def drop(self, it: Found) -> None:
        """It went away before it was read."""
        self.parts[part_of(it.path)].remove(it)


def part_of(path: str) -> str:
    """The part that a path below ``shared/`` belongs to."""
    top = path.split("/", 1)[0]
    return top if top in ("config", "logs") else "data"


def gather(
    layout: Layout,
    config: BackupConfig,
    *,
    accept_damaged: bool = False,
    is_plain: Callable[[Found], bool] | None = None,
) -> Gathered:
    """Look through ``shared/``. ``accept_damaged``: a named database that is none is told and taken for a file like any other.
    ``is_plain``: whether a file is known to be no database.

    Raises:
        BackupFailed: something cannot be read, or a database that the configuration names is none.
    """
    found = Gathered()
    looking = _Looking(layout, config, found)
    for it in looking.walk():
        is_database = (
            it.kind == "file"
            and it.size > 0
            and not (is_plain and is_plain(it))
            and sqlite.is_database(it.where)
        )
        if it.kind == "file" and not is_database:
            it = _end_of_log(it, config)
        found.parts[part_of(it.path)].append(it)
        if is_database:
            found.databases.append(it)
    _drop_siblings(found)
    _named_databases(layout, config, found, accept_damaged)
    found.warnings += looking.links()
    return found


def walk(layout: Layout, config: BackupConfig, found: Gathered) -> Iterator[Found]:
    """Every path below ``shared/`` that is not left out, a directory before what is in it, logs in their full length; warnings
    go to ``found``.

    Raises:
        BackupFailed: a directory cannot be read.
    """
    return _Looking(layout, config, found).walk()


class LeftOut:
    """What is no part of a backup."""

    def __init__(self, config: BackupConfig) -> None:
        self._logs = config.logs
        self._excluded = re.compile("|".join(map(fnmatch.translate, config.exclude)) or r"\Z.").match

    def __call__(self, path: str) -> bool:
        """Whether a path below ``shared/`` is left out, and all that is below it."""
        name = path.rpartition("/")[2]
        if name.startswith(".") and (name.startswith(ASIDE) or durable.is_temporary(name)):
            return True
        if path == "backups" or (path == "logs" and not self._logs):
            return True
        return self._excluded(path) is not None


@dataclass
class _Looking:
    layout: Layout
    config: BackupConfig
    found: Gathered
    _left_out: LeftOut = field(init=False)
    _inside: list[str] = field(default_factory=list)
    """Real paths of the directories that are looked through, each with a slash at its end."""
    _links: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left_out = LeftOut(self.config)

    def walk(self) -> Iterator[Found]:
        top = os.path.realpath(self.layout.shared)
        self._inside = [f"{top}/"]
        pending = [("", top)]
        while pending:
            prefix, directory = pending.pop()
            for entry in self._entries(directory, prefix):
                it = self._one(f"{prefix}{entry.name}", entry, top=not prefix)
                if it is None:
                    continue
                if it.kind == "directory":
                    pending.append((f"{it.path}/", it.where))
                yield it

    def _entries(self, directory: str, prefix: str) -> list[os.DirEntry[str]]:
        try:
            return sorted(os.scandir(directory), key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise unsteady(prefix) from None
        except OSError as failure:
            if part_of(prefix) == "logs":
                self.found.warnings.append(f"shared/{shown(prefix)} cannot be read: {failure.strerror}")
                return []
            raise unreadable(directory, failure) from failure

    def _one(self, path: str, entry: os.DirEntry[str], *, top: bool) -> Found | None:
        if self._left_out(path):
            return None
        place = entry.path
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                if top and entry.is_dir():
                    self._inside.append(f"{os.path.realpath(place)}/")
                    return Found.of(path, place, entry.stat())
                self._links.append((path, place))
                return Found.of(path, place, status, link=os.readlink(place))
        except FileNotFoundError:
            return None  # it went away while we looked
        if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
            return Found.of(path, place, status)
        self.found.warnings.append(
            f"shared/{shown(path)} is a socket, pipe or device: it is not in the backup"
        )
        return None

    def links(self) -> list[str]:
        """What to say of links that lead to where nothing is looked at."""
        told = []
        for path, place in self._links:
            target = os.path.realpath(place)
            if not f"{target}/".startswith(tuple(self._inside)):
                told.append(
                    f"shared/{shown(path)} is a link to {shown(target)}, which leads out of shared/: what lies there is not in the backup"
                )
        if len(told) > LINKS_TOLD:
            told[LINKS_TOLD:] = [
                f"{len(told) - LINKS_TOLD} more links lead out of shared/: what lies there is not in the backup"
            ]
        return told


def unsteady(path: str) -> Unsteady:
    return Unsteady(
        f"shared/{shown(path)} became something else while it was read",
        advice="try again; if it never keeps still, leave it out: [backup] exclude in updater.toml",
    )


def unreadable(place: str, failure: OSError) -> BackupFailed:
    """A backup with a gap is none: what cannot be read is an error."""
    return BackupFailed(
        f"{place} cannot be read: {failure.strerror}",
        advice="run updater as the user that owns shared/, or leave it out: [backup] exclude in updater.toml",
    )


def _end_of_log(it: Found, config: BackupConfig) -> Found:
    """Where a long log begins in the backup: in whole steps, so that its blocks stay where they are for a long time."""
    if part_of(it.path) != "logs" or it.size <= 2 * config.max_log_size:
        return it
    step = config.max_log_size // BLOCK * BLOCK
    offset = (it.size // step - 1) * step
    return replace(it, offset=offset, size=it.size - offset)


def _drop_siblings(found: Gathered) -> None:
    """A copy that SQLite makes holds what lies in the files beside the database."""
    names = {f"{it.path}{end}" for it in found.databases for end in sqlite.SIBLINGS}
    for part in found.parts.values():
        part[:] = [it for it in part if it.path not in names]


def _named_databases(layout: Layout, config: BackupConfig, found: Gathered, accept_damaged: bool) -> None:
    known: Mapping[str, Found] = {it.path: it for part in found.parts.values() for it in part}
    for path in config.databases:
        it = known.get(path)
        if it is None and (layout.shared / path).is_file():
            raise BackupFailed(
                f"shared/{path} is named in [backup] databases but left out by [backup] exclude or logs = false",
                advice="take it out of one of them in updater.toml",
            )
        if it is None:
            found.warnings.append(f"shared/{path} is named in [backup] databases but is not there")
        elif accept_damaged and (it.kind == "symlink" or (it.size and it not in found.databases)):
            found.warnings.append(
                f"shared/{path} is named in [backup] databases but is no SQLite database; kept as it is"
            )
        elif it.kind == "symlink":
            raise BackupFailed(
                f"shared/{path} is named in [backup] databases but is a symlink: what it leads to would be in no backup",
                advice="move the database there, or make a link of the directory directly below shared/ that it lies in.",
            )
        elif it.size and it not in found.databases:
            raise BackupFailed(
                f"shared/{path} is named in [backup] databases but is no SQLite database: its header is damaged",
                advice=f"look at it (file shared/{path}); to go back to an earlier state: updater backup list",
            )


def shown(path: str) -> str:
    """A name on one line, whatever it holds."""
    return path if path.isprintable() else ascii(path)[1:-1]
