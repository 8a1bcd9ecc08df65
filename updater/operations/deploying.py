"""Start a deployment as a process of its own, follow it, cancel it, recover and unlock."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updater import apart, lock, records
from updater.deployment import journal
from updater.deployment.holder import holder
from updater.errors import (
    Cancelled,
    DeploymentInterrupted,
    LockHeld,
    PreflightFailed,
    RollbackFailed,
    UpdaterError,
    UsageError,
    from_json,
)
from updater.layout import Layout
from updater.operations import Root
from updater.processes import family
from updater.subprocesses import Identity

if TYPE_CHECKING:
    from updater.deployment.transaction import Request

Json = dict[str, Any]
POLL = 0.1
"""Seconds between two looks at the progress."""
SHOWN = 5
"""Records that are told of at most."""
KILL_TIMEOUT = 10.0
"""Seconds within which a killed process must be gone."""


class _Answers:
    """What the worker says, one JSON object a line, on a pipe that ends when it does."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._seen = b""
        self._over = False

    def take(self, seconds: float | None = None) -> Json | None:
        """The next answer; None if none came within ``seconds`` (None: wait), ``{}`` once the worker is gone."""
        while b"\n" not in self._seen and not self._over:
            if not self._ready(seconds):
                return None
            chunk = os.read(self.fd, 65536)
            self._over = not chunk
            self._seen += chunk
        line, newline, rest = self._seen.partition(b"\n")
        self._seen = rest if newline else b""
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            return found if isinstance(found, dict) else {}
        return {}

    def _ready(self, seconds: float | None) -> bool:
        """Whether there is something to read. By poll(2): select(2) knows no descriptor above 1023, and a dashboard has many."""
        waiting = select.poll()
        waiting.register(self.fd, select.POLLIN)
        return bool(waiting.poll(None if seconds is None else seconds * 1000))


