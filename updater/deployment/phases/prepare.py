"""Phases 1 to 7: a release is found, checked, fetched, proved, unpacked, built and sealed. None of them touches the
running application, and until the seal nothing of it counts as a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from updater import durable, environments, lock, records, versions
from updater import preflight as checking
from updater.deployment import configuration
from updater.deployment.engine import Phase
from updater.deployment.phases import resolution
from updater.deployment.transaction import Transaction
from updater.errors import ConfigError, DigestMismatch, VerificationFailed
from updater.layout import ReleaseFiles
from updater.preflight import checks
from updater.releases import shared, store, verification

Json = dict[str, Any]


class Resolve(Phase):
    """Which release; nothing to do is a success that says so."""

    name = "resolve"

    def do(self, tx: Transaction) -> Json:
        with tx.cancel.interrupting():
            found = resolution.resolve(tx.layout, tx.config, tx.request)
        tx.memory["resolved"] = found
        for text in found.warnings:
            tx.warn(text)
        if tx.wrong is not None and found.nothing is None:
            self._as_it_last_ran(tx, tx.wrong, found.version)
        return {
            "version": found.version,
            "tag": found.tag,
            "installed": found.installed,
            "digest": found.digest,
            "nothing": found.nothing,
            "say": found.nothing or found.version,
        }

    @staticmethod
    def _as_it_last_ran(tx: Transaction, wrong: ConfigError, version: str) -> None:
        """Without a right ``updater.toml`` a release is started as it last ran; from the swap on."""
        known = configuration.of_release(tx.layout, version, wrong)
        tx.memory["config"] = known.config
        tx.warn(f"{wrong.line}; {version} goes by {known.instead}")


class Preflight(Phase):
    """Every check runs, all results are shown at once, each failure with its remedy. A release that is installed
    already is re-hashed against its address, so that no changed file is put into service unnoticed."""

    name = "preflight"

    def do(self, tx: Transaction) -> Json:
        found: resolution.Resolved = tx.memory["resolved"]
        results = checking.run(checks.all_checks(tx.layout, tx.config, found.plan(tx.request)))
        for check in results:
            if check.result == "warning":
                tx.warn(f"{check.name}: {check.summary}")
        checking.judge(results)
        if found.installed:
            verification.check(
                tx.layout, store.find(tx.layout, found.version),
                force=tx.request.force, forced=tx.request.command("--force"), warn=tx.warn,
            )  # fmt: skip
        return {"checks": len(results)}


class Fetch(Phase):
    """One streaming pass: received bytes → SHA-256 → decompress → unpack into a staging place → a hash of each file."""

    name = "fetch"

    def applies(self, tx: Transaction) -> bool:
        return not tx.facts["resolve"]["installed"]

    def do(self, tx: Transaction) -> Json:
        from updater.deployment.phases import fetching

        found: resolution.Resolved = tx.memory["resolved"]
        staging = self.staging(tx)
        durable.remove_tree(staging)
        unpacked = fetching.fetch(tx, found, staging)
        tx.memory["unpacked"] = unpacked
        return {
            "artifact": found.artifact.name,
            "sha256": unpacked.artifact_sha256,
            "size": unpacked.artifact_size,
            "digest": unpacked.manifest.digest,
            "tree": unpacked.manifest.tree_id,
            "say": f"{found.artifact.name}, {unpacked.artifact_size:,} bytes, {unpacked.manifest.file_count} files",
        }

    def undo(self, tx: Transaction) -> None:
        durable.remove_tree(self.staging(tx))

    @staticmethod
    def staging(tx: Transaction) -> Path:
        """Where a release is unpacked before it is proved; a name that a sweep removes."""
        return tx.layout.releases / f"{durable.TEMPORARY}unpack-{tx.journal.id}"


class Verify(Phase):
    """Digest, checksum and tree against what the source published. Fails closed (F39)."""

    name = "verify"

    def applies(self, tx: Transaction) -> bool:
        return not tx.facts["resolve"]["installed"]

    def do(self, tx: Transaction) -> Json:
        from updater.deployment.phases import fetching

        found: resolution.Resolved = tx.memory["resolved"]
        unpacked = tx.memory["unpacked"]
        try:
            proof = verification.prove(unpacked, found.artifact)
        except DigestMismatch:
            fetching.forget(tx, found)  # the next try must not resume bytes that are wrong
            raise
        self._version_file(tx, unpacked)
        same = self._already_installed(tx, found, unpacked.manifest.digest)
        if same and tx.request.kind == "fetch":
            return {"proof": proof, "nothing": f"{same} is installed already, with the same content"}
        if proof.startswith("unproven"):
            tx.warn(f"{found.tag}: {proof}")
        return {"proof": proof, "say": proof}

    def _version_file(self, tx: Transaction, unpacked: Any) -> None:
        """A release's own VERSION must agree with its tag; one without gets it from the tag (F01)."""
        tag = str(tx.facts["resolve"]["tag"])
        own = unpacked.tree / ReleaseFiles.VERSION
        if own.is_symlink() or (own.exists() and not own.is_file()):
            raise VerificationFailed(
                "VERSION in the release is not a regular file",
                advice="make it one (or remove it: updater writes it from the tag) and publish under a new tag.",
            )
        if not own.exists():
            tx.memory["version_file"] = "written"
            return
        tx.memory["version_file"] = "published"
        with own.open("rb") as file:  # of whatever size
            text = file.read(200).decode(errors="replace").strip()
        if not versions.agrees(text, tag):
            raise VerificationFailed(
                f"the release says in its file VERSION that it is {text!r}, but its tag is {tag}",
                advice="correct VERSION (or remove it: updater writes it from the tag) and publish under a new tag.",
            )

    def _already_installed(self, tx: Transaction, found: resolution.Resolved, digest: str) -> str | None:
        """The same tag is installed: equal content is fine, other content an alarm. (The source could not tell before.)"""
        occupied = store.read(tx.layout.release(found.version))
        if occupied is None:
            return None
        if occupied.record.digest == digest:
            tx.memory["same"] = True
            return occupied.version
        if not tx.request.replace:
            raise resolution.moved(tx.layout, tx.request, found.tag, occupied, digest)
        found.version = resolution.beside(found.version, digest)
        tx.facts["resolve"] = {**tx.facts["resolve"], "version": found.version}
        tx.journal.record("done", "resolve", tx.facts["resolve"])
        return None


