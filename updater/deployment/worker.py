"""The process in which a deployment runs: its own session, its own life (F08).

Whoever starts it (a shell, a dashboard) may die, be restarted or be updated meanwhile. The first thing it says, on the
descriptor it is given, is that the lock is held and the journal's first line is on the disk (F09), or why not. The
descriptor stays open until it ends, so that the starter can wait without polling. Messages to people (``[notify]``) are sent after all
that: nobody waits for them.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from updater import lock, ownership, records
from updater.config import Config
from updater.deployment import announcing, configuration, engine, housekeeping, phases, recovery, tidying
from updater.deployment.cancel import Cancellation
from updater.deployment.journal import Journal
from updater.deployment.transaction import Request, Transaction
from updater.errors import PreflightFailed, RollbackFailed, UpdaterError
from updater.layout import Layout
from updater.releases import service, store

Json = dict[str, Any]


def main(argv: list[str]) -> int:
    """``python -m updater.deployment.worker ROOT FD REQUEST``."""
    gc.freeze()  # the modules are here to stay
    gc.set_threshold(
        50_000
    )  # it lives for a deployment: what it drops is collected, but not while it still loads what it uses
    root, fd, request = Path(argv[0]), int(argv[1]), Request.from_json(json.loads(argv[2]))
    os.set_inheritable(fd, False)  # the application must not keep the starter waiting
    cancel = Cancellation()
    cancel.listen()
    layout = Layout(root)
    told = announcing.Announcement(layout)
    answer, code = _run(layout, request, cancel, told, fd)
    _answer(fd, answer)
    os.close(fd)
    told.send()
    return code


def _run(
    layout: Layout, request: Request, cancel: Cancellation, told: announcing.Announcement, fd: int
) -> tuple[Json, int]:
    """The last answer, and the exit code."""
    try:
        outcome = deploy(layout, request, cancel, told, accepted=lambda answer: _answer(fd, answer))
    except UpdaterError as failure:
        error = failure
    except OSError as failure:
        error = engine.storage_error(failure)
        error.state = "Nothing was changed."
    else:
        return {"ended": outcome.record}, outcome.exit_code
    if error.as_json() not in [it.get("error") for it in told.ends]:  # its record tells of it
        told.failure = (error, request.kind, request.origin)
    return {"error": error.as_json()}, error.exit_code


def _answer(fd: int, message: Json) -> None:
    left = json.dumps(message).encode() + b"\n"
    try:
        while left:
            left = left[os.write(fd, left) :]
    except BrokenPipeError:
        pass  # the starter is gone; the deployment goes on


def deploy(
    layout: Layout,
    request: Request,
    cancel: Cancellation,
    told: announcing.Announcement,
    accepted: Callable[[Json], None],
) -> engine.Outcome:
    """Run one deployment from lock to end. ``accepted`` gets its id, and what was recovered on the way; ``told`` takes up what is
    to be told afterwards.

    Raises:
        ConfigError: ``updater.toml`` is wrong, and it is no way back to what is on this machine.
        UpdaterError: it could not begin (lock, configuration, a recovery that failed); nothing was journaled.
    """
    known = configuration.read(layout)
    told.config = known.config
    if known.wrong and not request.goes_back:
        raise known.wrong
    with lock.hold(layout, request.kind) as held:
        recovered = recovery.recover(layout, known.config, held)
        told.ends += announcing.records_of(recovered)
        recovery.start_nothing_without_data(recovered)
        if known.wrong:  # another release may be in service now
            known = configuration.read(layout)
        tx = begin(layout, known.config, held, request, cancel)
        tx.wrong = known.wrong
        accepted({"accepted": tx.journal.id, "recovered": [outcome.record for outcome in recovered]})
        outcome = engine.run(tx, phases.of(request))
        if outcome.put_off:
            outcome = _go_on(tx, outcome)
        elif outcome.result == "rollback-failed":
            tidying.tidy(layout)  # what is missing is noted before a script or a start looks for it
        housekeeping.restore_ballast(layout)
        told.ends.append(outcome.record)
        return outcome


def _go_on(tx: Transaction, outcome: engine.Outcome) -> engine.Outcome:
    """Try the way back once more, as the next command would: what was in its way may have been a moment's, and until then nothing runs."""
    if tx.journal.read().rolling_back is None:  # whoever goes on would not know why, nor that it goes back
        return outcome
    try:
        recovered = recovery.recover(tx.layout, tx.config, tx.lock)
    except RollbackFailed as failure:
        outcome.error, outcome.record["error"] = failure, failure.as_json()
        return outcome
    except (UpdaterError, OSError) as failure:
        tx.say(f"it was not tried once more: {failure}", error=True)
        return outcome
    return next((it for it in recovered if it.record["id"] == tx.journal.id), outcome)


def begin(
    layout: Layout, config: Config, held: lock.Lock, request: Request, cancel: Cancellation
) -> Transaction:
    """Write the first line: what is asked, and the world before."""
    from updater.processes import control

    for found in control.adopt(layout):
        records.log(
            layout, f"{found.name} (pid {found.identity.pid}) ran without its pid file; it has it again"
        )
    _mend_dangling_link(layout)
    before = {
        "at": records.stamp(),
        **ownership.lasting(layout),
        "in_service": service.in_service(layout).release,
        "good": service.named_by(layout, layout.good),
        "previous": service.named_by(layout, layout.previous),
        "running": control.names_running(layout, config),
    }
    first = {"request": request.as_json(), "before": before, "pid": os.getpid()}
    try:
        book = Journal.create(layout, first)
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if not request.goes_back:  # the ballast is for the way back
            raise PreflightFailed(
                f"the disk is full: there is no room to begin, on the filesystem of {layout.root}",
                state="Nothing was changed.",
                advice=engine.storage_error(failure).advice,
            ) from failure
        layout.ballast.unlink(missing_ok=True)  # going back needs no space but for its records
        book = Journal.create(layout, first)
    return Transaction(layout, config, held, book, cancel, request, before)


def _mend_dangling_link(layout: Layout) -> None:
    """A link to nothing is no release to come back to: the one that runs is, or else the one that was good."""
    from updater.processes import state

    here = service.in_service(layout)
    if here.kind != "dangling":
        return
    candidates = [*(one.release for one in state.running(layout)), service.named_by(layout, layout.good)]
    back = next((it for it in candidates if it and store.read(layout.release(it))), None)
    if back is not None:
        service.put_in_service(layout, back)
        records.log(layout, f"`current` named {here.version}, which is not there; it names {back} now")


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    # Nothing is left to be done, and tearing the interpreter down takes as long as a phase.
    os._exit(status)
