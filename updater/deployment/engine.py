"""Runs phases, and undoes them in reverse when one fails. Knows nothing of what the phases do."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from updater import by_hand, records
from updater.deployment import tidying
from updater.deployment.journal import Log
from updater.deployment.transaction import Stopwatch, Transaction
from updater.errors import (
    Cancelled,
    DeploymentFailed,
    DeploymentInterrupted,
    EnvironmentFailed,
    HealthFailed,
    PreflightFailed,
    ProcessFailed,
    RollbackFailed,
    StorageFailed,
    UpdaterError,
)

Json = dict[str, Any]

ATTEMPTS = 3
"""Recoveries after which updater holds still instead of trying again."""


class Phase:
    """One step of a deployment. Doing it twice and undoing it twice are harmless.

    ``do`` returns what an undo after a crash needs to know; it is on the disk before the next phase begins. ``undo``
    looks at the facts on the disk, since the phase may have done half, or all without its record.
    """

    name: ClassVar[str]
    touches_service: ClassVar[bool] = False
    """True from the first phase on that a user of the application could notice."""

    puts_data_back: ClassVar[bool] = False
    """True if its undo does; where that fails nothing is started."""

    def applies(self, tx: Transaction) -> bool:
        """Whether there is anything to do for this deployment."""
        return True

    def do(self, tx: Transaction) -> Mapping[str, Any] | None:
        raise NotImplementedError

    def undo(self, tx: Transaction) -> None:
        """Put back what ``do`` changed. Nothing, for a phase that only looks."""


class LeftAlone(RollbackFailed):
    """Data that stay as they are by the rule, which no other try changes: a person decides."""


@dataclass
class Outcome:
    """How a deployment ended.

    ``result``: ``succeeded``, ``nothing-to-do``, ``failed`` (before anything was touched), ``rolled-back``,
    ``cancelled`` or ``rollback-failed``.
    """

    result: str
    record: Json
    error: UpdaterError | None = None
    told: bool = False
    """Whether people have been told of it already, by the process in which it ended."""
    put_off: bool = False
    """Whether the way back has not come to its end, and is to be gone on with."""
    without_data: bool = False
    """Whether the way back was given up with data that are not back: nothing may be started over that by itself."""

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0


@dataclass
class Run:
    """The engine's own notes of one run: how long each phase took."""

    tx: Transaction
    started: str = field(default_factory=records.stamp)
    watch: Stopwatch = field(default_factory=Stopwatch)
    phases: list[Json] = field(default_factory=list)
    done: list[Phase] = field(default_factory=list)


def run(tx: Transaction, phases: Sequence[Phase]) -> Outcome:
    """Do the phases in order; on any failure before the commit point, undo them in reverse. Never raises."""
    notes = Run(tx)
    nothing: str | None = None
    try:
        for index, phase in enumerate(phases, 1):
            if not phase.applies(tx):
                continue
            tx.cancel.check()
            tx.progress.phase(phase.name, index, len(phases))
            tx.say(f"phase {phase.name}")
            clock = Stopwatch()
            tx.journal.record("intent", phase.name)
            notes.done.append(phase)
            try:
                found = dict(phase.do(tx) or {})
            finally:
                notes.phases.append({"name": phase.name, "seconds": clock.seconds()})
            tx.facts[phase.name] = found
            # Nothing is acted on before the next line, whose flush takes this one too.
            tx.journal.record("done", phase.name, found, flush=False)
            if nothing := found.get("nothing"):
                break
    except Exception as failure:
        if tx.memory.get("committed"):
            # Past the commit point everything rolls forward; what failed is a loose end for the next recovery.
            tx.warn(f"after the commit: {failure}")
        else:
            return roll_back(notes, as_error(tx, failure))
    result = "nothing-to-do" if nothing else "succeeded"
    return finish(notes, result, text=nothing)


def as_error(tx: Transaction, failure: Exception) -> UpdaterError:
    """Any exception as an error that explains itself."""
    if isinstance(failure, UpdaterError):
        return failure
    if isinstance(failure, OSError):
        return storage_error(failure)
    tx.say("".join(traceback.format_exception(failure)), error=True)
    return UpdaterError(
        f"unforeseen: {type(failure).__name__}: {failure}",
        advice=f"this is a defect of updater; {tx.layout.errors_log} has the details for a report.",
    )


