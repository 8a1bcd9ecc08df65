"""Start processes, and know how they ended. Called under the root's lock."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO, TYPE_CHECKING

from updater import apart
from updater.config import Config, ProcessConfig
from updater.errors import PreflightFailed, ProcessFailed, UsageError
from updater.layout import Layout
from updater.processes import family, launcher, state
from updater.processes.state import Running
from updater.processes.stopping import Warn, adopt, force_stop, present, stop, stop_release
from updater.subprocesses import end_session, let_children_hear

if TYPE_CHECKING:
    import subprocess

__all__ = [
    "Warn", "adopt", "evidence", "exit_text", "force_stop", "names_running", "present", "refuse_odd_logs", "start", "stop",
    "stop_release",
]  # fmt: skip

START_TIMEOUT = 30.0
"""Seconds within which a launcher must have become the process."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that this very process started: only their parent can learn their exit status."""


def names_running(layout: Layout, config: Config) -> list[str]:
    """The managed processes that live, in the order of the configuration; then those it no longer names. One that is
    being stopped is none of them."""
    living = [one.name for one in state.running(layout) if not one.stopping]
    order = [name for name in config.processes if name in living]
    return order + [name for name in living if name not in config.processes]


def start(
    layout: Layout,
    config: Config,
    version: str,
    names: Sequence[str] | None = None,
    *,
    check: Callable[[], None] | None = None,
    warn: Warn | None = None,
) -> list[Running]:
    """Start processes of a release; those that run from it already are left alone.

    What an earlier one has left behind is stopped first, and a stop that was begun is finished; ``warn`` as for
    :func:`stop`. ``check`` is called several times a second and may raise to cancel.

    Raises:
        UsageError: there is no process of that name.
        ProcessFailed: a launcher did not become the process.
        PreflightFailed: its log is not a file.
    """
    started = []
    for name in names if names is not None else list(config.processes):
        if check:
            check()
        if name not in config.processes:
            raise UsageError(
                f"there is no process {name!r}",
                advice=f"one of: {', '.join(config.processes) or 'none are configured'}",
            )
        started.append(_start_one(layout, config, config.processes[name], version, check, warn))
    return started


def refuse_odd_logs(layout: Layout, names: Iterable[str]) -> None:
    """Look at the logs before anything is stopped for a start that could not be.

    Raises:
        PreflightFailed: one is a pipe, a directory or the like.
    """
    for name in names:
        if kind := state.odd_log(layout, name):
            raise PreflightFailed(
                f"shared/logs/{name}.log is {kind}, not a regular file; {name} cannot write to it",
                advice=f"move it away (mv shared/logs/{name}.log shared/logs/{name}.aside); a new one is made.",
            )


def _start_one(
    layout: Layout,
    config: Config,
    process: ProcessConfig,
    version: str,
    check: Callable[[], None] | None,
    warn: Warn | None,
) -> Running:
    import subprocess

    living = state.find(layout, process.name) or next(
        (it for it in adopt(layout) if it.name == process.name), None
    )
    if living is not None and not living.stopping:
        if living.release == version:
            return living
        raise ProcessFailed(f"{process.name} still runs from {living.release} (pid {living.identity.pid})")
    refuse_odd_logs(layout, [process.name])
    stop(layout, config, [process.name], warn=warn)
    script = launcher.write(layout, process, version, config.own_variables)
    layout.run.mkdir(parents=True, exist_ok=True)
    layout.pid_file(process.name).unlink(missing_ok=True)
    let_children_hear()
    child = subprocess.Popen(
        [*apart.of_processes(), "/bin/sh", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        cwd=layout.root, start_new_session=True, close_fds=True,
        # Until it has written its pid file only these tell a recovery whose it is.
        env=family.marked_environment(layout, process.name, version),
    )  # fmt: skip
    _children[child.pid] = child
    try:
        said = _last_words(child, process.name, check)
    except BaseException:
        end_session(child.pid)
        child.wait()
        raise
    found = state.find(layout, process.name)
    if found is not None and found.identity.pid == child.pid:
        _collect_later(child)
        return found
    status = exit_text(child.pid, wait=START_TIMEOUT)
    lines = [*([said] if said else []), *state.last_lines(layout, process.name)]
    raise ProcessFailed(
        f"{process.name} {status or 'did not start'} at once",
        details=_log_details(layout, process.name, lines),
    )


def _last_words(child: subprocess.Popen[bytes], name: str, check: Callable[[], None] | None) -> str:
    """What a launcher says until it becomes the process, which closes its standard error.

    Raises:
        ProcessFailed: it does neither that nor end within START_TIMEOUT.
    """
    import selectors

    stream: IO[bytes] | None = child.stderr
    assert stream is not None
    deadline, said = time.monotonic() + START_TIMEOUT, b""
    with stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if check:
                check()
            if time.monotonic() >= deadline:
                raise ProcessFailed(
                    f"{name} was not started: its launcher waited for something for {START_TIMEOUT:g} s",
                    details=said.decode("utf-8", "replace").splitlines(),
                    advice="look for a pipe or a network mount that hangs where shared/logs and .updater/run are.",
                )
            if selector.select(0.1):
                chunk = os.read(stream.fileno(), 65536)
                if not chunk:
                    return said.decode("utf-8", "replace").strip()
                said += chunk


def _log_details(layout: Layout, name: str, lines: list[str]) -> list[str]:
    if not lines:
        return [f"it wrote nothing to shared/logs/{name}.log"]
    return [f"last lines of shared/logs/{name}.log:", *(f"  {line}" for line in lines)]


def evidence(layout: Layout, name: str) -> list[str]:
    """The last lines that a process wrote, as details for an error (F29)."""
    return _log_details(layout, name, state.last_lines(layout, name))


def _collect_later(child: subprocess.Popen[bytes]) -> None:
    threading.Thread(target=child.wait, name=f"wait-{child.pid}", daemon=True).start()


def exit_text(pid: int, *, wait: float = 1.0) -> str | None:
    """How a process ended, if it was started by this very process: ``exited with 3``, ``was killed by SIGSEGV``."""
    child = _children.get(pid)
    if child is None or not state.wait_until(lambda: child.poll() is not None, wait):
        return None
    status = child.returncode
    if status >= 0:
        return f"exited with {status}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"
