"""Builds an environment: a clone of an earlier one, a clone brought up to date, or a fresh one."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from updater import durable
from updater.config import EnvironmentConfig
from updater.environments import bytecode, inspect, installers, origins, requirements, tools
from updater.environments.listing import listing
from updater.environments.record import EnvironmentRecord
from updater.environments.requirements import Requirements
from updater.environments.tools import Python
from updater.errors import EnvironmentFailed
from updater.layout import ReleaseFiles

NEW = ".release/new/.venv"
"""Where a rebuild builds, if what it builds can be moved: the old environment stays for who runs from it."""
OLD = ".release/venv.old"
"""Where a rebuild puts the environment that it replaces, until the new one is on record."""


@dataclass
class Site:
    """One build: where, what, and how its children are run."""

    release: Path
    config: EnvironmentConfig
    keep_fds: Sequence[int] = ()
    record: Path | None = None
    on_line: Callable[[str], None] | None = None
    check: Callable[[], None] | None = None
    warn: Callable[[str], None] | None = None
    secrets: Sequence[str] = ()
    deadline: float = 0.0
    workplace: Path | None = None
    place: str = ReleaseFiles.ENVIRONMENT

    @property
    def environment(self) -> Path:
        return self.release / self.place

    @property
    def cwd(self) -> Path:
        """Where children run."""
        return self.workplace or self.release

    def env(self) -> dict[str, str]:
        """What children find in their environment."""
        return tools.child_environment(self.secrets)

    def tries(self, command: Sequence[str | os.PathLike[str]]) -> bool:
        """Run an installer that may fail because a better way exists. Returns whether it succeeded."""
        from updater import subprocesses

        done = subprocesses.run(
            command, cwd=self.cwd, env=self.env(), timeout=max(1.0, self.deadline - time.monotonic()),
            keep_fds=self.keep_fds, record=self.record, check=self.check,
        )  # fmt: skip
        return done.status == 0

    def run(self, command: Sequence[str | os.PathLike[str]], what: str) -> str:
        """Run an installer; every exit code counts (F38).

        Raises:
            EnvironmentFailed: it failed; with the end of its own output.
        """
        from updater import subprocesses

        done = subprocesses.run(
            command, cwd=self.cwd, env=self.env(), timeout=max(1.0, self.deadline - time.monotonic()),
            keep_fds=self.keep_fds, record=self.record, on_line=self.on_line, check=self.check,
        )  # fmt: skip
        if done.timed_out:
            raise EnvironmentFailed(
                f"{what} did not end within {self.config.timeout:g} s", details=done.tail().splitlines(),
                advice="raise [environment] timeout, or see what it waits for.",
            )  # fmt: skip
        if done.status != 0:
            raise EnvironmentFailed(
                f"{what} failed with exit code {done.status}",
                details=[f"$ {' '.join(os.fspath(word) for word in command)}", *done.tail().splitlines()],
                advice=_advice(done.output),
            )
        return done.output


def _advice(output: str) -> str | None:
    text = output.lower()
    for words, advice in (
        (("do not match the hashes",), "a download differs from the hash in the requirements: do not go on; ask the publisher."),
        (("hash", "mismatch"), "a download differs from the hash in the requirements: do not go on; ask the publisher."),
        (("no solution found",), "the requirements contradict each other, or ask for a version that does not exist."),
        (("no matching distribution",), "a package or version does not exist for this Python and platform."),
        (("failed to fetch",), "the package index cannot be reached: look at the network and the proxy settings."),
        (("connection",), "the package index cannot be reached: look at the network and the proxy settings."),
        (("gcc",), "a package must be compiled and there is no compiler: install one, or publish wheels with the release."),
        (("error: command 'cc'",), "a package must be compiled and there is no compiler: install one."),
    ):  # fmt: skip
        if all(word in text for word in words):
            return advice
    return None


def build(
    release: Path,
    config: EnvironmentConfig,
    *,
    donors: Sequence[Path] = (),
    keep_fds: Sequence[int] = (),
    record: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    check: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
    secrets: Sequence[str] = (),
) -> EnvironmentRecord:
    """Build ``release/.venv`` from what the release brings.

    ``donors``: other releases, the likeliest first. ``secrets``: variables that no installer gets to see.
    What a kill leaves half-built is removed by the next build.

    Raises:
        EnvironmentFailed: it cannot be built; the release's directory may hold a part of it.
    """
    site = Site(release, config, keep_fds, record, on_line, check, warn, secrets)
    site.deadline = time.monotonic() + config.timeout
    durable.remove_tree(site.environment)
    return _build(site, donors)


def _build(site: Site, donors: Sequence[Path], *, clone: bool = True) -> EnvironmentRecord:
    """``clone``: what is in the donors' environments may be taken over."""
    begun = time.monotonic()
    wanted = requirements.find(site.release, site.config.requirements)
    tool = tools.choose_tool(site.config)
    known = [(donor, found) for donor in donors if (found := _record_of(donor))]
    python = tools.choose_python(site.config.python, wanted.requires_python, _still_there(known))
    fingerprint = _fingerprint(wanted, tool, python)
    cloned = _clone(site, tool, python, fingerprint, known, wanted) if clone else None
    if cloned and not cloned.equal:
        installers.install(site, tool, wanted, stale=cloned.stale)
        if inspect.gap_in(site.release, cloned.place):
            durable.remove_tree(site.environment)
            cloned = None
    if cloned is None:
        installers.create(site, tool, python)
        installers.install(site, tool, wanted, stale=None)
    bytecode.compile_tree(site, donors)
    return EnvironmentRecord(
        tool="venv" if tool == "venv" else "uv",
        tool_version=cloned.record.tool_version if cloned and cloned.equal else _version(tool),
        kind=wanted.kind,
        files=wanted.files,
        python=python.path,
        python_version=python.text,
        interpreter=inspect.stat_of(site.environment / "bin" / "python") or "",
        fingerprint=fingerprint,
        listing=cloned.record.listing if cloned and cloned.equal else listing(site.environment, seal=True),
        packages=cloned.record.packages if cloned and cloned.equal else _packages(site.environment),
        seconds=round(time.monotonic() - begun, 3),
        cloned_from=cloned.place.name if cloned else None,
        origins=wanted.origins,
    )


