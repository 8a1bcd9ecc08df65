"""Start and stop. Called under the root's lock."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from updater import durable
from updater.config import Config, ProcessConfig
from updater.errors import ProcessFailed, UsageError
from updater.layout import Layout
from updater.processes import launcher, state
from updater.processes.state import Running
from updater.subprocesses import Identity, as_lines

START_TIMEOUT = 30.0
"""Seconds within which a launcher must have become the process."""

KILL_TIMEOUT = 10.0
"""Seconds within which a killed process must be gone."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that this very process started: only their parent can learn their exit status."""


def names_running(layout: Layout, config: Config) -> list[str]:
    """The managed processes that live, in the order of the configuration; then those it no longer names."""
    living = [one.name for one in state.running(layout)]
    order = [name for name in config.processes if name in living]
    return order + [name for name in living if name not in config.processes]


def adopt(layout: Layout, processes: Iterable[ProcessConfig]) -> list[Running]:
    """Give processes that live without a pid file theirs back. Returns those."""
    found = state.strays(layout, processes)
    for stray in found:
        fields = {
            **stray.identity.as_fields(), "process": stray.name, "release": stray.release, "since": stray.since,
        }  # fmt: skip
        durable.write(layout.pid_file(stray.name), as_lines(fields))
    return found


def start(
    layout: Layout,
    config: Config,
    version: str,
    names: Sequence[str] | None = None,
    *,
    check: Callable[[], None] | None = None,
) -> list[Running]:
    """Start processes of a release; those that run from it already are left alone.

    Raises:
        UsageError: there is no process of that name.
        ProcessFailed: a launcher did not become the process.
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
        started.append(_start_one(layout, config.processes[name], version))
    return started


def _start_one(layout: Layout, process: ProcessConfig, version: str) -> Running:
    living = state.find(layout, process.name) or next(iter(adopt(layout, [process])), None)
    if living is not None:
        if living.release == version:
            return living
        raise ProcessFailed(f"{process.name} still runs from {living.release} (pid {living.identity.pid})")
    script = launcher.write(layout, process, version)
    layout.run.mkdir(exist_ok=True)
    layout.pid_file(process.name).unlink(missing_ok=True)
    child = subprocess.Popen(
        ["/bin/sh", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        cwd=layout.root, start_new_session=True, close_fds=True,
    )  # fmt: skip
    assert child.stderr is not None
    said = (
        child.stderr.read().decode("utf-8", "replace").strip()
    )  # the launcher closes it when it becomes the process
    child.stderr.close()
    _children[child.pid] = child
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


@dataclass(frozen=True)
class _Tree:
    """A process and everything that belongs to it, gathered before the first signal."""

    running: Running
    members: tuple[Identity, ...]


def _gather(one: Running) -> _Tree:
    """Its session, and its children wherever they went (one that called setsid is still a child now)."""
    import psutil

    pids = {one.identity.pid}
    with contextlib.suppress(psutil.Error):
        pids |= {child.pid for child in psutil.Process(one.identity.pid).children(recursive=True)}
    pids |= set(_session(one.identity.pid))
    return _Tree(one, tuple(found for pid in pids if (found := Identity.of(pid))))


def _session(leader: int) -> Iterable[int]:
    import psutil

    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if pid > 1 and pid != os.getpid() and os.getsid(pid) == leader:
                yield pid


def stop(layout: Layout, config: Config, names: Sequence[str]) -> list[str]:
    """Stop processes: the polite signal to each, then the firm one to whatever is left of it. Returns what was stopped.

    Raises:
        ProcessFailed: something of it is still there.
    """
    trees = [_gather(found) for name in names if (found := state.find(layout, name))]
    for tree in trees:
        process = config.processes.get(tree.running.name)
        tree.running.identity.signal(getattr(signal, f"SIG{process.stop_signal if process else 'TERM'}"))
    begun = time.monotonic()
    for tree in trees:
        process = config.processes.get(tree.running.name)
        patience = process.stop_timeout if process else 20.0
        state.wait_until(
            lambda it=tree: not it.running.identity.alive(),
            max(0.0, begun + patience - time.monotonic()),
        )
        _finish(layout, tree)
    return [tree.running.name for tree in trees]


def _finish(layout: Layout, tree: _Tree) -> None:
    """Kill what is left: those gathered before, and those that came into its session since."""
    leader = tree.running.identity
    later = [found for pid in _session(leader.pid) if (found := Identity.of(pid))]
    members = {*tree.members, *later}
    for member in members:
        member.signal(signal.SIGKILL)
    if not state.wait_until(lambda: not any(member.alive() for member in members), KILL_TIMEOUT):
        left = ", ".join(str(member.pid) for member in members if member.alive())
        raise ProcessFailed(
            f"{tree.running.name} could not be stopped: pid {left} is still there after SIGKILL",
            advice="it hangs in the kernel (a failing disk, a dead network mount): see `ps` and `dmesg`.",
        )
    layout.pid_file(tree.running.name).unlink(missing_ok=True)


def stop_release(layout: Layout, config: Config, version: str) -> list[str]:
    """Stop every managed process that runs from a release."""
    return stop(layout, config, [one.name for one in state.running(layout) if one.release == version])


def force_stop(layout: Layout, config: Config) -> list[str]:
    """Kill every managed process at once, without asking it. Returns their names."""
    adopt(layout, config.processes.values())
    trees = [_gather(found) for found in state.running(layout)]
    for tree in trees:
        for member in tree.members:
            member.signal(signal.SIGKILL)
    for tree in trees:
        _finish(layout, tree)
    return [tree.running.name for tree in trees]
