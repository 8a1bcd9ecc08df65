"""Where packages come from, as far as a release says it: hashes, wheels, locked files, indexes, folders of its own.

An installer takes a package that is there already for the one that is asked for when name and version agree. In the clone
of another release's environment that is not enough (F03): the same version may have other hashes, another wheel or other
sources now. What is found here tells which packages of a clone must be installed again, and when none can be kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from updater.errors import EnvironmentFailed

ALL = ""
"""Stands for every package: indexes, options of the installer, and what cannot be said of one package alone."""

_OPTION = re.compile(r"(?:-([rcef])\s*=?\s*|--([a-z-]+)(?:\s*=\s*|\s+|$))(.*)")
_INCLUDES = {"r", "c", "requirement", "requirements", "constraint", "constraints"}
_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*(@\s*)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ARCHIVES = (".whl", ".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz")


@dataclass
class Origins:
    """``files``: those that were read, included ones too. ``local``: something is built from the release's own tree."""

    files: list[str] = field(default_factory=list)
    local: bool = False
    found: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def sums(self) -> tuple[tuple[str, str], ...]:
        """Package (or :data:`ALL`) and SHA-256 over everything said of where it comes from, sorted."""
        return tuple(
            (name, hashlib.sha256("\0".join(sorted(said)).encode("utf-8", "surrogateescape")).hexdigest())
            for name, said in sorted(self.found.items())
        )


