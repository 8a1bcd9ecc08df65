"""Who uses a file, or a port? As far as the system tells us: of other users' processes it may not."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from updater.config import ProbeConfig
from updater.layout import Layout
from updater.processes import family, state


class User(NamedTuple):
    """A process that has a file open."""

    pid: int
    name: str
    path: str


class Listener(NamedTuple):
    """A process that listens on a port."""

    pid: int

    @property
    def name(self) -> str:
        import psutil

        with contextlib.suppress(psutil.Error, OSError):
            return psutil.Process(self.pid).name()
        return "a process that has ended"


def listeners(ports: Collection[int]) -> dict[int, list[Listener]]:
    """The processes that listen on TCP ports of this machine, by the port."""
    found: dict[int, list[Listener]] = {}
    for pid, port in _listening(ports) if ports else ():
        found.setdefault(port, []).append(Listener(pid))
    return found


def ours(layout: Layout) -> set[int]:
    """The pids of the application's processes, and of what these have started."""
    rows = family.table()
    tops = {it.row.pid for it in family.marked(layout)} | {it.identity.pid for it in state.running(layout)}
    return tops | family.below(layout, rows, tops, ())


def strangers(layout: Layout, found: Mapping[int, list[Listener]]) -> dict[int, Listener]:
    """Of :func:`listeners`: the ports on which somebody listens and none of the application does."""
    mine = ours(layout) if found else set()
    return {port: those[0] for port, those in found.items() if not any(it.pid in mine for it in those)}


def ports_asked(probes: Iterable[ProbeConfig]) -> set[int]:
    """The ports of this machine that probes ask."""
    return {port for it in probes if (port := _port(it))}


def _port(probe: ProbeConfig) -> int | None:
    if probe.type == "tcp":
        return probe.port if _is_here(probe.host) else None
    if probe.type == "http":
        from urllib.parse import urlsplit

        parts = urlsplit(probe.url)
        return (
            (parts.port or {"https": 443}.get(parts.scheme, 80)) if _is_here(parts.hostname or "") else None
        )
    return None


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1", "0.0.0.0", "::") or host.startswith("127.")


if sys.platform == "linux":

    def _listening(ports: Collection[int]) -> Iterator[tuple[int, int]]:
        """Who listens where. The kernel's tables are read once: to find a port there it goes through all of them, and every
        process's own shows the same."""
        sockets = _sockets(ports)
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) if sockets else ():
            with contextlib.suppress(OSError):  # it has ended, or is not for our eyes
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        port = sockets.get(os.readlink(f"/proc/{pid}/fd/{fd}"))
                        if port is not None:
                            yield pid, port

    def _sockets(ports: Collection[int]) -> dict[str, int]:
        """Listening sockets, by the name that a descriptor's link has, and their ports (man 5 proc_pid_net)."""
        found = {}
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
                for fields in map(str.split, lines):
                    if len(fields) > 9 and fields[3] == "0A":  # TCP_LISTEN
                        port = int(fields[1].rpartition(":")[2], 16)
                        if port in ports:
                            found[f"socket:[{fields[9]}]"] = port
        return found

else:

    def _listening(ports: Collection[int]) -> Iterator[tuple[int, int]]:
        import psutil

        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                for it in process.net_connections("tcp"):
                    if it.status == psutil.CONN_LISTEN and it.laddr.port in ports:
                        yield process.pid, it.laddr.port


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