class Unpack(Phase):
    """The proved tree becomes the release directory, unsealed: one rename."""

    name = "unpack"

    def applies(self, tx: Transaction) -> bool:
        return not tx.facts["resolve"]["installed"] and not tx.memory.get("same")

    def do(self, tx: Transaction) -> None:
        target = tx.layout.release(tx.must_target())
        tree: Path = tx.memory["unpacked"].tree
        if target.exists():
            store.discard(target)
        durable.make_directory(tree / ReleaseFiles.RECORDS)
        durable.write(tree / ReleaseFiles.UNFINISHED, f"{tx.journal.id}\n")
        if tx.memory["version_file"] == "written":
            durable.write(tree / ReleaseFiles.VERSION, f"{tx.facts['resolve']['tag']}\n", mode=0o444)
        durable.rename(tree, target)
        durable.remove_tree(Fetch.staging(tx))
        tx.memory["unpacked"].tree = target

    def undo(self, tx: Transaction) -> None:
        target = tx.layout.release(tx.target) if tx.target else None
        if target and (target / ReleaseFiles.UNFINISHED).is_file() and store.read(target) is None:
            durable.remove_tree(target)


class Build(Phase):
    """The release's own virtualenv, built where it stays (F03, F43)."""

    name = "build"

    def applies(self, tx: Transaction) -> bool:
        return tx.request.rebuild or (not tx.facts["resolve"]["installed"] and not tx.memory.get("same"))

    def do(self, tx: Transaction) -> Json:
        release = tx.layout.release(tx.must_target())
        donors = [other.path for other in reversed(store.installed(tx.layout)) if other.path != release]
        build = environments.rebuild if tx.request.rebuild else environments.build
        record = build(
            release, tx.config.environment,
            donors=donors, keep_fds=tx.lock.fds, record=lock.child_record(tx.layout),
            on_line=lambda line: tx.progress.tell(line), check=tx.cancel.check, warn=tx.warn,
            secrets=tx.config.own_variables,
        )  # fmt: skip
        if tx.request.rebuild:
            verification.replace_environment(tx.layout, store.find(tx.layout, release.name), record.as_json())
            environments.restore(release)
        tx.memory["environment"] = record
        return {"environment": record.as_json(), "say": record.summary()}

    def undo(self, tx: Transaction) -> None:
        if tx.request.rebuild and tx.target:
            environments.restore(tx.layout.release(tx.target))


class Seal(Phase):
    """Manifest, everything to the disk, then the seal: from here on it is a release."""

    name = "seal"

    def applies(self, tx: Transaction) -> bool:
        return not tx.facts["resolve"]["installed"] and not tx.memory.get("same")

    def do(self, tx: Transaction) -> Json:
        from updater.deployment.phases import fetching

        found: resolution.Resolved = tx.memory["resolved"]
        unpacked, release = tx.memory["unpacked"], tx.layout.release(tx.must_target())
        shared.link(tx.layout, release.name, tx.config.shared)
        record = store.ReleaseRecord(
            version=release.name,
            tag=str(found.tag),
            digest=unpacked.manifest.digest,
            tree=unpacked.manifest.tree_id,
            proof=str(tx.facts["verify"]["proof"]),
            artifact={
                "name": found.artifact.name, "kind": found.artifact.kind,
                "sha256": unpacked.artifact_sha256, "size": unpacked.artifact_size,
            },
            source=found.source,
            commit=found.artifact.commit,
            environment=tx.memory["environment"].as_json(),
            version_file=tx.memory["version_file"],
            installed_at=records.stamp(),
            published_at=found.published.published_at and records.stamp(found.published.published_at),
            files=unpacked.manifest.file_count,
            size=unpacked.manifest.size,
            notes=found.published.notes[:20_000],
        )  # fmt: skip
        verification.seal(tx.layout, release, unpacked.manifest, record)
        fetching.forget_all(tx)
        return {"digest": record.digest}
