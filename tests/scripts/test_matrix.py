"""The emergency scripts under each shell that people have, with GNU's tools and busybox's, and never a Python on the PATH.

The scenarios are in the .bats files: central.bats runs under every shell; processes and swap run under one shell and under
busybox with nothing but its own tools; the rest under one shell. SHELLS=all runs everything everywhere.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import templates
from tests.shells import tools
from tests.site import UPDATER

HERE = Path(__file__).resolve().parent

SHELLS = {
    "dash": ("dash", "gnu"),
    "busybox": ("busybox sh", "busybox"),
    "bash": ("bash", "gnu"),
    "mksh": ("mksh", "gnu"),
    "zsh-as-sh": ("zsh-as-sh/sh", "gnu"),
    "zsh": ("zsh", "gnu"),
    "dash-with-busybox": ("dash", "busybox"),
    "busybox-with-gnu": ("busybox sh", "gnu"),
}
"""Name: the command line, and the tools on the PATH."""

ALL = ("dash", "busybox", "bash", "mksh", "zsh-as-sh", "zsh")
FILES = {
    "central": ALL,
    "oddities": ("dash",),
    "processes": ("dash", "busybox"),
    "swap": ("dash", "busybox"),
    "lock": ("dash",),
    "interrupted": ("dash",),
    "disk": ("dash",),
    "killed": ("dash",),
}
EVERYTHING = os.environ.get("SHELLS") == "all"
ONE_SHELL = ("lock", "killed")
"""They take tools away, or put others in their place, which a busybox brings with itself."""


def combinations() -> Iterator[Any]:
    for file, shells in FILES.items():
        for shell in SHELLS if EVERYTHING else shells:
            if EVERYTHING and file in ONE_SHELL and "busybox" in shell:
                continue
            marks = () if (file, shell) == ("central", "dash") else (pytest.mark.slow,)
            yield pytest.param(file, shell, id=f"{file}-{shell}", marks=marks)


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this session share, with the templates and the tools in it."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    place = place / "emergency-scripts"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "made").exists():
            for half in ("templates", "gnu", "busybox", "zsh-as-sh"):
                shutil.rmtree(place / half, ignore_errors=True)
            tools(place / "gnu")
            (place / "busybox").mkdir()
            if busybox := shutil.which("busybox"):
                subprocess.run([busybox, "--install", "-s", str(place / "busybox")], check=True)
            (place / "zsh-as-sh").mkdir()
            if zsh := shutil.which("zsh"):
                (place / "zsh-as-sh/sh").symlink_to(zsh)
            templates.make(place / "templates")
            (place / "made").touch()
    return place


def command_line(session: Path, shell: str) -> str:
    words = SHELLS[shell][0].split()
    found = str(session / words[0]) if "/" in words[0] else shutil.which(words[0])
    if found is None or not Path(found).exists():
        pytest.skip(f"NOT TESTED: no {words[0]} here")
    return " ".join([found, *words[1:]])


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("file", "shell"), list(combinations()))
def test_emergency_scripts(file: str, shell: str, session: Path, tmp_path: Path) -> None:
    bats = shutil.which("bats")
    if bats is None:
        pytest.skip(
            "NOT TESTED: the emergency scripts under other shells need bats (Debian: apt-get install bats)"
        )
    under, path = command_line(session, shell), session / SHELLS[shell][1]
    if not (path / "sh").exists():
        pytest.skip("NOT TESTED: no busybox here")
    assert not list(path.glob("python*"))
    only = ["--filter", "by the records"] if shell == "zsh" and not EVERYTHING else []  # it hands over to sh
    env = {name: value for name, value in os.environ.items() if name != "UPDATER_ROOT"}
    told = {
        "UNDER": under,
        "TOOLS": path,
        "TEMPLATES": session / "templates",
        "UPDATER": UPDATER,
        "TMPDIR": tmp_path,
        # what a shell leaves on the disk is the same under all: two of them ask everything, the others the cheapest
        "ASKED": "" if EVERYTHING or shell in ("dash", "busybox") else "status",
    }
    done = subprocess.run(
        [bats, "--tap", *only, str(HERE / f"{file}.bats")], env={**env, **{name: str(it) for name, it in told.items()}},
        cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"under {under}, with {path.name}'s tools:\n{done.stdout}"
    assert re.search(r"^ok \d+ ", done.stdout, re.MULTILINE), done.stdout
    if skipped := re.findall(r"^ok \d+ (.*) # skip (.*)$", done.stdout, re.MULTILINE):
        pytest.skip("; ".join(f"{name}: {why}" for name, why in skipped))
