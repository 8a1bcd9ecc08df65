"""Databases other than SQLite: one command writes a dump, another puts it back (``[backup.dumps.NAME]``).

A dump is first written beside, since an archive must know its size; only one whose command has ended well, and that its
check accepts, gets into a backup. On the way back every byte is proved before the first command gets the first one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from updater import durable
from updater.backups import reading, unpacking
from updater.backups.dumping import Check, Commands, Tell
from updater.backups.gather import Found
from updater.backups.manifest import Dump, Manifest
from updater.config import Config, DumpConfig
from updater.errors import BackupDamaged, BackupFailed, DumpFailed, UsageError
from updater.layout import Layout
from updater.processes import commands
from updater.releases import service

PART = "dumps"

Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Dumped:
    """A dump that was made: what the manifest says of it, where it lies, and what its command said."""

    dump: Dump
    found: Found
    said: str


def make(
    layout: Layout,
    config: Config,
    directory: Path,
    *,
    check: Check = None,
    on_progress: Progress = None,
    on_failure: Callable[[DumpFailed], None] | None = None,
) -> list[Dumped]:
    """Make every dump of the configuration in the new ``directory``. ``on_progress`` gets the bytes written so far, and 0: in
    all is not known. ``on_failure`` gets why one could not be made, which is then left out.

    Raises:
        DumpFailed: a command cannot be started, fails, does not end in time, or writes nothing; the details are what it said.
        OSError: ``directory`` cannot be written.
    """
    directory.mkdir(0o700)
    made: list[Dumped] = []
    for dump in config.backup.dumps.values():
        before = sum(it.dump.size for it in made)
        place = directory / dump.name
        try:
            written = Commands(layout, config, dump, check).dump(place, _onward(on_progress, before, 0))
        except DumpFailed as failure:
            if on_failure is None:
                raise
            on_failure(failure)
            continue
        found = replace(Found.of(f"{PART}/{dump.name}", place, place.stat()), copied=True)
        made.append(Dumped(Dump(dump.name, written.size, written.sha256), found, written.said))
    return made


def _onward(on_progress: Progress, before: int, total: int) -> Tell:
    """Tell the bytes of one dump on, after ``before`` of others."""
    return (lambda count: on_progress(before + count, total)) if on_progress else None


def missing(layout: Layout, config: Config) -> list[str]:
    """The programs of the configured commands that cannot be found, each in a line that says what for."""
    return [
        f"{dump.name}: {command[0]}, for {purpose}"
        for dump in config.backup.dumps.values()
        for purpose, command in (("dump", dump.dump), ("restore", dump.restore), ("check", dump.check))
        if command and not _is_there(layout, dump, command)
    ]


def load(
    layout: Layout,
    config: Config,
    directory: Path,
    names: Collection[str],
    check: Check = None,
    on_progress: Progress = None,
    *,
    keep_fds: Sequence[int] = (),
    record: Path | None = None,
) -> None:
    """Put dumps of the backup in ``directory`` back, one after the other, each by the restore command of its name.

    Nothing is started before all of them have been unpacked beside and proved, which needs room for that. ``on_progress``
    gets bytes read by the commands and in all. ``keep_fds`` and ``record`` as for :func:`updater.subprocesses.run`: these
    are children that change things.

    Raises:
        UsageError: there is no such dump, or no command for it. BackupDamaged: it is not as it was written. In both cases
            nothing was started.
        BackupFailed: a command failed, or left a part of the dump unread; the details are what it said.
    """
    manifest = reading.prove_records(directory, check=check)
    chosen = chosen_dumps(layout, config, manifest, names)
    total = sum(dump.size for _, dump in chosen)
    with _unpacked(layout, directory, manifest, check) as place:
        for _, dump in chosen:
            _prove(directory, place / dump.name, dump)
        before = 0
        for number, (how, dump) in enumerate(chosen):
            running = Commands(layout, config, how, check, keep_fds, record)
            try:
                running.restore(place / dump.name, dump.size, _onward(on_progress, before, total))
            except BackupFailed as failure:
                failure.state = _state([it.name for _, it in chosen], number)
                raise
            before += dump.size


def chosen_dumps(
    layout: Layout, config: Config, manifest: Manifest, names: Collection[str]
) -> list[tuple[DumpConfig, Dump]]:
    """What is to be put back, and how; everything that can be known to go wrong is told before anything is begun.

    Raises:
        UsageError: there is no such dump, or no command for it.
    """
    known = {it.name: it for it in manifest.dumps}
    for name in names:
        if name not in known:
            raise UsageError(
                f"{manifest.id} holds no dump {name!r}", state="Nothing was changed.",
                advice=f"it holds: {', '.join(known) or 'none'}",
            )  # fmt: skip
        how = config.backup.dumps.get(name)
        if how is None or not _is_there(layout, how, how.restore):
            why = f"`{how.restore[0]}` is not found" if how else f"there is no [backup.dumps.{name}]"
            raise UsageError(
                f"the dump {name} cannot be put back: {why}", state="Nothing was changed.",
                advice=f"see restore in [backup.dumps.{name}] of {config.file.name}; the dump as a file: "
                f"updater backup restore {manifest.id} --to DIR --only {PART}",
            )  # fmt: skip
    return [(config.backup.dumps[name], known[name]) for name in names]


def _is_there(layout: Layout, how: DumpConfig, command: Sequence[str]) -> bool:
    return commands.is_there(layout, service.in_service(layout).release, command, how.env)


@contextlib.contextmanager
def _unpacked(layout: Layout, directory: Path, manifest: Manifest, check: Check) -> Iterator[Path]:
    """The dumps as files for us alone, below a temporary name that the next command removes should we die."""
    place = layout.backups / durable.temporary_name(PART)
    try:
        _unpack(directory, place, manifest, check)
        yield place / PART
    finally:
        with contextlib.suppress(OSError):
            durable.remove_tree(place)


def _unpack(directory: Path, place: Path, manifest: Manifest, check: Check) -> None:
    try:
        unpacking.unpack(directory, place, [PART], check=check)
    except OSError as failure:
        size = sum(it.size for it in manifest.dumps)
        raise BackupFailed(
            f"the dumps of {manifest.id} cannot be unpacked: {failure.strerror}",
            state="No restore command was started.",
            advice=f"free some space in shared/backups: they need {size / 1e6:,.0f} MB.",
        ) from failure


def _prove(directory: Path, place: Path, dump: Dump) -> None:
    try:
        with open(place, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        digest = ""
    if digest != dump.sha256:
        raise BackupDamaged(
            f"{directory.name}: the dump {dump.name} is not what the manifest says",
            state="No restore command was started.",
            advice="take another backup: updater backup list",
        )


def _state(names: Sequence[str], number: int) -> str:
    """What to say of the databases when a restore has failed."""
    told = f"{names[number]} is as its restore command left it: unchanged if that is one transaction."
    if before := names[:number]:
        told += f" Put back before it: {', '.join(before)}."
    if after := names[number + 1 :]:
        told += f" Not begun: {', '.join(after)}."
    return told
