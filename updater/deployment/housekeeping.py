"""After the commit: old releases go. Never before it, and never what it does not know (F02, F19)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Mapping

from updater import durable, emergency
from updater.deployment.transaction import Transaction
from updater.errors import UpdaterError
from updater.layout import Layout
from updater.processes import proof
from updater.releases import marks, service, store
from updater.releases.marks import Marks
from updater.settings import sets

ROOM = 64 * 1024
"""Bytes that a start needs for its records."""

BALLAST = 4 * 1024**2
"""Bytes that a rollback on a full disk can free for its records."""

BAD_KEPT = 1
"""Failed releases kept for diagnosis."""


def to_prune(sealed: Mapping[str, str], found: Marks, keep: int, protected: Collection[str]) -> list[str]:
    """Which releases may go. ``sealed`` maps each installed release to when it was installed (sortable text).

    Only good releases count towards ``keep``, newest in the order in which they were good. Of the failed ones the
    latest stays for diagnosis; of those that were never in service (``updater fetch``) the latest ``keep`` stay.
    """
    good = sorted(
        (v for v in sealed if v in found.good and v not in found.bad),
        key=lambda v: found.good[v],
        reverse=True,
    )
    bad = sorted((v for v in sealed if v in found.bad), key=lambda v: sealed[v], reverse=True)
    staged = sorted(
        (v for v in sealed if v not in found.good and v not in found.bad),
        key=lambda v: sealed[v],
        reverse=True,
    )
    surplus = [*good[keep:], *bad[BAD_KEPT:], *staged[keep:]]
    return [v for v in surplus if v not in protected and v not in found.pinned]


def protected(layout: Layout) -> set[str]:
    """Releases that must stay whatever the numbers say: in service, good, previous."""
    named = {
        service.in_service(layout).version,
        service.named_by(layout, layout.good),
        service.named_by(layout, layout.previous),
    }
    return {version for version in named if version}


def plan(layout: Layout, keep: int) -> list[str]:
    """What :func:`remove` would be asked to remove now. Reads only."""
    sealed = {release.version: release.record.installed_at for release in store.installed(layout)}
    surplus = to_prune(sealed, marks.read(layout), keep, protected(layout))
    if not surplus:
        return []  # no need to look at every process of the machine
    in_use = proof.in_use(layout)
    return [version for version in surplus if version not in in_use]


def remove(layout: Layout, version: str) -> None:
    """Remove one installed release. Its bad mark stays: a release that failed is not taken again by itself.

    The release itself goes last, and its good mark right before: killed earlier, the next pruning goes on; killed between the two
    it is there as one that was only fetched. Nobody would look for what a release that has gone had left behind, and installed
    again it would count as good.
    """
    layout.configuration(version).unlink(missing_ok=True)
    if (layout.launchers / version).is_dir():
        durable.remove_tree(layout.launchers / version)
    sets.forget(layout, version)
    marks.take(layout, version, "pinned")
    marks.take(layout, version, "good")
    durable.remove_tree(layout.release(version))


def prune(tx: Transaction) -> None:
    """Remove what the configuration does not keep."""
    for version in plan(tx.layout, tx.config.keep):
        try:
            remove(tx.layout, version)
            tx.say(f"pruned {version}")
        except (UpdaterError, OSError) as failure:
            tx.warn(f"{version} was not pruned: {failure}")


def refresh_scripts(tx: Transaction) -> None:
    """The emergency scripts as they come with this updater."""
    for line in emergency.install(tx.layout).warnings:
        tx.warn(line)


def restore_ballast(layout: Layout) -> None:
    """Make the ballast again that a way back has freed: the next one may need it. What hinders that bars nothing."""
    with contextlib.suppress(OSError):
        put_ballast(layout)


def put_ballast(layout: Layout) -> None:
    """Make the ballast if it is missing and there is plenty of room. Real bytes: a sparse file would free nothing."""
    if not layout.ballast.exists() and shutil.disk_usage(layout.own).free > 32 * BALLAST:
        durable.write(layout.ballast, os.urandom(BALLAST))


def make_room(layout: Layout) -> None:
    """Free the ballast if the disk is full to the last block: what starts a process or goes back writes a few small files."""
    try:
        durable.write_quick(layout.room, "?" * ROOM)
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            layout.ballast.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        layout.room.unlink()
