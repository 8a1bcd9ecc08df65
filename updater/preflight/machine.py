"""Checks of the machine: clock, memory, power, and the service manager where one is to start the application."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

from updater import records
from updater.backups import catalogue
from updater.layout import Layout
from updater.preflight import Finding, ok, warning
from updater.preflight.plan import Plan

AHEAD = timedelta(minutes=5)
"""How far a record may be in the future."""

LITTLE = 100 * 1024**2
"""Bytes of memory below which a build or a second process may be killed for want of it."""

THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
"""Where a Raspberry Pi's kernel tells of its power supply, in hexadecimal."""

_NOW, _BEFORE = (
    {0: "under-voltage", 1: "its frequency is capped", 2: "throttled", 3: "too hot"},
    {16: "under-voltage", 18: "throttling", 19: "too hot"},
)
"""Bits of `vcgencmd get_throttled` (https://www.raspberrypi.com/documentation/computers/os.html#get_throttled)."""


def clock(layout: Layout) -> Finding:
    """No record of ours is from the future."""
    now = records.now()
    earlier = catalogue.found(layout)
    moments = {it.id: records.moment(it.manifest.created) for it in earlier[-1:]}
    moments |= {str(it.get("id")): records.moment(it.get("ended")) for it in records.history(layout)[-1:]}
    for name, moment in moments.items():
        if moment and moment > now + AHEAD:
            return warning(
                f"{name} is from the future: the clock is wrong now, or was then",
                "set the clock (timedatectl set-ntp true); certificates and logs depend on it",
            )
    return ok(f"{now:%Y-%m-%d %H:%M} UTC")


def memory() -> Finding:
    import psutil

    found = psutil.virtual_memory()
    text = f"{found.available / 1e6:,.0f} MB of {found.total / 1e6:,.0f} MB available"
    if found.available < LITTLE:
        return warning(
            text, "end what is not needed, or add swap: the system may kill the build, or the application"
        )
    return ok(text)


def power(plan: Plan, told_in: Path = THROTTLED) -> Finding:
    """A Raspberry Pi with too little power writes garbage, or dies in the middle."""
    bits = _throttled(told_in)
    if bits is None:
        return ok("nothing tells of a weak power supply")
    remedy = "use the power supply that belongs to it, and a shorter cable; cool it where it is too hot"
    if now := [text for bit, text in _NOW.items() if bits >> bit & 1]:
        return plan.problem(f"this machine says: {', '.join(now)}", remedy)
    if before := [text for bit, text in _BEFORE.items() if bits >> bit & 1]:
        return warning(f"since its start there was {', '.join(before)}", remedy)
    return ok("enough power since the start")


def _throttled(told_in: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(told_in.read_text().strip(), 16)
    if tool := shutil.which("vcgencmd"):
        import subprocess

        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            done = subprocess.run(
                [tool, "get_throttled"], capture_output=True, text=True, timeout=5, check=True
            )
            return int(done.stdout.strip().removeprefix("throttled="), 16)
    return None


def unit(name: str) -> Finding:
    """The unit that is to start the application when the machine starts is there, and enabled."""
    import subprocess

    if sys.platform == "darwin":
        asked = [
            ["launchctl", "print", f"system/{name}"],
            ["launchctl", "print", f"gui/{os.getuid()}/{name}"],
        ]
        remedy = f"load it: launchctl bootstrap gui/{os.getuid()} ~/Library/LaunchAgents/{name}.plist"
    else:
        asked = [["systemctl", "is-enabled", name], ["systemctl", "--user", "is-enabled", name]]
        remedy = f"enable it: systemctl enable {name}; or take [app] unit out of updater.toml"
    said = []
    for command in asked:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.SubprocessError) as failure:
            said.append(f"{command[0]}: {getattr(failure, 'strerror', None) or 'no answer'}")
            continue
        if done.returncode == 0:
            return ok(f"{name} is in place")
        said.append(
            (done.stdout or done.stderr).strip().splitlines()[0]
            if (done.stdout or done.stderr).strip()
            else "no"
        )
    return warning(f"{name} would not start with the machine: {'; '.join(dict.fromkeys(said))}", remedy)
