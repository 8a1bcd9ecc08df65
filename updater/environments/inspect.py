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


def edit_of(release: Path, environment: Mapping[str, Any] | None) -> str | None:
    """Whether somebody changed a release's environment since it was built (`pip install` by hand); None if not.

    It looks at every name in it. Never a reason to refuse a rollback: what was changed may be what makes it work.
    """
    record = EnvironmentRecord.from_json(environment)
    try:
        if record is None or listing(release / ".venv") == record.listing:
            return None
    except OSError as failure:
        return f"its environment cannot be read: {failure}"
    return "its environment was changed since it was built (something was installed or edited in .venv)"


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


def listing(environment: Path, *, seal: bool = False, link_to: Path | None = None) -> str:
    """SHA-256 over the names, kinds, sizes and times of everything below an environment.

    ``seal``: also take the write permission from every file: releases share them. ``link_to``: also clone it there, by
    hard links, in the same pass.

    Raises:
        OSError: it cannot be read, or cannot be cloned (another filesystem, too many links).
    """
    hashed = hashlib.sha256()
    source = os.open(environment, _DIRECTORY)
    target = None
    try:
        if link_to is not None:
            os.mkdir(link_to)
            target = os.open(link_to, _DIRECTORY)
        _walk(source, target, "", hashed, seal)
    finally:
        for fd in (source, target):
            if fd is not None:
                os.close(fd)
    return hashed.hexdigest()


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _walk(source: int, target: int | None, path: str, hashed: hashlib._Hash, seal: bool) -> None:
    """Names relative to open directories: half the work of the kernel for deep trees."""
    lines = []
    with os.scandir(source) as found:
        entries = sorted(found, key=lambda it: it.name)
    for entry in entries:
        name = entry.name
        if entry.is_symlink():
            text = os.readlink(name, dir_fd=source)
            lines.append(f"{path}/{name} -> {text}\n")
            if target is not None:
                os.symlink(text, name, dir_fd=target)
        elif entry.is_dir(follow_symlinks=False):
            lines.append(f"{path}/{name}/\n")
            _below(source, target, path, name, hashed, seal)
        else:
            seen = entry.stat(follow_symlinks=False)
            if seal and seen.st_mode & 0o222:
                os.chmod(name, stat.S_IMODE(seen.st_mode) & ~0o222, dir_fd=source)
            lines.append(f"{path}/{name} {seen.st_size} {seen.st_mtime_ns}\n")
            if target is not None:
                os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    hashed.update("".join(lines).encode("utf-8", "surrogateescape"))


def _below(source: int, target: int | None, path: str, name: str, hashed: hashlib._Hash, seal: bool) -> None:
    inner = os.open(name, _DIRECTORY, dir_fd=source)
    copy = None
    try:
        if target is not None:
            os.mkdir(name, dir_fd=target)
            copy = os.open(name, _DIRECTORY, dir_fd=target)
        _walk(inner, copy, f"{path}/{name}", hashed, seal)
    finally:
        for fd in (inner, copy):
            if fd is not None:
                os.close(fd)
