"""Phases 11 to 17: the old release out, the new one in, and the proof that it works."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from updater import durable, ownership
from updater.backups import swap
from updater.deployment import configuration, housekeeping
from updater.deployment.engine import Phase
from updater.deployment.phases import configure, data, guard
from updater.deployment.transaction import Stopwatch, Transaction
from updater.errors import (
    Cancelled,
    DeploymentFailed,
    HealthFailed,
    ProcessFailed,
    RollbackFailed,
    UpdaterError,
)
from updater.processes import bound, control, forced, proof, state
from updater.releases import marks, service, shared

Json = dict[str, Any]


class Stop(Phase):
    """The old processes, gracefully, then firmly."""

    name = "stop"
    touches_service = True

    def applies(self, tx: Transaction) -> bool:
        # What ran and has died since is started again on the way back, too.
        return bool(tx.running_before or control.present(tx.layout, tx.config))

    def do(self, tx: Transaction) -> Json:
        control.refuse_odd_logs(tx.layout, tx.config.processes)
        tx.memory["down"] = Stopwatch()
        names = control.present(tx.layout, tx.config)
        tx.progress.tell(f"stopping {', '.join(names) or 'nothing: it has ended by itself'}")
        control.stop(tx.layout, tx.config, names, warn=tx.warn)
        return {"stopped": names, "backup": guard.top_up(tx)}

    def undo(self, tx: Transaction) -> None:
        """Start what ran before, by the configuration it ran with: the present one may be meant for the release that
        failed (F51). From here on that is the deployment's configuration."""
        ran = [str(name) for name in tx.before.get("running") or ()]
        back = _back_to(tx)
        if not back or not ran or _stays_down(tx, ran):
            return
        if data.are_not_back(tx):  # what it writes now would be lost when they are
            raise RollbackFailed(f"{', '.join(ran)} not started: the data are not all back in their place")
        tx.config = bound.configuration(tx.layout, tx.config, back, ran)
        names = tx.running_before
        if unknown := [name for name in ran if name not in names]:
            tx.warn(f"{', '.join(unknown)} ran before, and nothing tells how to start it")
        tx.progress.tell(f"starting {', '.join(names)} of {back} again")
        try:
            _bring_up_again(tx, back, names)
        except UpdaterError as failure:
            if _stays_down(tx, ran):
                return
            raise RollbackFailed(
                f"{back} is back at `current` but is not healthy: {failure.message}",
                details=failure.details,
            ) from failure
        finally:
            outage(tx)


def _bring_up_again(tx: Transaction, back: str, names: list[str]) -> None:
    """Start what ran before, until it is healthy; once more where a process ended: nobody is there to try again, and what ended it
    (a file that could not be opened, memory) may be over. One that runs and is ill is left alone."""
    try:
        _bring_up(tx, back, names)
    except (ProcessFailed, HealthFailed) as failure:
        by_force = forced.stopped(tx.layout, tx.journal.id)
        if by_force or all(state.find(tx.layout, name) for name in names):
            raise
        tx.warn(f"started once more on the way back: {failure.message}")
        _bring_up(tx, back, names)


def _bring_up(tx: Transaction, back: str, names: list[str]) -> None:
    from updater import health

    control.start(tx.layout, tx.config, back, names, warn=tx.warn)
    health.wait_healthy(tx.layout, tx.config, back, names)


def _back_to(tx: Transaction) -> str | None:
    """The release to come back to: what somebody pointed `current` at by hand meanwhile, else the one before."""
    here = service.in_service(tx.layout).release
    if here is None or here in (tx.target, tx.origin):
        return tx.origin
    tx.warn(f"`current` was pointed at {here} by hand meanwhile; that is taken as the truth")
    tx.memory["back_to"] = here
    return here


def _stays_down(tx: Transaction, ran: list[str]) -> bool:
    """Whether what ran before must not be started again, and says so."""
    if forced.stopped(tx.layout, tx.journal.id):
        why = "everything was stopped by force meanwhile"
    elif not ownership.is_ours(tx.layout, tx.before):
        why = "this root is a copy, and what ran belongs to the one it was copied from"
    else:
        return False
    tx.memory["stays_down"] = ran
    told = f"{', '.join(ran)} not started again: {why}; `updater start` does"
    tx.warn(told)
    if isinstance(failure := tx.memory.get("failure"), UpdaterError) and told not in failure.details:
        failure.details.append(told)
    return True


