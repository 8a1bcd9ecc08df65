"""Who uses a file, or a port? As far as the system tells us: of other users' processes it may not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple


class User(NamedTuple):
    """A process that has a file open."""

    pid: int
    name: str
    path: str


class Listener(NamedTuple):
    """A process that listens on a port."""

    pid: int
    name: str


def listeners(ports: Collection[int]) -> dict[int, Listener]:
    """The processes that listen on TCP ports: port -> process."""
    import psutil

    found: dict[int, Listener] = {}
    for process in psutil.process_iter() if ports else ():
        with contextlib.suppress(psutil.Error, OSError):
            for it in process.net_connections("tcp"):
                if it.status == psutil.CONN_LISTEN and it.laddr.port in ports:
                    found.setdefault(it.laddr.port, Listener(process.pid, process.name()))
    return found


def users(paths: Iterable[Path]) -> list[User]:
    """The processes, ours not among them, that have one of the files open."""
    import psutil

    wanted = {os.path.realpath(path) for path in paths}
    found = []
    for process in psutil.process_iter() if wanted else ():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            path = next((it.path for it in process.open_files() if os.path.realpath(it.path) in wanted), None)
            if path is not None:
                found.append(User(process.pid, process.name(), path))
    return found