@dataclass
class Deployment:
    """A deployment that was accepted: the lock is held and its first line is on the disk."""

    layout: Layout
    id: str
    pid: int
    recovered: list[Json]
    """Records of interrupted deployments that were brought to their end first."""
    _answers: _Answers = field(repr=False)
    _seen: int = field(repr=False, default=-1)

    def wait(
        self,
        on_event: Callable[[journal.Line], None] | None = None,
        on_progress: Callable[[Json], None] | None = None,
    ) -> Json:
        """Wait for the end and return its record. ``on_event`` gets every line of the journal, in order;
        ``on_progress`` how far the present phase is, several times a second.

        Raises:
            UpdaterError: the deployment's process died without an end; the next command recovers.
        """
        answer: Json | None = None
        while answer is None:
            answer = self._answers.take(POLL)
            if on_event:
                self._tell(on_event)
            if (
                on_progress
                and (found := records.read_json(self.layout.progress))
                and found.get("id") == self.id
            ):
                on_progress(found)
        record = answer.get("ended") or end_of(self.layout, self.id)
        if not isinstance(record, dict):
            raise UpdaterError(
                "the deployment's process died before it came to an end",
                details=_last_words(self.layout),
                advice="`updater recover` brings everything to a safe end; so does any command that changes something.",
            )
        return record

    def _tell(self, on_event: Callable[[journal.Line], None]) -> None:
        for line in journal.lines(self.layout, self.id, self._seen):
            self._seen = line.seq
            on_event(line)

    def cancel(self) -> None:
        """Ask it to stop and undo what it did. Returns at once; :meth:`wait` waits."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        """Stop watching; the deployment goes on."""
        os.close(self._answers.fd)


def _last_words(layout: Layout) -> list[str]:
    with contextlib.suppress(OSError):
        return layout.worker_log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
    return []


def launch(layout: Layout, request: Request) -> Deployment:
    """Start a deployment in a process and session of its own; return once it is accepted (F08, F09).

    Raises:
        UpdaterError: it was not accepted: the lock is held, the configuration is wrong, a recovery failed.
    """
    import subprocess

    reader, writer = os.pipe()
    try:
        layout.own.mkdir(exist_ok=True)
        with layout.worker_log.open("wb") as log:
            child = subprocess.Popen(
                [
                    *apart.prefix(), sys.executable, "-P", "-m", "updater.deployment.worker",
                    str(layout.root), str(writer), json.dumps(request.as_json()),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, pass_fds=(writer,), cwd=layout.root, env=_own_environment(),
            )  # fmt: skip
    except OSError as failure:
        os.close(reader)
        raise PreflightFailed(
            f"the root cannot be written: {failure.filename or layout.own}: {failure.strerror}",
            state="Nothing was changed.",
            advice="run the command as the user that owns the root, and see that the filesystem is mounted read-write.",
        ) from failure
    finally:
        os.close(writer)
    answers = _Answers(reader)
    answer, cancelled = _first(answers, child)
    if "accepted" in answer:
        _reaped_later(child)
        return Deployment(
            layout, str(answer["accepted"]), child.pid, list(answer.get("recovered") or []), answers
        )
    os.close(reader)
    _reaped_later(child)
    if isinstance(answer.get("error"), dict):
        raise from_json(answer["error"])
    if cancelled:
        raise Cancelled("cancelled before it began", state="Nothing was changed.")
    raise UpdaterError(
        "the deployment's process died before it began",
        details=_last_words(layout),
        state="Nothing was changed.",
    )


def _own_environment() -> dict[str, str]:
    """Ours, without what marks a process of an application, and with what marks a deployment: a dashboard, of this root or
    of another, may have started us, and stopping it must not end the deployment (F08)."""
    kept = {name: it for name, it in os.environ.items() if name not in (family.PROCESS, family.RELEASE)}
    return {**kept, family.WORKER: "1"}


def _first(answers: _Answers, child: Any) -> tuple[Json, bool]:
    """The first answer, and whether Ctrl-C came before it: the worker is then asked to stop, and its word counts, not ours."""
    cancelled = False
    while True:
        try:
            return answers.take() or {}, cancelled
        except KeyboardInterrupt:
            if cancelled:
                raise
            cancelled = True
            child.terminate()


def _reaped_later(child: Any) -> None:
    """The worker outlives us or we outlive it; in the second case somebody must collect its exit status."""
    import threading

    threading.Thread(target=child.wait, daemon=True).start()


def end_of(layout: Layout, identifier: str) -> Json | None:
    """The record of a deployment that has ended; None if it has not."""
    path = journal.find(layout, identifier)
    if path is None:
        return None
    with contextlib.suppress(OSError):
        return journal.ending(layout, path)
    return None


def cancel(root: Root, *, wait: float = 600.0) -> Json:
    """Cancel the running deployment and wait until it is undone.

    Raises:
        UsageError: none is running.
        RollbackFailed, DeploymentInterrupted: it runs no more, and has come to no end.
    """
    holder, identifier = ask_to_cancel(root.layout)
    deadline = time.monotonic() + wait
    # Not until it is dead: it may have people to tell yet.
    while at_work := (owner := lock.owner(root.layout)) is not None and owner.identity == holder.identity:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL)
    record = end_of(root.layout, identifier)
    if record is None and not at_work:
        raise _without_end(root.layout, identifier)
    if record is None:
        raise UpdaterError(
            "the deployment was asked to stop and has not come to an end yet",
            advice="watch it with `updater progress --follow`; `updater unlock` ends it by force and recovers.",
        )
    return record


def _without_end(layout: Layout, identifier: str) -> UpdaterError:
    """How a deployment stands at which nobody is at work any more, and which has no end on record."""
    failed = next((it for it in journal.lines(layout, identifier) if it.kind == "failed"), None)
    if failed is None:
        return DeploymentInterrupted("the deployment was asked to stop, and died", advice="updater recover")
    return RollbackFailed(
        "the deployment has stopped, and its way back has not come to its end",
        details=[f"first: {from_json(dict(failed.data)).message}"],
        state="The way back is gone on with by the next command that changes something.",
        advice="see `updater logs errors` for the reasons; then `updater recover`",
    )


def ask_to_cancel(layout: Layout) -> tuple[lock.Owner, str]:
    """Ask the running deployment to stop and undo what it did; returns at once who it is, and its id.

    Raises:
        UsageError: none is running.
    """
    holder, path = _running(layout)
    if holder is None or path is None:
        raise UsageError("no deployment is running", state="Nothing was changed.")
    if journal.read(path).begin.get("pid") != holder.identity.pid:
        raise UsageError(
            f"no deployment is running; {holder.describe()} is at work",
            state="Nothing was changed.",
            advice="wait for it; an interrupted deployment is brought to its end by it.",
        )
    holder.identity.signal(signal.SIGTERM)
    holder.identity.signal(signal.SIGCONT)
    return holder, path.name.removesuffix(journal.SUFFIX)


def _running(layout: Layout) -> tuple[lock.Owner | None, Path | None]:
    open_now = journal.unfinished(layout)
    return lock.owner(layout), open_now[-1] if open_now else None


def recover(root: Root) -> list[Json]:
    """Bring an interrupted deployment to its end. Returns the record of each; [] if there was none.

    Raises:
        LockHeld: it is not interrupted, it is running.
        RollbackFailed: the way back failed.
    """
    from updater.deployment import announcing, recovery

    with (
        announcing.of_recoveries(root.layout, root.config) as outcomes,
        lock.hold(root.layout, "recover", wait=2.0) as held,
    ):
        outcomes += recovery.recover(root.layout, root.config, held)
    return [outcome.record for outcome in outcomes]


def by_scripts(layout: Layout) -> list[Json]:
    """What emergency scripts have done since updater itself did anything: the last records, in order."""
    newest = itertools.takewhile(records.by_script, reversed(records.history(layout)))
    return list(itertools.islice(newest, SHOWN))[::-1]


def _wait_for_end(identity: Identity, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while identity.alive() and time.monotonic() < deadline:
        time.sleep(POLL)


def unlock(root: Root, *, grace: float = 30.0) -> list[Json]:
    """End whoever holds the lock, politely and after ``grace`` seconds firmly, then recover.

    Returns what was recovered. A lock that nobody holds needs no unlocking; recovery is done all the same.

    Raises:
        LockHeld: this process itself holds it; nobody ends himself.
    """
    found = holder(root.layout)
    if found is not None:
        identity = found.owner.identity
        if identity.pid == os.getpid():  # the dashboard, in another request
            raise LockHeld(
                f"this very process is at work: {found.owner.describe()}",
                state="Nothing was changed.",
                advice="wait for it; restarting the dashboard ends it, and `updater unlock` in a shell ends both.",
            )
        identity.signal(signal.SIGTERM)
        identity.signal(signal.SIGCONT)  # a stopped one hears nothing else
        _wait_for_end(identity, grace)
        identity.signal(signal.SIGKILL)
        _wait_for_end(identity, KILL_TIMEOUT)
        if identity.alive():
            raise LockHeld(
                f"{found.owner.describe()} could not be ended: it is still there after SIGKILL",
                advice="it hangs in the kernel (a failing disk, a dead network mount): see `ps` and `dmesg`.",
            )
    return recover(root)
