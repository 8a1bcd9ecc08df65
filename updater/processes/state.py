"""What runs now: pid files, believed only as far as the facts bear them out."""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from updater import durable, ownership
from updater.layout import Layout
from updater.processes import family
from updater.processes.family import Marked
from updater.records import moment
from updater.subprocesses import Identity, as_lines, boot_id, read_fields

STARTED = "--- started"
"""How the line in a log begins that marks a start."""


class Running(NamedTuple):
    """A managed process that lives."""

    name: str
    identity: Identity
    release: str
    since: str
    stopping: str = ""
    """``asked`` from before the polite signal on, ``sent`` from after it on; else empty."""

    def as_status(self) -> Status:
        began = moment(self.since)
        uptime = max(0.0, (datetime.now(UTC) - began).total_seconds()) if began else None
        state = "stopping" if self.stopping else "running"
        return Status(self.name, state, self.identity.pid, self.release, self.since, uptime)


class Status(NamedTuple):
    """What is known of a configured process. ``state``: ``running``, ``stopping`` (it has its signal and still lives),
    ``died`` (it was started and is gone) or ``stopped``. ``uptime`` in seconds.
    """

    name: str
    state: str
    pid: int | None = None
    release: str | None = None
    since: str | None = None
    uptime: float | None = None

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def record(layout: Layout, name: str) -> dict[str, str]:
    """What the pid file says; {} if there is none, or if it is a copy of another root's."""
    fields = read_fields(layout.pid_file(name))
    return fields if ownership.is_ours(layout, fields) else {}


def write(layout: Layout, one: Running) -> None:
    """Write a pid file. Not flushed: after a power cut it names nothing that lives, and a kill of updater loses nothing."""
    fields = {
        **one.identity.as_fields(), ownership.FIELD: ownership.mark(layout), "process": one.name,
        "release": one.release, "since": one.since, **({"stopping": one.stopping} if one.stopping else {}),
    }  # fmt: skip
    durable.make_directory(layout.run)
    durable.write_quick(layout.pid_file(one.name), as_lines(fields))


def find(layout: Layout, name: str) -> Running | None:
    """The process of that name, if its pid file names a living process beyond doubt."""
    fields = record(layout, name)
    identity = Identity.parse(fields)
    if identity is None or not identity.alive():
        return None
    return Running(
        name, identity, fields.get("release", ""), fields.get("since", ""), fields.get("stopping", "")
    )


def running(layout: Layout) -> list[Running]:
    """Every managed process that lives, also one that the configuration no longer names."""
    return [found for name in recorded(layout) if (found := find(layout, name))]


def strays(layout: Layout, marked: Sequence[Marked] | None = None) -> list[Running]:
    """Processes that live although their pid file does not lead to them: somebody removed it.

    A second trading bot beside the first costs money, so they are looked for before any start. The marks in the
    environment tell them, not the command line: that of a wrapper is not the one configured.
    """
    found = family.marked(layout) if marked is None else marked
    pids = {it.row.pid: (it.name, it.release) for it in found}
    tops: dict[str, Running] = {}
    for it in found:  # the oldest first
        if it.name in tops or pids.get(it.row.parent) == (it.name, it.release) or find(layout, it.name):
            continue
        identity = it.row.identity()
        if identity and _may_be_leader(layout, it.name, identity):
            tops[it.name] = Running(it.name, identity, it.release, _since(layout, it, identity))
    return list(tops.values())


def _may_be_leader(layout: Layout, name: str, identity: Identity) -> bool:
    """Not what a leader left behind that its pid file still names: that one began at another moment. And none that could
    not be stopped: it would bar every way."""
    if not identity.permitted():
        return False
    recorded = Identity.parse(record(layout, name))
    return recorded is None or recorded.boot != boot_id() or recorded.start == identity.start


def _since(layout: Layout, it: Marked, identity: Identity) -> str:
    fields = record(layout, it.name)
    if fields.get("start") == identity.start and moment(fields.get("since")):
        return fields["since"]
    import psutil

    with contextlib.suppress(psutil.Error):
        created = psutil.Process(identity.pid).create_time()
        return datetime.fromtimestamp(created, UTC).isoformat(timespec="seconds")
    return ""


def leftovers(layout: Layout, marked: Sequence[Marked] | None = None) -> list[Marked]:
    """Living processes that no living leader accounts for: their own died, or they began before the one that runs."""
    found = family.marked(layout) if marked is None else list(marked)
    leaders = {one.name: one for one in [*running(layout), *strays(layout, found)]}
    began = {it.row.pid: it.row.began for it in found}

    def accounted_for(it: Marked) -> bool:
        leader = leaders.get(it.name)
        if leader is None or leader.release != it.release:
            return False
        return it.row.began >= began.get(leader.identity.pid, 0.0)

    return [it for it in found if not accounted_for(it)]


def recorded(layout: Layout) -> Iterator[str]:
    """The names that have a pid file, whatever it says."""
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
        fields = record(layout, name)
        return Status(
            name, "died" if fields else "stopped", release=fields.get("release"), since=fields.get("since")
        )
    return found.as_status()


def odd_log(layout: Layout, name: str) -> str | None:
    """What stands in the place of a process's log if it is no regular file (opening a pipe would wait for ever)."""
    try:
        mode = layout.process_log(name).stat().st_mode
    except OSError:
        return None
    kinds = ((stat.S_ISREG, None), (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"))
    return next((kind for test, kind in kinds if test(mode)), "a device or a socket")


def last_lines(layout: Layout, name: str, count: int = 12) -> list[str]:
    """The last lines that a process wrote since its last start."""
    lines: list[str] = []
    if odd_log(layout, name):
        return lines
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
