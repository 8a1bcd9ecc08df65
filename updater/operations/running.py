"""The processes of the release in service: start, stop, restart, force-stop, health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from updater import health
from updater.errors import HealthFailed, UsageError
from updater.operations import Root
from updater.processes import control, proof, state
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


def _names(root: Root, names: Sequence[str]) -> list[str]:
    known = [*root.config.processes, *(one.name for one in state.running(root.layout))]
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no process {name!r}",
                advice=f"one of: {', '.join(root.config.processes) or 'none are configured'}",
            )
    return list(names) or list(dict.fromkeys(known))


def start(root: Root, names: Sequence[str] = (), *, wait: bool = True) -> list[Json]:
    """Start processes of the release in service; those that run from it are left alone.

    ``wait``: until every required probe has passed once, at most ``health.timeout`` seconds (F11).

    Raises:
        UsageError: nothing is in service, or no such process. ProcessFailed: one died at once.
        HealthFailed: one does not answer as it should; it is left running.
    """
    with root.changing("start"):
        version = _version(root)
        chosen = [name for name in _names(root, names) if name in root.config.processes]
        control.start(root.layout, root.config, version, chosen)
        proof.prove(root.layout, root.config, version, chosen)
    return _started(root, version, chosen, wait)


def stop(root: Root, names: Sequence[str] = ()) -> list[str]:
    """Stop processes; politely, then firmly. Returns what was stopped."""
    with root.changing("stop"):
        control.adopt(root.layout, root.config.processes.values())
        return control.stop(root.layout, root.config, _names(root, names))


def restart(root: Root, names: Sequence[str] = (), *, wait: bool = True) -> list[Json]:
    """Stop processes and start those of the release in service; ``wait`` and errors as for :func:`start`."""
    with root.changing("restart"):
        version = _version(root)
        control.adopt(root.layout, root.config.processes.values())
        chosen = _names(root, names)
        control.stop(root.layout, root.config, chosen)
        wanted = [name for name in chosen if name in root.config.processes]
        control.start(root.layout, root.config, version, wanted)
        proof.prove(root.layout, root.config, version, wanted)
    return _started(root, version, wanted, wait)


def _started(root: Root, version: str, names: Sequence[str], wait: bool) -> list[Json]:
    if wait:
        try:
            health.wait_healthy(root.layout, root.config, version, names, successes=1)
        except HealthFailed as failure:
            failure.state = f"{version} is in service; what runs was left running."
            failure.advice = "see `updater health` and `updater logs`; to go back: updater rollback"
            raise
    return status(root, names)


def force_stop(root: Root) -> list[str]:
    """Kill every managed process at once. It waits for no lock: it is for when nothing else helps."""
    return control.force_stop(root.layout, root.config)


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