def _check(tx: Transaction) -> None:
    """Raise Cancelled if somebody asked for it, or stopped everything by force."""
    if forced.stopped(tx.layout, tx.journal.id):
        raise Cancelled("cancelled by force-stop")
    tx.cancel.check()


class Activate(Phase):
    """One atomic swap of ``current``."""

    name = "activate"
    touches_service = True

    def do(self, tx: Transaction) -> Json:
        target = tx.must_target()
        tx.config = tx.memory.get("config") or tx.config
        service.refuse_what_is_not_ours(tx.layout)
        shared.link(tx.layout, target, tx.config.shared)
        service.put_in_service(tx.layout, target)
        return {"from": tx.origin, "to": target}

    def undo(self, tx: Transaction) -> None:
        here = service.in_service(tx.layout)
        if here.version != tx.target or tx.target == tx.origin:
            return  # not swapped yet, swapped back already, or somebody chose another release by hand
        if tx.origin is None:
            service.take_out_of_service(tx.layout)
        else:
            service.put_in_service(tx.layout, tx.origin)


class Start(Phase):
    """The new processes, from the new release's own directory and interpreter."""

    name = "start"
    touches_service = True

    def applies(self, tx: Transaction) -> bool:
        return tx.target is not None

    def do(self, tx: Transaction) -> Json:
        target, names = tx.must_target(), to_run(tx)
        configuration.keep(tx.layout, tx.config, target)
        durable.write(tx.layout.trial, f"{target}\n")
        tx.progress.tell(f"starting {', '.join(names)}" if names else "no processes are configured")
        with judging(tx):
            running = control.start(
                tx.layout, tx.config, target, names, check=lambda: _check(tx), warn=tx.warn
            )
        return {"started": [{"name": one.name, **one.identity.as_fields()} for one in running]}

    def undo(self, tx: Transaction) -> None:
        target = tx.target
        if target is None:
            return
        if tx.origin is not None:
            tx.memory.setdefault("down", Stopwatch())
        control.stop_release(tx.layout, tx.config, target, warn=tx.warn)
        # only now: a bot that is not good must place no orders in its last moments
        durable.remove(tx.layout.trial)


class Probe(Phase):
    """Every probe passes N times in a row, and each process is proved to run from the new release."""

    name = "probe"
    touches_service = True

    def applies(self, tx: Transaction) -> bool:
        return tx.target is not None and bool(to_run(tx))

    def do(self, tx: Transaction) -> Json:
        from updater import health

        target, names = tx.must_target(), to_run(tx)
        with judging(tx):
            health.wait_healthy(
                tx.layout,
                tx.config,
                target,
                names,
                check=lambda: _check(tx),
                on_progress=tx.progress.tell,
                warn=tx.warn,
            )
            proof.prove(tx.layout, tx.config, target, names)
            proof.prove_ports(tx.layout, tx.config, names)
        return {"outage_seconds": outage(tx)}


class Watch(Phase):
    """No crash and no failed probe for the watch window (F32)."""

    name = "watch"
    touches_service = True

    def applies(self, tx: Transaction) -> bool:
        return bool(tx.config.processes) and tx.config.health.watch > 0

    def do(self, tx: Transaction) -> None:
        from updater import health

        with judging(tx):
            health.watch(
                tx.layout, tx.config, tx.must_target(), list(tx.config.processes),
                check=lambda: _check(tx), on_progress=tx.progress.tell, warn=tx.warn,
            )  # fmt: skip


class CommitData(Phase):
    """The restored data are what counts: the rename of ``.updater/swap.json`` is the commit point of a restore."""

    name = "commit"
    touches_service = True

    def do(self, tx: Transaction) -> None:
        tx.cancel.check()
        tx.cancel.shield()
        if "down" in tx.memory:
            outage(tx)
        try:
            swap.commit(tx.layout)
        except OSError as failure:
            if os.path.lexists(tx.layout.swap):
                raise
            tx.warn(f"the commit could not be flushed: {failure.strerror}")  # renamed it is, and that decides
        tx.memory["committed"] = True
        settle(tx)


