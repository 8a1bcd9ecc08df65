"""The emergency scripts as somebody at night has them: a shell and a few tools, and no Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests import shells
from tests.site import Done

SCRIPTS = Path(__file__).parents[1] / "scripts"
SHELLS = [it for it in ("dash", "bash", "busybox sh", "mksh", "zsh") if shutil.which(it.split()[0])]

MORE = ("busybox", "du", "mktemp", "true")


def toolbox(place: Path, *more: str, without: tuple[str, ...] = ()) -> Path:
    """A directory for a PATH with what a small system has and these programs, and no other."""
    shells.tools(place, without)
    for name in (*MORE, *more):
        if (found := shutil.which(name)) and not (place / name).is_symlink():
            (place / name).symlink_to(found)
    return place


def command(script: str, *arguments: str, shell: str = "sh") -> list[str]:
    words = ["zsh"] if shell == "zsh" else shell.split()
    found = shutil.which(words[0])
    assert found is not None
    return [found, *words[1:], str(SCRIPTS / script), *arguments]


def run(
    tools: Path, script: str, *arguments: str, shell: str = "sh", cwd: Path | str = "/", **env: str
) -> Done:
    """Run a script with nothing in its environment but a PATH."""
    done = subprocess.run(
        command(script, *arguments, shell=shell), env={"PATH": str(tools), **env}, cwd=cwd, capture_output=True, text=True,
        errors="surrogateescape", timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def call(tools: Path, root: Path, text: str, *, shell: str = "sh") -> Done:
    """Run shell commands with what the scripts share, on a root."""
    words = ["zsh", "--emulate", "sh"] if shell == "zsh" else shell.split()
    found = shutil.which(words[0])
    assert found is not None
    whole = f'scripts="{SCRIPTS}"\n. "{SCRIPTS}/lib.sh"\n. "{SCRIPTS}/lib_undo.sh"\nroot=$1 own=$1/.updater logs=$1/shared/logs\n{text}'
    done = subprocess.run(
        [found, *words[1:], "-c", whole, "sh", os.fspath(root)], env={"PATH": str(tools)}, capture_output=True,
        text=True, errors="surrogateescape", timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)
