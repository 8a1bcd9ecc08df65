"""Runs the emergency scripts as a person would at night: from a bare shell, with no Python anywhere on the PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.site import Done, Site

TOOLS = (
    "awk", "basename", "cat", "chmod", "cmp", "cp", "curl", "cut", "date", "dd", "df", "dirname", "env", "find", "flock", "grep",
    "gzip", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mv", "nohup", "od", "perl", "printf", "ps", "readlink", "rm", "rmdir",
    "sed", "setsid", "sh", "sha256sum", "sleep", "sort", "sqlite3", "stat", "sync", "tail", "tar", "tee", "test", "timeout", "touch", "tr",
    "uname", "uniq", "wc", "zstd",
)  # fmt: skip
"""What a small Debian has; no Python is among them."""


def tools(directory: Path, without: Iterable[str] = ()) -> Path:
    """A directory that is a whole PATH: links to the tools that this machine has, without some."""
    directory.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        if found and name not in without:
            (directory / name).symlink_to(os.path.realpath(found))
    return directory


def script(
    site: Site, path: Path, name: str, *arguments: str, shell: str = "sh", timeout: float = 120
) -> Done:
    """Run a script of the root with that PATH alone, from a directory elsewhere."""
    done = subprocess.run(
        [*shell.split(), str(site.layout.scripts / name), *arguments],
        env={"PATH": str(path), "HOME": str(site.place)}, cwd="/", stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)
