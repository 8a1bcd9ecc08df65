"""The root's paths (design page, section 3), in one place. Pure names: nothing here touches the disk."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Layout(NamedTuple):
    """Where things are under one root."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "updater.toml"

    @property
    def current(self) -> Path:
        return self.root / "current"

    @property
    def version(self) -> Path:
        return self.root / "VERSION"

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    def release(self, version: str) -> Path:
        return self.releases / version

    @property
    def shared(self) -> Path:
        return self.root / "shared"

    @property
    def logs(self) -> Path:
        return self.shared / "logs"

    @property
    def backups(self) -> Path:
        return self.shared / "backups"

    @property
    def history(self) -> Path:
        return self.logs / "update_history.json"

    @property
    def progress(self) -> Path:
        return self.logs / "update_progress.json"

    @property
    def update_log(self) -> Path:
        return self.logs / "update.log"

    @property
    def errors_log(self) -> Path:
        return self.logs / "errors.log"

    def process_log(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    @property
    def scripts(self) -> Path:
        return self.root / "scripts"

    @property
    def script_sums(self) -> Path:
        """What updater wrote to ``scripts/``."""
        return self.own / "scripts.sums"

    @property
    def own(self) -> Path:
        """The updater's own directory, ``.updater``."""
        return self.root / ".updater"

    @property
    def lock(self) -> Path:
        return self.own / "lock"

    @property
    def lock_owner(self) -> Path:
        return self.own / "lock.owner"

    @property
    def journal(self) -> Path:
        """One file per unfinished deployment; ``closed/`` below it holds the finished ones."""
        return self.own / "journal"

    @property
    def good(self) -> Path:
        return self.own / "good"

    @property
    def previous(self) -> Path:
        return self.own / "previous"

    @property
    def marks(self) -> Path:
        """``<version>.good``, ``.bad`` and ``.pinned``: one small file per mark."""
        return self.own / "marks"

    @property
    def cache(self) -> Path:
        return self.own / "cache"

    @property
    def run(self) -> Path:
        """Pid files, and the identity of a child that is changing things."""
        return self.own / "run"

    def pid_file(self, process: str) -> Path:
        return self.run / f"{process}.pid"

    @property
    def launchers(self) -> Path:
        return self.own / "launchers"

    def launcher(self, version: str, process: str) -> Path:
        return self.launchers / version / process

    @property
    def configurations(self) -> Path:
        return self.own / "configurations"

    def configuration(self, version: str) -> Path:
        """The text of ``updater.toml`` with which a release was last started."""
        return self.configurations / f"{version}.toml"

    @property
    def bound_settings(self) -> Path:
        """What each release's settings were when it was last in service: ``<version>`` names a set in ``.sets/``."""
        return self.own / "config"

    @property
    def trial(self) -> Path:
        """Exists while the release in service is on trial."""
        return self.own / "trial"

    @property
    def drained(self) -> Path:
        """Exists while the application has been told to take on nothing new."""
        return self.own / "drained"

    @property
    def resume(self) -> Path:
        """A ``sh`` script that tells the application that it may go on; runs as the resume command does."""
        return self.own / "resume"

    @property
    def hold(self) -> Path:
        """Exists while somebody holds updates."""
        return self.own / "hold"

    @property
    def emergency(self) -> Path:
        """Where an emergency rollback went that has not ended: key=value, written by the script."""
        return self.own / "emergency"

    @property
    def check(self) -> Path:
        """What the last look for a new release has found."""
        return self.own / "check.json"

    @property
    def swap(self) -> Path:
        """What is being moved below ``shared/``, by a restore or a migration that has not ended."""
        return self.own / "swap.json"

    @property
    def swap_steps(self) -> Path:
        """The same for a shell, which reads no JSON; believed only beside a ``swap`` with the same id and purpose."""
        return self.own / "swap.steps"

    @property
    def swapped(self) -> Path:
        """The same once it counts: what lay there before may go."""
        return self.own / "swapped.json"

    @property
    def missing(self) -> Path:
        """Exists while data are not in their place since a way back was given up; what lies where, as JSON."""
        return self.own / "missing.json"

    @property
    def identity(self) -> Path:
        """What tells this root from others in its backups."""
        return self.own / "id"

    @property
    def forced(self) -> Path:
        """The last forced stop."""
        return self.own / "force-stop"

    @property
    def worker_log(self) -> Path:
        """What a deployment's process has said that was not foreseen."""
        return self.own / "worker.log"

    @property
    def room(self) -> Path:
        """Written, and removed at once, to see whether the disk is full."""
        return self.own / "room"

    @property
    def token(self) -> Path:
        """The API's token, for its owner only."""
        return self.own / "token"

    @property
    def logins(self) -> Path:
        """Login links that can still be used: files named by the digest of their code."""
        return self.own / "logins"

    @property
    def ballast(self) -> Path:
        """A small file that a rollback on a full disk frees first."""
        return self.own / "ballast"


def own_directories(layout: Layout) -> tuple[Path, ...]:
    """Directories that updater writes to; whoever holds the lock finds them there, even after somebody removed some."""
    return (
        layout.own, layout.releases, layout.logs, layout.run, layout.cache, layout.marks, layout.launchers, layout.configurations,
        layout.journal / "closed",
    )  # fmt: skip


class ReleaseFiles:
    """Names inside a release that belong to updater, not to the publisher."""

    ENVIRONMENT = ".venv"
    RECORDS = ".release"
    RECORD = ".release/release.json"
    SUMS = ".release/SHA256SUMS"
    MANIFEST = ".release/manifest"
    BYTECODE = ".release/bytecode"
    LINKS = ".release/links.json"
    SHADOWED = ".release/shadowed"
    UNFINISHED = ".release/unfinished"
    VERSION = "VERSION"