def storage_error(failure: OSError) -> StorageFailed:
    """A failed system call in people's words, with a remedy where there is one."""
    import errno

    remedies = {
        errno.ENOSPC: "free some space (`updater prune`, old logs), then run the command again.",
        errno.EDQUOT: "free some space below your quota, then run the command again.",
        errno.EROFS: "the filesystem is read-only: see `dmesg` for a failing disk, or remount it.",
        errno.EACCES: "run the command as the user that owns the root.",
        errno.EPERM: "run the command as the user that owns the root.",
        errno.EIO: "the disk is failing: look at `dmesg`, and make a copy of shared/ elsewhere now.",
        errno.EMFILE: "too many open files: raise the limit (ulimit -n).",
    }
    where = f": {failure.filename}" if failure.filename else ""
    return StorageFailed(f"{failure.strerror or failure}{where}", advice=remedies.get(failure.errno or 0))


def roll_back(notes: Run, because: UpdaterError) -> Outcome:
    """Undo every phase that began, newest first; on the way nothing is cancelled and no failure stops the rest."""
    tx = notes.tx
    tx.cancel.shield()
    tx.memory["failure"] = because
    tx.progress.phase("rollback" if _touched(notes.done) else "undo", 1, 1)
    tx.say(f"failed: {because.message}", error=not isinstance(because, Cancelled))
    free_ballast(tx)
    quietly(tx, "the failure was not recorded", lambda: tx.journal.record("failed", None, because.as_json()))
    problems = undo(tx, notes.done)
    if problems and any(map(may_pass, (because, *problems))):  # what else went wrong may come from that
        return _put_off(notes, rollback_failed(tx, because, problems, tries_left=ATTEMPTS))
    if problems:
        return give_up(notes, because, problems)
    undone = "rolled-back" if _touched(notes.done) else "failed"
    result = "cancelled" if isinstance(because, Cancelled) else undone
    return finish(notes, result, error=explained(tx, because, touched=_touched(notes.done)))


def undo(tx: Transaction, phases: Sequence[Phase]) -> list[UpdaterError]:
    """Undo phases, newest first. Returns what went wrong; one failure does not keep the others from being undone."""
    problems = []
    for phase in reversed(phases):
        _note(tx, "undo", phase)
        try:
            phase.undo(tx)
        except Exception as failure:
            problems.append(as_error(tx, failure))
            if phase.puts_data_back and not isinstance(failure, LeftAlone):
                tx.memory["data_not_back"] = True
            tx.say(f"undoing {phase.name} failed: {failure}", error=True)
            continue
        _note(tx, "undone", phase, tx.told())
    return problems


def _note(tx: Transaction, kind: str, phase: Phase, told: Mapping[str, Any] | None = None) -> None:
    quietly(tx, "an undo was not recorded", lambda: tx.journal.record(kind, phase.name, told))


def may_pass(problem: UpdaterError) -> bool:
    """Whether what kept an undo from its end may be gone later: a full disk, one that cannot be written to. A release that is
    sick, or something of somebody's that is in the way, is for a person."""
    cause = problem.__cause__
    return (
        isinstance(problem, StorageFailed)
        or isinstance(cause, OSError)
        or (isinstance(cause, UpdaterError) and may_pass(cause))
    )


def _put_off(notes: Run, error: RollbackFailed) -> Outcome:
    """The disk keeps the way back from its end: the journal stays open, and the next command goes on with it."""
    tx = notes.tx
    tx.progress.end("rollback-failed")
    tx.journal.release()
    tx.say(f"rollback-failed: {error.message}", error=True)
    record = outcome_record(notes, "rollback-failed", error, None)
    return Outcome("rollback-failed", record, error, put_off=True)


def give_up(notes: Run, because: UpdaterError, problems: Sequence[UpdaterError], *details: str) -> Outcome:
    """The way back has failed and is not tried again: say so, and where the data are."""
    tx = notes.tx
    error = rollback_failed(tx, because, problems)
    error.details += [*tidying.where(tx.layout), *details]
    outcome = finish(notes, "rollback-failed", error=error)
    outcome.without_data = bool(tx.memory.get("data_not_back"))
    return outcome


def quietly(tx: Transaction, what: str, act: Callable[[], object]) -> bool:
    """Do something that the way back does not depend on: with a full disk there is no journal, but there is a way back.
    Returns whether it was done."""
    try:
        act()
    except (OSError, ValueError) as failure:
        tx.warn(f"{what}: {getattr(failure, 'strerror', None) or failure}")
        return False
    return True


