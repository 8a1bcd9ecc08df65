"""Which processes of this machine belong to a root, whatever became of their parent, session or pid file.

A launcher leaves in the environment of what it starts whose it is, and everything below inherits that: also a worker
whose leader died, or a daemon that left session and parent behind. Linux: read from ``/proc`` directly, since every
``updater status`` does it; elsewhere through psutil.

updater itself may carry the marks as well: the application's dashboard has a button that starts it. It is never counted,
and neither is a deployment, of whatever root: its worker has a mark of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from updater import lock
from updater.layout import Layout
from updater.subprocesses import Identity, boot_id

ROOT, PROCESS, RELEASE = "UPDATER_ROOT", "UPDATER_PROCESS", "UPDATER_RELEASE"
"""The marks in the environment."""

WORKER = "UPDATER_WORKER"
"""The mark of a deployment's worker. The application's processes, which it starts, never have it."""

_MARKS = (ROOT, PROCESS, RELEASE, WORKER)


class Row(NamedTuple):
    """A living process in the system's table; a zombie is none."""

    pid: int
    parent: int
    session: int
    began: float
    """Only for comparing: which of two began first."""
    start: str = ""
    """As in :class:`Identity`; empty where that must be asked for."""

    def identity(self) -> Identity | None:
        return Identity(self.pid, self.start, boot_id()) if self.start else Identity.of(self.pid)


class Marked(NamedTuple):
    """A living process that a launcher of this root started, or that such a process started."""

    row: Row
    name: str
    release: str


def marked(layout: Layout) -> list[Marked]:
    """Every process that belongs to this root by its marks, the oldest first; updater's own are left out."""
    root = os.path.realpath(layout.root)
    found = []
    for pid in _pids():
        marks = _marks(pid)
        name, release = marks.get(PROCESS, ""), marks.get(RELEASE, "")
        if _is_name(name) and _is_name(release) and _is_of(root, marks, _cwd(pid)) and (row := look(pid)):
            found.append(Marked(row, name, release))
    if found:
        spared = updaters_own(layout)
        found = [it for it in found if it.row.pid not in spared]
    return sorted(found, key=lambda it: (it.row.began, it.row.pid))


def _is_name(text: str) -> bool:
    """An environment is input: what it names never leads out of a directory."""
    return bool(text) and "/" not in text and not text.startswith(".")


def marked_environment(layout: Layout, process: str, release: str) -> dict[str, str]:
    """Our environment with the marks of a process, as its launcher sets them."""
    ours = {name: it for name, it in os.environ.items() if name != WORKER}
    return {**ours, ROOT: str(layout.root), PROCESS: process, RELEASE: release}


def _is_of(root: str, marks: Mapping[str, str], cwd: str) -> bool:
    """Whether marks mean this root. The directory that a process runs in tells best, since it moves with a root and
    is not copied with it; the path that was its root at its start is believed after that."""
    release = os.path.join(os.sep, "releases", marks[RELEASE])
    place = cwd = cwd.removesuffix(" (deleted)")
    while len(place) > 1:
        if place.endswith(release):
            other = place.removesuffix(release) or os.sep
            if is_same(other, root):
                return True
            if os.path.exists(os.path.join(other, "updater.toml")):
                return False
        place = os.path.dirname(place)
    named = marks.get(ROOT, "")
    return is_same(named, root) or (not os.path.exists(named) and beneath(root, cwd) is not None)