def canonical(name: str) -> str:
    """A package's name as it compares (packaging.python.org, name normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def stale(
    mine: Iterable[tuple[str, str]], theirs: Iterable[tuple[str, str]] | None, installed: Iterable[str]
) -> tuple[str, ...] | None:
    """Which packages of their environment come from elsewhere now. None: their environment cannot be built upon."""
    if theirs is None:
        return None
    now, then = dict(mine), dict(theirs)
    if now.get(ALL) != then.get(ALL):
        return None
    return tuple(name for name in map(canonical, installed) if now.get(name) != then.get(name))


def find(release: Path, files: Iterable[str], *, project: bool, wheels: bool) -> Origins:
    """Read the files of requirements, and all that they include. ``project``: the release itself is installed.

    Raises:
        EnvironmentFailed: a file cannot be read, or names a place outside the release.
    """
    origins = Origins()
    pending = list(files)
    while pending:
        name = os.path.normpath(pending.pop(0))
        if name in origins.files or not (release / name).is_file():
            continue
        origins.files.append(name)
        if name.endswith(".toml") or name == "uv.lock":
            _read_table(name, _toml(release / name), origins)
        elif name.endswith((".py", ".cfg")):  # it is run to know what it wants
            origins.local = True
        else:
            pending += _read_lines(release / name, name, origins)
    settings = _toml(release / "pyproject.toml")
    if project:
        _wanted_by(settings, origins)
    # uv takes its own settings from there in any case.
    origins.found[ALL] |= {_text(table(settings, "tool", "uv")), _text(_toml(release / "uv.toml"))}
    if wheels:
        for path in sorted((release / "wheels").iterdir()):
            if path.is_file():
                said = f"wheel {path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
                origins.found[_name_in(path.name)].add(said)
    return origins


def _name_in(archive: str) -> str:
    found = re.match(r"(.+?)-\d", archive)
    return canonical(found[1]) if found else ALL


def _read_lines(path: Path, name: str, origins: Origins) -> Iterator[str]:
    """A file of requirements, as pip and uv read it. Yields the files that it includes, relative to the release."""
    text = path.read_text("utf-8-sig", "replace").replace("\r\n", "\n").replace("\\\n", " ")
    for line in text.split("\n"):
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        option = _OPTION.fullmatch(line)
        word, value = (option[1] or option[2], option[3].strip(" \"'")) if option else ("", "")
        if word in _INCLUDES:
            if not _SCHEME.match(value):
                yield _inside(value, name, os.path.dirname(name))
            else:
                origins.found[ALL].add(line)
        elif word in ("e", "editable"):
            _requirement(value, name, origins)
        elif word in ("f", "find-links"):
            origins.found[ALL].add(line)
            if not _SCHEME.match(value) and not os.path.isabs(value):
                _use(value, name, origins)
        elif line.startswith("-"):
            origins.found[ALL].add(line)
        elif line:
            _requirement(line, name, origins)


def _requirement(line: str, file: str, origins: Origins) -> None:
    wanted = re.split(r"\s--", line)[0]
    named = _NAMED.match(wanted)
    address = wanted[named.end() :] if named and named[2] else None
    where = _place(wanted if address is None else address, named=address is not None)
    if where is not None:
        _use(where, file, origins)
    if named is None or (address is None and (where is not None or _SCHEME.match(wanted))):
        origins.found[ALL].add(wanted)  # a bare place or address: it says no name
        return
    said = [*re.findall(r"--hash[= ]\s*(\S+)", line), *filter(None, [address])]
    if said:
        origins.found[canonical(named[1])].update(said)


def _place(target: str, *, named: bool) -> str | None:
    """The path that a requirement names; None if it names a package or an address."""
    target = target.strip()
    if scheme := _SCHEME.match(target):
        if scheme[0].lower() != "file:":
            return None
        path = re.split(r"\s;|[#?]", target[5:])[0].strip()
        path = re.sub(r"^//(localhost)?", "", path)
        return unquote(re.sub(r"\[[^\]]*\]$", "", path))
    path = re.sub(r"\s*\[[^\]]*\]$", "", target.split(";")[0].strip())
    if named or path.startswith((".", "/", "~")) or "/" in path or path.endswith(_ARCHIVES):
        return path
    return None


def _use(path: str, file: str, origins: Origins) -> None:
    """A place on this machine is asked for: inside the release it decides, elsewhere nobody proved it."""
    inside = _inside(path, file)
    if "wheels" not in (inside, os.path.dirname(inside)):  # whose files are looked at one by one
        origins.local = True


def _inside(path: str, file: str, base: str = "") -> str:
    path = re.sub(r"^/*\$\{PROJECT_ROOT\}", ".", path)
    found = os.path.normpath(os.path.join(base, path))
    if found.startswith(("/", "~", "../")) or found == ".." or "${" in found:
        raise EnvironmentFailed(
            f"{file} asks for {path}, which lies outside the release",
            advice="publish it inside the release, or as a wheel in its folder wheels/: what lies elsewhere is neither "
            "proved nor rolled back.",
        )
    return found


def _toml(path: Path) -> dict[str, Any]:
    """A table; empty where it cannot be read: the installer says better what is wrong with it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def table(data: Any, *names: str) -> dict[str, Any]:
    """A table inside a table; empty where there is none."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _tables(found: Any) -> list[dict[str, Any]]:
    return [it for it in found if isinstance(it, dict)] if isinstance(found, list) else _tables([found])


def _read_table(name: str, data: dict[str, Any], origins: Origins) -> None:
    if name == "pyproject.toml":
        _wanted_by(data, origins)
    elif name == "uv.lock":
        _locked(_tables(data.get("package")), origins)
    else:
        _pylocked(_tables(data.get("packages")), name, origins)


def _wanted_by(project: dict[str, Any], origins: Origins) -> None:
    """pyproject.toml, where it says what is to be installed."""
    wanted = table(project, "project").get("dependencies")
    for line in wanted if isinstance(wanted, list) else []:
        _requirement(str(line), "pyproject.toml", origins)
    for source in table(project, "tool", "uv", "sources").values():
        for one in _tables(source):
            if "path" in one or "workspace" in one:
                _use(str(one.get("path", ".")), "pyproject.toml", origins)


def _locked(packages: Iterable[dict[str, Any]], origins: Origins) -> None:
    """uv.lock: each package with its source, its files and their hashes."""
    for package in packages:
        origins.found[canonical(str(package.get("name")))].add(_text(package))
        source = table(package, "source")
        for kind in ("directory", "editable", "path"):
            if source.get(kind, ".") != ".":  # "." is the project itself
                _use(str(source[kind]), "uv.lock", origins)
        registry = str(source.get("registry", "https:"))
        if not _SCHEME.match(registry) and not os.path.isabs(registry):
            _use(registry, "uv.lock", origins)


def _pylocked(packages: Iterable[dict[str, Any]], file: str, origins: Origins) -> None:
    """pylock.toml (PEP 751): everything has hashes but folders and repositories."""
    for package in packages:
        origins.found[canonical(str(package.get("name")))].add(_text(package))
        for kind in ("directory", "vcs"):
            if path := table(package, kind).get("path"):
                _use(str(path), file, origins)


def _text(data: Any) -> str:
    return json.dumps(data, sort_keys=True, default=str)