def free_ballast(tx: Transaction) -> None:
    """Make room for the journal of a rollback on a full disk."""
    quietly(tx, "the ballast was not freed", lambda: tx.layout.ballast.unlink(missing_ok=True))


def _touched(phases: Sequence[Phase]) -> bool:
    return any(phase.touches_service for phase in phases)


_VERBS: tuple[tuple[type[UpdaterError], str], ...] = (
    (HealthFailed, "failed its health check"),
    (ProcessFailed, "could not be started"),
    (EnvironmentFailed, "could not be built"),
    (StorageFailed, "could not be written"),
)


def explained(tx: Transaction, because: UpdaterError, *, touched: bool) -> UpdaterError:
    """The failure as a user needs to hear it: which release, what became of it, what runs now, what to do next."""
    version = tx.target or tx.request.wanted or "a release that nothing names"
    back = tx.memory.get("back_to") or tx.origin
    now = f"{back} is in service" if back else "no release is in service, as before"
    state = f"{now}, untouched." if not touched else f"{now} again." if back else f"{now}."
    if idle := [name for name in tx.config.processes if tx.origin and name not in tx.running_before]:
        state += f" Not running, as before: {', '.join(idle)}."
    if down := tx.memory.get("stays_down"):
        state = f"{now}; not started again: {', '.join(down)}."
    if tx.request.kind == "restore":
        return _restore_explained(tx, because, state, touched=touched)
    verb = next((verb for kind, verb in _VERBS if isinstance(because, kind)), None)
    if isinstance(because, Cancelled):
        message = f"the deployment of {version} was cancelled; {now}"
    elif isinstance(because, DeploymentInterrupted):
        message = f"the deployment of {version} was interrupted and {'rolled back' if touched else 'undone'}; {now}."
    elif touched and version == back:
        message = f"{version} {verb or 'failed'}; it was in service before and still is."
    elif touched:
        message = f"{version} {verb or 'failed'} and was rolled back; {now}."
    elif verb:
        message = f"{version} {verb}; {now}."
    else:
        because.state = because.state or state
        return because
    if touched and tx.backup:
        holds = f"{tx.backup} holds the data from before"
        state += (
            f" {holds}, but for what its warnings tell."
            if tx.backup_lacks
            else f" Nothing was lost: {holds}."
        )
    if told := tx.memory.get("data_told"):
        state += f" {told}"
    details = [because.message, *because.details]
    if tx.facts.get("bad") or tx.memory.get("marked_bad"):
        state = f"{version} is marked bad. {state}"
    kind = type(because) if because.exit_code != UpdaterError.exit_code else DeploymentFailed
    return kind(message, details=details, state=state, advice=because.advice or _advice(tx, because))


def _restore_explained(tx: Transaction, because: UpdaterError, state: str, *, touched: bool) -> UpdaterError:
    if not touched:
        because.state = because.state or "Nothing was changed."
        return because
    how = {Cancelled: "was cancelled", DeploymentInterrupted: "was interrupted"}
    what = next((text for kind, text in how.items() if isinstance(because, kind)), "failed")
    state = (
        f"{state} The data are as they were before{f'; {tx.backup} holds them as well' if tx.backup else ''}."
    )
    if told := tx.memory.get("data_told"):
        state += f" {told}"
    kind = type(because) if because.exit_code != UpdaterError.exit_code else DeploymentFailed
    return kind(
        f"{tx.subject} {what} and was undone",
        details=[because.message, *because.details],
        state=state,
        advice=because.advice,
    )


def _advice(tx: Transaction, because: UpdaterError) -> str | None:
    if isinstance(because, Cancelled | PreflightFailed):
        return None
    if tx.target is not None and tx.target == tx.origin:
        other = _another(tx)
        return f"see `updater logs`{f', or go back to {other}: updater rollback' if other else ''}."
    fix = "fix the release and publish it under a new tag"
    there = tx.target is not None and tx.layout.release(tx.target).is_dir()
    return f"{fix}, or see what changed: updater diff {tx.target}" if there else f"{fix}."


def _another(tx: Transaction) -> str | None:
    """The good release before the one that was in service."""
    previous = tx.before.get("previous")
    return str(previous) if previous and previous != tx.origin else None


