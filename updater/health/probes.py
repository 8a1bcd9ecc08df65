"""The probes: each asks one process one question, and keeps the answer as evidence."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from updater.config import ProbeConfig, ProcessConfig
from updater.layout import Layout
from updater.processes import state
from updater.records import moment

BODY = 2000
"""Bytes of an answer's body that are looked at; more is not health."""


@dataclass(frozen=True)
class Answer:
    """What a probe found. ``summary`` is one line; ``evidence`` what explains a failure."""

    ok: bool
    summary: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """Whom a probe asks about."""

    layout: Layout
    process: ProcessConfig
    version: str


def ask(subject: Subject, probe: ProbeConfig) -> Answer:
    """Make one probe once. Never raises: what goes wrong is the answer."""
    try:
        return _PROBES[probe.type](subject, probe)
    except Exception as failure:
        return Answer(False, f"{probe.type}: {failure or type(failure).__name__}")


def _alive(subject: Subject, probe: ProbeConfig) -> Answer:
    found = state.find(subject.layout, subject.process.name)
    if found is None:
        return Answer(False, "it does not run")
    if found.release != subject.version:
        return Answer(False, f"it runs from {found.release}")
    return Answer(True, f"pid {found.identity.pid} lives")


def _http(subject: Subject, probe: ProbeConfig) -> Answer:
    """GET with the standard library: no proxy, no redirect, no cookie comes between us and the process."""
    import http.client
    import ssl
    from urllib.parse import urlsplit

    parts = urlsplit(probe.url)
    host, path = parts.hostname or "", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # A probe asks whether it answers; its certificate is often its own and proves nothing here.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(host, parts.port, timeout=probe.timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=probe.timeout)
    try:
        connection.request(
            "GET", path, headers={"User-Agent": "updater", "Accept": "*/*", "Connection": "close"}
        )
        answer = connection.getresponse()
        body = answer.read(BODY).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as failure:
        return Answer(False, f"GET {probe.url}: {_why(failure, probe)}")
    finally:
        connection.close()
    summary = f"GET {probe.url} answered {answer.status}"
    expected = answer.status == probe.status if probe.status else 200 <= answer.status < 300
    if not expected:
        wanted = f" instead of {probe.status}" if probe.status else ""
        return Answer(False, summary + wanted, _excerpt(body))
    if probe.contains and probe.contains not in body:
        return Answer(False, f"{summary} without {probe.contains!r}", _excerpt(body))
    return Answer(True, summary)


def _excerpt(body: str) -> tuple[str, ...]:
    text = " ".join(body.split())
    return (f"body: {text[:300]}",) if text else ()


def _why(failure: Exception, probe: ProbeConfig) -> str:
    if isinstance(failure, TimeoutError):
        return f"no answer within {probe.timeout:g} s"
    if isinstance(failure, ConnectionRefusedError):
        return "nobody listens there"
    return str(failure) or type(failure).__name__


def _tcp(subject: Subject, probe: ProbeConfig) -> Answer:
    where = f"{probe.host}:{probe.port}"
    try:
        with socket.create_connection((probe.host, probe.port), timeout=probe.timeout):
            return Answer(True, f"{where} accepts")
    except OSError as failure:
        return Answer(False, f"{where}: {_why(failure, probe)}")


def _command(subject: Subject, probe: ProbeConfig) -> Answer:
    """Run in the release's own directory and environment, as the process itself."""
    from updater import subprocesses

    release = subject.layout.release(subject.version)
    first, *rest = probe.command
    own = release / ".venv" / "bin"
    word = str(own / "python") if first in ("python", "python3") else first
    env = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")},
        **subject.process.env,
        "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(release / ".venv"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "UPDATER_ROOT": str(subject.layout.root),
        "UPDATER_SHARED": str(subject.layout.shared),
        "UPDATER_RELEASE": subject.version,
    }
    done = subprocesses.run([word, *rest], cwd=release / subject.process.cwd, env=env, timeout=probe.timeout)
    shown = " ".join(probe.command)
    if done.timed_out:
        return Answer(
            False, f"`{shown}` did not end within {probe.timeout:g} s", tuple(done.tail(5).splitlines())
        )
    return Answer(done.status == 0, f"`{shown}` exited with {done.status}", tuple(done.tail(5).splitlines()))


def _file(subject: Subject, probe: ProbeConfig) -> Answer:
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
    if written + 1.0 < _started(subject, path):
        return Answer(False, f"{shown} was not written since the process started")
    return Answer(True, f"{shown} was written {max(age, 0):.1f} s ago")


def _started(subject: Subject, path: Path) -> float:
    found = state.find(subject.layout, subject.process.name)
    since = moment(found.since) if found else None
    return since.timestamp() if since else 0.0


_PROBES: dict[str, Callable[[Subject, ProbeConfig], Answer]] = {
    "alive": _alive,
    "http": _http,
    "tcp": _tcp,
    "command": _command,
    "file": _file,
}