def is_same(one: str, other: str) -> bool:
    """Whether two paths lead to the same directory: through a bind mount, a link, or in other letters."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def beneath(directory: str, path: str) -> str | None:
    """What of a resolved path lies beneath a directory, by whatever path that is reached; ``""`` if it is the directory
    itself, None if it lies elsewhere."""
    try:
        wanted = os.stat(directory)
    except OSError:
        return None
    place = path
    while place:
        with contextlib.suppress(OSError, ValueError):  # removed meanwhile, or not for our eyes
            if os.path.samestat(os.stat(place), wanted):
                return path[len(place) :].lstrip(os.sep)
        place = os.path.dirname(place) if len(place) > 1 else ""
    return None


def updaters_own(layout: Layout) -> set[int]:
    """Who must never be signalled: this process, the holder of the lock, and what started them.

    What started them may be the application (its dashboard waits for the command that it ran): that is told by the
    program, which then lies in a release.
    """
    holder = lock.owner(layout)
    spared = {os.getpid(), *([holder.identity.pid] if holder else [])}
    releases = os.path.join(os.path.realpath(layout.root), "releases")
    for pid in tuple(spared):
        above = look(pid)
        while above and above.parent > 1 and above.parent not in spared:
            place = os.path.dirname(_program(above.parent))
            if not place or beneath(releases, os.path.realpath(place)) is None:
                spared.add(above.parent)
            above = look(above.parent)
    return spared


def session(layout: Layout, rows: Mapping[int, Row], leader: int) -> set[int]:
    """The session of a living leader, without what is apart in it; the leader too."""
    root, marks = os.path.realpath(layout.root), _marks(leader)
    found = (row.pid for row in rows.values() if row.session == leader)
    return {leader, *(pid for pid in found if not _is_apart(root, marks, _marks(pid)))}


def below(layout: Layout, rows: Mapping[int, Row], tops: Iterable[int], spared: Iterable[int]) -> set[int]:
    """Everything that descends from ``tops``, without ``spared``, what is apart, and what descends only from those."""
    children: dict[int, list[int]] = {}
    for row in rows.values():
        children.setdefault(row.parent, []).append(row.pid)
    root = os.path.realpath(layout.root)
    never, found, todo = set(spared), set[int](), list(tops)
    while todo:
        above = todo.pop()
        for pid in children.get(above, ()):
            if pid not in found and pid not in never and not _is_apart(root, _marks(above), _marks(pid)):
                found.add(pid)
                todo.append(pid)
    return found


def _is_apart(root: str, above: Mapping[str, str], marks: Mapping[str, str]) -> bool:
    """Whether what a process of this root has started is none of it: a deployment, or another root's application.

    A dashboard may look after other roots, and stopping it must not stop what it does there (F08). Marks that are
    merely inherited say nothing: a root may have been moved since.
    """
    named = marks.get(ROOT, "")
    if WORKER in marks:
        return True
    return (
        PROCESS in marks and named != above.get(ROOT) and os.path.exists(named) and not is_same(named, root)
    )


def remains(layout: Layout, rows: Mapping[int, Row], leader: Identity) -> set[int]:
    """What is left of the session of a leader, dead or alive, if it runs inside of this root.

    The system gives the number of a session to nobody else while it has members, but it may have done so afterwards.
    """
    if leader.boot != boot_id() or (leader.pid in rows and not leader.alive()):
        return set()
    root = os.path.realpath(layout.root)
    left = [row.pid for row in rows.values() if row.session == leader.pid]
    return {pid for pid in left if beneath(root, _cwd(pid)) is not None}


def table() -> dict[int, Row]:
    """Every living process."""
    return {pid: row for pid in _pids() if (row := look(pid))}


def who(pid: int) -> tuple[str, str]:
    """The user and the command line of a process, for people to read."""
    import psutil

    user, words = "another user", []
    with contextlib.suppress(psutil.Error, OSError, KeyError):
        user = psutil.Process(pid).username()
    with contextlib.suppress(psutil.Error, OSError):
        words = psutil.Process(pid).cmdline()
    return user, " ".join(words)[:200] or "unknown"


if sys.platform == "linux":

    def _pids() -> Iterator[int]:
        return (int(name) for name in os.listdir("/proc") if name.isdigit())

    def look(pid: int) -> Row | None:
        """The row of one process; None if it does not live."""
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        if len(fields) < 20 or fields[0] in (b"Z", b"X"):
            return None
        start = fields[19].decode()
        return Row(pid, int(fields[1]), int(fields[3]), float(start), start)

    def _marks(pid: int) -> dict[str, str]:
        raw = _read(pid, "environ")
        if b"UPDATER_" not in raw:
            return {}
        pairs = (os.fsdecode(line).partition("=") for line in raw.split(b"\0"))
        return {name: value for name, _, value in pairs if name in _MARKS}

    def _cwd(pid: int) -> str:
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{pid}/cwd")
        return ""

    def _program(pid: int) -> str:
        return os.fsdecode(_read(pid, "cmdline").partition(b"\0")[0])

    def _read(pid: int, name: str) -> bytes:
        try:
            with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
                return file.read()
        except OSError:
            return b""

else:

    def _pids() -> Iterator[int]:
        import psutil

        return iter(psutil.pids())

    def look(pid: int) -> Row | None:
        """The row of one process; None if it does not live."""
        import psutil

        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                return Row(pid, process.ppid() or 0, os.getsid(pid) if pid else 0, process.create_time())
        return None

    def _marks(pid: int) -> dict[str, str]:
        import psutil

        with contextlib.suppress(psutil.Error, OSError, ValueError):
            env = psutil.Process(pid).environ()
            return {name: env[name] for name in _MARKS if name in env}
        return {}

    def _cwd(pid: int) -> str:
        import psutil

        with contextlib.suppress(psutil.Error, OSError):
            return str(psutil.Process(pid).cwd())
        return ""

    def _program(pid: int) -> str:
        import psutil

        with contextlib.suppress(psutil.Error, OSError):
            return str((psutil.Process(pid).cmdline() or [""])[0])
        return ""
