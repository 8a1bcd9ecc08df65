"""Phases 10 and 12: the migration, first on a copy while the old release runs, then for real on a copy that takes the
database's place, while the untouched one lies beside it until after the commit."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from updater import durable, lock, versions
from updater.backups import catalogue, copying, gather, holders, sqlite, staging, swap, unpacking
from updater.backups.swap import Step
from updater.deployment.engine import Phase
from updater.deployment.phases import configure, data
from updater.deployment.transaction import Transaction
from updater.errors import DeploymentFailed, UpdaterError
from updater.layout import Layout, ReleaseFiles
from updater.processes import commands
from updater.releases import shared, store

Json = dict[str, Any]


def going_back(tx: Transaction) -> bool:
    """Whether an older release is put into service again: no migration leads there."""
    if tx.request.kind == "rollback":
        return True
    here, there = (_version(tx.layout, it) for it in (tx.origin, tx.target))
    return here is not None and there is not None and there < here


def _version(layout: Layout, name: str | None) -> Any:
    release = store.read(layout.release(name)) if name else None
    return versions.version_of(release.record.tag or release.version) if release else None


class Rehearse(Phase):
    """The migration on what the backup holds, in a copy of the release. Its failure costs nothing."""

    name = "rehearse"

    def applies(self, tx: Transaction) -> bool:
        return bool(
            tx.config.migrate.command
            and tx.config.migrate.rehearse
            and tx.origin
            and tx.target not in (None, tx.origin)
            and not tx.request.restore_data
            and not going_back(tx)
        )

    def do(self, tx: Transaction) -> Json:
        name = tx.facts.get("backup", {}).get("backup")
        if not isinstance(name, str):
            tx.warn("the migration was not rehearsed: there is no backup to do so on")
            return {"say": "not rehearsed"}
        target, place = tx.must_target(), self.place(tx)
        durable.remove_tree(place)
        before = data.schemas(tx.layout, [it.path for it in data.databases(tx.layout, tx.config.backup)])
        scene = _scene(tx, place, catalogue.find(tx.layout, name).directory)
        tx.progress.tell("running the migration on a copy")
        _run(tx, scene, target, rehearsal=True)
        after = data.schemas(scene, before)
        _whole(scene, after)
        _untouched(tx, before)
        durable.remove_tree(place)
        changed = [path for path in before if before[path] != after.get(path)]
        return {
            "changed": changed,
            "say": f"changes {', '.join(changed)}" if changed else "changes no schema",
        }

    def undo(self, tx: Transaction) -> None:
        durable.remove_tree(self.place(tx))

    @staticmethod
    def place(tx: Transaction) -> Path:
        """Where it happens; a name that a sweep removes."""
        return tx.layout.own / f"{durable.TEMPORARY}rehearsal-{tx.journal.id}"


def _scene(tx: Transaction, place: Path, backup: Path) -> Layout:
    """A root of its own: the data of the backup, the settings as they will be, and a copy of the release whose links lead to them."""
    scene, target = Layout(place), tx.must_target()
    place.mkdir(0o700)
    unpacking.unpack(backup, scene.shared, ("config", "data"), check=tx.cancel.check)
    configure.rehearse(tx, scene)
    real, copy = tx.layout.release(target), scene.release(target)
    shutil.copytree(real, copy, symlinks=True, ignore=shutil.ignore_patterns(ReleaseFiles.ENVIRONMENT))
    if (real / ReleaseFiles.ENVIRONMENT).exists():
        os.symlink(real / ReleaseFiles.ENVIRONMENT, copy / ReleaseFiles.ENVIRONMENT)
    (scene.shared / "logs").mkdir(exist_ok=True)
    shared.link(scene, target, tx.config.shared)
    return scene


def _run(tx: Transaction, layout: Layout, version: str, *, rehearsal: bool) -> None:
    """Run the command.

    Raises:
        DeploymentFailed: it failed or took too long.
    """
    how = tx.config.migrate
    what = "the rehearsal of the migration" if rehearsal else "the migration"
    try:
        done = commands.run(
            layout, version, how.command, timeout=how.timeout,
            env={"UPDATER_REHEARSAL": "1"} if rehearsal else {},
            secrets=tx.config.own_variables, keep_fds=tx.lock.fds, record=lock.child_record(tx.layout),
            check=tx.cancel.check,
        )  # fmt: skip
    except OSError as failure:
        raise DeploymentFailed(
            f"{what} could not be started: {failure.strerror}",
            advice="see [migrate] command in updater.toml.",
        ) from failure
    finally:
        if left := lock.end_heirs(tx.layout):  # nobody but the application writes to what comes next
            tx.warn(f"{what} left something running, which was ended: {'; '.join(left)}")
    tx.say(f"{what}: {done.tail(5)}")
    if done.timed_out or done.status != 0:
        how_it_ended = (
            f"did not end within {how.timeout:g} s" if done.timed_out else f"exited with {done.status}"
        )
        raise DeploymentFailed(f"{what} {how_it_ended}", details=done.tail(15).splitlines())


def _whole(layout: Layout, paths: Mapping[str, object]) -> None:
    for path in paths:
        place = layout.shared / path
        try:
            problem = sqlite.integrity_in_use(place) if place.exists() else "it is not there any more"
        except sqlite3.Error as failure:
            raise DeploymentFailed(f"after the migration {path} is {holders.told(place)}") from failure
        if problem != "ok":
            raise DeploymentFailed(f"after the migration {path} is corrupt: {problem}")


def _untouched(tx: Transaction, before: data.Schemas) -> None:
    """The rehearsal must not have reached the real database by an absolute path."""
    if touched := [path for path in before if data.schema(tx.layout.shared / path) != before[path]]:
        raise DeploymentFailed(
            f"the rehearsal of the migration has changed the real {', '.join(touched)}: it uses an absolute path",
            details=[f"{tx.facts['backup']['backup']} holds the data from before"],
            advice="make its paths relative, or take them from UPDATER_SHARED; or set [migrate] rehearse = false.",
        )


class Migrate(Phase):
    """The migration, and on the way back the data rule: also for an application that migrates by itself at its start."""

    name = "migrate"
    touches_service = True
    puts_data_back = True

    def applies(self, tx: Transaction) -> bool:
        return tx.target is not None and not tx.request.restore_data and tx.target != tx.origin

    def do(self, tx: Transaction) -> Json:
        if not tx.config.migrate.command or going_back(tx):
            return {"before": self._before(tx), "say": "nothing to run"}
        found = data.databases(tx.layout, tx.config.backup)
        before = data.schemas(tx.layout, [it.path for it in found])
        data.refuse_users(tx)
        target = tx.must_target()
        shared.link(tx.layout, target, tx.config.shared)
        _put_copies(tx, found)
        tx.memory["migrating"] = time.time_ns()
        tx.progress.tell("running the migration")
        _run(tx, tx.layout, target, rehearsal=False)
        after = data.schemas(tx.layout, before)
        _whole(tx.layout, after)
        changed = [path for path in before if before[path] != after[path]]
        return {
            "before": before,
            "after": after,
            "say": f"changed {', '.join(changed)}" if changed else "changed no schema",
        }

    @staticmethod
    def _before(tx: Transaction) -> data.Schemas:
        """The schemas, where they are only looked at: what cannot be read bars nobody's way."""
        try:
            found = data.databases(tx.layout, tx.config.backup)
        except UpdaterError as failure:
            tx.warn(f"whether the schema changes cannot be told: {failure}")
            return {}
        return data.schemas(tx.layout, [it.path for it in found])

    def undo(self, tx: Transaction) -> None:
        before = {**_known(tx), **_readable(tx.facts.get("migrate", {}).get("before") or {})}
        ran = bool(tx.config.migrate.command) and tx.began("migrate") and not going_back(tx)
        data.apply_rule(tx, before, migrated=ran)
        if (since := tx.memory.get("migrating")) and not data.may_have_written(tx):
            data.tell_other_files(tx, since)


