"""What is in service: the fact is the link ``current``, whoever made it (F01)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from updater import durable
from updater.errors import PreflightFailed
from updater.layout import Layout


class InService(NamedTuple):
    """What stands at ``current``.

    ``kind``: ``none``, ``release``, ``dangling`` (the release it names is gone), ``foreign`` (a link that leads out of
    ``releases/``), or ``occupied`` (a directory or file that is no link at all). ``version`` is the release, if any.
    """

    kind: str
    version: str | None = None
    target: str = ""

    @property
    def release(self) -> str | None:
        """The release in service; None also if the link names one that is not there."""
        return self.version if self.kind == "release" else None

    @property
    def problem(self) -> str | None:
        """Why nothing can be put into service while this is so; None if it can."""
        if self.kind == "occupied":
            return "`current` is not a symlink but a real directory or file; updater made no such thing and will not remove it"
        if self.kind == "foreign":
            return f"`current` leads to {self.target}, which is not a release below releases/"
        return None


def in_service(layout: Layout) -> InService:
    """Look at ``current``. Reads only."""
    link = layout.current
    if not os.path.lexists(link):
        return InService("none")
    if not link.is_symlink():
        return InService("occupied")
    target = os.readlink(link)
    version = link_version(layout, target, link.parent)
    if version is None:
        return InService("foreign", target=target)
    if not layout.release(version).is_dir():
        return InService("dangling", version, target)
    return InService("release", version, target)


def link_version(layout: Layout, target: str, directory: Path) -> str | None:
    """The release that a link's text names, if it names one directly below ``releases/``."""
    place = Path(os.path.normpath(directory / target))
    releases = {Path(os.path.normpath(layout.releases)), Path(os.path.realpath(layout.releases))}
    named = place.parent in releases or Path(os.path.realpath(place.parent)) in releases
    return place.name if named and not place.name.startswith(".") else None


def named_by(layout: Layout, link: Path) -> str | None:
    """The release that ``good`` or ``previous`` names, if it is there."""
    if not link.is_symlink():
        return None
    version = link_version(layout, os.readlink(link), link.parent)
    return version if version and layout.release(version).is_dir() else None


def put_in_service(layout: Layout, version: str) -> None:
    """The swap: ``current`` names ``version`` from here on, in one atomic and durable step.

    Raises:
        PreflightFailed: something that is not our link stands there; nothing was changed.
    """
    refuse_what_is_not_ours(layout)
    durable.swap_symlink(layout.current, f"releases/{version}")
    if layout.version.is_symlink() or not os.path.lexists(layout.version):
        durable.swap_symlink(layout.version, "current/VERSION")


def take_out_of_service(layout: Layout) -> None:
    """Remove ``current``: the way back from a first deployment, which had nothing before it."""
    durable.remove_symlink(layout.current)
    if layout.version.is_symlink():
        durable.remove_symlink(layout.version)


def refuse_what_is_not_ours(layout: Layout) -> None:
    """Raise PreflightFailed if something stands at ``current`` that must not be replaced (F23, F24)."""
    if problem := in_service(layout).problem:
        raise PreflightFailed(
            problem,
            state="Nothing was changed.",
            advice=f"look at what is in {layout.current}, move it elsewhere (mv current current.aside), and run the command again.",
        )
