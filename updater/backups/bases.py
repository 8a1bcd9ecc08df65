"""What a new backup can build upon: the whole archives of the newest one, linked into it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import zstandard

from updater.backups import catalogue, delta, index, reading, stored
from updater.backups.catalogue import Backup
from updater.backups.manifest import Part
from updater.backups.parts import Base, Writing
from updater.backups.recent import Recent
from updater.errors import BackupDamaged
from updater.layout import Layout


def link(
    layout: Layout, writing: Writing, names: Collection[str], pool: ThreadPoolExecutor
) -> dict[str, Base]:
    """Those parts of the newest backup that it holds whole. Their indexes are as they were written; whether the archives are is looked
    at meanwhile: :func:`is_sound` tells, and what was built upon one that is not is worth nothing."""
    everything = catalogue.found(layout)
    if not everything:
        return {}
    newest = everything[-1]
    bases = {}
    try:
        sums = reading.known_sums(newest.directory)
    except BackupDamaged as failure:
        writing.warnings.append(failure.message)
        return {}
    for name in newest.manifest.parts.keys() & set(names):
        if newest.manifest.parts[name].size < delta.DELTA_FROM:
            continue
        try:
            bases[name] = _link(newest, name, sums, writing, pool)
        except (OSError, ValueError, BackupDamaged, zstandard.ZstdError) as failure:
            writing.warnings.append(f"part {name} is stored whole again: {failure}")
            unlink(writing, name)
    return bases


def _link(
    newest: Backup, name: str, sums: Mapping[str, str], writing: Writing, pool: ThreadPoolExecutor
) -> Base:
    archive, *others = stored.names(name)
    for file in (archive, *others):
        os.link(newest.directory / file, writing.directory / file)
    for file in others:
        _prove(newest.id, file, sums, writing)
    begun, entries = index.read(writing.directory / others[0])
    writing.linked.add(name)
    writing.proving[name] = pool.submit(_prove, newest.id, archive, sums, writing)
    return Base(writing.directory, name, begun, {it.path: it for it in entries})


def _prove(backup: str, file: str, sums: Mapping[str, str], writing: Writing) -> None:
    seen, wanted = stored.sum_of(writing.directory / file, writing.look), sums.get(file, "")
    if seen != wanted:
        raise stored.not_as_written(backup, file, seen, wanted)
    writing.sums[file] = seen


def is_sound(writing: Writing, name: str) -> bool:
    """Whether the archive of a base is as it was written; if not, it is said."""
    try:
        if name in writing.proving:
            writing.proving[name].result()
    except (OSError, BackupDamaged) as failure:
        writing.warnings.append(f"part {name} is stored whole again: {failure}")
        return False
    return True


def unlink(writing: Writing, name: str) -> None:
    """The part is written whole after all."""
    writing.linked.discard(name)
    for file in (*stored.names(name), *stored.delta_names(name)):
        (writing.directory / file).unlink(missing_ok=True)
        writing.sums.pop(file, None)


def link_recent(recent: Recent, writing: Writing, names: Collection[str]) -> dict[str, Base]:
    """The whole parts of a backup that this process has read back just now: nothing is read again."""
    bases = {}
    for name in recent.bases.keys() & set(names):
        base = recent.bases[name]
        for file in base.files:
            _take_over(recent, file, writing)
        writing.linked.add(name)
        bases[name] = replace(base, directory=writing.directory)
    return bases


def take_over(recent: Recent, name: str, writing: Writing) -> Part:
    """A part that is as it was: its delta too."""
    part = recent.manifest.parts[name]
    writing.taken.add(name)
    for file in stored.delta_names(name) if part.delta else ():
        _take_over(recent, file, writing)
    writing.entries[name], writing.bases[name] = recent.entries[name], recent.bases[name]
    return part


def _take_over(recent: Recent, file: str, writing: Writing) -> None:
    os.link(recent.directory / file, writing.directory / file)
    writing.sums[file] = recent.sums[file]