def _readable(schemas: Mapping[str, list[Any] | None]) -> data.Schemas:
    """Without those that could not be read, because somebody held them locked: that says nothing about what they were."""
    return {path: it for path, it in schemas.items() if it is not None}


def _known(tx: Transaction) -> data.Schemas:
    """The schemas before, from the backup, where the phase left no record."""
    backup = next((it for it in catalogue.found(tx.layout) if it.id == tx.backup), None)
    found = backup.manifest.databases if backup else ()
    return {it.path: [it.user_version, it.schema] for it in found if it.integrity == "ok"}


def _put_copies(tx: Transaction, found: list[gather.Found]) -> None:
    """A copy of each database takes its place; the untouched one, with what lies beside it, is kept."""
    places = staging.holders(tx.layout, [it.path for it in found])
    moving = swap.begin(tx.layout, tx.journal.id, "migrate", places.values())
    steps: list[Step] = []
    states: dict[str, sqlite.State] = {}
    for it in found:
        holder = places[it.path]
        step = Step(it.path, holder, len(steps) + 1, before=True, after=True)
        copy = swap.directory(tx.layout, moving, holder) / "new" / str(step.number)
        if before := sqlite.state(it.place):
            states[it.path] = before
        copying.copy(it.place, copy, patience=copying.Patience(), check=tx.cancel.check)
        _like(copy, it)
        steps.append(step)
        for sibling in sqlite.siblings(it.place):
            path = it.path + sibling.name.removeprefix(it.place.name)
            steps.append(Step(path, holder, len(steps) + 1, before=True, after=False))
    for holder in moving.holders:
        durable.flush_tree(swap.directory(tx.layout, moving, holder))
    ready = replace(moving, steps=tuple(steps), ready=True)
    swap.forward(tx.layout, ready)
    data.refuse_late_writes(tx, ready, states)
    swap.claim(tx.layout, ready)


def _like(copy: Path, it: gather.Found) -> None:
    """Owner and mode as the database had them, and the journal mode that a copy does not take over by itself."""
    if _is_wal(it.place):
        _set_wal(copy)
    if os.geteuid() == 0:
        os.chown(copy, *it.owner)
    os.chmod(copy, stat.S_IMODE(it.mode))


def _is_wal(place: Path) -> bool:
    with open(place, "rb") as file:
        return file.read(20)[18:20] == sqlite.WAL


def _set_wal(copy: Path) -> None:
    with open(copy, "r+b") as file:
        file.seek(18)
        file.write(sqlite.WAL)
