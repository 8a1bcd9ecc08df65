"""Sealing a release, and proving later that it is still what was sealed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updater import artifacts, durable
from updater.errors import DigestMismatch, ReleaseChanged
from updater.layout import Layout, ReleaseFiles
from updater.releases import shared, store
from updater.releases.store import Release, ReleaseRecord

if TYPE_CHECKING:
    from updater.artifacts.unpack import Donor, Unpacked

Json = dict[str, Any]

OURS = (ReleaseFiles.ENVIRONMENT, ReleaseFiles.RECORDS)
"""Names at the top of a release that are not part of what was published."""


def prove(unpacked: Unpacked, artifact: Any) -> str:
    """Hold what was received against what the source says of it. Returns what that proves, in words (F55).

    Raises:
        DigestMismatch: they differ, whichever of them was published.
        SourceFailed: the source cannot be asked for what would explain it.
    """
    received, tree = f"sha256:{unpacked.artifact_sha256}", unpacked.manifest.tree_id
    proofs = []
    if artifact.digest is not None:
        _equal("its digest", artifact.digest, received)
        if artifact.kind != "file":
            proofs.append("digest as published")
    if artifact.checksum is not None:
        _equal(
            "the published checksum file", artifact.checksum.removeprefix("sha256:"), unpacked.artifact_sha256
        )
        proofs.append("listed in the published checksums")
    if artifact.tree is not None:
        if artifact.tree == tree:
            proofs.append(f"tree of commit {(artifact.commit or artifact.tree)[:12]}")
        else:
            from updater.releases import treeproof

            proofs.append(treeproof.explain(unpacked, artifact))
    nothing = (
        "no sum lies beside the file"
        if artifact.kind == "file"
        else "the source publishes neither digest nor tree"
    )
    return "; ".join(proofs) or f"unproven: {nothing}"


def _equal(what: str, published: str, received: str) -> None:
    if published.lower() != received.lower():
        raise DigestMismatch(
            f"what was received differs from {what}",
            details=[f"published: {published}", f"received:  {received}"],
            advice="try again; if it stays so, the file was tampered with or published wrongly: ask the publisher.",
        )


def seal(layout: Layout, release: Path, manifest: artifacts.Manifest, record: ReleaseRecord) -> None:
    """Make an unpacked, built directory a release. The write of ``release.json`` is the seal: before it the directory
    is unfinished, after it everything that it names is on the disk."""
    moved = shared.shadowed(layout, release.name, shared.links(layout, release.name))
    extra = {}
    if record.version_file == "written":
        extra[ReleaseFiles.VERSION] = artifacts.hash_file(release / ReleaseFiles.VERSION)
    durable.write(release / ReleaseFiles.MANIFEST, manifest.as_bytes())
    durable.write(release / ReleaseFiles.SUMS, manifest.sums(moved=moved, extra=extra))
    _record_bytecode(release, manifest)
    durable.flush_tree(release)
    durable.write(
        release / ReleaseFiles.RECORD, json.dumps(record.as_json(), indent=2, sort_keys=True) + "\n"
    )
    durable.remove(release / ReleaseFiles.UNFINISHED)


def replace_environment(layout: Layout, release: Release, environment: Json) -> None:
    """Put a rebuilt environment on record, after it is on the disk."""
    _record_bytecode(release.path, manifest_of(release))
    durable.flush_tree(release.path)
    record = replace(release.record, environment=environment)
    durable.write(
        release.path / ReleaseFiles.RECORD, json.dumps(record.as_json(), indent=2, sort_keys=True) + "\n"
    )


def _record_bytecode(release: Path, manifest: artifacts.Manifest) -> None:
    from updater.environments import bytecode

    bytecode.record(release, {entry.path for entry in manifest.entries})


def manifest_of(release: Release) -> artifacts.Manifest:
    """The sealed manifest of a release.

    Raises:
        ReleaseChanged: it is missing, damaged, or not the one that the release's address was computed over.
    """
    try:
        manifest = artifacts.Manifest.from_bytes((release.path / ReleaseFiles.MANIFEST).read_bytes())
    except (OSError, ValueError) as failure:
        raise _changed(release, [f"{ReleaseFiles.MANIFEST}: {failure}"]) from failure
    if manifest.digest != release.record.digest:
        raise _changed(release, [f"{ReleaseFiles.MANIFEST} is not the manifest of {release.record.digest}"])
    return manifest


def differences(layout: Layout, release: Release) -> list[artifacts.Difference]:
    """Every path of a release that is not as it was sealed. Reads every byte.

    Raises:
        ReleaseChanged: the manifest itself is not.
    """
    from updater.environments import bytecode

    manifest = manifest_of(release)
    links = shared.links(layout, release.version)
    moved = shared.shadowed(layout, release.version, links)
    own = {ReleaseFiles.VERSION} if release.record.version_file == "written" else set()
    parents = {parent for inside in links for parent in _parents(inside)}
    expected = {*links, *own}

    def ignored(path: str) -> bool:
        return path.split("/", 1)[0] in OURS or path in expected

    compiled = bytecode.recorded(release.path)
    whole = artifacts.Manifest.of([*manifest.entries, *compiled.values()])
    found = artifacts.compare(release.path, whole, ignore=ignored, moved=moved)
    return [
        it
        for it in found
        if not (it.what == "added" and (it.path in parents or _harmless(release, it.path, compiled)))
        and not (it.what == "missing" and it.path in compiled)  # Python does without
    ]


def _harmless(release: Release, path: str, compiled: Mapping[str, artifacts.Entry]) -> bool:
    """Left by somebody who ran the code by hand with another Python, and not looked at by the release's own."""
    from updater.environments import bytecode

    *above, name = path.split("/")
    if (release.path / path).is_symlink():
        return False
    version = str((release.record.environment or {}).get("python_version", ""))
    return name == bytecode.FOLDER or (
        bytecode.FOLDER in above and not bytecode.runs_unasked(path, compiled, version)
    )


