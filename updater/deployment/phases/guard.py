"""Phases 8 and 9: may the application be interrupted, and a backup before anything is. None of them stops it.

The mark ``.updater/drained`` is on the disk before the application is told to take on nothing new, and goes when it has been
told that it may again: whoever dies in between, the next recovery tells it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from updater import durable, records
from updater.backups import catalogue, create
from updater.backups.catalogue import Backup as Made
from updater.deployment.engine import Phase
from updater.deployment.transaction import Transaction
from updater.errors import Busy, Cancelled, DeploymentFailed, UpdaterError
from updater.processes import commands
from updater.releases import service, store

if TYPE_CHECKING:
    from updater.gate import Answer

Json = dict[str, Any]

EVERY = 2.0
"""Seconds between two questions while waiting."""

HOOK_TIMEOUT = 300.0
"""Seconds that a drain or resume command may take."""


class Gate(Phase):
    """May the application be interrupted? Refuse, or wait until it may (F50)."""

    name = "gate"

    def applies(self, tx: Transaction) -> bool:
        return tx.config.gate.asks and tx.origin is not None

    def do(self, tx: Transaction) -> Json:
        return {"say": _pass(tx)}

    def undo(self, tx: Transaction) -> None:
        resume(tx)


class Drain(Phase):
    """At the last moment before the stop: nothing new from here on, and the question once more."""

    name = "drain"

    def applies(self, tx: Transaction) -> bool:
        return tx.origin is not None and (tx.config.gate.asks or bool(tx.config.gate.drain))

    def do(self, tx: Transaction) -> Json:
        _drain(tx)
        return {"say": _pass(tx)}

    def undo(self, tx: Transaction) -> None:
        resume(tx)


def _pass(tx: Transaction) -> str:
    """Ask; wait where that is wanted. Returns what was answered.

    Raises:
        Busy: it may not be interrupted.
    """
    answer = _ask(tx)
    if answer.free:
        return answer.reason
    if tx.request.force:
        tx.warn(f"interrupted although it is busy, by --force: {answer.reason}")
        return f"busy, forced: {answer.reason}"
    if tx.config.gate.on_busy == "wait":
        return _wait(tx)
    raise _busy(tx, answer)


def _ask(tx: Transaction) -> Answer:
    from updater import gate

    assert tx.origin is not None
    return gate.ask(tx.layout, tx.config, tx.origin, tx.cancel.check)


def _wait(tx: Transaction) -> str:
    _drain(tx)
    begun = time.monotonic()
    while True:
        answer = _ask(tx)
        waited = time.monotonic() - begun
        if answer.free:
            return f"free after {waited:.0f} s: {answer.reason}"
        if waited >= tx.config.gate.wait:
            raise _busy(tx, answer, waited)
        tx.progress.tell(f"waiting: {answer.reason}", done=waited, total=tx.config.gate.wait)
        until = min(time.monotonic() + EVERY, begun + tx.config.gate.wait)
        while time.monotonic() < until:
            tx.cancel.check()
            time.sleep(0.1)


def _busy(tx: Transaction, answer: Answer, waited: float | None = None) -> Busy:
    after = f" after {waited:.0f} s of waiting" if waited is not None else ""
    what = (
        "may not be interrupted now"
        if answer.certain
        else "was asked whether it may be interrupted and did not say"
    )
    return Busy(
        f"{tx.config.name} {what}{after}: {answer.reason}",
        advice='try again when it is free, let updater wait for that ([gate] on_busy = "wait"), or interrupt it: --force',
    )


def _drain(tx: Transaction) -> None:
    """Tell the application to take on nothing new; told once."""
    hook = tx.config.gate.drain
    if not hook or tx.layout.drained.exists():
        return
    durable.write(tx.layout.drained, f"{tx.journal.id}\n")
    tx.say(f"drain: {' '.join(hook)}")
    if why := _run(tx, hook, str(tx.origin)):
        raise DeploymentFailed(f"the drain command failed: {why}", advice="see [gate] drain in updater.toml.")


def resume(tx: Transaction) -> None:
    """Tell the application that it may go on, if it was told to stop. What fails is told and keeps nobody from anything."""
    if not tx.layout.drained.exists():
        return
    here, hook = service.in_service(tx.layout).release, tx.config.gate.resume
    if here and hook:
        tx.say(f"resume: {' '.join(hook)}")
        if why := _run(tx, hook, here):
            tx.warn(f"the resume command failed: {why}; run it by hand: {' '.join(hook)}")
    durable.remove(tx.layout.drained)


def _run(tx: Transaction, hook: tuple[str, ...], version: str) -> str | None:
    """Run a hook in a release. Returns why it failed, or None."""
    try:
        done = commands.run(
            tx.layout, version, hook, timeout=HOOK_TIMEOUT,
            secrets=(tx.config.source.token_env,), check=tx.cancel.check,
        )  # fmt: skip
    except OSError as failure:
        return str(failure.strerror)
    if done.timed_out:
        return f"it did not end within {HOOK_TIMEOUT:g} s"
    return (
        None if done.status == 0 else f"it exited with {done.status}: {' '.join(done.tail(3).split())[:200]}"
    )


class Backup(Phase):
    """A consistent copy of ``shared/``, verified by reading it back, while the application runs."""

    name = "backup"

    def do(self, tx: Transaction) -> Json:
        made = _make_or_warn(tx, "there is NO backup of the data from before")
        if made is None:
            return {"backup": None, "say": "none could be made"}
        new = f", {made.own:,} bytes of it new" if made.own < made.stored else ""
        return {"backup": made.id, "say": f"{made.id}{new}"}


def top_up(tx: Transaction) -> str | None:
    """Once the application has stopped: what it has written since its backup. The whole one from now takes the place of the
    one from before; until it has been read back both are there."""
    earlier = tx.facts.get("backup", {}).get("backup")
    if not isinstance(earlier, str):
        return None
    made = _make_or_warn(tx, f"what was written since {earlier} is in no backup")
    if made is None:
        return earlier
    try:
        catalogue.remove(tx.layout, earlier)
    except OSError as failure:
        tx.warn(f"{earlier} was not removed: {failure.strerror}")
    return made.id


def _make_or_warn(tx: Transaction, lost: str) -> Made | None:
    """A backup; None, and ``lost`` is told, where none can be made and none is needed to go on."""
    try:
        return _make(tx)
    except (UpdaterError, OSError) as failure:
        if isinstance(failure, Cancelled) or not _may_do_without(tx):
            raise
        tx.warn(f"{lost}: {failure}")
        return None


def _may_do_without(tx: Transaction) -> bool:
    """A way back changes no data: what spoils a backup (a full disk, a database that is corrupt already) must not bar it.

    Where data are put back the present ones go, so they must be somewhere else first, whatever is forced.
    """
    return not tx.request.puts_data_back and (tx.request.kind == "rollback" or tx.request.force)


def _make(tx: Transaction) -> Made:
    making = create.Making(
        f"before {tx.request.kind} {tx.facts.get('choose', {}).get('backup') or tx.target}",
        deployment=tx.journal.id,
        # who restores may well do so because a database is corrupt; it is kept as it is
        accept_damaged=tx.request.force or tx.request.puts_data_back,
        check=tx.cancel.check,
        on_progress=lambda done, total: tx.progress.tell(done=done, total=total),
    )
    made = create.create(tx.layout, tx.config, making)
    for warning in made.manifest.warnings:
        tx.warn(f"{made.id}: {warning}")
    return made


def prune(tx: Transaction) -> None:
    """After the commit: old backups go."""
    manifests = [it.manifest for it in catalogue.found(tx.layout)]
    retained = [release.version for release in store.installed(tx.layout)]
    needed = {str(tx.facts.get("choose", {}).get("backup")), str(tx.backup)}
    for name in catalogue.to_drop(manifests, tx.config.backup.keep, retained, needed):
        catalogue.remove(tx.layout, name)
        records.log(tx.layout, f"backup {name} pruned")
