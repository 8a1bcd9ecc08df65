"""The backups of a root: which there are, which one is meant, which may go."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from updater import durable
from updater.backups import manifest as manifests
from updater.backups import reading
from updater.backups.gather import Gathered
from updater.backups.manifest import Manifest
from updater.errors import BackupDamaged, NotFound, UsageError
from updater.layout import Layout


class Backup(NamedTuple):
    """One backup. It was read back and matched when it was made; whether it still is whole, ``verify`` tells."""

    directory: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def stored(self) -> int:
        """Bytes of its files, whether or not other backups share them."""
        return sum(it.stat().st_size for it in self.directory.iterdir() if it.is_file())

    @property
    def own(self) -> int:
        """Bytes that its removal would free."""
        found = (it.stat() for it in self.directory.iterdir() if it.is_file())
        return sum(it.st_size for it in found if it.st_nlink == 1)


def found(layout: Layout) -> list[Backup]:
    """Every backup, oldest first. A directory that is none of ours, or not whole, is not among them."""
    backups = []
    for directory in _directories(layout):
        if (manifest := reading.manifest(directory)) and manifest.id == directory.name:
            backups.append(Backup(directory, manifest))
    return sorted(backups, key=lambda it: (it.manifest.seq, it.id))


def damaged(layout: Layout) -> list[Path]:
    """Directories named like a backup whose manifest cannot be read."""
    there = list(
        _directories(layout)
    )  # first: one that is made meanwhile is not damaged, nor one that is removed
    known = {it.id for it in found(layout)}
    return [it for it in there if it.name not in known and it.is_dir()]


def _directories(layout: Layout) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(
            it for it in layout.backups.iterdir()
            if manifests.NAME.fullmatch(it.name) and it.is_dir() and not it.is_symlink()
        )  # fmt: skip
    return []


def find(layout: Layout, name: str) -> Backup:
    """The backup of that id; ``latest`` is the newest one, and never an older one in the place of one that cannot be read.

    Raises:
        NotFound: there is none. BackupDamaged: its manifest cannot be read.
    """
    everything = found(layout)
    if name == "latest" and everything:
        later = unread_since(layout, everything[-1])
        if not later:
            return everything[-1]
        name = later[-1].name
    wanted = name if name.startswith("backup_") else f"backup_{name}"
    if match := next((it for it in everything if it.id == wanted), None):
        return match
    if wanted in (it.name for it in damaged(layout)):
        raise BackupDamaged(
            f"{wanted}: {reading.why_unread(layout.backups / wanted)}",
            state="Nothing was changed.",
            advice=_instead(everything) + "update updater if it is of a newer one; "
            f"what is in it can still be unpacked by hand: zstd -dc shared/backups/{wanted}/data.tar.zst | tar tf -",
        )
    known = ", ".join(it.id for it in reversed(everything[-5:])) or "none; make one: updater backup create"
    raise NotFound(f"there is no backup {name}", state="Nothing was changed.", advice=f"there are: {known}")


def unread_since(layout: Layout, newest: Backup) -> list[Path]:
    """Backups that cannot be read and, by their names, are newer than ``newest``."""
    return [it for it in damaged(layout) if it.name > newest.id]


def _instead(everything: Sequence[Backup]) -> str:
    return f"the newest that can be read is {everything[-1].id}; " if everything else ""


def no_databases_any_more(layout: Layout, gathered: Gathered) -> list[str]:
    """Files that the newest backup holds as sound SQLite databases and that are none now, though something is in them."""
    newest = found(layout)[-1:]
    known = {it.path for made in newest for it in made.manifest.databases if it.integrity == "ok"}
    still = {it.path for it in gathered.databases}
    return [
        it.path
        for part in gathered.parts.values()
        for it in part
        if it.kind == "file" and it.size and it.path in known - still
    ]


def chosen_parts(backup: Backup, wanted: Collection[str], possible: Collection[str]) -> list[str]:
    """The parts that are meant: ``wanted``, or all that it has of the ``possible`` ones.

    Raises:
        UsageError: it has no such part, or that is not possible with it.
    """
    there = [name for name in possible if name in backup.manifest.parts]
    for name in wanted:
        if name not in there:
            raise UsageError(
                f"{backup.id} has no part {name!r} for this",
                state="Nothing was changed.",
                advice=f"one of: {', '.join(there) or 'none'}; for a look at everything: updater backup restore {backup.id} --to DIR",
            )
    return [name for name in there if name in wanted or not wanted]


def identity(layout: Layout) -> str:
    """What tells this root from every other, wherever it is moved to; made at its first backup. Call it under the lock."""
    place = layout.identity
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if re.fullmatch(r"[0-9a-f]{32}", found := durable.read(place, 64).decode("ascii").strip()):
            return found
    made = os.urandom(16).hex()
    durable.write(place, f"{made}\n")
    return made


def next_place(layout: Layout, now: datetime) -> tuple[str, int]:
    """Name and number of the next backup."""
    seq = max((it.manifest.seq for it in found(layout)), default=0) + 1
    return manifests.new_id(now, {it.name for it in _directories(layout)}), seq


def to_drop(
    backups: Sequence[Manifest], keep: int, retained: Collection[str], needed: Collection[str] = ()
) -> list[str]:
    """Which backups may go, by id; ``backups`` oldest first. Pure.

    The newest ``keep`` stay; so does what has a label, and for each retained release the newest backup of its own data:
    going back to it with its data needs that. ``needed``: ids that stay in any case.
    """
    stay = {it.id for it in backups[-keep:]} | set(needed)
    for version in retained:
        own = [it for it in backups if it.release and it.release.get("version") == version]
        stay |= {own[-1].id} if own else set()
    return [it.id for it in backups if it.id not in stay and not it.label]


def remove(layout: Layout, name: str) -> None:
    """Remove one backup; what it shares with others stays theirs."""
    durable.remove_tree(layout.backups / name)
    durable.flush_directory(layout.backups)