def _version(tool: str) -> str:
    return platform.python_version() if tool == "venv" else tools.uv_version(tool)


def _record_of(donor: Path) -> EnvironmentRecord | None:
    from updater.records import read_json

    return EnvironmentRecord.from_json((read_json(donor / ReleaseFiles.RECORD) or {}).get("environment"))


def _still_there(known: Sequence[tuple[Path, EnvironmentRecord]]) -> list[Python]:
    """The interpreters of earlier releases that are the same file as then: no release changes its Python by accident."""
    found = []
    for donor, record in known:
        numbers = [int(part) for part in record.python_version.split(".") if part.isdigit()]
        if len(numbers) == 3 and inspect.stat_of(donor / ".venv" / "bin" / "python") == record.interpreter:
            found.append(Python(record.python, (numbers[0], numbers[1], numbers[2])))
    return found


def _fingerprint(wanted: Requirements, tool: str, python: Python) -> str:
    parts = (
        "2", "venv" if tool == "venv" else "uv", python.path, python.text, platform.machine(), wanted.kind,
        str(wanted.project), str(wanted.hashes), str(wanted.wheels), wanted.content,
    )  # fmt: skip
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Cloned:
    """A clone of a donor's environment. ``equal``: nothing remains to be installed. ``stale``: packages that have to be
    installed again, whatever their version."""

    place: Path
    record: EnvironmentRecord
    equal: bool
    stale: tuple[str, ...]


