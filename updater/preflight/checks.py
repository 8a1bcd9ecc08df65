"""The checks themselves. Each looks at one thing and says what to do if it is not right."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from updater import durable, environments
from updater.config import Config
from updater.errors import UpdaterError
from updater.layout import Layout
from updater.preflight import Check, data, failed, ok, warning
from updater.preflight.plan import Plan
from updater.releases import marks, service, store

RESERVE = 64 * 1024**2
"""Bytes that must stay free beyond what the deployment needs."""

UNPACKED_PER_BYTE = 6
"""A cautious guess: a source tarball unpacks to some five times its size."""

FIRST_ENVIRONMENT = 150 * 1024**2
"""Bytes a first environment is guessed to need; later ones are guessed from the present one."""


def all_checks(layout: Layout, config: Config, plan: Plan) -> list[Callable[[], Check]]:
    """Every check for a deployment, in the order in which they are shown."""
    checks: list[Callable[[], Check]] = [
        functools.partial(root_is_writable, layout),
        functools.partial(current_is_a_link, layout),
        functools.partial(enough_space, layout, plan),
        functools.partial(enough_inodes, layout),
        functools.partial(marks_are_links, layout),
        functools.partial(release_in_service, layout, plan),
        functools.partial(way_back, layout, plan),
    ]
    if plan.kind != "fetch":
        checks += [
            functools.partial(data.databases, layout, config, plan),
            functools.partial(data.dump_commands, layout, config, plan),
            functools.partial(data.backup_space, layout, config, plan),
            functools.partial(data.last_backup, layout),
            data.emergency_tools,
            functools.partial(data.readable_by_us, layout),
            functools.partial(data.may_be_interrupted, layout, config, plan),
            functools.partial(data.healthy_now, layout, config),
        ]
    if plan.target:
        checks.append(functools.partial(not_marked_bad, layout, plan))
    if plan.rebuild:
        checks.append(functools.partial(build_tool, config))  # it mends what the other check would refuse
    elif plan.target and plan.installed:
        checks.append(functools.partial(target_environment, layout, plan.target))
    else:
        checks.append(functools.partial(build_tool, config))
    return checks


def root_is_writable(layout: Layout) -> Check:
    for directory in (layout.root, layout.releases, layout.own, layout.logs):
        if not directory.is_dir():
            return failed(
                "root", f"{directory} is missing", f"make the root whole: updater init {layout.root}"
            )
        probe = directory / durable.temporary_name("preflight")
        try:
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as failure:
            return failed(
                "root", f"{directory} cannot be written: {failure.strerror}",
                "run updater as the user that owns the root, and see that the filesystem is mounted read-write",
            )  # fmt: skip
    return ok("root", f"{layout.root} is complete and writable")


def current_is_a_link(layout: Layout) -> Check:
    here = service.in_service(layout)
    if here.problem:
        return failed(
            "current",
            here.problem,
            f"look at what {layout.current} is, and move it away: mv current current.aside",
        )
    if here.kind == "dangling":
        return warning(
            "current", f"`current` names {here.version}, which is not there any more",
            "this deployment mends it; should it fail, put an installed release into service with `updater activate`",
        )  # fmt: skip
    if here.kind == "none":
        return ok("current", "no release is in service yet")
    if os.path.isabs(here.target):
        return warning("current", "`current` is an absolute link", "this deployment makes it relative")
    return ok("current", f"{here.version} is in service")


def enough_space(layout: Layout, plan: Plan) -> Check:
    needed = space_needed(layout, plan)
    free = shutil.disk_usage(layout.releases).free
    text = f"{_mb(free)} free, {_mb(needed)} needed on the filesystem of releases/"
    if free < needed and plan.installed and not plan.rebuild:
        return warning("space", text, "nothing: going to a release that is installed needs none")
    if free < needed:
        return failed(
            "space", text, "remove old releases (`updater prune`) or old logs, or give the disk more room"
        )
    return ok("space", text)


def space_needed(layout: Layout, plan: Plan) -> int:
    """Bytes a deployment may need at most: download, tree, environment and a reserve."""
    if plan.installed and not plan.rebuild:
        return RESERVE // 4
    artifact = plan.artifact_size or 20 * 1024**2
    here = service.in_service(layout)
    present = layout.release(here.version) / ".venv" if here.kind == "release" and here.version else None
    environment = _size_of(present) if present and present.is_dir() else FIRST_ENVIRONMENT
    return artifact * (1 + UNPACKED_PER_BYTE) + environment + RESERVE


def _size_of(tree: Path) -> int:
    total = 0
    for directory, _, names in os.walk(tree):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total


def marks_are_links(layout: Layout) -> Check:
    """A directory at ``.updater/good`` (a copy without symlinks) would fail the commit, after the outage."""
    for link in (layout.good, layout.previous):
        if os.path.lexists(link) and not link.is_symlink():
            return failed("records", f"{link} is not a symlink", f"move it away: mv {link} {link}.aside")
    return ok("records", "good and previous are as updater made them")


def enough_inodes(layout: Layout) -> Check:
    found = os.statvfs(layout.releases)
    if found.f_files == 0:
        return ok("inodes", "this filesystem makes inodes as it needs them")
    if found.f_favail < 20_000:
        return failed(
            "inodes", f"only {found.f_favail} inodes are free on the filesystem of releases/",
            "remove old releases (`updater prune`) or directories with very many small files",
        )  # fmt: skip
    return ok("inodes", f"{found.f_favail} inodes free")


def release_in_service(layout: Layout, plan: Plan) -> Check:
    """The release to come back to must be whole before anything starts (F42). Where something else is the way out, it
    must not bar that."""
    here = service.in_service(layout)
    if here.kind != "release" or here.version is None:
        return ok("way back", "nothing is in service that could be lost")
    release = store.read(layout.release(here.version))
    if release is None:
        return warning(
            "release in service", f"{here.version} was not installed by updater: it cannot be verified",
            "nothing, if you put it there; a release that updater installs is verified before each swap",
        )  # fmt: skip
    if problem := environments.problem_of(release.path, release.record.environment):
        text, remedy = f"{here.version}: {problem}", f"repair it: updater fetch --rebuild {here.version}"
        if plan.kind == "deploy" and not plan.force and plan.target != here.version:
            return failed("release in service", text, remedy)
        return warning("release in service", text, remedy)
    return ok("release in service", f"{here.version} can be started again")


def way_back(layout: Layout, plan: Plan) -> Check:
    here = service.in_service(layout)
    found = marks.read(layout)
    installed = [release.version for release in store.installed(layout)]
    back = here.version if here.kind == "release" else marks.rollback_target(found, plan.target, installed)
    if back is None:
        return ok("rollback", "this is the first release: a failure leaves none in service")
    return ok("rollback", f"a failure ends on {back}")


def not_marked_bad(layout: Layout, plan: Plan) -> Check:
    reason = marks.read(layout).bad.get(plan.target or "")
    if reason is None:
        return ok("marks", f"{plan.target} is not marked bad")
    text = f"{plan.target} is marked bad{f': {reason}' if reason else ''}"
    if plan.force:
        return warning("marks", text, "nothing: --force was given")
    return failed(
        "marks", text, "publish a mended release under a new tag, or try this one again with --force"
    )


def target_environment(layout: Layout, target: str) -> Check:
    release = store.read(layout.release(target))
    if release is None:
        return failed("environment", f"{target} is not whole", f"install it anew: updater fetch {target}")
    if problem := environments.problem_of(release.path, release.record.environment):
        return failed(
            "environment", f"{target}: {problem}", f"repair it first: updater fetch --rebuild {target}"
        )
    if edit := environments.edit_of(release.path, release.record.environment):
        return warning(
            "environment", f"{target}: {edit}", f"build it as published: updater fetch --rebuild {target}"
        )
    return ok("environment", f"the environment of {target} is ready")


def build_tool(config: Config) -> Check:
    try:
        return ok(
            "environment", f"environments are built with {environments.describe_tool(config.environment)}"
        )
    except UpdaterError as failure:
        return failed("environment", failure.message, failure.advice or "install it")


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
