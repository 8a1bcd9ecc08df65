"""The processes of the release in service: start, stop, restart, force-stop, health."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from updater import health, lock, records
from updater.deployment import configuration, housekeeping, journal, missing
from updater.deployment.cancel import interruptible
from updater.errors import (
    Cancelled,
    HealthFailed,
    NotFound,
    PreflightFailed,
    ProcessFailed,
    UsageError,
)
from updater.layout import Layout
from updater.operations import Root
from updater.processes import control, forced, proof, state
from updater.releases import service

Json = dict[str, Any]


def _version(root: Root) -> str:
    here = service.in_service(root.layout)
    if here.kind != "release" or here.version is None:
        raise UsageError(
            "no release is in service",
            details=[here.problem] if here.problem else [],
            state="Nothing was started.",
            advice="put one into service: updater deploy, or updater activate VERSION",
        )
    return here.version


def _known(root: Root, names: Sequence[str]) -> list[str]:
    """The processes meant: ``names``, else all that are configured or live."""
    known = list(dict.fromkeys([*root.config.processes, *control.present(root.layout, root.config)]))
    for name in names:
        if name not in known:
            raise NotFound(
                f"there is no process {name!r}",
                state="Nothing was changed.",
                advice=f"one of: {', '.join(root.config.processes) or 'none are configured'}",
            )
    return list(names) or known


def _configured(root: Root, names: Sequence[str]) -> list[str]:
    """The processes to start: ``names``, else all that are configured. One that lives and is not configured any more
    cannot be started again, so it is not stopped for that either."""
    for name in _known(root, names) if names else ():
        if name not in root.config.processes:
            raise UsageError(
                f"{name} runs, but updater.toml does not name it any more",
                state="Nothing was changed.",
                advice=f"`updater stop {name}` ends it; configured: {', '.join(root.config.processes) or 'none'}",
            )
    return list(names) or list(root.config.processes)


def start(
    root: Root, names: Sequence[str] = (), *, wait: bool = True, warn: control.Warn | None = None
) -> list[Json]:
    """Start processes of the release in service; those that run from it are left alone.

    ``wait``: until every required probe has passed once, at most ``health.timeout`` seconds (F11). The lock is held so
    long: what is said of the release in service is true when it is said. ``warn`` is told what could not be stopped.

    Raises:
        UsageError: nothing is in service, or no such process. ProcessFailed: one died at once.
        PreflightFailed: data are missing since a way back was given up; nothing was started.
        HealthFailed: one does not answer as it should; it is left running.
        Cancelled: somebody interrupted it, or stopped everything by force; the state is told.
    """
    with root.changing("start"), _telling(root, "start") as check:
        version = _version(root)
        _refuse_without_data(root)
        root = root.starting(version)
        chosen = _configured(root, names)
        return _start(root, version, chosen, wait, check, warn)


def stop(root: Root, names: Sequence[str] = (), *, warn: control.Warn | None = None) -> list[str]:
    """Stop processes and what they left behind; politely, then firmly. Returns what was stopped; ``warn`` is told what
    runs as another user and could not be."""
    with root.changing("stop"), _telling(root, "stop"):
        control.adopt(root.layout)
        return control.stop(root.layout, root.config, _known(root, names), warn=_noted(root, warn))


def restart(
    root: Root, names: Sequence[str] = (), *, wait: bool = True, warn: control.Warn | None = None
) -> list[Json]:
    """Stop processes and start those of the release in service; ``wait``, ``warn`` and errors as for :func:`start`."""
    with root.changing("restart"), _telling(root, "restart") as check:
        version = _version(root)
        _refuse_without_data(root)
        root = root.starting(version)
        control.adopt(root.layout)
        wanted = _configured(root, names)
        control.refuse_odd_logs(root.layout, wanted)
        control.stop(root.layout, root.config, _known(root, names), warn=_noted(root, warn))
        return _start(root, version, wanted, wait, check, warn)


def _refuse_without_data(root: Root) -> None:
    """What starts without its data makes new ones, and a trading bot forgets what it holds."""
    if lost := missing.told(root.layout):
        raise PreflightFailed(
            "data are not in their place since a way back was given up",
            details=lost,
            state="Nothing was started.",
            advice=missing.way_out(root.layout),
        )
    missing.forget_what_came_back(root.layout)


def _noted(root: Root, warn: control.Warn | None) -> control.Warn:
    """The warning in the log as well: nobody may be looking."""

    def note(text: str) -> None:
        records.log(root.layout, f"warning: {text}")
        if warn:
            with contextlib.suppress(OSError):  # a closed terminal keeps nothing from being started again
                warn(text)

    return note


def _start(
    root: Root,
    version: str,
    names: Sequence[str],
    wait: bool,
    check: Callable[[], None],
    warn: control.Warn | None,
) -> list[Json]:
    housekeeping.make_room(root.layout)
    configuration.keep(root.layout, root.config, version)
    try:
        control.start(root.layout, root.config, version, names, check=check, warn=_noted(root, warn))
        proof.prove(root.layout, root.config, version, names)
        if wait:
            health.wait_healthy(root.layout, root.config, version, names, successes=1, check=check)
            proof.prove_ports(root.layout, root.config, names)
    except (HealthFailed, ProcessFailed) as failure:
        check()
        failure.state = failure.state or f"{version} is in service; what runs was left running."
        failure.advice = (
            failure.advice or "see `updater health` and `updater logs`; to go back: updater rollback"
        )
        raise
    return status(root, names)


@contextlib.contextmanager
def _telling(root: Root, what: str) -> Iterator[Callable[[], None]]:
    """Whoever interrupts a start or a stop hears what runs now. Yields the check that ends it after a forced stop."""
    before = forced.last(root.layout)

    def check() -> None:
        if forced.last(root.layout) not in ("", before):
            raise Cancelled(f"the {what} was ended by force-stop", state=_now(root), advice="updater start")

    try:
        with interruptible():
            yield check
    except KeyboardInterrupt:
        raise Cancelled(
            f"the {what} was interrupted",
            state=_now(root),
            advice="`updater start` or `updater stop` goes on.",
        ) from None


def _now(root: Root) -> str:
    found = state.status(root.layout, root.config.processes)
    return f"Now: {', '.join(f'{it.name} {_WORDS[it.state]}' for it in found) or 'no process is configured'}."


_WORDS = {
    "running": "runs",
    "stopping": "is being stopped",
    "died": "does not run",
    "stopped": "does not run",
}


def force_stop(root: Root, *, warn: control.Warn | None = None) -> list[str]:
    """Kill every managed process at once. It waits for no lock: it is for when nothing else helps. ``warn`` as for
    :func:`stop`.

    A deployment at work is cancelled, and starts nothing again.

    Raises:
        PreflightFailed: the processes belong to another user.
    """
    return control.force_stop(
        root.layout, before=lambda: _tell_the_deployment(root.layout), warn=_noted(root, warn)
    )


def _tell_the_deployment(layout: Layout) -> None:
    unfinished = journal.unfinished(layout)
    forced.note(layout, unfinished[-1].name.removesuffix(journal.SUFFIX) if unfinished else None)
    owner = lock.owner(layout)
    if owner and owner.operation in ("deploy", "activate", "rollback", "restore"):
        with contextlib.suppress(PermissionError):
            owner.identity.signal(signal.SIGTERM)


def present(root: Root) -> list[str]:
    """The processes of which anything lives."""
    return control.present(root.layout, root.config)


def status(root: Root, names: Sequence[str] = ()) -> list[Json]:
    """What the processes do."""
    return [
        it.as_json()
        for it in state.status(root.layout, root.config.processes)
        if not names or it.name in names
    ]


def ask_health(root: Root) -> Json:
    """Every probe of every process, asked once. ``healthy``: every required one passed."""
    version = _version(root)
    root = root.starting(version)
    results = health.ask_all(root.layout, root.config, version, list(root.config.processes))
    return {
        "version": version,
        "healthy": all(it.answer.ok for it in results if it.decides),
        "probes": [
            {
                "process": it.process,
                "type": it.probe.type,
                "required": it.decides,
                "ok": it.answer.ok,
                "summary": it.answer.summary,
                "evidence": list(it.answer.evidence),
            }
            for it in results
        ],
    }


def ask_gate(root: Root) -> Json:
    """May the application be interrupted now? ``asks``: whether it is asked at all; ``free``; ``reason`` in a line."""
    from updater import gate

    here = service.in_service(root.layout)
    if here.kind != "release" or here.version is None or not root.config.gate.asks:
        return {"asks": root.config.gate.asks, "free": True, "reason": "nothing is asked"}
    answer = gate.ask(root.layout, root.config, here.version)
    return {"asks": True, "free": answer.free, "reason": answer.reason}


def resources(layout: Layout) -> dict[str, Json]:
    """What each managed process uses with its children: ``memory`` in bytes, ``cpu`` in percent of one processor since its start."""
    import psutil

    found: dict[str, Json] = {}
    for one in state.running(layout):
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(one.identity.pid)
            memory = cpu = 0.0
            for process in (leader, *leader.children(recursive=True)):
                with contextlib.suppress(psutil.Error), process.oneshot():
                    memory += process.memory_info().rss
                    times = process.cpu_times()
                    cpu += times.user + times.system
            lived = max(1.0, time.time() - leader.create_time())
            found[one.name] = {"memory": int(memory), "cpu": round(100 * cpu / lived, 1)}
    return found
