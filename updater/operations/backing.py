"""Looking after data: make, list, verify, unpack and prune backups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from updater import durable, records
from updater.backups import catalogue, reading, unpacking
from updater.backups import create as creating
from updater.backups.catalogue import Backup
from updater.backups.manifest import PARTS
from updater.errors import BackupDamaged, UpdaterError, UsageError
from updater.operations import Root
from updater.releases import service, store

Json = dict[str, Any]


def create(
    root: Root,
    *,
    label: str = "",
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Json:
    """Make a backup by hand, while the application runs. ``on_progress`` gets bytes read and in all.

    ``force``: a corrupt database is kept as it is instead of refused.

    Raises:
        BackupFailed: it could not be made; nothing is left behind. LockHeld.
    """
    with root.changing("backup"):
        making = creating.Making("by hand", label=label, accept_damaged=force, on_progress=on_progress)
        made = creating.create(root.layout, root.config, making)
        records.log(root.layout, f"backup {made.id} made by hand{f': {label}' if label else ''}")
    return as_json(made)


def as_json(backup: Backup) -> Json:
    """A backup for machines. ``size``: bytes of what it holds; ``stored``: of its files; ``own``: what its removal would free."""
    manifest = backup.manifest
    return {
        "id": backup.id,
        "created": manifest.created,
        "reason": manifest.reason,
        "label": manifest.label,
        "release": manifest.release and manifest.release.get("version"),
        "deployment": manifest.deployment,
        "size": sum(part.size for part in manifest.parts.values()),
        "stored": backup.stored,
        "own": backup.own,
        "parts": {name: {"files": it.files, "size": it.size} for name, it in manifest.parts.items()},
        "databases": [
            {"path": it.path, "user_version": it.user_version, "integrity": it.integrity}
            for it in manifest.databases
        ],
        "dumps": [{"name": it.name, "size": it.size, "sha256": it.sha256} for it in manifest.dumps],
        "warnings": list(manifest.warnings),
        "path": str(backup.directory),
    }


def listing(root: Root) -> list[Json]:
    """Every backup, newest first; one whose manifest cannot be read is told as damaged, with the ``problem``."""
    rows = []
    for it in reversed(catalogue.found(root.layout)):
        with contextlib.suppress(FileNotFoundError):  # it was pruned, or another took its place, meanwhile
            rows.append({**as_json(it), "state": "ok"})
    return rows + [
        {"id": it.name, "state": "damaged", "problem": reading.why_unread(it)}
        for it in catalogue.damaged(root.layout)
    ]


def verify(root: Root, name: str | None = None, *, everything: bool = False) -> list[Json]:
    """Read backups to their end and compare every file with its digest; without a name the newest. Changes nothing.

    Raises:
        UsageError: there is no such backup.
    """
    chosen = (
        list(reversed(catalogue.found(root.layout)))
        if everything
        else [catalogue.find(root.layout, name or "latest")]
    )
    reports = [_report(it) for it in chosen]
    if everything:
        reports += [
            {
                "id": it.name,
                "sound": False,
                "problem": reading.why_unread(it),
            }
            for it in catalogue.damaged(root.layout)
        ]
    return reports


def _report(backup: Backup) -> Json:
    try:
        reading.prove(backup.directory)
    except (UpdaterError, OSError) as failure:
        return {"id": backup.id, "sound": False, "problem": str(failure)}
    return {"id": backup.id, "sound": True, "problem": None}


def extract(root: Root, name: str, into: Path, parts: Sequence[str] = ()) -> Json:
    """Unpack a backup, or parts of it, into a new directory, for a look. The application is not touched. The directory gets its
    name at the end: killed before, there is none that could be taken for whole.

    Raises:
        UsageError: no such backup or part, or ``into`` is there already. BackupDamaged: it is not whole; ``into`` holds what came
            before the damage.
    """
    backup = catalogue.find(root.layout, name)
    wanted = catalogue.chosen_parts(backup, parts, PARTS)
    if os.path.lexists(into):
        raise UsageError(
            f"{into} is there already", state="Nothing was changed.", advice="name a new directory."
        )
    into.parent.mkdir(parents=True, exist_ok=True)
    beside = into.with_name(durable.temporary_name(into.name))
    try:
        unpacking.unpack(backup.directory, beside, wanted)
    except BackupDamaged as failure:
        if beside.is_dir():
            durable.rename(beside, into)
            failure.state = f"{into} holds what could be unpacked before that; it is not whole."
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove_tree(beside)
        raise
    durable.rename(beside, into)
    return {"id": backup.id, "into": str(into), "parts": list(wanted)}


def restorable(root: Root, name: str, parts: Sequence[str] = ()) -> Json:
    """What a restore in place would do. Changes nothing.

    Raises:
        UsageError: no such backup or part. BackupDamaged: its manifest cannot be read.
    """
    from updater.deployment.phases import restore
    from updater.processes import control

    backup = catalogue.find(root.layout, name)
    return {
        **as_json(backup),
        "parts": restore.parts_of(backup, parts),
        "in_service": service.in_service(root.layout).release,
        "running": control.names_running(root.layout, root.config),
    }


def prunable(root: Root, keep: int | None = None) -> list[str]:
    """What :func:`prune` would remove, by id. Changes nothing."""
    manifests = [it.manifest for it in catalogue.found(root.layout)]
    retained = [release.version for release in store.installed(root.layout)]
    return catalogue.to_drop(manifests, keep or root.config.backup.keep, retained)


def prune(root: Root, keep: int | None = None) -> list[str]:
    """Remove old backups; never one that a retained release may need, one with a label, or what it does not know."""
    with root.changing("backup prune"):
        removed = prunable(root, keep)
        for name in removed:
            catalogue.remove(root.layout, name)
            records.log(root.layout, f"backup {name} pruned")
    return removed
