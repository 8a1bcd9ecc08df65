"""The tools: uv or venv and pip, and which Python."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from updater.config import EnvironmentConfig
from updater.errors import EnvironmentFailed

_LEAKS = {
    "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE",
    "PIP_TARGET", "PIP_USER", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_REQUIRE_HASHES", "CONDA_PREFIX",
    "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_PREFIX", "UV_NO_SYNC", "UV_LINK_MODE",
    "__PYVENV_LAUNCHER__",
}  # fmt: skip


def child_environment(secrets: Sequence[str] = ()) -> dict[str, str]:
    """The environment of an installer: index, proxy and certificate settings stay, what would redirect it goes, and so do
    the variables named by ``secrets``: build backends run code that strangers wrote.

    Interpreters are not downloaded: nothing outside the root is written apart from uv's own cache. Nothing is installed
    editable: an environment that points elsewhere would change with what it points to.
    """
    env = {name: value for name, value in os.environ.items() if name not in _LEAKS and name not in secrets}
    return {
        **env,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_EDITABLE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }


def find_uv() -> str | None:
    """The uv that was installed beside updater, else one on the PATH."""
    beside = Path(sys.executable).with_name("uv")
    if os.access(beside, os.X_OK):
        return str(beside)
    return shutil.which("uv")


def choose_tool(config: EnvironmentConfig) -> str:
    """The path of uv, or ``venv``.

    Raises:
        EnvironmentFailed: uv is asked for and not there.
    """
    if config.tool == "venv":
        return "venv"
    uv = find_uv()
    if uv is None and config.tool == "uv":
        raise EnvironmentFailed(
            "uv is not installed",
            advice='install it (pip install uv), or set [environment] tool = "venv" in updater.toml.',
        )
    return uv or "venv"


def describe_tool(config: EnvironmentConfig) -> str:
    """For people: what builds environments here. Raises EnvironmentFailed if nothing can."""
    tool = choose_tool(config)
    return "venv and pip" if tool == "venv" else f"uv {uv_version(tool)}"


def uv_version(uv: str) -> str:
    done = subprocess.run(
        [uv, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    found = re.search(r"\d+\.\d+\S*", done.stdout)
    return found[0] if found else "?"


@dataclass(frozen=True)
class Python:
    """An interpreter that is installed: its resolved path, and its version as three numbers."""

    path: str
    version: tuple[int, int, int]

    @property
    def text(self) -> str:
        return ".".join(map(str, self.version))


def ask_python(path: str) -> Python | None:
    """Run an interpreter to learn what it is; None if it is none that a virtualenv can be made of.

    The path that it calls its own base is taken, so that a shim or a virtualenv leads to the real one.
    """
    # Whether there is `venv` is looked up: to import it takes longer than Python's start. Printed without json for the same reason.
    code = (
        "import sys, importlib.util; assert importlib.util.find_spec('venv');"
        "print(ascii(getattr(sys, '_base_executable', sys.executable)), *sys.version_info[:4], sep='\\t')"
    )
    with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired, TypeError):
        done = subprocess.run(
            [path, "-I", "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )
        found, major, minor, micro, level = done.stdout.rstrip("\n").split("\t")
        if done.returncode == 0 and level == "final":
            return Python(os.path.realpath(ast.literal_eval(found)), (int(major), int(minor), int(micro)))
    return None


def fits(version: tuple[int, int, int], specifier: str | None) -> bool:
    """Whether a version satisfies a specifier such as ``>=3.11,<3.14`` or a plain ``3.11``.

    Raises:
        EnvironmentFailed: it is no specifier.
    """
    if not specifier:
        return True
    if re.fullmatch(r"\d+(\.\d+){0,2}", specifier):
        return version[: specifier.count(".") + 1] == tuple(int(part) for part in specifier.split("."))
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(specifier).contains(".".join(map(str, version)))
    except InvalidSpecifier:
        raise EnvironmentFailed(f"{specifier!r} is not a Python version") from None


def choose_python(wanted: str | None, requires: str | None, preferred: Sequence[Python] = ()) -> Python:
    """The interpreter for an environment: what the configuration names, else one of ``preferred`` (what earlier releases
    ran with, as long as it fits), else the newest installed one that fits.

    Raises:
        EnvironmentFailed: none fits; the message lists those there are.
    """
    if wanted and (os.sep in wanted or wanted.startswith("~")):
        path = os.path.realpath(os.path.expanduser(wanted))
        if known := next((python for python in preferred if python.path == path), None):
            return known
        named = ask_python(os.path.expanduser(wanted))
        if named is None:
            raise EnvironmentFailed(
                f"{wanted} is not a Python that can be used", advice="correct [environment] python."
            )
        return named
    for python in preferred:
        if fits(python.version, wanted) and fits(python.version, requires):
            return python
    found = installed()
    usable = [python for python in found if fits(python.version, wanted) and fits(python.version, requires)]
    if not usable:
        conditions = " and ".join(
            filter(
                None,
                (
                    wanted and f"[environment] python = {wanted!r}",
                    requires and f"requires-python {requires!r}",
                ),
            )
        )
        raise EnvironmentFailed(
            f"no installed Python fits {conditions or 'at all'}",
            details=[f"installed: {', '.join(f'{it.text} ({it.path})' for it in found) or 'none'}"],
            advice="install one that fits, or name one by [environment] python in updater.toml.",
        )
    return max(usable, key=lambda python: python.version)


def installed() -> list[Python]:
    """The interpreters on this machine: on the PATH, in pyenv, and the one that runs updater."""
    paths = [getattr(sys, "_base_executable", sys.executable)]
    for minor in range(20, 8, -1):
        paths += filter(None, [shutil.which(f"python3.{minor}")])
    paths += filter(None, [shutil.which("python3"), shutil.which("python")])
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    with contextlib.suppress(OSError):
        paths += [str(place / "bin" / "python3") for place in pyenv.iterdir()]
    found: dict[str, Python] = {}
    for path in paths:
        if "/shims/" in path:  # a pyenv shim answers for whichever version is chosen elsewhere
            continue
        python = ask_python(path) if os.path.realpath(path) not in found else None
        if python is not None:
            found.setdefault(python.path, python)
    return sorted(found.values(), key=lambda python: python.version, reverse=True)
