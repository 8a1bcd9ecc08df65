"""The emergency scripts: they come with updater, and every root has a copy, for when there is no Python any more.

Each is replaced as a whole, or left alone. One that somebody has edited, or that was there before updater came, is kept beside: the sums
of what was written are in ``.updater/scripts.sums``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from updater import durable, records
from updater.layout import Layout

MODE = 0o755


@dataclass
class Installed:
    """What became of a root's scripts. ``warnings``: what could not be done, or was kept beside."""

    made: list[str] = field(default_factory=list)
    refreshed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def source() -> Path | None:
    """Where updater's own scripts lie: inside a wheel, or at the top of a checkout; None if it was installed without them."""
    here = Path(__file__).resolve().parent
    if (here / "scripts").is_dir():
        return here / "scripts"
    checkout = here.parent
    return checkout / "scripts" if (checkout / "pyproject.toml").is_file() else None


def ours() -> dict[str, bytes]:
    """Name and content of each script that comes with updater; what others include comes first.

    So whoever is killed while they are replaced leaves old scripts with a newer ``lib.sh``, never new ones with an old one.
    """
    place = source()
    if place is None:
        return {}
    return {it.name: it.read_bytes() for it in sorted(place.glob("*.sh"), key=_order) if it.is_file()}


def _order(script: Path) -> tuple[bool, str]:
    return not script.name.startswith("lib"), script.name


def install(layout: Layout) -> Installed:
    """Bring a root's scripts to those of this updater. Other files beside them are never touched; doing it twice is harmless.

    Raises:
        OSError: the disk cannot be written; what was done so far stays.
    """
    found = Installed()
    if _is_source(layout):
        return found
    if layout.scripts.is_symlink() or (os.path.lexists(layout.scripts) and not layout.scripts.is_dir()):
        found.warnings.append(
            "scripts/ is not a directory of this root; the emergency scripts were not put there"
        )
        return found
    wanted = ours()
    if not wanted:
        return found
    durable.make_directory(layout.scripts)
    known = _sums(layout)
    for name, content in wanted.items():
        _put(layout, name, content, known, found)
    sums = "".join(f"{_sum(content)}  scripts/{name}\n" for name, content in wanted.items())
    if sums.encode() != _read(layout.script_sums):
        durable.write(layout.script_sums, sums)
    return found


def _put(layout: Layout, name: str, content: bytes, known: Mapping[str, str], found: Installed) -> None:
    place = layout.scripts / name
    shown = f"scripts/{name}"
    try:
        mode = os.lstat(place).st_mode
    except FileNotFoundError:
        durable.write(place, content, mode=MODE)
        found.made.append(shown)
        return
    if not stat.S_ISREG(mode):
        what = "a symlink" if stat.S_ISLNK(mode) else "a directory" if stat.S_ISDIR(mode) else "no file"
        found.warnings.append(f"{shown} is {what}; it is left alone, and the emergency script is not there")
        return
    present = _read(place)
    if present is None:
        found.warnings.append(f"{shown} cannot be read; it is left alone")
        return
    if present == content and stat.S_IMODE(mode) == MODE:
        return
    if present != content and _sum(present) != known.get(name):
        aside = place.with_name(f"{name}.kept-{records.now():%Y%m%d_%H%M%S}")
        durable.write(aside, present)
        found.warnings.append(
            f"{shown} was not as updater had written it; what it was is kept as scripts/{aside.name}"
        )
    durable.write(place, content, mode=MODE)
    found.refreshed.append(shown)


def lacking(layout: Layout) -> list[str]:
    """The scripts that a root has not, or not as they come with this updater."""
    if _is_source(layout):
        return []
    return [name for name, content in ours().items() if _read(layout.scripts / name) != content]


def _is_source(layout: Layout) -> bool:
    """Whether the root is updater's own checkout."""
    place = source()
    return place is not None and layout.scripts.is_dir() and os.path.samefile(place, layout.scripts)


def _sums(layout: Layout) -> dict[str, str]:
    """What updater has written here, as far as it is on record."""
    text = (_read(layout.script_sums) or b"").decode("utf-8", "replace")
    pairs = (line.split("  scripts/", 1) for line in text.splitlines() if "  scripts/" in line)
    return {name: digest for digest, name in pairs}


def _sum(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _read(place: Path) -> bytes | None:
    try:
        return durable.read(place)
    except OSError:
        return None
