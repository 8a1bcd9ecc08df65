"""What runs now: pid files, believed only as far as the facts bear them out."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from updater.config import ProcessConfig
from updater.layout import Layout
from updater.records import moment
from updater.subprocesses import Identity, read_fields

STARTED = "--- started"
"""How the line in a log begins that marks a start."""


class Running(NamedTuple):
    """A managed process that lives."""

    name: str
    identity: Identity
    release: str
    since: str

    def as_status(self) -> Status:
        began = moment(self.since)
        uptime = max(0.0, (datetime.now(UTC) - began).total_seconds()) if began else None
        return Status(self.name, "running", self.identity.pid, self.release, self.since, uptime)


class Status(NamedTuple):
    """What is known of a configured process. ``state``: ``running``, ``died`` (it was started and is gone) or ``stopped``.

    ``uptime`` in seconds.
    """

    name: str
    state: str
    pid: int | None = None
    release: str | None = None
    since: str | None = None
    uptime: float | None = None

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def find(layout: Layout, name: str) -> Running | None:
    """The process of that name, if its pid file names a living process beyond doubt."""
    fields = read_fields(layout.pid_file(name))
    identity = Identity.parse(fields)
    if identity is None or not identity.alive():
        return None
    return Running(name, identity, fields.get("release", ""), fields.get("since", ""))


def running(layout: Layout) -> list[Running]:
    """Every managed process that lives, also one that the configuration no longer names."""
    return [found for name in _recorded(layout) if (found := find(layout, name))]


def strays(layout: Layout, processes: Iterable[ProcessConfig]) -> list[Running]:
    """Configured processes that live although their pid file does not lead to them: somebody removed it.

    A second trading bot beside the first costs money, so they are looked for before any start. A launcher leaves in its
    process's environment whose it is; what such a process starts inherits that, so its command line must fit as well.
    """
    lost = [process for process in processes if find(layout, process.name) is None]
    if not lost:
        return []
    import psutil

    found = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            candidate = psutil.Process(pid)
            env = candidate.environ()
            process = next((it for it in lost if it.name == env.get("UPDATER_PROCESS")), None)
            if process is None or not _is_one_of(layout, candidate, env, process):
                continue
            if identity := Identity.of(pid):
                since = datetime.fromtimestamp(candidate.create_time(), UTC).isoformat(timespec="seconds")
                found.append(Running(process.name, identity, env["UPDATER_RELEASE"], since))
                lost.remove(process)
    return found


def _is_one_of(layout: Layout, candidate: Any, env: Mapping[str, str], process: ProcessConfig) -> bool:
    version = env.get("UPDATER_RELEASE", "")
    if not version or os.path.realpath(env.get("UPDATER_ROOT", "")) != os.path.realpath(layout.root):
        return False
    arguments, rest = candidate.cmdline(), list(process.command[1:])
    inside = f"{os.sep}releases{os.sep}{version}{os.sep}"
    return arguments[len(arguments) - len(rest) :] == rest and (
        any(inside in word for word in arguments) or inside in candidate.cwd() + os.sep
    )


def _recorded(layout: Layout) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(layout.run.iterdir()):
            if path.name.endswith(".pid") and not path.name.startswith("."):
                yield path.name.removesuffix(".pid")


def status(layout: Layout, configured: Iterable[str]) -> list[Status]:
    """Every configured process, in that order, then living ones that the configuration no longer names."""
    names = list(configured)
    names += [one.name for one in running(layout) if one.name not in names]
    return [_status(layout, name) for name in names]


def _status(layout: Layout, name: str) -> Status:
    found = find(layout, name)
    if found is None:
        fields = read_fields(layout.pid_file(name))
        return Status(
            name, "died" if fields else "stopped", release=fields.get("release"), since=fields.get("since")
        )
    return found.as_status()


def last_lines(layout: Layout, name: str, count: int = 12) -> list[str]:
    """The last lines that a process wrote since its last start."""
    lines: list[str] = []
    with contextlib.suppress(OSError), layout.process_log(name).open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 64 * 1024))
        lines = file.read().decode("utf-8", "replace").splitlines()
    marks = [index for index, line in enumerate(lines) if line.startswith(STARTED)]
    return [line[:500] for line in lines[marks[-1] + 1 if marks else 0 :]][-count:]


def wait_until(condition: Any, seconds: float, *, every: float = 0.02) -> bool:
    """Wait for a condition, at most ``seconds``; whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True
