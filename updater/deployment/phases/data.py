"""What a deployment owes to the data (design page, section 5): the rule by which they come back or stay.

As long as the new release cannot have written, a failure puts the untouched data back by rename. Once it may have, they stay
as they are unless the schema changed; if it did, the present state is kept as another backup, and the one from the stop
comes back. Nothing is overwritten that does not exist somewhere else.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from updater import durable
from updater.backups import catalogue, create, dumps, gather, sqlite, staging, swap
from updater.backups.swap import Swap
from updater.config import BackupConfig
from updater.deployment import engine, missing, tidying
from updater.deployment.transaction import Transaction
from updater.errors import Busy, RollbackFailed, UpdaterError
from updater.layout import Layout
from updater.processes import using

Json = dict[str, Any]
SHOWN = 5
"""Paths that are named one by one."""

Schemas = Mapping[str, list[Any] | None]
"""Path of a database -> its user_version and the digest of its schema; None: it cannot be read."""


def are_not_back(tx: Transaction) -> bool:
    """Whether, on the way back, data are not (known to be) those of the old release. It must not run then: what it writes would be
    overwritten when the way back is gone on with, and until then it would run on data of another release."""
    moving = swap.pending(tx.layout)
    return bool(tx.memory.get("data_not_back")) or (moving is not None and moving.ready)


def are_under_way(tx: Transaction) -> bool:
    """The same where the way back was broken off each time: by what is on the disk and in the journal."""
    moving = swap.pending(tx.layout)
    if moving is not None and moving.ready:
        return True
    log = tx.journal.read()
    left = {*log.intended()}
    back = {(it.phase, it.data["back"]) for it in log.lines if it.kind == "note" and "back" in it.data}
    if "load" in left and ("load", "dumps") not in back:
        return True
    if "migrate" not in left:
        return False
    before = (tx.facts.get("migrate") or {}).get("before") or {}
    changed = any(schema(tx.layout.shared / path) != known for path, known in before.items())
    dumps = bool(tx.config.migrate.command and _dumps_of(tx, tx.backup))
    data_left = (changed or _noted(tx, "migrate") is not None) and ("migrate", "data") not in back
    return data_left or (dumps and ("migrate", "dumps") not in back)


def _once(tx: Transaction, phase: str, what: str, act: Callable[[], object]) -> None:
    """Put data back, unless an earlier try of the way back has done so: the old release may have written since. That it is done is
    on record before anything is started.

    Raises:
        OSError: it is not on record.
    """
    lines = tx.journal.read().lines
    if not any(it.kind == "note" and it.phase == phase and it.data.get("back") == what for it in lines):
        act()
        tx.journal.record("note", phase, {"back": what})


def databases(layout: Layout, config: BackupConfig) -> list[gather.Found]:
    """The SQLite databases below ``shared/``.

    Raises:
        BackupFailed: a directory cannot be read.
    """
    return gather.gather(layout, config, accept_damaged=True).databases


def schemas(layout: Layout, paths: Collection[str]) -> dict[str, list[Any] | None]:
    """The schemas of databases as they are now."""
    return {path: schema(layout.shared / path) for path in paths}


def schema(place: Path) -> list[Any] | None:
    """The schema of one database: its user_version and the digest of what is defined in it."""
    try:
        return [*sqlite.facts(place)]
    except sqlite3.Error:
        return None


def refuse_users(tx: Transaction) -> None:
    """Once the application has stopped nobody may use its databases: what another process writes would be lost.

    Raises:
        Busy: somebody does; ``--force`` goes on.
    """
    places = [it.place for it in databases(tx.layout, tx.config.backup)]
    found = using.users([*places, *(sibling for place in places for sibling in sqlite.siblings(place))])
    if not found:
        return
    text = "; ".join(f"{it.name} (pid {it.pid}) uses {it.path}" for it in found)
    if tx.request.force:
        tx.warn(f"{text}; gone on by --force")
        return
    raise Busy(
        f"a database is in use by a process that is not managed by updater: {text}",
        advice="end that process, then run the command again; --force goes on all the same.",
    )


def refuse_late_writes(tx: Transaction, moved: Swap, states: Mapping[str, sqlite.State]) -> None:
    """What somebody has written to a database between its copy and its move is in no copy: then everything goes back.

    Raises:
        Busy: somebody has; ``--force`` goes on.
    """
    found = swap.written_to(tx.layout, moved, states)
    if not found:
        return
    text = f"{', '.join(f'shared/{it}' for it in found)}: changed while the application was stopped, by another process or a failing disk"
    if tx.request.force:
        tx.warn(f"{text}; gone on by --force")
        return
    raise Busy(text, advice="keep that process (a cron job?) from it, then run the command again.")


def may_have_written(tx: Transaction) -> bool:
    """Whether the new release was started: from then on it may have written."""
    return tx.began("start")


def keep_present(tx: Transaction, why: str) -> str | None:
    """Keep the present state as another backup. Returns its id; None, told, if none can be made: then nothing may be removed. A dump
    that cannot be made is told and not in it."""
    making = create.Making(
        why, deployment=tx.journal.id, accept_damaged=True, without_dumps=True, data_of=tx.target
    )
    try:
        made = create.create(tx.layout, tx.config, making)
    except (UpdaterError, OSError) as failure:
        tx.warn(f"the present state could not be kept as a backup: {failure}")
        return None
    for warning in made.manifest.warnings:
        tx.warn(f"{made.id}: {warning}")
    tx.say(f"the present state is kept in {made.id}")
    return made.id


def take_back(tx: Transaction, purpose: str, why: str) -> None:
    """Undo a move of data; what may have been written in the new place is kept.

    Where it is kept is on record before anything is moved back: after a kill in between, nothing else would tell.
    """
    found = swap.pending(tx.layout)
    noted = _noted(tx, purpose)
    if found is None or found.purpose != purpose:
        if noted is not None:
            _tell_taken_back(tx, noted)
        return
    if not found.ready or not may_have_written(tx):
        swap.undo(tx.layout)
        return
    if noted is None:
        noted = {"kept": keep_present(tx, why), "holders": found.holders}
        _note(tx, purpose, noted)
    swap.undo(tx.layout, keep=noted["kept"] is None)
    _tell_taken_back(tx, noted)


def _aside(tx: Transaction, holders: Iterable[str]) -> list[str]:
    """Where data are kept aside: in the usual places and in ``holders``, directories below ``shared/`` on other filesystems."""
    places = [Path(os.path.realpath(tx.layout.shared / it)) for it in holders]
    return list(map(str, swap.kept(tx.journal.id, dict.fromkeys([*tidying.places(tx.layout), *places]))))


def _tell_taken_back(tx: Transaction, noted: Mapping[str, Any]) -> None:
    aside = _aside(tx, noted.get("holders") or ())
    where = noted.get("kept") or ", ".join(aside) or "no backup: none could be made"
    tx.memory["data_told"] = f"What was written meanwhile is kept in {where}."
    tx.memory["data"] = {"restored": "untouched", "kept": noted.get("kept"), "aside": aside}


def apply_rule(tx: Transaction, before: Schemas, *, migrated: bool) -> None:
    """The data rule, on the way back. ``migrated``: a migration command ran, so other databases may have changed as well.

    Raises:
        RollbackFailed: the data from the stop could not be put back.
    """
    moved = swap.pending(tx.layout)
    mine = moved if moved is not None and moved.purpose == "migrate" else None
    others = bool(migrated and tx.config.backup.dumps and _dumps_of(tx, tx.backup))
    if not may_have_written(tx):
        if mine:
            swap.undo(tx.layout)
        if others:
            _load_from_the_stop(tx)
        return
    decided = _noted(tx, "migrate") or _decide(tx, before, mine, others)
    if decided is None:
        if mine:
            swap.commit(tx.layout)
            _clear(tx)
        if before:
            tx.memory["data"] = {"schema": "unchanged", "restored": None, "kept": None}
        return
    if moved is not None:  # ours, or that of an earlier way back which was interrupted
        swap.undo(tx.layout, keep=mine is not None and decided["kept"] is None)
    _once(tx, "migrate", "data", lambda: _put_back(tx, decided))
    _clear(tx)
    _tell(tx, decided)
    if others:
        _load_over_what_is_kept(tx, decided["kept"])


def tell_other_files(tx: Transaction, since: int) -> None:
    """What a migration that failed has changed besides databases stays so. ``since``: when it began, in nanoseconds."""
    with contextlib.suppress(UpdaterError, OSError):
        found = gather.gather(tx.layout, tx.config.backup, accept_damaged=True)
        files = [it.path for it in found.parts.get("data", ()) if it.kind == "file" and it.ctime >= since]
        ours = {it.path for it in found.databases}
        if changed := [gather.shown(it) for it in files if it not in ours]:
            more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            tx.memory["data_told"] = (
                f"The migration had also changed {', '.join(changed[:SHOWN])}{more} in shared/: as before in {tx.backup} "
                f"(updater backup restore {tx.backup} --only data)."
            )


def _decide(tx: Transaction, before: Schemas, mine: Swap | None, others: bool) -> Json | None:
    """Whether the data must go back, from the state as the new release left it; None: they stay. That state is kept first.

    It is on record before anything is moved: after a kill in between, the schema would tell something else.
    """
    changed = [path for path, known in before.items() if schema(tx.layout.shared / path) != known]
    if not changed and not others:
        return None
    kept = keep_present(tx, f"after {tx.request.kind} {tx.target}")
    decided = {
        "changed": changed,
        "kept": kept,
        "by_rename": [it.path for it in mine.steps] if mine else [],
        "holders": mine.holders if mine else [],
    }
    tx.journal.record("note", "migrate", decided)
    return decided


def _note(tx: Transaction, phase: str, found: Json) -> None:
    engine.quietly(
        tx, "what becomes of the data was not recorded", lambda: tx.journal.record("note", phase, found)
    )


def _noted(tx: Transaction, phase: str) -> Json | None:
    """What an earlier try of the way back has decided."""
    notes = (line.data for line in tx.journal.read().lines if line.kind == "note" and line.phase == phase)
    return next((dict(it) for it in notes if "kept" in it), None)


def _tell(tx: Transaction, decided: Mapping[str, Any]) -> None:
    aside = _aside(tx, decided.get("holders") or ())
    where = decided["kept"] or ", ".join(aside) or "no backup: none could be made"
    tx.memory["data"] = {
        "schema": "changed",
        "changed": decided["changed"],
        "restored": tx.backup,
        "kept": decided["kept"],
        "aside": aside,
    }
    tx.memory["data_told"] = (
        f"{tx.target} had changed the schema of {', '.join(decided['changed']) or 'the databases'}: "
        f"the data from the stop are back; what {tx.target} wrote is kept in {where}."
    )


def _put_back(tx: Transaction, decided: Mapping[str, Any]) -> None:
    """The data of the stop, from its backup, but for the databases that are back by rename already."""
    name, by_rename = tx.backup, list(decided["by_rename"])
    if name is None:
        if not by_rename:
            raise RollbackFailed(
                f"the schema of {', '.join(decided['changed'])} was changed, and there is no backup from before",
                advice="see `updater backup list` for an earlier one.",
            )
        return
    try:
        moving = staging.Staging(
            tx.layout,
            tx.config.backup,
            tx.layout.backups / name,
            ("data",),
            tx.journal.id,
            "undo",
            leave=by_rename,
            keep=decided["kept"] is None,
        )
        moving.stage()
        moving.put()
        swap.commit(tx.layout)
    except (UpdaterError, OSError) as failure:
        swap.undo(tx.layout)
        if not by_rename:
            raise RollbackFailed(
                f"the data of {name} could not be put back: {failure}",
                advice=f"make room, then: updater backup restore {name}",
            ) from failure
        tx.warn(f"the databases are back, other files of {name} are not: {failure}")


def _clear(tx: Transaction) -> None:
    """Tidy up after a move that counts. What is left over is no matter of the way back: the next command removes it."""
    try:
        swap.clear(tx.layout)
    except (UpdaterError, OSError) as failure:
        tx.warn(f"clean-up: {failure}")


def _load_over_what_is_kept(tx: Transaction, kept: str | None) -> None:
    """The dumps from the stop, if what the new release wrote to those databases is in the backup ``kept``.

    Raises:
        LeftAlone: it is not; a person decides.
    """
    lacking = _dumps_of(tx, tx.backup) - _dumps_of(tx, kept)
    if lacking:
        raise engine.LeftAlone(
            f"what {tx.target} wrote to {', '.join(sorted(lacking))} could not be kept, so the dump from the stop was not put back over it",
            details=[str(tx.memory["data_told"])] if tx.memory.get("data_told") else [],
            advice="see why it cannot be kept: updater backup create; to put the dump back all the same: "
            f"updater backup restore {tx.backup} --only dumps",
        )
    _load_from_the_stop(tx)


def _dumps_of(tx: Transaction, backup: str | None) -> set[str]:
    return {it.name for it in catalogue.find(tx.layout, backup).manifest.dumps} if backup else set()


def _load_from_the_stop(tx: Transaction) -> None:
    load_back(tx, "migrate", catalogue.find(tx.layout, str(tx.backup)))


def load_back(tx: Transaction, phase: str, backup: catalogue.Backup) -> None:
    """Put the dumps of a backup back, in the undo of a phase; once, whatever comes between."""
    _once(tx, phase, "dumps", lambda: load(tx, backup))


def load(tx: Transaction, backup: catalogue.Backup) -> None:
    """Put the dumps of a backup back. On the way back nothing cancels it."""
    from updater import lock

    names = [it.name for it in backup.manifest.dumps]
    tx.progress.tell(f"loading {', '.join(names)}")
    dumps.load(
        tx.layout, tx.config, backup.directory, names, tx.cancel.check,
        lambda done, total: tx.progress.tell(done=done, total=total),
        keep_fds=tx.lock.fds, record=lock.child_record(tx.layout),
    )  # fmt: skip


def note_schema(tx: Transaction) -> None:
    """For the history: whether this deployment has changed a schema."""
    before = tx.facts.get("migrate", {}).get("before") or {}
    now = schemas(tx.layout, before)
    if changed := [path for path in before if now[path] != before[path]]:
        tx.memory["data"] = {
            "schema": "changed",
            "changed": changed,
            "before": {path: before[path] for path in changed},
            "after": {path: now[path] for path in changed},
        }


def settle(tx: Transaction) -> None:
    """After the commit: the data that were moved there are what counts; what lay there before goes."""
    note_schema(tx)
    swap.accept(tx.layout)
    if (
        tx.request.kind == "restore"
    ):  # of settings, or from a backup that does not hold what is missing, perhaps
        missing.forget_what_came_back(tx.layout)
    else:  # whoever put this into service has decided what the data are
        durable.remove(tx.layout.missing)
