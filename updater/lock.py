"""The lock of a root: a kernel lock decides, a file beside it explains.

``flock(2)`` on ``.updater/lock`` is free the moment its last holder dies, so there is no stale lock to break (F15,
F16). Children that change things inherit the descriptor on purpose; the application's processes never do (F17).
``docs/decisions/lock.md`` tells why this is ``fcntl.flock`` and not a library.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from updater import durable, ownership
from updater.errors import LockHeld, PreflightFailed
from updater.layout import Layout, own_directories
from updater.subprocesses import Identity, as_lines, boot_id, end_session, read_fields

STALE_AFTER = 30 * 60.0
"""Seconds without progress after which a live holder is reported as stale."""


class Owner(NamedTuple):
    """Who holds the lock, for people to read; the kernel alone decides whether it is held."""

    identity: Identity
    operation: str
    since: str

    def describe(self) -> str:
        return f"{self.operation} (pid {self.identity.pid}, since {self.since})"


@dataclass
class Lock:
    """A held lock. ``fds`` are what a child that changes things must inherit."""

    fds: tuple[int, ...]
    layout: Layout
    operation: str


def owner(layout: Layout) -> Owner | None:
    """Who holds the lock now: the recorded owner if that very process lives, else None.

    In a copy of a root the record still names the original's; that one is at work elsewhere.
    """
    fields = read_fields(layout.lock_owner)
    identity = Identity.parse(fields)
    if identity is None or not ownership.is_ours(layout, fields) or not identity.alive():
        return None
    return Owner(identity, fields.get("operation", "unknown"), fields.get("since", "unknown"))


@contextlib.contextmanager
def hold(layout: Layout, operation: str, *, wait: float = 0.0) -> Iterator[Lock]:
    """Hold the root's lock for ``operation``.

    ``wait`` in seconds: how long to wait for another holder.

    Raises:
        LockHeld: somebody else holds it; the message says who.
        PreflightFailed: the lock file cannot be opened (read-only root, no permission).
    """
    fds = _acquire(layout, wait)
    try:
        try:
            for directory in own_directories(layout):
                durable.make_directory(directory)
            _tell(layout, operation)
            yield Lock(fds, layout, operation)
        finally:
            with contextlib.suppress(OSError):
                layout.lock_owner.unlink(missing_ok=True)
    finally:
        for fd in fds:
            os.close(fd)  # releases it, unless a child that changes things still lives


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as failure:
        advice = "run the command as the user that owns the root, and check that the disk is writable."
        if failure.errno == errno.EROFS:
            advice = "see `dmesg` for a failing disk, or remount it; `updater force-stop` ends the application without writing."
        raise PreflightFailed(
            f"cannot open the lock {path}: {failure.strerror}",
            state="Nothing was changed.",
            advice=advice,
        ) from failure


def _acquire(layout: Layout, wait: float) -> tuple[int, ...]:
    """The lock file, and the root's directory beside it: who removes ``.updater`` while somebody holds the lock must not
    let a second one in by that."""
    deadline = time.monotonic() + wait
    evicted = False
    while True:
        fds = (_open(layout.lock), os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        if _lock(fds[0]) and _still_there(fds[0], layout.lock) and _lock_directory(fds[1]):
            return fds
        for fd in fds:
            os.close(fd)
        holder = owner(layout)
        if holder is None and not evicted:
            # The owner is dead or has not told yet; a child of a dead one may keep the lock alive.
            evicted = end_orphan(layout)
            deadline += 2.0 if evicted else 0.0
        if time.monotonic() >= deadline:
            raise _held(layout, holder)
        time.sleep(0.02)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as failure:
        if failure.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        raise


def _lock_directory(fd: int) -> bool:
    """Lock a directory; a filesystem that cannot do that (some networks' ones) does without."""
    try:
        return _lock(fd)
    except OSError:
        return True


def _still_there(fd: int, path: Path) -> bool:
    """False if somebody removed ``.updater`` meanwhile: a lock on a file without a name excludes nobody."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False


def _held(layout: Layout, holder: Owner | None) -> LockHeld:
    if holder:
        return LockHeld(
            f"another operation is at work on this root: {holder.describe()}",
            state="Nothing was changed.",
            advice="wait for it, watch it with `updater progress --follow`, or end it with `updater cancel`.",
        )
    from updater import strangers

    found = strangers.holding(layout)
    return LockHeld(
        "another process holds a lock on this root and has not said what for",
        details=[it.describe() for it in found],
        state="Nothing was changed.",
        advice=strangers.advice(found),
    )


def _tell(layout: Layout, operation: str) -> None:
    """For people only: a full disk must not keep anybody from going back."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    fields = {
        **Identity.mine().as_fields(), "operation": operation, "since": since, ownership.FIELD: ownership.mark(layout),
    }  # fmt: skip
    with contextlib.suppress(OSError):
        durable.write_quick(layout.lock_owner, as_lines(fields))


def end_heirs(layout: Layout) -> list[str]:
    """End whoever else has the lock that we hold, when no child of ours is at work: what a child left behind in a session of
    its own inherited it, and would keep it for ever (F17). Returns what was ended, for people; Linux only."""
    from updater import strangers

    heirs = [it for it in strangers.holding(layout) if it.pid != os.getpid()]
    known = [identity for it in heirs if (identity := Identity.of(it.pid))]
    for identity in known:
        identity.signal(signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while any(it.alive() for it in known) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [f"{it.command} (pid {it.pid})" for it in heirs]


def child_record(layout: Layout) -> Path:
    """Where a child that changes things says who it is."""
    return layout.run / "child"


def end_orphan(layout: Layout) -> bool:
    """End what keeps the lock of an updater that died: its child, and what that has started. Returns whether there was any.

    A child dies with its parent where the system can tie it to that, but what it has started does not. The number of its
    session is nobody else's as long as any of them lives, and who in it has our lock has it by inheritance.
    """
    child = Identity.parse(read_fields(child_record(layout)))
    if child is None or child.boot != boot_id():
        return False
    from updater import strangers

    lived = child.alive()
    if lived:
        end_session(child.pid)
    heirs = [it.pid for it in strangers.holding(layout) if _session(it.pid) == child.pid]
    for pid in heirs:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return lived or bool(heirs)


def _session(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return None
