"""The phases by which the data of a backup take the place of the present ones; also on a rollback with its data."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from updater.backups import catalogue, dumps, staging, swap
from updater.backups.catalogue import Backup
from updater.deployment.engine import Phase
from updater.deployment.phases import data
from updater.deployment.transaction import Transaction
from updater.errors import RollbackFailed, UsageError
from updater.releases import service

Json = dict[str, Any]

PARTS = ("config", "data", "dumps")
"""What comes back unless told otherwise. Logs are the past, which is not put back; ``state`` is for reference."""


def parts_of(backup: Backup, wanted: Collection[str] = ()) -> list[str]:
    """The parts of a backup that are restored.

    Raises:
        UsageError: it has no such part, or one that is not restored in place.
    """
    return catalogue.chosen_parts(backup, wanted, (*staging.IN_PLACE, "dumps") if wanted else PARTS)


def refuse_foreign(tx: Transaction, backup: Backup) -> None:
    """A backup of another root belongs to another application's data."""
    mine = catalogue.identity(tx.layout)
    if backup.manifest.root.get("id") == mine:
        return
    of = f"{backup.manifest.root.get('name')} in {backup.manifest.root.get('path')}"
    if tx.request.force:
        tx.warn(f"{backup.id} is of another root, {of}; gone on by --force")
        return
    raise UsageError(
        f"{backup.id} is of another root: {of}",
        state="Nothing was changed.",
        advice="if that is what you want (a move to this machine): --force; for a look: --to DIR",
    )


class Choose(Phase):
    """Which backup, and what of it."""

    name = "choose"

    def applies(self, tx: Transaction) -> bool:
        return tx.request.puts_data_back

    def do(self, tx: Transaction) -> Json:
        if tx.request.kind == "restore":
            backup = catalogue.find(tx.layout, str(tx.request.wanted))
            parts = parts_of(backup, tx.request.parts)
        else:
            backup = _of_release(tx)
            parts = catalogue.chosen_parts(backup, (), ("data", "dumps"))
        refuse_foreign(tx, backup)
        if "dumps" in parts:
            names = [it.name for it in backup.manifest.dumps]
            dumps.chosen_dumps(tx.layout, tx.config, backup.manifest, names)
        if not parts:
            raise UsageError(f"{backup.id} holds nothing to restore", state="Nothing was changed.")
        version = tx.target or service.in_service(tx.layout).release
        return {
            "backup": backup.id,
            "parts": parts,
            "version": version,
            "say": f"{backup.id}: {', '.join(parts)}",
        }


def _of_release(tx: Transaction) -> Backup:
    """The newest backup of the release's own data: what lay there when it was left."""
    own = [
        it for it in catalogue.found(tx.layout)
        if it.manifest.release and it.manifest.release.get("version") == tx.target
    ]  # fmt: skip
    if not own:
        raise UsageError(
            f"there is no backup with the data of {tx.target}",
            state="Nothing was changed.",
            advice="see `updater backup list`; without --restore-data the present data stay.",
        )
    for later in catalogue.unread_since(tx.layout, own[-1]):
        tx.warn(f"{later.name} is newer and cannot be read: it may hold later data of {tx.target}")
    return own[-1]


def _backup(tx: Transaction) -> Backup:
    return catalogue.find(tx.layout, str(tx.facts["choose"]["backup"]))


class Stage(Phase):
    """What differs is unpacked beside the present data and checked, while the application runs."""

    name = "stage"

    def applies(self, tx: Transaction) -> bool:
        return bool(set(tx.facts.get("choose", {}).get("parts") or ()) & set(staging.IN_PLACE))

    def do(self, tx: Transaction) -> Json:
        parts = [name for name in tx.facts["choose"]["parts"] if name in staging.IN_PLACE]
        moving = staging.Staging(
            tx.layout,
            tx.config.backup,
            _backup(tx).directory,
            parts,
            tx.journal.id,
            "restore",
            tx.cancel.check,
        )
        tx.memory["staging"] = moving
        size = moving.stage()
        return {"bytes": size, "say": f"{size:,} bytes differ from what is there"}

    def undo(self, tx: Transaction) -> None:
        data.take_back(tx, "restore", f"after {tx.subject} failed")


class Restore(Phase):
    """The data take the place of the present ones, by renames."""

    name = "restore"
    touches_service = True
    puts_data_back = True

    def applies(self, tx: Transaction) -> bool:
        return "staging" in tx.memory

    def do(self, tx: Transaction) -> Json:
        data.refuse_users(tx)
        moving: staging.Staging = tx.memory["staging"]
        moved = moving.put()
        data.refuse_late_writes(tx, moved, tx.memory["copied"])
        swap.claim(tx.layout, moved)
        return {"paths": len(moved.steps), "say": f"{len(moved.steps)} paths"}

    def undo(self, tx: Transaction) -> None:
        data.take_back(tx, "restore", f"after {tx.subject} failed")


class Load(Phase):
    """Other databases, by their restore commands."""

    name = "load"
    touches_service = True
    puts_data_back = True

    def applies(self, tx: Transaction) -> bool:
        return "dumps" in (tx.facts.get("choose", {}).get("parts") or ())

    def do(self, tx: Transaction) -> None:
        data.load(tx, _backup(tx))

    def undo(self, tx: Transaction) -> None:
        """From the backup that was made of the present state."""
        if not self.applies(tx):
            return
        kept = catalogue.find(tx.layout, tx.backup) if tx.backup else None
        if kept is None or not kept.manifest.dumps:
            raise RollbackFailed("there is no dump of the databases as they were before the restore")
        data.load_back(tx, self.name, kept)
