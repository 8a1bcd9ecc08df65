"""Who holds a lock on a file: what an error about a locked database should say. Linux tells, others do not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_LOCKS = Path("/proc/locks")
"""``1: POSIX  ADVISORY  WRITE 4711 08:01:131074 1073741824 1073742335`` (man 5 proc_locks); major and minor in hexadecimal."""


def of(*paths: Path) -> list[str]:
    """The processes that hold one of the files for writing, as ``name (pid 4711)``; [] where the system does not tell."""
    wanted = set()
    for path in paths:
        with contextlib.suppress(OSError):
            it = path.stat()
            wanted.add(f"{os.major(it.st_dev):02x}:{os.minor(it.st_dev):02x}:{it.st_ino}")
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return []
    pids = {
        int(words[4])
        for words in map(str.split, lines)
        if len(words) >= 6 and words[1] != "->" and words[3] == "WRITE" and words[5] in wanted
    }
    return [f"{_name(pid)} (pid {pid})" for pid in sorted(pids - {os.getpid()}) if pid > 0]


def told(database: Path) -> str:
    """Of a database that is locked: that it is, and by whom."""
    who = of(database, *(database.with_name(database.name + end) for end in ("-wal", "-shm")))
    return " by ".join(filter(None, ("held locked", ", ".join(who))))


def _name(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        name = ""
    return name if name.isprintable() and name else "a process"
