"""Makes a backup: gathered, copied, compressed, read back, and only then named as one."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from updater import durable, records
from updater import version as version_of_updater
from updater.backups import bases, catalogue, copying, delta, dumps, gather, parts, reading, sqlite, stored
from updater.backups.catalogue import Backup
from updater.backups.copies import Copies
from updater.backups.gather import Found, Gathered
from updater.backups.manifest import Database, Dump, Manifest, Part
from updater.backups.parts import Base, Writing
from updater.backups.recent import Recent, Unchanged
from updater.config import Config
from updater.errors import BackupFailed, DumpFailed, Unsteady
from updater.layout import Layout
from updater.releases import service, store

Json = dict[str, Any]

LOOKS = 3
"""How often ``shared/`` is looked through anew when something in it became something else meanwhile."""


@dataclass
class Making:
    """What is asked of a backup. ``accept_damaged``: a corrupt database is kept as it is instead of refused."""

    reason: str
    label: str = ""
    deployment: str | None = None
    accept_damaged: bool = False
    data_of: str | None = None
    """The release that has written the data; None: the one in service."""
    without_dumps: bool = False
    """A dump that cannot be made is told and left out; else it fails the backup."""
    forced: str = "updater backup create --force"
    """What a person types to have a corrupt database kept."""
    patience: float = sqlite.TIMEOUT
    """Seconds that locked databases are waited for, all together."""
    since: Recent | None = None
    """A backup that this process made just now: what is still as it saw it is not read again."""
    check: Callable[[], None] | None = None
    on_progress: Callable[[int, int], None] | None = None
    """Bytes read so far, and in all; 0 in all as long as that is not known."""


@dataclass(frozen=True)
class _Content:
    """What was put into a backup."""

    gathered: Gathered
    parts: Mapping[str, Part]
    databases: Sequence[Database]
    dumps: Sequence[Dump]
    states: Mapping[str, sqlite.State]


@dataclass(frozen=True)
class Made:
    """A new backup, and what it was made of."""

    backup: Backup
    _writing: Writing
    _content: _Content

    @property
    def states(self) -> Mapping[str, sqlite.State]:
        """The databases that nobody wrote to while they were copied, as they were then."""
        return self._content.states

    def recent(self) -> Recent:
        """What the next backup of this process can build upon."""
        return Recent.of(
            self.backup.directory, self.backup.manifest, self._writing, self._content.gathered, self._content.states
        )  # fmt: skip


def create(layout: Layout, config: Config, making: Making) -> Backup:
    """Make a backup while the application runs. Call it under the lock.

    Until it has been read back and matched it lies under a temporary name, which the next command removes.

    Raises:
        BackupFailed: something cannot be read, a database is corrupt, or the disk is full; nothing is left behind.
    """
    return remembered(layout, config, making).backup


def remembered(layout: Layout, config: Config, making: Making) -> Made:
    """The same, with what the next one in this process can build upon."""
    durable.make_directory(layout.backups)
    # before the flush, which may take long: a page that was written to behind it is dirty again, and hides later writes
    begun = time.time_ns()
    if sys.platform != "linux" or not making.since:
        directories = [it for it in (layout.shared, *layout.shared.iterdir()) if it.is_dir()]
        for place in {it.stat().st_dev: it for it in directories}.values():
            durable.settle(place)
    for _ in range(LOOKS - 1):
        with contextlib.suppress(Unsteady):
            return _create(layout, config, making, begun)
    return _create(layout, config, making, begun)


def _create(layout: Layout, config: Config, making: Making, begun: int) -> Made:
    name, seq = catalogue.next_place(layout, records.now())
    work = layout.backups / durable.temporary_name(name)
    work.mkdir(0o700)
    try:
        begun = min(begun, work.stat().st_ctime_ns)  # by the clock of the filesystem, if that is behind
        writing = Writing(work, threads=min(4, os.cpu_count() or 1), begun=begun, check=making.check)
        content = _write(layout, config, making, writing)
        manifest = _manifest(layout, config, making, writing, content, name, seq)
        _write_manifest(writing, manifest)
        reading.prove_records(work, linked=writing.linked, check=making.check)
        durable.flush_directory(work)  # every name in it, before its own is one that counts
        durable.rename(work, layout.backups / name)
    except OSError as failure:
        _discard(work)
        raise _storage(failure) from failure
    except BaseException:
        _discard(work)
        raise
    return Made(Backup(layout.backups / name, manifest), writing, content)


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


def _write(layout: Layout, config: Config, making: Making, writing: Writing) -> _Content:
    """Everything but the manifest, read back.

    While this thread writes, others copy the databases, check the copies, and look whether what is built upon is sound; each archive
    is read back while it is written.
    """
    recent = making.since if making.since and making.since.is_whole() else None
    gathered = gather.gather(
        layout,
        config.backup,
        accept_damaged=making.accept_damaged,
        is_plain=recent.is_plain if recent else None,
    )
    writing.warnings = gathered.warnings
    _miss_databases(layout, gathered, making)
    writing.look()
    unchanged = recent.against(gathered) if recent else None
    copies = Copies(
        writing.directory / "copies", copying.Patience(making.patience), making.accept_damaged, writing.look
    )
    copies.directory.mkdir(0o700)
    dumped = _dump(layout, config, making, gathered, copies.directory / dumps.PART)
    if making.on_progress:
        total = sum(it.size for part in gathered.parts.values() for it in part)
        writing.on_bytes = functools.partial(_tell, making.on_progress, total)
    with ThreadPoolExecutor(3, "backup") as pool:
        try:
            copied = pool.submit(copies.make, gathered, pool, unchanged.databases if unchanged else {})
            names = list(gathered.parts)
            linked = (
                bases.link_recent(recent, writing, names)
                if recent
                else bases.link(layout, writing, names, pool)
            )
            written = _write_parts(writing, gathered, copied, linked, unchanged)
            databases = copies.checked()
            removing = pool.submit(durable.remove_tree, copies.directory)  # freeing much takes a while
            written["state"] = _state(layout, writing)
            _prove(writing, written)
            removing.result()
        except BaseException:
            writing.give_up()
            raise
    _judge(databases, making)
    states = dict(copies.states)
    if unchanged:
        states |= {path: unchanged.recent.databases[path] for path in unchanged.databases}
    return _Content(gathered, written, databases, dumped, states)


def _miss_databases(layout: Layout, gathered: Gathered, making: Making) -> None:
    """One that is known from the newest backup and has lost its header is corrupt, and not a file like any other."""
    for path in catalogue.no_databases_any_more(layout, gathered):
        text = f"shared/{gather.shown(path)} was a SQLite database in the last backup and is none any more"
        if not making.accept_damaged:
            raise BackupFailed(
                f"{text}: its header is damaged, or it is another file now",
                advice="go back to an earlier backup: updater backup list; "
                f"to keep it as it is from now on: {making.forced}",
            )
        gathered.warnings.append(f"{text}; kept as it is")


def _dump(layout: Layout, config: Config, making: Making, gathered: Gathered, directory: Path) -> list[Dump]:
    """What the dump commands write, as the part ``dumps``."""
    if not config.backup.dumps:
        return []

    def leave_out(failure: DumpFailed) -> None:
        gathered.warnings.append(f"it is not in the backup: {failure}")

    made = dumps.make(
        layout, config, directory,
        check=making.check, on_progress=making.on_progress, on_failure=leave_out if making.without_dumps else None,
    )  # fmt: skip
    if made:
        gathered.parts[dumps.PART] = [it.found for it in made]
    gathered.warnings += [f"the dump {it.dump.name}: {it.said}" for it in made if it.said]
    return [it.dump for it in made]


def _write_parts(
    writing: Writing,
    gathered: Gathered,
    copied: Future[None],
    linked: Mapping[str, Base],
    unchanged: Unchanged | None,
) -> dict[str, Part]:
    """Those without databases first: these are still copied."""
    written = {}
    waiting = {gather.part_of(it.path) for it in gathered.databases}
    for name in sorted(gathered.parts, key=lambda it: it in waiting):
        if name in waiting:
            copied.result()
        written[name] = _write_part(writing, name, gathered.parts[name], linked.get(name), unchanged)
    copied.result()
    return {name: written[name] for name in gathered.parts}


def _write_part(
    writing: Writing, name: str, paths: Sequence[Found], base: Base | None, unchanged: Unchanged | None
) -> Part:
    if base and unchanged and unchanged.is_all(name, paths):
        return bases.take_over(unchanged.recent, name, writing)
    part = delta.since(writing, base, paths, unchanged) if base else None
    if part is None or not bases.is_sound(writing, name):
        bases.unlink(writing, name)
        part = parts.whole(writing, name, paths)
    return part


def _prove(writing: Writing, written: Mapping[str, Part]) -> None:
    """Read back what was written, as far as that was not done meanwhile; what is shared with an earlier backup was read before."""
    for name in writing.linked - writing.taken:
        known = (list(writing.bases[name].entries.values()), writing.entries[name])
        reading.prove_part(
            writing.directory, name, written[name], writing.sums, linked=True, known=known, check=writing.look
        )  # fmt: skip
    writing.confirm()


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


def _manifest(
    layout: Layout, config: Config, making: Making, writing: Writing, content: _Content, name: str, seq: int
) -> Manifest:
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
        parts=content.parts,
        databases=tuple(content.databases),
        dumps=tuple(content.dumps),
        warnings=tuple(writing.warnings),
    )


def _judge(databases: Sequence[Database], making: Making) -> None:
    wrong = [it for it in databases if it.integrity != "ok"]
    if wrong and not making.accept_damaged:
        raise BackupFailed(
            f"the database shared/{wrong[0].path} is corrupt: {wrong[0].integrity}",
            details=[f"shared/{it.path}: {it.integrity}" for it in wrong[1:]],
            advice="go back to an earlier backup (updater backup list), or mend it (sqlite3 FILE '.recover'); "
            f"to keep it as it is: {making.forced}",
        )


def _tell(on_progress: Callable[[int, int], None], total: int, done: int) -> None:
    on_progress(done, total)


def _write_manifest(writing: Writing, manifest: Manifest) -> None:
    """The manifest, then the sums of everything: without both it is no backup."""
    raw = (json.dumps(manifest.as_json(), indent=1, ensure_ascii=True) + "\n").encode("ascii")
    durable.write_new(writing.directory / stored.MANIFEST, raw)
    writing.sums[stored.MANIFEST] = hashlib.sha256(raw).hexdigest()
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(writing.sums.items()))
    durable.write_new(writing.directory / stored.SUMS, lines.encode())