def _parents(inside: str) -> list[str]:
    parts = inside.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def check(layout: Layout, release: Release, *, force: bool, forced: str, warn: Callable[[str], None]) -> None:
    """Refuse a release that was changed since it was sealed. ``forced``: what a person types to have it all the same.

    Raises:
        ReleaseChanged: it was, and ``force`` is not given; with it, the changes are only told.
    """
    found = _found(layout, release)
    if not found:
        return
    if not force:
        refusal = _changed(release, found)
        refusal.advice = f"{refusal.advice}; if somebody edited it on purpose, to take it as it is: {forced}"
        raise refusal
    warn(f"{release.version} differs from what was published in {len(found)} places ({found[0]}); forced")


def check_unchanged(layout: Layout, release: Release) -> None:
    """Raise ReleaseChanged if a release is no longer as it was sealed."""
    if found := _found(layout, release):
        raise _changed(release, found)


def _found(layout: Layout, release: Release) -> list[str]:
    try:
        return [f"{it.what}: {it.path}" for it in differences(layout, release)]
    except ReleaseChanged as failure:  # not even its manifest is as it was
        return failure.details


def _changed(release: Release, found: list[str]) -> ReleaseChanged:
    shown = [*found[:20], *([f"and {len(found) - 20} more"] if len(found) > 20 else [])]
    return ReleaseChanged(
        f"{release.version} is not as it was published: {len(found)} path{'s' if len(found) > 1 else ''} differ",
        details=shown,
        advice=_remedy(release, found),
    )


def _remedy(release: Release, found: Sequence[str]) -> str:
    if all("__pycache__/" in it for it in found):
        return f"it is only bytecode: updater fetch --rebuild {release.version} --force makes it anew from the sources"
    return store.anew(release.version, release.record.tag)


def report(layout: Layout, release: Release) -> Json:
    """What ``updater verify`` tells of one release."""
    from updater import environments

    try:
        found = [{"path": it.path, "what": it.what} for it in differences(layout, release)]
    except ReleaseChanged as failure:
        found = [{"path": detail, "what": "manifest"} for detail in failure.details]
    environment = release.record.environment
    problem = (
        environments.problem_of(release.path, environment)
        or environments.damage_of(release.path)
        or environments.edit_of(release.path, environment)
    )
    return {
        "version": release.version,
        "sound": not found and problem is None,
        "differences": found,
        "advice": _remedy(release, [it["path"] for it in found]) if found else None,
        "environment": problem,
        "files": release.record.files,
        "digest": release.record.digest,
        "proof": release.record.proof,
    }


def unreadable(path: Path) -> Json:
    """The same of a release whose seal cannot be read."""
    return {
        "version": path.name,
        "sound": False,
        "differences": [{"path": ReleaseFiles.RECORD, "what": "unreadable"}],
        "advice": store.anew(path.name, path.name),
        "environment": None,
        "files": None,
        "digest": None,
        "proof": None,
    }


def changes(mine: Path, theirs: Path) -> Json:
    """Paths added, removed and changed from one release to another, from their manifests alone."""
    first, second = store.read(mine), store.read(theirs)
    assert first is not None and second is not None
    old = {entry.path: entry for entry in manifest_of(first).entries}
    new = {entry.path: entry for entry in manifest_of(second).entries}
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(path for path in old.keys() & new.keys() if old[path] != new[path]),
    }


def donor(release: Release) -> Donor | None:
    """An installed release as a source of equal files for the next; None if its manifest is not sound."""
    from updater.artifacts.unpack import Donor

    try:
        manifest = manifest_of(release)
    except ReleaseChanged:
        return None
    return Donor.of(release.path, manifest)
