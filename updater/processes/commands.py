"""Runs a command of the application: in a release, with its interpreter and environment, as its processes run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from updater import subprocesses
from updater.layout import Layout, ReleaseFiles
from updater.subprocesses import Finished

_OURS = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "UPDATER_PROCESS",
    "UPDATER_TRIAL",
    "UPDATER_TRIAL_FILE",
)


def run(
    layout: Layout,
    version: str,
    command: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: str = ".",
    secrets: Sequence[str] = (),
    keep_fds: Sequence[int] = (),
    record: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Finished:
    """Run ``command``; its ``python`` is the release's own. ``timeout`` in seconds, ``cwd`` relative to the release.

    ``secrets``: variables that are updater's alone. The rest is as for :func:`updater.subprocesses.run`.

    Raises:
        OSError: it cannot be started.
    """
    release = layout.release(version)
    own = release / ReleaseFiles.ENVIRONMENT / "bin"
    first, *rest = command
    word = str(own / "python") if first in ("python", "python3") else first
    inherited = {name: it for name, it in os.environ.items() if name not in _OURS and name not in secrets}
    whole = {
        **inherited,
        **(env or {}),
        "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(release / ReleaseFiles.ENVIRONMENT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "UPDATER_ROOT": str(layout.root),
        "UPDATER_SHARED": str(layout.shared),
        "UPDATER_RELEASE": version,
    }
    return subprocesses.run(
        [word, *rest], cwd=release / cwd, env=whole, timeout=timeout,
        keep_fds=keep_fds, record=record, on_line=on_line, check=check,
    )  # fmt: skip
