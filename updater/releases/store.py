"""The installed releases: directories below ``releases/`` that are sealed.

The seal is ``.release/release.json``, written last and only after everything else is on the disk: a directory without
it is unfinished, whatever it holds (F05).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from updater import durable
from updater.errors import NotFound, ReleaseChanged, UsageError
from updater.layout import Layout, ReleaseFiles
from updater.records import read_json

FORMAT = 1


@dataclass(frozen=True)
class ReleaseRecord:
    """What is known of an installed release.

    ``digest``: its content address. ``tree``: the Git tree id of its files. ``proof``: what was verified, in words, and
    whether that proves origin or integrity only (F55). ``artifact``: name, sha256, size and kind of what it came from.
    """

    version: str
    tag: str
    digest: str
    tree: str
    proof: str
    artifact: Mapping[str, Any]
    source: str
    commit: str | None
    environment: Mapping[str, Any] | None
    version_file: str
    """``published``, or ``written`` by updater from the tag."""
    installed_at: str
    published_at: str | None = None
    files: int = 0
    size: int = 0
    notes: str = ""
    format: int = field(default=FORMAT)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReleaseRecord | None:
        """The record in a ``release.json``; None if it is not one of a format that this updater reads."""
        texts = ("version", "tag", "digest", "tree", "proof", "source", "version_file", "installed_at")
        if data.get("format") != FORMAT or not all(isinstance(data.get(name), str) for name in texts):
            return None
        if not isinstance(data.get("artifact"), dict) or not isinstance(data.get("environment"), dict | None):
            return None
        with contextlib.suppress(TypeError):
            return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})
        return None


class Release(NamedTuple):
    """One installed release."""

    version: str
    path: Path
    record: ReleaseRecord


def read(path: Path) -> Release | None:
    """The sealed release at ``path``; None if there is none, or it is unfinished, or its seal is damaged."""
    data = read_json(path / ReleaseFiles.RECORD)
    record = ReleaseRecord.from_json(data) if data else None
    return Release(path.name, path, record) if record else None


def installed(layout: Layout) -> list[Release]:
    """All installed releases, in the order in which they were installed."""
    with contextlib.suppress(FileNotFoundError):
        found = (read(path) for path in layout.releases.iterdir() if _is_candidate(path))
        return sorted(
            (release for release in found if release), key=lambda release: release.record.installed_at
        )
    return []


def unfinished(layout: Layout) -> list[Path]:
    """Directories that an interrupted installation of ours left; a directory that we did not make is not one."""
    with contextlib.suppress(FileNotFoundError):
        return [
            path
            for path in layout.releases.iterdir()
            if _is_candidate(path) and (path / ReleaseFiles.UNFINISHED).is_file() and read(path) is None
        ]
    return []


def damaged(layout: Layout) -> list[Path]:
    """Directories that updater installed, by their records, whose seal cannot be read any more."""
    with contextlib.suppress(FileNotFoundError):
        return [
            path
            for path in layout.releases.iterdir()
            if _is_candidate(path)
            and (path / ReleaseFiles.RECORDS).is_dir()
            and not (path / ReleaseFiles.UNFINISHED).is_file()
            and read(path) is None
        ]
    return []


def _is_candidate(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir() and not path.is_symlink()


def find(layout: Layout, name: str) -> Release:
    """The installed release that a person calls ``name``: its version, its tag, or either without the leading ``v``.

    Raises:
        NotFound: there is none; the message lists those there are.
        ReleaseChanged: there is one, and its seal cannot be read.
    """
    everything = installed(layout)
    bare = name.removeprefix("v")
    exact = [it for it in everything if name in (it.version, it.record.tag)]
    loose = [
        it for it in everything if bare in (it.version.removeprefix("v"), it.record.tag.removeprefix("v"))
    ]
    if exact or loose:
        return (exact or loose)[0]
    names = ", ".join(release.version for release in everything) or "none"
    if wrong := next((path for path in damaged(layout) if path.name.removeprefix("v") == bare), None):
        raise unreadable(wrong.name)
    raise NotFound(
        f"{name} is not installed (installed: {names})",
        state="Nothing was changed.",
        advice=f"install it with `updater fetch {name}`, or put it into service with `updater deploy {name}`.",
    )


def unreadable(version: str) -> ReleaseChanged:
    """What to say of a damaged release."""
    return ReleaseChanged(
        f"{version} is damaged: its {ReleaseFiles.RECORD} cannot be read, so it cannot be verified",
        state="Nothing was changed.",
        advice=anew(version, version),
    )


def anew(version: str, tag: str) -> str:
    """How to install a release that is there and no longer as it was. It is never removed: it may be what runs."""
    return (
        f"move it out of releases/ (mv releases/{version} {version}.aside) and install it anew: updater fetch {tag}; "
        "if it is in service, put another one there first: updater rollback"
    )


def discard(path: Path) -> None:
    """Remove an unfinished release that we began; anything else is left alone.

    Raises:
        UsageError: the directory is not an unfinished release of ours.
        ReleaseChanged: it is a release whose seal cannot be read.
    """
    if path in damaged(Layout(path.parents[1])):
        raise unreadable(path.name)
    if read(path) is not None or not (path / ReleaseFiles.UNFINISHED).is_file():
        raise UsageError(
            f"{path} is there, and updater did not make it",
            state="It was left alone.",
            advice="look at what it is, move it out of releases/, and run the command again.",
        )
    durable.remove_tree(path)
