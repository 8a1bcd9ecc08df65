"""Checks of releases: the one in service, the one to come, and what builds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from updater import environments
from updater.backups import sqlite
from updater.config import Config
from updater.errors import ReleaseChanged
from updater.layout import Layout
from updater.preflight import Finding, failed, ok, warning
from updater.preflight.plan import Plan
from updater.releases import marks, service, store, verification

SHOWN = 5
"""Paths that are named one by one."""


def in_service(layout: Layout, plan: Plan) -> Finding:
    """The release to come back to must be whole before anything starts (F42). Where something else is the way out, it
    must not bar that."""
    here = service.in_service(layout)
    if here.kind != "release" or here.version is None:
        return ok("nothing is in service that could be lost")
    release = store.read(layout.release(here.version))
    if release is None:
        return warning(f"{here.version} was not installed by updater: it cannot be verified",
            "nothing, if you put it there; a release that updater installs is verified before each swap",
        )  # fmt: skip
    if problem := environments.problem_of(release.path, release.record.environment):
        text, remedy = f"{here.version}: {problem}", f"repair it: updater fetch --rebuild {here.version}"
        if plan.kind == "deploy" and not plan.force and plan.target != here.version:
            return failed(text, remedy)
        return warning(text, remedy)
    if plan.thorough and (edits := _edits(layout, release)):
        return warning(
            f"{here.version} was edited by hand: {edits}; a new release does not have these edits",
            f"bring them into the application's repository; what was published: updater diff {here.version}",
        )
    return ok(f"{here.version} can be started again")


def _edits(layout: Layout, release: store.Release) -> str:
    """The paths that are not as they were published; empty if there are none."""
    try:
        found = [it.path for it in verification.differences(layout, release)]
    except ReleaseChanged as failure:
        return failure.message
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def databases_inside(layout: Layout, plan: Plan) -> Finding:
    """A database that the application has made inside a release would stay behind with it (F27)."""
    here = service.in_service(layout).release
    release = store.read(layout.release(here)) if here else None
    if release is None:
        return ok("nothing is in service")
    try:
        published = {entry.path for entry in verification.manifest_of(release).entries}
    except ReleaseChanged:
        return ok("what was published is not known")  # another check says so
    inside = sorted(
        it for it in _files(release.path) if it not in published and sqlite.is_database(release.path / it)
    )
    if not inside:
        return ok("no database lies inside the release in service")
    first = inside[0]
    return plan.problem(
        f"{here} holds {len(inside)} SQLite database{'s' if len(inside) > 1 else ''} of its own ({', '.join(inside[:SHOWN])}): "
        "the next release would begin without",
        f"stop the application, move it (mv releases/{here}/{first} shared/data/), and name it below [shared] in updater.toml: "
        f'"{first}" = "data/{PurePosixPath(first).name}"; gone on without: --force',
    )


def _files(release: Path) -> Iterator[str]:
    """Regular files of a release, relative to it; neither its environment nor updater's own."""
    for directory, below, names in os.walk(release):
        if directory == str(release):
            below[:] = [it for it in below if it not in verification.OURS]
        for name in names:
            yield os.path.relpath(os.path.join(directory, name), release)


def way_back(layout: Layout, plan: Plan) -> Finding:
    here = service.in_service(layout)
    found = marks.read(layout)
    installed = [release.version for release in store.installed(layout)]
    back = here.version if here.kind == "release" else marks.rollback_target(found, plan.target, installed)
    if back is None:
        return ok("this is the first release: a failure leaves none in service")
    return ok(f"a failure ends on {back}")


def not_marked_bad(layout: Layout, plan: Plan) -> Finding:
    reason = marks.read(layout).bad.get(plan.target or "")
    if reason is None:
        return ok(f"{plan.target} is not marked bad")
    text = f"{plan.target} is marked bad{f': {reason}' if reason else ''}"
    if plan.force:
        return warning(text, "nothing: --force was given")
    return failed(text, f"publish a mended release under a new tag, or try this one again: {plan.forced}")


def target_environment(layout: Layout, target: str) -> Finding:
    release = store.read(layout.release(target))
    if release is None:
        return failed(f"{target} is not whole", f"install it anew: updater fetch {target}")
    if problem := environments.problem_of(release.path, release.record.environment):
        return failed(f"{target}: {problem}", f"repair it first: updater fetch --rebuild {target}")
    if edit := environments.edit_of(release.path, release.record.environment):
        return warning(f"{target}: {edit}", f"build it as published: updater fetch --rebuild {target}")
    return ok(f"the environment of {target} is ready")


def build_tool(config: Config) -> Finding:
    """What builds environments, and a Python of the wanted version."""
    from updater.environments import tools

    tool = tools.describe_tool(config.environment)
    wanted = config.environment.python
    if wanted is None:
        return ok(f"environments are built with {tool}")
    return ok(f"environments are built with {tool} for Python {tools.choose_python(wanted, None).text}")
