"""Who locks a root without being an operation of updater: ``flock /srv/bot some-command`` in somebody's cron job.

The kernel tells who holds a lock; where it does not (macOS), or not to us, the advice says how to find out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from updater.layout import Layout


class Stranger(NamedTuple):
    """A process that holds a lock on the root's directory or on the lock file."""

    pid: int
    command: str
    place: Path

    def describe(self) -> str:
        return f"pid {self.pid}: {self.command} (locks {self.place})"


def holding(layout: Layout) -> list[Stranger]:
    """Every process that has one of updater's two locks open and locked, by its own doing or by inheritance (Linux)."""
    found: dict[int, Stranger] = {}
    for place in (layout.lock, layout.root):
        with contextlib.suppress(OSError):
            wanted = place.stat()
            for pid in {*_having(wanted), *_listed(wanted)}:
                found.setdefault(pid, Stranger(pid, _command(pid), place))
    return [found[pid] for pid in sorted(found)]


def advice(found: Sequence[Stranger]) -> str:
    """What to do about them."""
    pids = [it.pid for it in found]
    if {os.getpid(), os.getppid()} & {*pids}:  # a deployment's worker is a child of the command
        return "this very command was started under that lock: let `flock` take another file, or none, since updater has a lock of its own."
    how = (
        f"end it: kill {' '.join(map(str, pids))}"
        if pids
        else "see in the root who it is (`lsof .updater/lock .`), and end it"
    )
    return f"wait for it, or {how}. `updater unlock` does not: it ends operations of updater only."


def _having(wanted: os.stat_result) -> Iterator[int]:
    """Who has a file open with a lock on it. A lock belongs to the open file: also to a child that inherited that, when
    the process that took the lock is gone."""
    for name in _names("/proc"):
        if name.isdigit() and any(_is_locked(name, fd, wanted) for fd in _names(f"/proc/{name}/fdinfo")):
            yield int(name)


def _is_locked(pid: str, fd: str, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        told = Path(f"/proc/{pid}/fdinfo/{fd}").read_text(encoding="ascii", errors="replace")
        if any(_inode(line) == wanted.st_ino for line in told.splitlines() if line.startswith("lock:")):
            # Only now the file itself: others may lie on a network mount that hangs.
            return os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), wanted)
    return False


def _listed(wanted: os.stat_result) -> Iterator[int]:
    """Who took a lock, by the kernel's list, if we may not look into that process. Its device is that of the whole
    filesystem, which for one without a block device (a subvolume, say) is another than that of the file."""
    device = f":{os.major(wanted.st_dev):02x}:{os.minor(wanted.st_dev):02x}:"
    anonymous = os.major(wanted.st_dev) == 0
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        if "->" in line or _inode(line) != wanted.st_ino:
            continue
        pid, place = line.split()[4:6]
        shut = os.path.exists(f"/proc/{pid}") and not os.access(f"/proc/{pid}/fdinfo", os.R_OK)
        if shut and (anonymous or f":{place}".startswith(device)):
            yield int(pid)


def _inode(line: str) -> int | None:
    """The inode in a line of ``/proc/locks`` (man 5 proc_locks) or of an ``fdinfo``, if it is of a ``flock(2)``."""
    words = line.removeprefix("lock:").split()
    if len(words) > 5 and words[1] == "FLOCK":
        with contextlib.suppress(ValueError):
            return int(words[5].rpartition(":")[2])
    return None


def _names(directory: str) -> Iterable[str]:
    with contextlib.suppress(OSError):
        return os.listdir(directory)
    return ()


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        return raw.replace(b"\0", b" ").decode(errors="replace").strip()[:200] or "unknown"
    return "unknown"
