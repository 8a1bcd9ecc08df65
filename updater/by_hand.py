"""What a person can type when updater itself cannot do it: shell commands that can be pasted as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path


def flip(root: Path, version: str) -> str:
    """Put a release into service. Guarded: with a directory at ``current``, ``ln`` would put the link into it and say nothing."""
    return f"cd {shlex.quote(str(root))} && {{ [ -L current ] || [ ! -e current ]; }} && ln -sfn releases/{version} current"


def script(root: Path, name: str, *words: str) -> str | None:
    """Run an emergency script of a root, from anywhere; None if it is not there."""
    place = root / "scripts" / name
    return shlex.join(["sh", str(place), *words]) if place.is_file() else None
