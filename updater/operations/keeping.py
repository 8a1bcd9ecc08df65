"""Looking after releases: verify, pin, unpin, mark bad, prune."""

from __future__ import annotations

from typing import Any

from updater.deployment.phases import housekeeping
from updater.errors import UsageError
from updater.operations import Root
from updater.releases import marks, service, store

Json = dict[str, Any]


def verify(root: Root, version: str | None = None, *, everything: bool = False) -> list[Json]:
    """Re-hash releases against their address and look at their environments. Changes nothing.

    Without a version, the one in service. Returns one report per release, with the paths that differ.

    Raises:
        UsageError: no such release.
    """
    from updater.releases import verification

    if everything:
        chosen = store.installed(root.layout)
    else:
        name = version or service.in_service(root.layout).version
        if name is None:
            raise UsageError("nothing is in service", advice="name a release: updater verify VERSION")
        chosen = [store.find(root.layout, name)]
    return [verification.report(root.layout, release) for release in chosen]


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
        except UsageError:
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
