"""Looking after releases: verify, pin, unpin, mark bad, prune."""

from __future__ import annotations

from typing import Any

from updater import hold as holding
from updater import records
from updater.deployment import housekeeping
from updater.deployment.holder import holder
from updater.errors import ReleaseChanged, UsageError
from updater.operations import Root
from updater.releases import marks, service, store

Json = dict[str, Any]


def verify(root: Root, version: str | None = None, *, everything: bool = False) -> list[Json]:
    """Re-hash releases against their address and look at their environments. Changes nothing.

    Without a version, the one in service. Returns one report per release, with the paths that differ.

    Raises:
        UsageError: no such release. ReleaseChanged: it cannot be read at all; among others it is only told.
    """
    from updater.releases import verification

    if everything:
        whole = [verification.report(root.layout, release) for release in store.installed(root.layout)]
        return whole + [verification.unreadable(path) for path in store.damaged(root.layout)]
    name = version or service.in_service(root.layout).version
    if name is None:
        raise UsageError("nothing is in service", advice="name a release: updater verify VERSION")
    return [verification.report(root.layout, store.find(root.layout, name))]


def pin(root: Root, version: str, reason: str = "") -> str:
    """Never prune a release. Returns its version."""
    with root.changing("pin"):
        found = store.find(root.layout, version).version
        marks.put(root.layout, found, "pinned", reason=reason)
    return found


def unpin(root: Root, version: str) -> str:
    """Let a release be pruned again. Returns its version."""
    with root.changing("unpin"):
        found = store.find(root.layout, version).version
        marks.take(root.layout, found, "pinned")
    return found


def mark_bad(root: Root, version: str, reason: str = "") -> str:
    """Never take a release by itself again, nor roll back to it. Returns its version.

    A tag that is not installed can be marked as well: it is then not deployed by itself.
    """
    from updater import versions

    with root.changing("mark-bad"):
        try:
            found = store.find(root.layout, version).version
        except (UsageError, ReleaseChanged):
            found = versions.release_name(version)
        marks.put(root.layout, found, "bad", reason=reason or "marked by hand")
    return found


def prunable(root: Root, keep: int | None = None) -> list[str]:
    """What :func:`prune` would remove. Changes nothing."""
    return housekeeping.plan(root.layout, keep or root.config.keep)


def prune(root: Root, keep: int | None = None) -> list[str]:
    """Remove old releases; never the current, the previous good, a pinned one or one that a process runs from."""
    with root.changing("prune"):
        removed = prunable(root, keep)
        for version in removed:
            housekeeping.remove(root.layout, version)
    return removed


def hold(root: Root, reason: str = "", by: str = "") -> Json:
    """Let no other release go into service until :func:`release_hold`. Takes no lock: it must not wait for anybody.

    Returns ``hold`` (reason, by, at), the hold ``before`` that it replaces, and the operation that is ``at_work`` and goes on.
    """
    before = holding.read(root.layout)
    made = holding.put(root.layout, reason, by)
    records.log(root.layout, made.describe())
    at_work = holder(root.layout)
    return {
        "hold": made.as_json(),
        "before": before and before.as_json(),
        "at_work": at_work and at_work.owner.describe(),
    }


def release_hold(root: Root, by: str = "") -> Json:
    """Lift the hold. Returns ``released``, the one that was there; null if there was none, which is no error."""
    found = holding.take(root.layout)
    if found is not None:
        records.log(
            root.layout, f"the hold was lifted{f' by {by}' if by else ''}; it said: {found.describe()}"
        )
    return {"released": found and found.as_json()}
