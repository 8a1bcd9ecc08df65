"""Under systemd a process of its own is not enough: stopping a service kills everything in its control group (F08).

A deployment that was started from a service is therefore given a scope of its own by ``systemd-run`` (man 1 systemd-run); so are
the application's processes where it is the dashboard's service that starts them. A unit that runs ``updater start`` keeps them.
"""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path

PROBE_SECONDS = 10.0


def control_group(text: str) -> str:
    """The control group that ``/proc/self/cgroup`` names (man 7 cgroups); empty if it tells none."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found[controllers if hierarchy != "0" else "unified"] = path
    return found.get("name=systemd") or found.get("unified", "")  # both are there in a hybrid hierarchy


def words(group: str) -> list[str]:
    """What to write before a command so that it outlives the service whose control group this is; [] where it is in none."""
    if not group.rpartition("/")[2].endswith(".service"):
        return []
    manager = ["--user"] if re.search(r"/user@\d+\.service/", group) else []
    return ["systemd-run", *manager, "--scope", "--quiet", "--collect", "--"]


@functools.cache
def prefix() -> tuple[str, ...]:
    """The same for this process; () where there is no systemd, or where it does not let this user."""
    group = ""
    with contextlib.suppress(OSError):
        group = control_group(Path("/proc/self/cgroup").read_text())
    found = words(group)
    if not found:
        return ()
    import shutil
    import subprocess

    if not shutil.which(found[0]):
        return ()
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        tried = subprocess.run(
            [*found, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
        if tried.returncode == 0:
            return tuple(found)
    return ()


_server = False


def serve() -> None:
    """From now on this process is the dashboard's server: its end must not be that of the application's processes."""
    global _server
    _server = True


def of_processes() -> tuple[str, ...]:
    """What to write before the command of one of the application's processes."""
    return prefix() if _server else ()
