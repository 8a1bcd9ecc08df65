"""What uv, or venv and pip, are asked to do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from updater import durable
from updater.environments.origins import table
from updater.environments.requirements import Requirements
from updater.environments.tools import Python
from updater.errors import EnvironmentFailed
from updater.layout import ReleaseFiles

if TYPE_CHECKING:
    from updater.environments.building import Site

Word = str | os.PathLike[str]


def create(site: Site, tool: str, python: Python) -> None:
    """An empty environment. uv's is relocatable: its scripts find their interpreter from where they are, which also
    spares them the limits of ``#!`` lines (spaces, length)."""
    if tool == "venv":
        site.run([python.path, "-m", "venv", site.environment], "making the virtualenv")
    else:
        site.run(
            [
                tool,
                "venv",
                "--quiet",
                "--relocatable",
                "--no-project",
                "--python",
                python.path,
                site.environment,
            ],
            "making the virtualenv",
        )


def install(site: Site, tool: str, wanted: Requirements, *, stale: Sequence[str] | None) -> None:
    """Install what the release wants. ``stale``: the environment is a clone, and these packages of it come from elsewhere
    now; None: it is empty.

    Raises:
        EnvironmentFailed: it cannot be, or what was installed points to sources elsewhere.
    """
    if wanted.kind == "none":
        return
    with _workplace(site, wanted) as place:
        if tool == "venv":
            _with_pip(place, wanted)
        else:
            _with_uv(place, tool, wanted, stale)
    _points_nowhere(site)


@contextlib.contextmanager
def _workplace(site: Site, wanted: Requirements) -> Iterator[Site]:
    """Where the installer runs: in a writable copy of the release if something is built from it. Build backends write
    beside the sources, and a release stays as it was published."""
    if not wanted.project and not wanted.local:
        yield site
        return
    copy = site.release / ReleaseFiles.RECORDS / durable.temporary_name("project")
    copy.parent.mkdir(exist_ok=True)
    try:
        ignored = shutil.ignore_patterns(".venv", ".release", "__pycache__")
        shutil.copytree(site.release, copy, symlinks=True, ignore=ignored, copy_function=_copy_writable)
        for name in wanted.included:
            _without_editables(copy / name)
        yield replace(site, workplace=copy)
    finally:
        durable.remove_tree(copy)


def _without_editables(path: Path) -> None:
    """What would be installed as a pointer to its sources is installed as a copy: it must not change with them, nor go
    with them."""
    if path.suffix == ".toml" or path.name == "uv.lock":
        return
    text = path.read_text("utf-8-sig", "surrogateescape")
    text = re.sub(r"(?m)^([ \t]*)(?:-e\s*=?\s*|--editable(?:\s*=\s*|\s+))", r"\1", text)
    path.write_text(text, "utf-8", "surrogateescape")


