"""Is an environment still what was built? Cheap, for ``verify`` and ``preflight``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from updater.environments.listing import listing
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


def damage_of(release: Path) -> str | None:
    """Installed files that are not what their packages brought, by the hashes in each package's ``RECORD``; None if all
    are. Reads every byte: for ``verify``, not for every swap. It does not see bytecode, for which no hash is published.
    """
    allowed: dict[str, set[str]] = {}  # packages may share a file: then one of them brought it
    for record in _records(release):
        for name, said in _listed(record).items():
            allowed.setdefault(os.path.normpath(record.parent.parent / name), set()).add(said)
    found = sorted(
        os.path.relpath(place, release) for place, said in allowed.items() if not _is_one_of(place, said)
    )
    if not found:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"its environment was changed: {found[0]}{more} is not what its package brought"


def gap_in(release: Path, donor: Path) -> bool:
    """Whether a clone of ``donor``'s environment that was brought up to date lacks a file of a package that it has: one that
    went, or was installed again, took along what another brings as well.

    It reads what those brought that are no longer the donor's, and the others' ``RECORD`` only if some of that is not there.
    """
    lost = set()
    for theirs in _records(donor):
        mine = release / theirs.relative_to(donor)
        with contextlib.suppress(OSError):
            if os.path.samefile(mine, theirs):
                continue
        lost |= {name for name in _listed(theirs) if not os.path.lexists(mine.parent.parent / name)}
    return bool(lost) and any(not lost.isdisjoint(_listed(mine)) for mine in _records(release))


def _records(release: Path) -> list[Path]:
    return sorted((release / ".venv").glob("lib/python*/site-packages/*.dist-info/RECORD"))


def _listed(record: Path) -> dict[str, str]:
    """The files that a package brought, as its ``RECORD`` names them from beside it, and their hashes."""
    import csv

    found: dict[str, str] = {}
    with (
        contextlib.suppress(OSError, UnicodeDecodeError, csv.Error),
        record.open(newline="", encoding="utf-8") as lines,
    ):
        found.update((row[0], row[1]) for row in csv.reader(lines) if len(row) > 1 and row[1])
    return found


def _is_one_of(place: str, hashes: set[str]) -> bool:
    """``hashes`` as in a RECORD: ``sha256=`` and the digest in URL-safe base64 (packaging.python.org)."""
    import base64
    import hashlib

    for said in hashes:
        name, _, value = said.partition("=")
        with contextlib.suppress(OSError, ValueError), open(place, "rb") as file:
            digest = hashlib.file_digest(file, name).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == value.rstrip("="):
                return True
    return False


def stat_of(python: Path) -> str | None:
    """Size and time of an interpreter's file; None if it cannot be run."""
    try:
        found = os.stat(python)
    except OSError:
        return None
    return f"{found.st_size}:{found.st_mtime_ns}" if os.access(python, os.X_OK) else None


def _version_of(python: Path) -> str | None:
    import subprocess

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
