"""Phases 8 and 9: may the application be interrupted, and a backup before anything is. None of them stops it.

The mark ``.updater/drained`` is on the disk before the application is told to take on nothing new, and goes when it has been
told that it may again: whoever dies in between, the next recovery tells it. It holds the command for that, which must not
be lost with a configuration that is changed or broken meanwhile. ``.updater/resume``, on the disk before the mark, is that command
for a shell.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from updater import durable, records
from updater.backups import catalogue, create
from updater.backups.catalogue import Backup as Made
from updater.backups.recent import Recent
from updater.backups.sqlite import TIMEOUT
from updater.deployment.engine import Phase
from updater.deployment.transaction import Transaction
from updater.errors import Busy, Cancelled, DeploymentFailed, DumpFailed, UpdaterError
from updater.layout import Layout
from updater.processes import commands
from updater.releases import service, store

if TYPE_CHECKING:
    from updater.gate import Answer

Json = dict[str, Any]

EVERY = 2.0
"""Seconds between two questions while waiting."""

HOOK_TIMEOUT = 300.0
"""Seconds that a drain or resume command may take."""

STOPPED = 10.0
"""Seconds that locked databases are waited for while the application does not run: it is not the one that holds them."""


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
        advice='try again when it is free, let updater wait for that ([gate] on_busy = "wait"), or interrupt it: '
        + tx.request.command("--force"),
    )


def _drain(tx: Transaction) -> None:
    """Tell the application to take on nothing new; told once."""
    hook = tx.config.gate.drain
    if not hook or tx.layout.drained.exists():
        return
    if tx.config.gate.resume:
        script = commands.script(tx.config.gate.resume, tx.config.own_variables)
        durable.write(tx.layout.resume, script, mode=0o700)
    else:
        durable.remove(tx.layout.resume)
    mark = {"deployment": tx.journal.id, "resume": tx.config.gate.resume}
    durable.write(tx.layout.drained, json.dumps(mark) + "\n")
    tx.say(f"drain: {' '.join(hook)}")
    why = _run(tx, hook, str(tx.origin))
    if why is None:
        return
    if not tx.request.force:  # a release that is broken may be unable to, and there must be a way out of it
        raise DeploymentFailed(
            f"the drain command failed: {why}",
            advice=f"see [gate] drain in updater.toml, or go on without: {tx.request.command('--force')}",
        )
    tx.warn(f"gone on by --force although the drain command failed: {why}")


def resume(tx: Transaction) -> None:
    """Tell the application that it may go on, if it was told to stop. What fails is told and keeps nobody from anything."""
    if not tx.layout.drained.exists():
        return
    if here := service.in_service(tx.layout).release:
        _resume_in(tx, here)
    durable.remove(tx.layout.drained)
    durable.remove(tx.layout.resume)


def _resume_in(tx: Transaction, version: str) -> None:
    """By the counterpart of the command that was run; the configuration may have changed since. Should that fail, by the one
    that is configured now."""
    hooks = list(dict.fromkeys(filter(None, (_resume_in_mark(tx.layout), tx.config.gate.resume))))
    failures = []
    for hook in hooks:
        tx.say(f"resume: {' '.join(hook)}")
        why = _run(tx, hook, version)
        if why is None:
            return
        failures.append(f"the resume command failed: {why}; run it by hand: {' '.join(hook)}")
    lost = "the application was told to take on nothing new, and nothing tells the command that takes it back"
    for text in failures or [lost]:
        tx.warn(text)


def _resume_in_mark(layout: Layout) -> tuple[str, ...]:
    """The command in the mark; none in a mark of an older updater, which held the deployment alone."""
    found = (records.read_json(layout.drained) or {}).get("resume")
    return tuple(found) if isinstance(found, list) and all(isinstance(it, str) and it for it in found) else ()


def _run(tx: Transaction, hook: tuple[str, ...], version: str) -> str | None:
    """Run a hook in a release. Returns why it failed, or None."""
    try:
        done = commands.run(
            tx.layout, version, hook, timeout=HOOK_TIMEOUT,
            secrets=tx.config.own_variables, check=tx.cancel.check,
        )  # fmt: skip
    except OSError as failure:
        return str(failure.strerror)
    if done.timed_out:
        return f"it did not end within {HOOK_TIMEOUT:g} s"
    if done.status == 0:
        return None
    said = " ".join(done.tail(3).split())[:200]
    return f"it exited with {done.status}{f': {said}' if said else ''}"


class Backup(Phase):
    """A consistent copy of ``shared/``, verified by reading it back, while the application runs."""

    name = "backup"

    def do(self, tx: Transaction) -> Json:
        made = _make_or_warn(tx, "there is NO backup of the data from before")
        if made is None:
            return {"backup": None, "say": "none could be made"}
        new = f", {made.own:,} bytes of it new" if made.own < made.stored else ""
        return {"backup": made.id, "lacks": bool(made.manifest.warnings), "say": f"{made.id}{new}"}


def top_up(tx: Transaction) -> str | None:
    """Once the application has stopped: what it has written since its backup. The whole one from now takes the place of the
    one from before; until it has been read back both are there. What the first has seen and is still so is not read again."""
    earlier = tx.facts.get("backup", {}).get("backup")
    if not isinstance(earlier, str):
        return None
    lost = f"what was written since {earlier} is in no backup"
    made = _make_or_warn(tx, lost, patience=STOPPED, since=tx.memory.pop("recent", None))
    if made is None:
        return earlier
    try:
        catalogue.remove(tx.layout, earlier)
    except OSError as failure:
        tx.warn(f"{earlier} was not removed: {failure.strerror}")
    return made.id


def _make_or_warn(
    tx: Transaction, lost: str, *, patience: float = TIMEOUT, since: Recent | None = None
) -> Made | None:
    """A backup; None, and ``lost`` is told, where none can be made and none is needed to go on."""
    try:
        return _make(tx, patience=patience, since=since)
    except (UpdaterError, OSError) as failure:
        if isinstance(failure, Cancelled) or not may_do_without(tx):
            raise
        tx.warn(f"{lost}: {failure}")
        return None


def may_do_without(tx: Transaction) -> bool:
    """A way back changes no data: what spoils a backup, or the settings (a full disk, a database that is corrupt already),
    must not bar it.

    Where data are put back the present ones go, so they must be somewhere else first, whatever is forced.
    """
    return not tx.request.puts_data_back and (tx.request.kind == "rollback" or tx.request.force)


def _make(tx: Transaction, *, patience: float, since: Recent | None) -> Made:
    making = create.Making(
        f"before {tx.request.kind} {tx.facts.get('choose', {}).get('backup') or tx.target}",
        deployment=tx.journal.id,
        # who restores may well do so because a database is corrupt; it is kept as it is
        accept_damaged=tx.request.force or tx.request.puts_data_back,
        without_dumps=may_do_without(tx) or _leaves_dumps_alone(tx),
        forced=tx.request.command("--force"),
        patience=patience,
        since=since,
        check=tx.cancel.check,
        on_progress=lambda done, total: tx.progress.tell(done=done, total=total),
    )
    try:
        made = create.remembered(tx.layout, tx.config, making)
    except DumpFailed as failure:
        raise _told_the_other_way(tx, failure) from None
    tx.memory["copied"] = made.states
    if since is None:
        tx.memory["recent"] = made.recent()
    told = since.manifest.warnings if since else ()
    for warning in made.backup.manifest.warnings:
        if warning not in told:
            tx.warn(f"backup: {warning}")
    return made.backup


def _leaves_dumps_alone(tx: Transaction) -> bool:
    """Whether data are put back, but no dumps: what is wrong with those databases must not bar it."""
    return tx.request.puts_data_back and "dumps" not in (tx.facts.get("choose", {}).get("parts") or ())


def _told_the_other_way(tx: Transaction, failure: DumpFailed) -> DumpFailed:
    """The present state of a database that is broken cannot be kept, so it is not overwritten: a person decides."""
    if tx.request.puts_data_back:
        name = tx.facts["choose"]["backup"]
        failure.advice = (
            f"{failure.advice} If the database is beyond that: --only data (or config) puts the rest back, and "
            f"`updater backup restore {name} --to DIR --only dumps` gives you the dump for its restore command."
        )
    return failure


def prune(tx: Transaction) -> None:
    """After the commit: old backups go."""
    manifests = [it.manifest for it in catalogue.found(tx.layout)]
    retained = [release.version for release in store.installed(tx.layout)]
    needed = {str(tx.facts.get("choose", {}).get("backup")), str(tx.backup)}
    for name in catalogue.to_drop(manifests, tx.config.backup.keep, retained, needed):
        catalogue.remove(tx.layout, name)
        records.log(tx.layout, f"backup {name} pruned")
