"""Between the stop and the swap: the application's settings become those of the release that comes.

Before anything is written, two sets are on the disk under the deployment's id: all settings as they were, and what will be written.
So whoever undoes it tells by looking at each file whether it was written, and whether somebody has edited it since. Which set is
which release's is decided after the commit; until then what was bound before stays bound.
"""

from __future__ import annotations

from typing import Any

from updater import records
from updater.deployment.engine import Phase, free_ballast
from updater.deployment.phases import guard
from updater.deployment.transaction import Transaction
from updater.errors import Cancelled, DeploymentFailed, UpdaterError
from updater.layout import Layout
from updater.releases import shared
from updater.settings import changing, files, sets
from updater.settings.files import File, Held
from updater.settings.merging import Unreadable

Json = dict[str, Any]

ENDED_WELL = ("succeeded", "failed", "rolled-back", "cancelled")
"""Outcomes after which everything is where it belongs."""


class Configure(Phase):
    """New keys come into the user's files, or the settings come back with which a release ran before (F51)."""

    name = "configure"
    touches_service = True

    def applies(self, tx: Transaction) -> bool:
        return bool(files.found(tx.layout, tx.config.shared))

    def do(self, tx: Transaction) -> Json:
        try:
            return _adapt(tx)
        except (UpdaterError, OSError) as failure:
            if isinstance(failure, Cancelled) or not guard.may_do_without(tx):
                raise
            self.undo(tx)
        free_ballast(tx)
        try:
            return _adapt(tx)
        except (UpdaterError, OSError) as failure:
            self.undo(tx)
            tx.warn(f"the settings stay as they are: {getattr(failure, 'strerror', None) or failure}")
            return {"say": "they stay as they are"}

    def undo(self, tx: Transaction) -> None:
        before, written = sets.read(tx.layout, _before(tx)) or {}, sets.read(tx.layout, _written(tx)) or {}
        kept = []
        for below, held in written.items():
            if aside := _exchange(tx, below, from_=held, to=before.get(below)):
                kept.append({"file": f"shared/{below}", "as": aside})
            if below in before:
                changing.drop_aside(tx.layout, below, before[below], _when(tx))
        if written:
            tx.memory["settings_put_back"] = {"kept": kept}
        for name in (_written(tx), _before(tx)):  # in this order: the first one alone tells nothing
            sets.discard(tx.layout, name)


def _adapt(tx: Transaction) -> Json:
    tx.memory.pop("settings_put_back", None)
    before = changing.present(tx.layout, tx.config.shared)
    changes = _planned(tx)
    for text in changes.warnings:
        if not any(text in told for told in tx.warnings):
            tx.warn(text)
    if changes.files:
        sets.write(tx.layout, _before(tx), before)
        sets.write(tx.layout, _written(tx), changes.files)
    kept = changes.report.kept
    for below, held in changes.edited.items():
        aside = changing.keep_aside(tx.layout, below, held, _when(tx))
        kept.append({"file": f"shared/{below}", "as": aside})
    for below, held in changes.files.items():
        if aside_too := _exchange(tx, below, from_=before.get(below), to=held):
            kept.append({"file": f"shared/{below}", "as": aside_too})
    return {"configuration": changes.report.as_json(), "say": _said(changes)}


def _planned(tx: Transaction) -> changing.Changes:
    add, restore = tx.config.new_keys == "add", not tx.request.keep_config
    move = changing.Move(tx.origin, tx.must_target(), add, restore)
    return changing.plan(tx.layout, tx.config.shared, move)


def rehearse(tx: Transaction, scene: Layout) -> None:
    """In a root that is a copy, the settings become what they will be."""
    for below, held in _planned(tx).files.items():
        changing.put(scene, below, held)


def _before(tx: Transaction) -> str:
    return tx.journal.id


def _written(tx: Transaction) -> str:
    return f"{tx.journal.id}.written"


def _after(tx: Transaction) -> str:
    return f"{tx.journal.id}.after"


def _when(tx: Transaction) -> str:
    """The moment of the deployment, as in the name of a backup; the same however often the phase is done."""
    return tx.journal.id.partition("-")[0].replace("T", "_")


def _said(changes: changing.Changes) -> str:
    report = changes.report
    counts = (
        (len(report.added), "new key", "added"),
        (len(report.restored), "file", "as this release last ran with it"),
        (len(report.kept), "edited file", "kept aside"),
        (len(report.offered), "key", "not added"),
    )
    said = [f"{count} {what}{'s' if count > 1 else ''} {how}" for count, what, how in counts if count]
    return ", ".join(said) or "nothing to change"


def _exchange(tx: Transaction, below: str, *, from_: Held | None, to: Held | None) -> str | None:
    """Make one file hold what it is to hold; None: it is not to be there. Anything but what is expected there was put there by
    somebody meanwhile, and is kept aside; returns where, if there was such a thing."""
    try:
        found = files.read(tx.layout, File(below, below))
    except Unreadable as why:
        raise DeploymentFailed(
            f"shared/{below} could not be written: {why.reason}",
            advice=f"see what it is; its content from before is in {tx.layout.bound_settings / sets.SETS / _before(tx)}",
        ) from None
    known = {held.content for held in (from_, to) if held is not None}
    aside = None
    if found is not None and found.content not in known:
        if to is None:
            return None  # where nothing was before: what somebody made there stays
        aside = changing.keep_aside(tx.layout, below, found, f"{records.now():%Y%m%d_%H%M%S}")
        tx.warn(f"shared/{below} was edited during the deployment; that is kept in {aside}")
    if to is None:
        if found is not None:
            changing.take_away(tx.layout, below)  # the release that it is of has it still
    elif found is None or found.content != to.content:
        changing.put(tx.layout, below, to)
    return aside


def bind(tx: Transaction) -> None:
    """After the commit: what the release before was left with, and what this one is good with."""
    if tx.target is None:
        return  # data came back where no release is in service
    links = tx.config.shared or shared.links(tx.layout, tx.target)
    if not files.found(tx.layout, links) and not sets.exists(tx.layout, _before(tx)):
        return
    if not sets.exists(tx.layout, _after(tx)):
        sets.write(tx.layout, _after(tx), changing.present(tx.layout, links))
    sets.bind(tx.layout, tx.target, _after(tx))
    if tx.origin and tx.origin != tx.target:
        changed = sets.exists(tx.layout, _before(tx))
        sets.bind(tx.layout, tx.origin, _before(tx) if changed else _after(tx))
    tidy(tx)


def tidy(tx: Transaction) -> None:
    """Forget the settings of releases that are gone, and the sets of deployments that came to a good end.

    A set that is no release's may be all that is left of a way back that failed: that one stays.
    """
    for version in sets.bound_versions(tx.layout):
        if not tx.layout.release(version).is_dir():
            sets.forget(tx.layout, version)
    outcomes = {it.get("id"): it.get("outcome") for it in records.history(tx.layout)}
    for name in sets.loose(tx.layout):
        if outcomes.get(name.partition(".")[0]) in ENDED_WELL:
            sets.discard(tx.layout, name)
