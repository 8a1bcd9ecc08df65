"""Proof that a process runs from the release that it should: success is not that a start was ordered (F11, F20)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from updater.config import Config
from updater.errors import HealthFailed, ProcessFailed
from updater.layout import Layout
from updater.processes import control, family, state, using
from updater.subprocesses import Identity


class Seen(NamedTuple):
    """What the system says of a process. Empty where it says nothing."""

    cwd: str
    exe: str
    arguments: tuple[str, ...]
    release: str
    """``UPDATER_RELEASE`` in its environment."""


def look(pid: int) -> Seen:
    """Look at a process through psutil; what cannot be read is empty."""
    import psutil

    cwd = exe = release = ""
    arguments: tuple[str, ...] = ()
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        with contextlib.suppress(psutil.Error, OSError):
            cwd = process.cwd()
        with contextlib.suppress(psutil.Error, OSError):
            exe = process.exe()
        with contextlib.suppress(psutil.Error, OSError):
            arguments = tuple(process.cmdline())
        with contextlib.suppress(psutil.Error, OSError):
            release = process.environ().get("UPDATER_RELEASE", "")
    return Seen(cwd, exe, arguments, release)


def releases_of(layout: Layout, seen: Seen) -> set[str]:
    """The releases that a process has to do with: by its directory, its executable, its arguments.

    A path through ``current`` counts as the release that ``current`` names now: what it meant at the start, nobody knows.
    """
    found = {_release(layout, os.path.realpath(path)) for path in (seen.cwd, seen.exe) if path}
    for word in seen.arguments:
        if os.path.isabs(word):
            # Not the word itself: .venv/bin/python is a link to an interpreter outside of any release.
            found.add(
                _release(
                    layout, os.path.join(os.path.realpath(os.path.dirname(word)), os.path.basename(word))
                )
            )
    return {version for version in found if version}


def _release(layout: Layout, path: str) -> str:
    return (family.beneath(str(layout.releases), path) or "").split(os.sep, 1)[0]


def prove(layout: Layout, config: Config, version: str, names: Sequence[str]) -> None:
    """Each process lives and runs from ``releases/<version>``, and from no other.

    Raises:
        ProcessFailed: one does not; the details say what was seen.
    """
    for name in names:
        found = state.find(layout, name)
        if found is None:
            raise _gone(layout, name)
        seen = look(found.identity.pid)
        releases = releases_of(layout, seen)
        if seen.release:
            releases.add(seen.release)
        through_link = [word for word in seen.arguments if word.startswith(f"{layout.current}{os.sep}")]
        if releases != {version} or through_link:
            if not found.identity.alive():  # what ends while it is looked at shows nothing of itself
                raise _gone(layout, name)
            raise ProcessFailed(
                f"{name} (pid {found.identity.pid}) does not run from {version}",
                details=[
                    f"it has to do with: {', '.join(sorted(releases)) or 'no release'}",
                    f"directory: {seen.cwd}", f"executable: {seen.exe}", f"arguments: {' '.join(seen.arguments)}",
                    *(["it was started through the link `current`"] if through_link else []),
                ],
            )  # fmt: skip


def prove_ports(layout: Layout, config: Config, names: Sequence[str]) -> None:
    """What answered the probes is the application, and no stranger on its ports. Call it when they have passed.

    Raises:
        HealthFailed: a stranger listens there, and nothing of the application does.
    """
    for name in names:
        ports = using.ports_asked(config.processes[name].probes)
        for port, it in using.strangers(layout, using.listeners(ports)).items():
            raise HealthFailed(
                f"{name}: port {port} is listened on by {it.name} (pid {it.pid}), not by this application",
                details=control.evidence(layout, name),
                advice="end that program, or give one of the two another port; then: updater restart",
            )


def _gone(layout: Layout, name: str) -> ProcessFailed:
    """It was started, and is there no more: what it wrote tells why."""
    one = Identity.parse(state.record(layout, name))
    how = (control.exit_text(one.pid) if one else None) or "died"
    return ProcessFailed(f"{name} {how}", details=control.evidence(layout, name))


def in_use(layout: Layout) -> set[str]:
    """Every release that a living process of anybody runs from; such a one is never removed (F19)."""
    import psutil

    found = {one.release for one in state.running(layout)}
    for pid in psutil.pids():
        if pid != os.getpid():
            found |= releases_of(layout, look(pid))
    return {version for version in found if version}
