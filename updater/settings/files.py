"""Which of the files under ``shared/`` are settings, and which of a release's files are the defaults for each.

Settings are what a ``[shared]`` entry leads to below ``shared/config``, and every ``.env``. Defaults are found by the names that
people give them (``settings.toml.example``, ``settings.example.toml``, ``config.defaults/settings.toml`` ...); else what the
release itself brings at the shared path counts as such.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from updater import durable
from updater.layout import Layout, ReleaseFiles
from updater.releases import shared
from updater.settings.merging import LIMIT, Unreadable

WORDS = ("example", "sample", "defaults", "default", "dist", "template")
"""What people put before, behind or into a name to say that it is not the file itself."""

KEPT = re.compile(r".*\.kept-\d{8}_\d{6}(-\d+)?")
"""Names of files that updater has kept aside."""


class File(NamedTuple):
    """One file: its path inside a release, and its path below ``shared/``."""

    inside: str
    below: str

    @property
    def shown(self) -> str:
        return f"shared/{self.below}"


class Held(NamedTuple):
    """What a file holds; ``mode`` and ``owner`` (user, group) are the permissions it has."""

    content: bytes
    mode: int
    owner: tuple[int, int]


def found(layout: Layout, links: Mapping[str, str]) -> list[File]:
    """The files of settings, those among them that are linked by name also where they are not there."""
    files: dict[str, File] = {}
    for inside, below in links.items():
        if not _is_settings(below):
            continue
        place = layout.shared / below
        if not place.is_dir():
            files.setdefault(below, File(inside, below))
            continue
        for name in _names(place):
            files.setdefault(f"{below}/{name}", File(f"{inside}/{name}", f"{below}/{name}"))
    return [files[below] for below in sorted(files)]


def covered(links: Mapping[str, str], below: str) -> File | None:
    """The file that lies at a path below ``shared/``, if that is one of settings."""
    for inside, linked in links.items():
        if _is_settings(linked) and (below == linked or below.startswith(f"{linked}/")):
            return File(inside + below[len(linked) :], below)
    return None


def _is_settings(below: str) -> bool:
    return below == "config" or below.startswith("config/") or shared.is_environment(below)


def _names(directory: Path) -> Iterator[str]:
    for where, _, names in os.walk(directory):
        for name in names:
            path = Path(where, name)
            odd = KEPT.fullmatch(name) or durable.is_temporary(name) or name.endswith(("~", ".swp"))
            if not odd and path.is_file() and not set(name) & set("\n\\"):
                yield path.relative_to(directory).as_posix()


def place(layout: Layout, file: File) -> Path:
    """Where a file lies, links followed.

    Raises:
        Unreadable: a link leads out of ``shared/``; what is there is not updater's to change.
    """
    top, real = os.path.realpath(layout.shared), os.path.realpath(layout.shared / file.below)
    if not real.startswith(top + os.sep):
        raise Unreadable(f"it is a link that leads out of shared/, to {real}")
    return Path(real)


def places(layout: Layout, links: Mapping[str, str]) -> list[Path]:
    """Where all the files lie, without those that lie elsewhere."""
    known = []
    for file in found(layout, links):
        with contextlib.suppress(Unreadable):
            known.append(place(layout, file))
    return known


def read(layout: Layout, file: File) -> Held | None:
    """What is there now; None if nothing is.

    Raises:
        Unreadable: it is no regular file, too large, or out of reach.
    """
    path = place(layout, file)
    try:
        content = durable.read(path, LIMIT)
        status = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as failure:
        large = failure.errno == errno.EINVAL
        raise Unreadable(
            "it is no regular file of at most 1 MiB" if large else str(failure.strerror)
        ) from None
    return Held(content, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))


def barred(path: Path) -> str | None:
    """Why a file may not be replaced by one with the same owner; None if it may."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"{path.parent} cannot be written"
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        if os.geteuid() and (
            status.st_uid != os.geteuid() or status.st_gid not in (os.getegid(), *os.getgroups())
        ):
            return "it belongs to another user or group, which a new one would not"
    return None


def defaults(layout: Layout, version: str, file: File) -> tuple[str, bytes] | None:
    """A release's defaults for a file: the path inside the release, and the content. None if it brings none."""
    for name in customary(file.inside):
        path = published(layout, version, name)
        if path is not None:
            with contextlib.suppress(OSError):
                return path.relative_to(layout.release(version)).as_posix(), durable.read(path, LIMIT)
    return None


def customary(inside: str) -> list[str]:
    """The paths inside a release at which the defaults of a file may lie, the most telling first; its own is the last."""
    path = PurePosixPath(inside)
    bare = path.name.lstrip(".")
    names = [f"{path.name}.{word}" for word in WORDS] + [f"{word}.{path.name}" for word in WORDS]
    if path.suffix:
        names += [f"{path.stem}.{word}{path.suffix}" for word in WORDS]
    if bare != path.name:
        names += [f"{bare}.{word}" for word in WORDS] + [f"{word}.{bare}" for word in WORDS]
    found = [str(path.with_name(name)) for name in names]
    if len(path.parts) > 1:
        found.append(str(PurePosixPath(f"{path.parts[0]}.defaults", *path.parts[1:])))
    return [*dict.fromkeys([*found, f"config.defaults/{path.name}", inside])]


def published(layout: Layout, version: str, inside: str) -> Path | None:
    """The file that a release brings at a path, wherever a link to ``shared/`` has moved it; None if it brings none there."""
    release, path = layout.release(version), PurePosixPath(inside)
    links = shared.links(layout, version)
    moved = any(str(above) in links for above in (path, *path.parents))
    real = Path(os.path.realpath(release / (f"{ReleaseFiles.SHADOWED}/{inside}" if moved else inside)))
    top = Path(os.path.realpath(release))
    return release / real.relative_to(top) if real.is_file() and real.is_relative_to(top) else None