def rollback_failed(
    tx: Transaction, because: UpdaterError, problems: Sequence[UpdaterError], *, tries_left: int = 0
) -> RollbackFailed:
    """The one error that must tell a person at night exactly what to do.

    ``tries_left``: how many more commands will try the way back by themselves.
    """
    back = tx.origin or "VERSION"
    to = back if tx.target != tx.origin else _another(tx) or back
    root, known = tx.layout.root, to != "VERSION"
    script = by_hand.script(root, "emergency_rollback.sh", *([to] if known else []))
    advice = (
        f"look at the reasons above; then {'`updater recover`' if tries_left else f'`updater activate {to}`'}"
        f"{f'; or without Python: {script}' if script else ''}; or by hand: {by_hand.flip(root, to)} && updater restart"
    )
    if tx.memory.get("data_not_back"):  # what starts something as it is would be no way out
        advice = _advice_for_data(tx, back, tries_left)
    details = [f"first: {because.message}", *because.details, "then, on the way back:"]
    for problem in problems:
        details += [problem.message, *problem.details, *([problem.advice] if problem.advice else [])]
    return RollbackFailed(
        f"{tx.subject} failed and so did the way back to {back}",
        details=details,
        state=_goes_on(tries_left),
        advice=advice,
    )


def _advice_for_data(tx: Transaction, back: str, tries_left: int) -> str:
    if tries_left:
        return "look at the reasons above; then `updater recover`"
    restore = f"`updater backup restore {tx.backup}`" if tx.backup else "see `updater backup list`"
    script = by_hand.script(tx.layout.root, "restore_backup.sh", tx.backup) if tx.backup else None
    return (
        f"look at the reasons above; then put the data back: {restore}"
        f"{f' (without Python: {script})' if script else ''}; then `updater activate {back}`"
    )


def _goes_on(tries_left: int) -> str:
    if not tries_left:
        return "updater holds still now and will not try again by itself."
    often = "once more" if tries_left == 1 else f"{tries_left} times more"
    return f"The way back is tried {often}, by the next command that changes something; after that updater holds still."


def finish(notes: Run, result: str, *, error: UpdaterError | None = None, text: str | None = None) -> Outcome:
    """Write the end: journal first, then history, then progress; then the journal is closed."""
    tx = notes.tx
    record = outcome_record(notes, result, error, text)
    outcome = Outcome(result, record, error)
    quietly(tx, "the end was not recorded", lambda: tx.journal.record("end", None, record))
    close(tx, record)
    tx.say(f"{result}{f': {error.message}' if error else ''}", error=error is not None)
    return outcome


def close(tx: Transaction, record: Json) -> None:
    """What follows the journal's last line: history, progress, and the journal put away. Harmless when done twice.

    Without its record in the history the journal stays, and the next command does this again.
    """
    written = quietly(tx, "the history was not written", lambda: records.add_to_history(tx.layout, record))
    tx.progress.end(record["outcome"])
    if written:
        quietly(tx, "the journal was not closed", tx.journal.close)
        return

    def note() -> None:
        if not is_told(tx.journal.read()):
            tx.journal.record("note", None, {"told": True})

    quietly(tx, "that people are told of it was not recorded", note)
    tx.journal.release()


def is_told(log: Log) -> bool:
    """Whether who ended a deployment, but could not put its journal away, has told people of it: nobody is told twice."""
    return any(line.kind == "note" and line.data.get("told") is True for line in log.lines)


def outcome_record(notes: Run, result: str, error: UpdaterError | None, text: str | None) -> Json:
    """One record of the history: who, from, to, what it was, phases with seconds, outcome, reason."""
    tx = notes.tx
    seconds: float | None = notes.watch.seconds()
    if tx.memory.get("recovered"):
        seconds = tx.memory.get("seconds")
    return {
        "id": tx.journal.id,
        "kind": tx.request.kind,
        "origin": tx.request.origin,
        "user": tx.request.user,
        "reason": tx.request.reason,
        "from": tx.origin,
        "to": tx.target,
        "wanted": tx.request.wanted,
        "digest": tx.facts.get("resolve", {}).get("digest") or tx.facts.get("seal", {}).get("digest"),
        "forced": tx.request.force,
        "started": tx.before.get("at") or notes.started,
        "ended": records.stamp(),
        "seconds": seconds,
        "outage_seconds": tx.memory.get("outage"),
        "backup": tx.backup,
        "restored": tx.facts.get("choose", {}).get("backup"),
        "data": tx.memory.get("data"),
        "configuration": tx.configuration,
        "phases": notes.phases,
        "outcome": result,
        "text": text,
        "recovered": bool(tx.memory.get("recovered")),
        "warnings": tx.warnings,
        "error": error.as_json() if error else None,
    }
