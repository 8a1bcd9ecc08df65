"""Is an environment still what was built? Cheap, for ``verify`` and ``preflight``."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from updater.environments.record import EnvironmentRecord


def problem_of(release: Path, environment: Mapping[str, Any] | None) -> str | None:
    """What is wrong with a release's environment; None if nothing is.

    A system Python that has gone or became another version breaks every virtualenv made of it (F42).
    """
    record = EnvironmentRecord.from_json(environment)
    if record is None:
        return "no environment is on record for it"
    python = release / ".venv" / "bin" / "python"
    if not python.parent.is_dir():
        return "its environment .venv is missing"
    now = stat_of(python)
    if now is None:
        return f"its Python is gone: {os.path.realpath(python)} (an upgrade of the system?)"
    if now != record.interpreter:
        version = _version_of(python)
        if version is None:
            return f"its Python does not run any more: {os.path.realpath(python)}"
        if version.split(".")[:2] != record.python_version.split(".")[:2]:
            return f"its Python is now {version}, it was built with {record.python_version}"
    return None


def stat_of(python: Path) -> str | None:
    """Size and time of an interpreter's file; None if it cannot be run."""
    try:
        found = os.stat(python)
    except OSError:
        return None
    return f"{found.st_size}:{found.st_mtime_ns}" if os.access(python, os.X_OK) else None


def _version_of(python: Path) -> str | None:
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        done = subprocess.run(
            [python, "-I", "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def listing(environment: Path, *, seal: bool = False) -> str:
    """SHA-256 over the names, kinds, sizes and times of everything below an environment.

    ``seal``: also take the write permission from every file: releases share them.
    """
    hashed = hashlib.sha256()
    for line in _lines(os.fspath(environment), "", seal):
        hashed.update(line)
    return hashed.hexdigest()


def _lines(place: str, path: str, seal: bool) -> list[bytes]:
    lines = []
    with os.scandir(place) as entries:
        for entry in sorted(entries, key=lambda it: it.name):
            name = f"{path}/{entry.name}"
            if entry.is_symlink():
                lines.append(f"{name} -> {os.readlink(entry.path)}\n".encode("utf-8", "surrogateescape"))
            elif entry.is_dir(follow_symlinks=False):
                lines += _lines(entry.path, name, seal)
            else:
                found = entry.stat(follow_symlinks=False)
                if seal and found.st_mode & 0o222:
                    os.chmod(entry.path, stat.S_IMODE(found.st_mode) & ~0o222)
                lines.append(
                    f"{name} {found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
                )
    return lines
