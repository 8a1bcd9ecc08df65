"""What does a release want installed? Found from its files; pure but for reading them.

In this order: ``[environment] requirements`` of the configuration; ``uv.lock``; ``pylock.toml`` (PEP 751); ``requirements.txt``,
or ``requirements-prod.txt`` and its like; ``pyproject.toml`` or ``setup.py``, installed itself so that its scripts exist; or
nothing. A release that brings ``requirements.txt`` is run from its tree and not installed, unless the configuration
lists ``"."`` as well. A folder ``wheels/`` makes the build offline: no index is asked.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from updater.environments import origins
from updater.environments.origins import table
from updater.errors import EnvironmentFailed

NAMES = ("requirements.txt", "requirements-prod.txt", "requirements-production.txt", "requirements/prod.txt",
         "requirements/production.txt", "requirements/base.txt", "requirements.lock")  # fmt: skip
"""Files of requirements, in the order in which they are looked for; those for tests and development never are."""


@dataclass(frozen=True)
class Requirements:
    """What to install.

    ``kind``: ``uv.lock``, ``pylock``, ``requirements``, ``project`` or ``none``. ``files`` are inside the release;
    ``project``: the release itself is installed; ``hashes``: every download must match a hash.
    """

    kind: str
    files: tuple[str, ...]
    project: bool
    hashes: bool
    pinned: bool
    """Every package has one exact version, so that a cache can answer without asking the index what is new."""
    wheels: bool
    requires_python: str | None
    content: str
    """SHA-256 over all files that decide."""
    origins: tuple[tuple[str, str], ...]
    """What is said of where the packages come from; see :mod:`updater.environments.origins`."""
    local: bool
    """Packages are built from the release's own tree: its files decide."""
    included: tuple[str, ...]
    """The files of requirements with those that they include."""


def find(release: Path, override: tuple[str, ...] | None = None) -> Requirements:
    """Find the requirements of an unpacked release.

    Raises:
        EnvironmentFailed: a file that the configuration names is not there, a file cannot be read, or it asks for
            what lies outside the release.
    """
    project = _toml(release / "pyproject.toml")
    installable = _installable(release, project)
    kind, files, itself = _decide(release, override, project, installable)
    if override and (missing := [name for name in files if not (release / name).is_file()]):
        raise EnvironmentFailed(
            f"{missing[0]} is not in the release",
            advice="correct [environment] requirements in updater.toml, or publish the file with the release.",
        )
    wheels = (release / "wheels").is_dir()
    come = (
        origins.find(release, files, project=itself, wheels=wheels) if kind != "none" else origins.Origins()
    )
    return Requirements(
        kind=kind,
        files=files,
        project=itself,
        # uv verifies what hashes a lock has; it cannot have any for what it takes from Git or from a folder.
        hashes=kind == "requirements" and any(_has_hashes(release / name) for name in files),
        pinned=kind in ("uv.lock", "pylock")
        or (kind == "requirements" and all(_is_pinned(release / name) for name in files)),
        wheels=wheels,
        requires_python=_requires_python(release, project),
        content=_content(release, come, whole=itself or come.local),
        origins=come.sums(),
        local=come.local,
        included=tuple(come.files),
    )


def _decide(
    release: Path, override: tuple[str, ...] | None, project: dict[str, Any], installable: bool
) -> tuple[str, tuple[str, ...], bool]:
    if override is not None:
        files = tuple(name for name in override if name != ".")
        return ("requirements" if files else "project"), files, "." in override
    if (release / "uv.lock").is_file() and project:
        return "uv.lock", ("uv.lock", "pyproject.toml"), installable
    if (release / "pylock.toml").is_file():
        return "pylock", ("pylock.toml",), False
    for name in NAMES:
        if (release / name).is_file():
            return "requirements", (name,), False
    if installable:
        return "project", (), True
    if table(project, "project").get("dependencies"):
        return "requirements", ("pyproject.toml",), False
    return "none", (), False


def _installable(release: Path, project: dict[str, Any]) -> bool:
    if table(project, "tool", "uv").get("package") is False:
        return False
    return "build-system" in project or (release / "setup.py").is_file()


def _toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as failure:
        raise EnvironmentFailed(f"{path.name} in the release cannot be read: {failure}") from failure


def _requires_python(release: Path, project: dict[str, Any]) -> str | None:
    wanted = table(project, "project").get("requires-python")
    if isinstance(wanted, str):
        return wanted
    for name in ("setup.cfg", "setup.py"):
        path = release / name
        if path.is_file():
            found = re.search(r"python_requires\s*=\s*[\"']?([^\"'\n]+)", path.read_text("utf-8", "replace"))
            if found:
                return found[1].strip().rstrip(",")
    return None


def _has_hashes(path: Path) -> bool:
    return path.is_file() and "--hash=" in path.read_text("utf-8", "replace")


def _is_pinned(path: Path) -> bool:
    if path.suffix == ".toml" or not path.is_file():
        return False
    joined = path.read_text("utf-8", "replace").replace("\\\n", " ")
    lines = [line.split("#", 1)[0].strip() for line in joined.splitlines()]
    return all(
        "==" in line.split(" ", 1)[0] or re.match(r"[\w.\[\]-]+\s*==", line)
        for line in lines
        if line and line[0] != "-"
    ) and not any(line.startswith(("-r", "-c", "-e", "--req", "--con")) for line in lines)


def _content(release: Path, come: origins.Origins, *, whole: bool) -> str:
    """Everything that the result depends on, and that the release brings. ``whole``: its own files end up in the
    environment, and who builds them may look at any other."""
    hashed = hashlib.sha256(repr(come.sums()).encode())
    for path in _own_files(release) if whole else [release / name for name in come.files]:
        hashed.update(f"{path.relative_to(release)}\0".encode("utf-8", "surrogateescape"))
        if path.is_symlink():
            hashed.update(f"-> {os.readlink(path)}\0".encode("utf-8", "surrogateescape"))
        else:
            hashed.update(hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def _own_files(release: Path) -> list[Path]:
    return sorted(
        path
        for path in release.rglob("*")
        if (path.is_symlink() or path.is_file())
        and not {".venv", ".release", "__pycache__"} & set(path.relative_to(release).parts)
    )
