"""What a release's settings were: sets of files that are written once, and one link per release that names its own.

``.updater/config/.sets/<name>/`` holds the files by their paths below ``shared/``, with their permissions, and ``SHA256SUMS``; it gets
its name when all of it is on the disk. ``.updater/config/<version>`` is a link to one of them, so ``ls`` and ``cp`` are all that a
person needs. Nobody but the owner may look into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from updater import durable
from updater.errors import StorageFailed
from updater.layout import Layout
from updater.settings.files import Held
from updater.settings.merging import LIMIT

SETS = ".sets"
SUMS = "SHA256SUMS"

Set = Mapping[str, Held]
"""Files by their paths below ``shared/``."""


def write(layout: Layout, name: str, files: Set) -> None:
    """Keep files under a name; the set that has it already stays as it is (doing it twice keeps what was first)."""
    place = _place(layout, name)
    if place.is_dir():
        return
    durable.make_directory(place.parent, mode=0o700)
    beside = place.with_name(durable.temporary_name(name))
    try:
        _fill(beside, files)
        durable.rename(beside, place)
    except BaseException:
        durable.remove_tree(beside)
        raise


def _fill(place: Path, files: Set) -> None:
    sums = []
    durable.make_directory(place, mode=0o700)
    for below, held in sorted(files.items()):
        path = place / below
        durable.make_directory(path.parent, mode=0o700)
        durable.write(path, held.content, mode=held.mode | 0o400, owner=_owner(held))
        sums.append(f"{hashlib.sha256(held.content).hexdigest()}  {below}\n")
    durable.write(place / SUMS, "".join(sums), mode=0o600)


def _owner(held: Held) -> tuple[int, int] | None:
    return held.owner if os.geteuid() == 0 else None


def exists(layout: Layout, name: str) -> bool:
    return _place(layout, name).is_dir()


def read(layout: Layout, name: str) -> dict[str, Held] | None:
    """The files of a set; None if there is none of that name.

    Raises:
        StorageFailed: a file in it is not as it was written.
    """
    place = _place(layout, name)
    if not place.is_dir():
        return None
    files, damaged = {}, []
    try:
        for line in filter(None, durable.read(place / SUMS).decode().split("\n")):
            digest, _, below = line.partition("  ")
            content = durable.read(place / below, LIMIT)
            status = os.lstat(place / below)
            files[below] = Held(content, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))
            if hashlib.sha256(content).hexdigest() != digest or ".." in PurePosixPath(below).parts:
                damaged.append(below)
    except (OSError, UnicodeDecodeError) as failure:
        damaged.append(str(failure))
    if damaged:
        raise StorageFailed(
            f"settings that were kept are damaged: {place}: {', '.join(damaged)}",
            advice=f"look what is right in {place} and in shared/config.",
        )
    return files


def bind(layout: Layout, version: str, name: str) -> None:
    """From here on a release's settings are those of that set; one rename."""
    durable.swap_symlink(layout.bound_settings / version, f"{SETS}/{name}")


def bound_name(layout: Layout, version: str) -> str | None:
    """The set that is a release's; None if there is none."""
    with contextlib.suppress(OSError):
        name = PurePosixPath(os.readlink(layout.bound_settings / version)).name
        return name if exists(layout, name) else None
    return None


def bound(layout: Layout, version: str) -> dict[str, Held] | None:
    """The settings that a release last ran with; None if nothing is known. Raises StorageFailed: damaged."""
    name = bound_name(layout, version)
    return read(layout, name) if name else None


def bound_versions(layout: Layout) -> list[str]:
    """The releases that settings are kept of."""
    with contextlib.suppress(OSError):
        return sorted(path.name for path in layout.bound_settings.iterdir() if path.is_symlink())
    return []


def forget(layout: Layout, version: str) -> None:
    """Keep a release's settings no longer; call it when the release goes."""
    name = bound_name(layout, version)
    durable.remove_symlink(layout.bound_settings / version)
    if name:
        discard(layout, name)


def discard(layout: Layout, name: str) -> None:
    """Remove a set, if it is no release's."""
    if name not in {bound_name(layout, version) for version in bound_versions(layout)}:
        durable.remove_tree(_place(layout, name))


def loose(layout: Layout) -> list[str]:
    """Sets that are no release's."""
    used = {bound_name(layout, version) for version in bound_versions(layout)}
    with contextlib.suppress(OSError):
        names = (path.name for path in (layout.bound_settings / SETS).iterdir())
        return sorted(name for name in names if name not in used and not durable.is_temporary(name))
    return []


def _place(layout: Layout, name: str) -> Path:
    return layout.bound_settings / SETS / name