def _points_nowhere(site: Site) -> None:
    """Whatever way an installer found to install something editable (F03)."""
    for path in site.environment.glob("lib/python*/site-packages/*.dist-info/direct_url.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if json.loads(path.read_bytes()).get("dir_info", {}).get("editable"):
                name = path.parent.name.removesuffix(".dist-info").rpartition("-")[0]
                raise EnvironmentFailed(
                    f"{name} was installed as editable: it would change, or go, with the folder that it points to",
                    advice="ask for it without -e (in pyproject.toml: without editable = true).",
                )


def _copy_writable(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    os.chmod(target, os.stat(source).st_mode | stat.S_IWUSR)


def _with_uv(site: Site, uv: str, wanted: Requirements, stale: Sequence[str] | None) -> None:
    common: list[Word] = [
        "--quiet", "--python", site.environment / "bin" / "python", "--compile-bytecode",
        # Copies, not links into uv's cache: what releases share among themselves is made read-only, and that must
        # not reach the cache that other projects use.
        "--link-mode", "copy", *_wheels(site, wanted),
        *(word for name in stale or () for word in ("--reinstall-package", name)),
    ]  # fmt: skip
    files = list(wanted.files)
    if wanted.kind == "uv.lock":
        files = [_export(site, uv)]
    hashes = ["--require-hashes"] if wanted.hashes else []
    exact = ["--exact"] if stale is not None else []
    if wanted.kind in ("uv.lock", "pylock"):
        _first_offline(site, wanted, [uv, "pip", "sync", *common, *hashes, *files], "uv pip sync")
    elif files:
        listed = [word for name in files for word in ("--requirements", name)]
        _first_offline(
            site, wanted, [uv, "pip", "install", *common, *hashes, *exact, *listed], "uv pip install"
        )
    if wanted.project:
        rest = ["--no-deps"] if files else exact
        site.run(
            [uv, "pip", "install", *common, *rest, "--reinstall-package", _name(site), site.cwd],
            "uv pip install",
        )
    _check(site, [uv, "pip", "check", "--quiet", "--python", str(site.environment / "bin" / "python")])


def _first_offline(site: Site, wanted: Requirements, command: list[Word], what: str) -> None:
    """What is pinned and cached needs no network: neither its time nor its being up."""
    if wanted.pinned and not wanted.wheels and site.tries([*command, "--offline"]):
        return
    site.run(command, what)


def _name(site: Site) -> str:
    """The project's own name: its version may be the same as a donor's while its code is not."""
    import tomllib

    path = site.release / "pyproject.toml"
    found = table(tomllib.loads(path.read_text("utf-8")), "project").get("name") if path.is_file() else None
    if not found and (site.release / "PKG-INFO").is_file():
        match = re.search(r"^Name: (\S+)", (site.release / "PKG-INFO").read_text("utf-8", "replace"), re.M)
        found = match[1] if match else None
    return str(found or site.release.name)


def _export(site: Site, uv: str) -> str:
    """uv.lock as requirements with hashes; the lock itself is not touched."""
    name = f"{ReleaseFiles.RECORDS}/requirements.lock"
    (site.cwd / ReleaseFiles.RECORDS).mkdir(exist_ok=True)
    site.run(
        [
            uv,
            "export",
            "--quiet",
            "--frozen",
            "--no-dev",
            "--no-emit-project",
            "--no-editable",
            "--no-header",
            "--output-file",
            name,
        ],
        "uv export",
    )
    return name


def _wheels(site: Site, wanted: Requirements) -> list[Word]:
    return ["--no-index", "--find-links", site.release / "wheels"] if wanted.wheels else []


def _with_pip(site: Site, wanted: Requirements) -> None:
    if wanted.kind in ("uv.lock", "pylock") or wanted.files == ("pyproject.toml",):
        raise EnvironmentFailed(
            f"pip cannot install from {wanted.files[0]}",
            advice="install uv (pip install uv), or publish a requirements.txt with the release.",
        )
    pip: list[Word] = [
        site.environment / "bin" / "python", "-m", "pip", "install", "--progress-bar", "off", *_wheels(site, wanted),
    ]  # fmt: skip
    hashes = ["--require-hashes"] if wanted.hashes else []
    if wanted.files:
        listed = [word for name in wanted.files for word in ("-r", name)]
        site.run([*pip, *hashes, *listed], "pip install")
    if wanted.project:
        site.run([*pip, *(["--no-deps"] if wanted.files else []), site.cwd], "pip install")
    _check(site, [str(site.environment / "bin" / "python"), "-m", "pip", "check"])


def _check(site: Site, command: list[str]) -> None:
    """Do the packages fit together? A warning: an application may know better."""
    from updater import subprocesses

    done = subprocesses.run(command, cwd=site.cwd, env=site.env(), timeout=60, check=site.check)
    if done.status != 0 and site.warn:
        site.warn(f"the installed packages do not fit together: {done.tail(3)}")
