"""Makes a backup: gathered, copied, compressed, read back, and only then named as one."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zstandard

from updater import durable, records
from updater import version as version_of_updater
from updater.backups import catalogue, dumps, gather, index, parts, reading, sqlite
from updater.backups.catalogue import Backup
from updater.backups.gather import Found, Gathered, shown
from updater.backups.manifest import Database, Dump, Manifest, Part
from updater.backups.parts import Base, Writing
from updater.config import Config
from updater.errors import BackupDamaged, BackupFailed
from updater.layout import Layout
from updater.releases import service, store

Json = dict[str, Any]


@dataclass
class Making:
    """What is asked of a backup. ``accept_damaged``: a corrupt database is kept as it is instead of refused."""

    reason: str
    label: str = ""
    deployment: str | None = None
    accept_damaged: bool = False
    data_of: str | None = None
    """The release that has written the data; None: the one in service."""
    check: Callable[[], None] | None = None
    on_progress: Callable[[int, int], None] | None = None
    """Bytes read so far, and in all; 0 in all as long as that is not known."""


def create(layout: Layout, config: Config, making: Making) -> Backup:
    """Make a backup while the application runs. Call it under the lock.

    Until it has been read back and matched it lies under a temporary name, which the next command removes.

    Raises:
        BackupFailed: something cannot be read, a database is corrupt, or the disk is full; nothing is left behind.
    """
    durable.make_directory(layout.backups)
    name, seq = catalogue.next_place(layout, records.now())
    work = layout.backups / durable.temporary_name(name)
    work.mkdir(0o700)
    try:
        writing = _begin(work, making)
        manifest = _write(layout, config, making, writing, name, seq)
        _write_manifest(writing, manifest)
        reading.prove_records(work, linked=writing.linked, check=making.check)
        durable.rename(work, layout.backups / name)
    except OSError as failure:
        _discard(work)
        raise _storage(failure) from failure
    except BaseException:
        _discard(work)
        raise
    return Backup(layout.backups / name, manifest)


def _discard(work: Path) -> None:
    try:
        durable.remove_tree(work)
    except OSError:
        pass  # the next command sweeps it


def _storage(failure: OSError) -> BackupFailed:
    full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
    return BackupFailed(
        f"the backup could not be written: {failure.strerror}",
        advice="free some space: old releases (`updater prune`), old backups (`updater backup prune`), old logs."
        if full
        else f"see whether {failure.filename or 'shared/backups'} can be written.",
    )


def _begin(work: Path, making: Making) -> Writing:
    return Writing(work, threads=min(4, os.cpu_count() or 1), check=making.check)


def _write(layout: Layout, config: Config, making: Making, writing: Writing, name: str, seq: int) -> Manifest:
    gathered = gather.gather(layout, config.backup, accept_damaged=making.accept_damaged)
    writing.warnings = gathered.warnings
    if config.backup.dumps:
        gathered.parts[dumps.PART] = []
    copies = _Copies(writing.directory / "copies", making)
    # While this thread copies, another sees whether what can be built upon is whole; while it compresses and reads back,
    # SQLite checks.
    with ThreadPoolExecutor(1, "backup") as pool:
        bases = pool.submit(_bases, layout, writing, list(gathered.parts))
        databases, checks = copies.make(gathered, pool)
        dumped = _dump(layout, config, making, gathered, copies.directory / dumps.PART)
        total = sum(it.size for part in gathered.parts.values() for it in part)
        if making.on_progress:
            writing.on_bytes = functools.partial(_tell, making.on_progress, total)
        written = _write_parts(writing, gathered, bases.result())
        written["state"] = _state(layout, writing)
        for part, it in written.items():
            reading.prove_part(
                writing.directory, part, it, writing.sums, linked=part in writing.linked, check=making.check
            )
        checked = [replace(it, integrity=checks[it.path].result()) for it in databases]
    durable.remove_tree(copies.directory)
    _judge(checked, making)
    version = making.data_of or service.in_service(layout).version
    release = store.read(layout.release(version)) if version else None
    return Manifest(
        id=name,
        seq=seq,
        created=records.stamp(),
        reason=making.reason,
        label=making.label,
        deployment=making.deployment,
        root={"id": catalogue.identity(layout), "name": config.name, "path": str(layout.root)},
        release={
            "version": version,
            "tag": release and release.record.tag,
            "digest": release and release.record.digest,
        }
        if version
        else None,
        updater=version_of_updater(),
        parts=written,
        databases=tuple(checked),
        dumps=tuple(dumped),
        warnings=tuple(writing.warnings),
    )


@dataclass
class _Copies:
    """Copies of the databases as they are at one moment each, in ``directory``."""

    directory: Path
    making: Making

    def make(
        self, gathered: Gathered, pool: ThreadPoolExecutor
    ) -> tuple[list[Database], Mapping[str, Future[str]]]:
        databases, checks = [], {}
        self.directory.mkdir(0o700)
        for number, found in enumerate(gathered.databases):
            place = self.directory / str(number)
            try:
                facts = sqlite.copy(found.place, place, check=self.making.check)
            except BackupFailed as failure:
                if not self.making.accept_damaged:
                    raise
                self._keep_as_it_is(gathered, found)
                gathered.warnings.append(
                    f"shared/{shown(found.path)} is corrupt and was kept as it is: {failure.message}"
                )
                continue
            self._put(gathered, found, place)
            checks[found.path] = pool.submit(sqlite.integrity, place)
            databases.append(Database(found.path, place.stat().st_size, facts.user_version, facts.schema))
        return databases, checks

    @staticmethod
    def _put(gathered: Gathered, found: Found, place: Path) -> None:
        status = place.stat()
        copy = replace(found, place=place, size=status.st_size, allocated=status.st_size, copied=True)
        part = gathered.parts[gather.part_of(found.path)]
        part[part.index(found)] = copy

    @staticmethod
    def _keep_as_it_is(gathered: Gathered, found: Found) -> None:
        """A corrupt database with everything beside it, byte by byte: somebody may still mend it."""
        part = gathered.parts[gather.part_of(found.path)]
        for it in sqlite.siblings(found.place):
            part.append(Found.of(found.path + it.name.removeprefix(found.place.name), it, it.stat()))


def _dump(layout: Layout, config: Config, making: Making, gathered: Gathered, directory: Path) -> list[Dump]:
    """What the dump commands write, as the part ``dumps``."""
    if not config.backup.dumps:
        return []
    made = dumps.make(layout, config, directory, check=making.check, on_progress=making.on_progress)
    gathered.parts[dumps.PART] = [it.found for it in made]
    gathered.warnings += [f"the dump {it.dump.name}: {it.said}" for it in made if it.said]
    return [it.dump for it in made]


def _write_parts(writing: Writing, gathered: Gathered, bases: Mapping[str, Base]) -> dict[str, Part]:
    written = {}
    for name, paths in gathered.parts.items():
        base = bases.get(name)
        part = parts.since(writing, base, paths) if base else None
        if part is None:
            _unlink_base(writing, name)
            part = parts.whole(writing, name, paths)
        written[name] = part
    return written


def _bases(layout: Layout, writing: Writing, names: Collection[str]) -> dict[str, Base]:
    """Those parts of the newest backup that it holds whole, linked into the new one, if they still are as they were written."""
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
        if newest.manifest.parts[name].size < parts.DELTA_FROM:
            continue
        try:
            bases[name] = _link_base(newest, name, sums, writing)
        except (OSError, ValueError, BackupDamaged, zstandard.ZstdError) as failure:
            writing.warnings.append(f"part {name} is stored whole again: {failure}")
            _unlink_base(writing, name)
    return bases


def _link_base(newest: Backup, name: str, sums: Mapping[str, str], writing: Writing) -> Base:
    for file in parts.names(name):
        os.link(newest.directory / file, writing.directory / file)
        seen, wanted = reading.sum_of(writing.directory / file, writing.check), sums.get(file, "")
        if seen != wanted:
            raise reading.not_as_written(newest.id, file, seen, wanted)
        writing.sums[file] = seen
    begun, entries = index.read(writing.directory / parts.names(name)[1])
    writing.linked.add(name)
    return Base(writing.directory, name, begun, {it.path: it for it in entries})


def _unlink_base(writing: Writing, name: str) -> None:
    writing.linked.discard(name)
    for file in parts.names(name):
        (writing.directory / file).unlink(missing_ok=True)
        writing.sums.pop(file, None)


def _state(layout: Layout, writing: Writing) -> Part:
    """updater's own records and the identity of the release: nothing of it is put back by itself."""
    names: list[Path] = [layout.config, layout.history, layout.current, layout.good, layout.previous]
    names += sorted(layout.marks.iterdir()) if layout.marks.is_dir() else []
    if version := service.in_service(layout).version:
        names += sorted(it for it in (layout.release(version) / ".release").glob("*") if it.is_file())
    paths = []
    for place in names:
        if os.path.lexists(place):
            link = os.readlink(place) if place.is_symlink() else ""
            paths.append(Found.of(str(place.relative_to(layout.root)), place, place.lstat(), link=link))
    return parts.whole(writing, "state", paths)


def _judge(databases: Sequence[Database], making: Making) -> None:
    wrong = [it for it in databases if it.integrity != "ok"]
    if wrong and not making.accept_damaged:
        raise BackupFailed(
            f"the database shared/{wrong[0].path} is corrupt: {wrong[0].integrity}",
            details=[f"shared/{it.path}: {it.integrity}" for it in wrong[1:]],
            advice="go back to an earlier backup (updater backup list), or mend it (sqlite3 FILE '.recover'); "
            "to keep it as it is: updater backup create --force",
        )


def _tell(on_progress: Callable[[int, int], None], total: int, done: int) -> None:
    on_progress(done, total)


def _write_manifest(writing: Writing, manifest: Manifest) -> None:
    """The manifest, then the sums of everything: without both it is no backup."""
    raw = (json.dumps(manifest.as_json(), indent=1, ensure_ascii=True) + "\n").encode("ascii")
    durable.write(writing.directory / reading.MANIFEST, raw)
    writing.sums[reading.MANIFEST] = hashlib.sha256(raw).hexdigest()
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(writing.sums.items()))
    durable.write(writing.directory / reading.SUMS, lines)