def _clone(
    site: Site,
    tool: str,
    python: Python,
    fingerprint: str,
    known: Sequence[tuple[Path, EnvironmentRecord]],
    wanted: Requirements,
) -> Cloned | None:
    """Clone the best donor by hard links. Only uv's relocatable environments can be moved (F43).

    What is built from the release's own tree has the same name and version whatever is in it: then only an environment
    of the very same tree will do."""
    if tool == "venv":
        return None
    usable = [(path, it) for path, it in known if it.tool == "uv" and it.python == python.path]
    best: tuple[Path, EnvironmentRecord, tuple[str, ...]] | None = next(
        ((path, it, ()) for path, it in usable if it.fingerprint == fingerprint), None
    )
    if best is None and wanted.kind != "none" and not wanted.local:
        best = next(
            (
                (path, it, again)
                for path, it in usable
                if (again := origins.stale(wanted.origins, it.origins, [name for name, _ in it.packages]))
                is not None
            ),
            None,
        )
    if best is None:
        return None
    donor, record, stale = best
    if not _link_tree(donor / ReleaseFiles.ENVIRONMENT, site.environment, record.listing):
        durable.remove_tree(site.environment)
        return None
    return Cloned(donor, record, record.fingerprint == fingerprint, stale)


def _link_tree(source: Path, target: Path, on_record: str) -> bool:
    """Clone a directory by hard links; False if it cannot be, or if it is not what its record says: an environment
    that was edited by hand must never spread."""
    try:
        return listing(source, link_to=target) == on_record
    except OSError:  # another filesystem, too many links, a filesystem without them, no such donor
        return False


def _packages(environment: Path) -> tuple[tuple[str, str], ...]:
    found = set()
    for path in environment.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
        found.add((origins.canonical(name), version))
    return tuple(sorted(found))


def rebuild(
    release: Path,
    config: EnvironmentConfig,
    *,
    donors: Sequence[Path] = (),
    keep_fds: Sequence[int] = (),
    record: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    check: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
    secrets: Sequence[str] = (),
) -> EnvironmentRecord:
    """Build the environment of an installed release anew, beside the old one, which stays, or comes back, if that fails.

    uv's is moved to its place when it is whole, so that the application may run meanwhile; one by ``venv`` cannot be moved (F43).
    Nothing is cloned: what is damaged in this release may be damaged in those that share its files. ``donors`` tell which
    Python they run with. The caller puts the new record on the disk and then calls :func:`restore`, which removes the old environment.

    Raises:
        EnvironmentFailed: it cannot be built; the old one is back.
    """
    here, old = release / ReleaseFiles.ENVIRONMENT, release / OLD
    durable.remove_tree(old)
    site = Site(release, config, keep_fds, record, on_line, check, warn, secrets)
    site.deadline = time.monotonic() + config.timeout
    if tools.choose_tool(config) != "venv":
        site.place = NEW
    try:
        if site.environment == here:
            _put_aside(here, old)
        durable.remove_tree(site.environment.parent if site.place == NEW else here)
        site.environment.parent.mkdir(parents=True, exist_ok=True)
        built = _build(site, donors, clone=False)
        if site.environment != here:
            _put_aside(here, old)
            durable.rename(site.environment, here)
        return built
    except BaseException:
        if old.exists():
            durable.remove_tree(here)
            durable.rename(old, here)
        bytecode.sweep(release)
        raise
    finally:
        durable.remove_tree((release / NEW).parent)


def _put_aside(here: Path, old: Path) -> None:
    if os.path.lexists(here):
        durable.rename(here, old)


def restore(release: Path) -> None:
    """After a rebuild, or one that was killed: keep the environment that is on record, remove the other.

    The new one counts only once its record is on the disk.
    """
    old, new = release / OLD, release / ReleaseFiles.ENVIRONMENT
    durable.remove_tree((release / NEW).parent)
    if not old.exists():
        return
    on_record = _record_of(release)
    if on_record is not None and new.exists() and listing(new) == on_record.listing:
        durable.remove_tree(old)
        return
    durable.remove_tree(new)
    durable.rename(old, new)
    bytecode.sweep(release)
