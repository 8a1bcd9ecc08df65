"""The probes: each asks one process one question, and keeps the answer as evidence."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from updater.config import ProbeConfig
from updater.errors import UpdaterError
from updater.health.asking import Answer, Check, Subject, Told, why, within
from updater.processes import state
from updater.records import moment

__all__ = ["Answer", "Subject", "ask"]


def ask(subject: Subject, probe: ProbeConfig, check: Check | None = None) -> Answer:
    """Make one probe once. What goes wrong is the answer; only ``check``, called several times a second, may raise."""
    try:
        return _PROBES[probe.type](subject, probe, check)
    except UpdaterError:
        raise
    except Exception as failure:
        return Answer(False, f"{probe.type}: {failure or type(failure).__name__}")


def _alive(subject: Subject, probe: ProbeConfig, check: Check | None) -> Answer:
    found = state.find(subject.layout, subject.process.name)
    if found is None:
        return Answer(False, "it does not run")
    if found.release != subject.version:
        return Answer(False, f"it runs from {found.release}")
    if found.stopping:
        return Answer(False, f"pid {found.identity.pid} is being stopped")
    return Answer(True, f"pid {found.identity.pid} lives")


def _http(subject: Subject, probe: ProbeConfig, check: Check | None) -> Answer:
    """GET with the standard library: no proxy, no redirect, no cookie comes between us and the process."""
    from updater.health import http

    return http.get(probe, check)


def _tcp(subject: Subject, probe: ProbeConfig, check: Check | None) -> Answer:
    where = f"{probe.host}:{probe.port}"

    def connect(_told: Told) -> Answer:
        import socket

        try:
            with socket.create_connection((probe.host, probe.port), timeout=probe.timeout):
                return Answer(True, f"{where} accepts")
        except OSError as failure:
            return Answer(False, f"{where}: {why(failure, probe)}")

    silent = Answer(False, f"{where}: {why(TimeoutError(), probe)}")
    return within(probe.timeout, connect, silent, check)


def _command(subject: Subject, probe: ProbeConfig, check: Check | None) -> Answer:
    """Run in the release's own directory and environment, as the process itself."""
    from updater.processes import commands

    done = commands.run(
        subject.layout, subject.version, probe.command, timeout=probe.timeout,
        env=subject.process.env, cwd=subject.process.cwd, secrets=subject.secrets, check=check,
    )  # fmt: skip
    shown = " ".join(probe.command)
    if done.timed_out:
        return Answer(
            False, f"`{shown}` did not end within {probe.timeout:g} s", tuple(done.tail(5).splitlines())
        )
    return Answer(done.status == 0, f"`{shown}` exited with {done.status}", tuple(done.tail(5).splitlines()))


def _file(subject: Subject, probe: ProbeConfig, check: Check | None) -> Answer:
    """A heartbeat: fresh, and written by the process that runs now, not by the one before it."""
    path = subject.layout.shared / probe.path
    shown = f"shared/{probe.path}"
    try:
        written = path.stat().st_mtime
    except OSError as failure:
        return Answer(False, f"{shown}: {failure.strerror}")
    age = time.time() - written
    if age > probe.max_age:
        return Answer(False, f"{shown} was last written {age:.1f} s ago (at most {probe.max_age:g} s)")
    if age > _running_for(subject) + 1.0:
        return Answer(False, f"{shown} was not written since the process started")
    return Answer(True, f"{shown} was written {max(age, 0):.1f} s ago")


def _running_for(subject: Subject) -> float:
    """Seconds that the process has been running, whatever the clock did meanwhile; for ever if nothing tells."""
    found = state.find(subject.layout, subject.process.name)
    if found is None:
        return math.inf
    if (known := found.identity.age()) is not None:
        return known
    since = moment(found.since)
    return time.time() - since.timestamp() if since else math.inf


_PROBES: dict[str, Callable[[Subject, ProbeConfig, Check | None], Answer]] = {
    "alive": _alive,
    "http": _http,
    "tcp": _tcp,
    "command": _command,
    "file": _file,
}
