"""What belongs into a backup: everything below ``shared/``, sorted into parts. Reads names and dates, no contents.

Databases are set aside: they are copied by SQLite. Sockets, pipes and devices cannot be kept and are told. A directory
directly below ``shared/`` may be a link to another disk; what it leads to is kept. Links further down are kept as links.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from updater import durable
from updater.backups import sqlite
from updater.backups.index import BLOCK
from updater.config import BackupConfig
from updater.errors import BackupFailed
from updater.layout import Layout

ASIDE = ".updater-"
"""Prefix of directories in which data lie beside themselves during a restore or a migration; no backup looks into them."""


@dataclass(frozen=True)
class Found:
    """One path of a part. ``path`` is its name in the archive, ``place`` where its content lies.

    ``kind``: ``file``, ``directory`` or ``symlink``. ``mtime`` in nanoseconds. ``size`` and ``allocated`` in bytes.
    ``offset``: bytes at the beginning of a long log that are left out; ``size`` does not count them.
    """

    path: str
    place: Path
    kind: str
    mode: int
    owner: tuple[int, int]
    mtime: int
    ctime: int = 0
    """When anything about it was last changed, by the system's own account; nobody can set it back. Nanoseconds."""
    size: int = 0
    allocated: int = 0
    inode: int = 0
    link: str = ""
    offset: int = 0
    copied: bool = False
    """``place`` is a copy of our own: its dates say nothing, and nobody writes to it."""

    @classmethod
    def of(cls, path: str, place: Path, status: os.stat_result, *, link: str = "", offset: int = 0) -> Found:
        kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}.get(stat.S_IFMT(status.st_mode), "file")
        return cls(
            path, place, kind, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), status.st_mtime_ns, ctime=status.st_ctime_ns,
            size=status.st_size - offset if kind == "file" else 0, allocated=status.st_blocks * 512,
            inode=status.st_ino, link=link, offset=offset,
        )  # fmt: skip


@dataclass
class Gathered:
    """The paths of each part, in the order in which they are stored, databases among them, and what a person should know."""

    parts: dict[str, list[Found]] = field(default_factory=lambda: {"config": [], "data": [], "logs": []})
    databases: list[Found] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def part_of(path: str) -> str:
    """The part that a path below ``shared/`` belongs to."""
    top = path.split("/", 1)[0]
    return top if top in ("config", "logs") else "data"


def gather(layout: Layout, config: BackupConfig, *, accept_damaged: bool = False) -> Gathered:
    """Look through ``shared/``. ``accept_damaged``: a named database that is none is told and taken for a file like any other.

    Raises:
        BackupFailed: something cannot be read, or a database that the configuration names is none.
    """
    found = Gathered()
    for it in walk(layout, config, found):
        found.parts[part_of(it.path)].append(it)
        if it.kind == "file" and it.offset == 0 and it.size and sqlite.is_database(it.place):
            found.databases.append(it)
    _drop_siblings(found)
    _named_databases(config, found, accept_damaged)
    return found


def walk(layout: Layout, config: BackupConfig, found: Gathered) -> Iterator[Found]:
    """Every path below ``shared/`` that is not left out, a directory before what is in it; warnings go to ``found``.

    Raises:
        BackupFailed: a directory cannot be read.
    """
    pending = [("", Path(os.path.realpath(layout.shared)))]
    while pending:
        prefix, directory = pending.pop()
        for entry in _entries(directory, prefix, found):
            path = f"{prefix}{entry.name}"
            if left_out(path, config):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode) and not prefix and entry.is_dir():
                    status = entry.stat()
            except FileNotFoundError:
                continue  # it went away while we looked
            place = Path(entry.path)
            if stat.S_ISDIR(status.st_mode):
                pending.append((f"{path}/", place))
                yield Found.of(path, place, status)
            elif stat.S_ISLNK(status.st_mode):
                yield Found.of(path, place, status, link=os.readlink(place))
            elif stat.S_ISREG(status.st_mode):
                yield Found.of(path, place, status, offset=_offset(path, status.st_size, config))
            else:
                found.warnings.append(
                    f"shared/{shown(path)} is a socket, pipe or device: it is not in the backup"
                )


def _entries(directory: Path, prefix: str, found: Gathered) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(directory), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as failure:
        if part_of(prefix) == "logs":
            found.warnings.append(f"shared/{shown(prefix)} cannot be read: {failure.strerror}")
            return []
        raise unreadable(directory, failure) from failure


def unreadable(place: Path, failure: OSError) -> BackupFailed:
    """A backup with a gap is none: what cannot be read is an error."""
    return BackupFailed(
        f"{place} cannot be read: {failure.strerror}",
        advice="run updater as the user that owns shared/, or leave it out: [backup] exclude in updater.toml",
    )


def left_out(path: str, config: BackupConfig) -> bool:
    """Whether a path, and what is below it, is no part of a backup."""
    name = path.rpartition("/")[2]
    if path == "backups" or name.startswith(ASIDE) or durable.is_temporary(name):
        return True
    if path == "logs" and not config.logs:
        return True
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in config.exclude)


def _offset(path: str, size: int, config: BackupConfig) -> int:
    """Where a long log begins in the backup: in whole steps, so that its blocks stay where they are for a long time."""
    if part_of(path) != "logs" or size <= 2 * config.max_log_size:
        return 0
    step = config.max_log_size // BLOCK * BLOCK
    return (size // step - 1) * step


def _drop_siblings(found: Gathered) -> None:
    """A copy that SQLite makes holds what lies in the files beside the database."""
    names = {f"{it.path}{end}" for it in found.databases for end in sqlite.SIBLINGS}
    for part in found.parts.values():
        part[:] = [it for it in part if it.path not in names]


def _named_databases(config: BackupConfig, found: Gathered, accept_damaged: bool) -> None:
    known: Mapping[str, Found] = {it.path: it for part in found.parts.values() for it in part}
    for path in config.databases:
        it = known.get(path)
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
