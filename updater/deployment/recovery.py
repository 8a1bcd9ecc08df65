"""Finishes or undoes a deployment whose owner is dead. Facts on the disk first, the journal second.

One question decides: has the link ``.updater/good`` been renamed to the new release? Before that everything rolls
back, after it everything rolls forward. A journal that already began to roll back is never rolled forward.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from updater import durable, records
from updater.config import Config
from updater.deployment import engine, housekeeping, journal, tidying
from updater.deployment.cancel import deferred
from updater.deployment.journal import Journal, Log
from updater.deployment.transaction import Stopwatch, Transaction
from updater.errors import DeploymentInterrupted, RollbackFailed, UpdaterError, from_json
from updater.layout import Layout, ReleaseFiles
from updater.lock import Lock
from updater.processes import control, orphans
from updater.releases import service, shared, store
from updater.settings import files as settings_files
from updater.settings import sets


def needed(layout: Layout) -> bool:
    """Whether there is a deployment that has not ended. Reads only; says nothing about whether its owner lives."""
    return bool(journal.unfinished(layout))


def recover(layout: Layout, config: Config, lock: Lock) -> list[engine.Outcome]:
    """Bring every interrupted deployment to an end. Call it under the lock: a held lock proves that the owner is dead.

    Returns how each of them ended.

    Raises:
        RollbackFailed: the way back failed; it is tried again by the next command, three times in all.
    """
    with deferred():
        orphans.end(layout)
        outcomes = [_recover_one(layout, config, lock, path) for path in journal.unfinished(layout)]
        tidying.tidy(layout)
        sweep(layout)
        housekeeping.restore_ballast(layout)
    return outcomes


def start_nothing_without_data(outcomes: Iterable[engine.Outcome]) -> None:
    """For a command that goes on after it has recovered: it may start something.

    Raises:
        RollbackFailed: a way back was given up just now, with data that are not back.
    """
    for outcome in outcomes:
        if outcome.without_data and outcome.error:
            raise outcome.error


def sweep(layout: Layout) -> None:
    """Remove the temporary names that a kill has left. Only names of our own making are touched."""
    places = [
        layout.root, layout.releases, layout.own, layout.marks, layout.journal, layout.journal / "closed",
        layout.run, layout.cache, layout.cache / "http", layout.logs, layout.launchers, layout.configurations,
        layout.scripts, layout.backups, layout.bound_settings, layout.bound_settings / sets.SETS,
    ]  # fmt: skip
    for release in store.installed(layout):
        places += [release.path, release.path / ReleaseFiles.RECORDS, layout.launchers / release.version]
        links = shared.links(layout, release.version)
        places += [(release.path / inside).parent for inside in links]
        places += [place.parent for place in settings_files.places(layout, links)]
    places += tidying.places(layout)
    for place in places:
        durable.sweep(place)


def _recover_one(layout: Layout, config: Config, lock: Lock, path: Path) -> engine.Outcome:
    book = Journal.reopen(layout, path)
    try:
        return _go_on(layout, config, lock, book)
    finally:
        book.release()


def _go_on(layout: Layout, config: Config, lock: Lock, book: Journal) -> engine.Outcome:
    from updater.deployment import phases  # seldom needed, and it imports everything that a deployment uses

    log = book.read()
    tx = Transaction.recovered(layout, config, lock, book, log)
    tx.memory |= {"recovered": True, "seconds": log.seconds()}
    notes = engine.Run(tx, phases=log.phases())
    _take_up_outage(tx, log)
    if log.incomplete:
        _fill_from_facts(tx, facts(layout))
    if log.end is not None:
        record = records.whole({"id": log.id, **log.end})
        engine.close(tx, record)
        return engine.Outcome(str(record["outcome"]), record, told=engine.is_told(log))
    if log.recoveries >= engine.ATTEMPTS:
        return _hold(notes, log)
    engine.free_ballast(tx)
    book.record("recover", None, {"attempt": log.recoveries + 1, "facts": facts(layout)})
    if committed(log, tx, facts(layout)):
        tx.memory["committed"] = True
        phases.settle(tx)
        return engine.finish(notes, "succeeded", text="finished after an interruption")
    known = {phase.name: phase for phase in phases.of(tx.request)}
    undone = {line.phase for line in log.lines if line.kind == "undone"}
    every = [it for it in phases.EVERY if it.name not in undone]
    notes.done = every if log.incomplete else [known[it] for it in log.intended() if it in known]
    problems = engine.undo(tx, notes.done)
    because = interrupted(log, tx)
    if problems:
        left = engine.ATTEMPTS - (log.recoveries + 1)
        if not left:
            return engine.give_up(notes, because, problems)
        raise engine.rollback_failed(tx, because, problems, tries_left=left)
    # What is undone already, by a way back that was killed as well, was touched all the same.
    began = [
        *notes.done,
        *(known[line.phase] for line in log.lines if line.kind == "intent" and line.phase in known),
    ]
    touched = any(phase.touches_service for phase in began) and not (log.incomplete and tx.target is None)
    error = engine.explained(tx, because, touched=touched)
    return engine.finish(notes, "rolled-back" if touched else "failed", error=error)


def _take_up_outage(tx: Transaction, log: Log) -> None:
    """What was stopped before the kill has been down since, unless the new release had answered."""
    if isinstance(told := log.data("probe").get("outage_seconds"), int | float):
        tx.memory["outage"] = float(told)
    elif (since := log.age("intent", "stop")) is not None:
        tx.memory["down"] = Stopwatch(since)


def _fill_from_facts(tx: Transaction, now: Mapping[str, str | None]) -> None:
    """What lost lines would have told. Without the first one: before it the good release was in service, and its processes
    ran. Without the target: a release in service that is not the one before is it."""
    if "in_service" not in tx.before:
        before = now["good"] or now["in_service"]
        tx.before = {**now, "in_service": before, "running": list(tx.config.processes)}
    if tx.target is None and now["in_service"] not in (None, tx.origin):
        tx.facts["resolve"] = {"version": now["in_service"]}


def facts(layout: Layout) -> dict[str, str | None]:
    """What is on the disk now."""
    return {
        "in_service": service.in_service(layout).version,
        "good": service.named_by(layout, layout.good),
        "previous": service.named_by(layout, layout.previous),
        "moving": str(layout.swap) if os.path.lexists(layout.swap) else None,
    }


def committed(log: Log, tx: Transaction, now: Mapping[str, str | None]) -> bool:
    """Whether the commit point was passed; a pure function of the journal and the facts."""
    if log.rolling_back is not None:
        return False
    if log.incomplete:
        return tx.target is not None and now["good"] == tx.target and tx.before.get("good") != tx.target
    if "commit" not in log.intended():
        return False
    if tx.request.kind == "restore":
        return now["moving"] is None
    if log.finished("commit"):
        return True
    # Killed between the rename and its record. If the target was good already, the rename changed nothing that
    # could be seen: then going back is as safe as going forward, and the journal's silence decides.
    return now["good"] == tx.target and tx.before.get("good") != tx.target


def interrupted(log: Log, tx: Transaction) -> UpdaterError:
    """Why the deployment is undone: what it had failed with before the kill, or the kill itself."""
    again = f"run it again: {tx.request.command()}"
    if log.rolling_back is not None:
        error = from_json(dict(log.rolling_back.data))
        if isinstance(error, DeploymentInterrupted):  # by a script, which does not know the command
            error.advice = error.advice or again
        return error
    phase = next(reversed(log.intended()), "begin")
    if log.incomplete:
        return DeploymentInterrupted(
            f"updater was killed, or the machine stopped, after phase {phase}; its journal was damaged, so every phase was undone",
            advice=again,
        )
    return DeploymentInterrupted(
        f"updater was killed, or the machine stopped, in phase {phase}", advice=again
    )


def _hold(notes: engine.Run, log: Log) -> engine.Outcome:
    """Three recoveries did not come through: put the link on a release that was good, and hold still."""
    from updater.deployment.phases import data

    tx = notes.tx
    back = tx.origin or service.named_by(tx.layout, tx.layout.good)
    problems: list[UpdaterError] = []
    if tx.target is not None and tx.target != back:
        try:
            control.stop_release(tx.layout, tx.config, tx.target, warn=tx.warn)
        except (UpdaterError, OSError) as failure:
            problems.append(engine.as_error(tx, failure))
    if back and tx.layout.release(back).is_dir():
        try:
            service.put_in_service(tx.layout, back)
        except (UpdaterError, OSError) as failure:
            problems.append(engine.as_error(tx, failure))
    else:
        problems.append(RollbackFailed("the release that was in service before is not there any more"))
    tx.memory["data_not_back"] = data.are_under_way(tx)
    return engine.give_up(
        notes, interrupted(log, tx), problems,
        f"{engine.ATTEMPTS} recoveries did not come to an end; `current` is {back}, its processes were not started",
    )  # fmt: skip