class Commit(Phase):
    """The release is good. The rename of ``.updater/good`` is the commit point: before it everything rolls back,
    after it everything rolls forward."""

    name = "commit"
    touches_service = True

    def do(self, tx: Transaction) -> Json:
        tx.cancel.check()
        tx.cancel.shield()
        target = tx.must_target()
        if (here := service.in_service(tx.layout)).version != target:
            raise DeploymentFailed(
                f"`current` names {here.version or 'nothing'} now, not {target}: somebody changed it"
            )
        after = _marks_after(tx)
        previous = marks.rollback_target(after, target, [*after.good])
        _link(tx, "previous", previous)
        try:
            durable.swap_symlink(tx.layout.good, f"../releases/{target}")
        except OSError as failure:
            if not service.named_by(tx.layout, tx.layout.good) == target != tx.before.get("good"):
                raise
            # It is renamed, and that decides: a recovery would go forward from here, too, whatever has been undone by then.
            tx.warn(
                f"the commit could not be flushed ({failure.strerror}): a power cut may still take it back; look at the disk"
            )
        tx.memory["committed"] = True
        settle(tx)
        return {"previous": previous}

    def undo(self, tx: Transaction) -> None:
        if "good" not in tx.before:
            return
        _link(tx, "previous", tx.before.get("previous"))
        _link(tx, "good", tx.before.get("good"))


def to_run(tx: Transaction) -> list[str]:
    """The processes to start: all of a release that is put into service; after a restore those that ran before it."""
    return tx.running_before if tx.request.kind == "restore" else list(tx.config.processes)


def settle(tx: Transaction) -> None:
    """What follows the commit point: marks, the end of the trial, pruning. Done again by a recovery; no failure
    here fails a deployment that is good (F28)."""
    marking = () if tx.request.kind == "restore" else (_mark_good,)
    for act in (
        data.settle,
        *marking,
        _end_trial,
        guard.resume,
        configure.bind,
        housekeeping.refresh_scripts,
        housekeeping.prune,
        guard.prune,
    ):
        try:
            act(tx)
        except (UpdaterError, OSError) as failure:
            tx.warn(f"clean-up: {failure}")


def _mark_good(tx: Transaction) -> None:
    target = tx.must_target()
    found = marks.read(tx.layout)
    places = _order(tx, found)
    if not marks.given_by(tx.layout, found, tx.journal.id):
        for version, place in places.items():
            marks.put(tx.layout, version, "good", seq=place, deployment=tx.journal.id)
    marks.take(tx.layout, target, "bad")


def _order(tx: Transaction, found: marks.Marks) -> dict[str, int]:
    going_back = tx.request.kind == "rollback"
    return found.order(tx.must_target(), leaving=tx.origin, going_back=going_back)


def _marks_after(tx: Transaction) -> marks.Marks:
    """The marks as they will be when this deployment is committed."""
    found = marks.read(tx.layout)
    installed = [v for v in found.good if tx.layout.release(v).is_dir()]
    good = {v: found.good[v] for v in installed} | _order(tx, found)
    bad = {v: reason for v, reason in found.bad.items() if v != tx.target}
    return marks.Marks(good, bad, found.pinned)


def _end_trial(tx: Transaction) -> None:
    durable.remove(tx.layout.trial)
    durable.remove(tx.layout.emergency)  # a script's way back that was interrupted is overtaken


def _link(tx: Transaction, name: str, version: object) -> None:
    """Point ``.updater/good`` or ``previous`` at a release, or remove it where there was none."""
    link = getattr(tx.layout, name)
    if isinstance(version, str) and tx.layout.release(version).is_dir():
        durable.swap_symlink(link, f"../releases/{version}")
    elif version is None:
        durable.remove_symlink(link)


def outage(tx: Transaction) -> float | None:
    """Seconds from the stop until something healthy answered again, and once more where a release failed after that; told
    once."""
    down = tx.memory.pop("down", None)
    if isinstance(down, Stopwatch):
        tx.memory["outage"] = round((tx.memory.get("outage") or 0.0) + down.seconds(), 3)
    found = tx.memory.get("outage")
    return found if isinstance(found, float) else None


@contextlib.contextmanager
def judging(tx: Transaction) -> Iterator[None]:
    """A release that fails here and has never been good is marked bad, with the reason.

    One that was good before keeps its mark: what fails then may be the shared configuration, and every way back
    would be lost with it (F31). What was killed by force has not failed.
    """
    try:
        yield
    except (HealthFailed, ProcessFailed) as failure:
        _check(tx)
        target = tx.must_target()
        if tx.request.kind != "restore" and target not in marks.read(tx.layout).good:
            tx.memory["marked_bad"] = True
            with contextlib.suppress(OSError):
                marks.put(tx.layout, target, "bad", reason=failure.message, deployment=tx.journal.id)
        raise
