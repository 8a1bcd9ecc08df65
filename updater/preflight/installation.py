"""Checks of the root: is it complete, may it be written, is what lies there what updater made?"""

from __future__ import annotations

import os

from updater import durable
from updater import hold as holding
from updater.config import Config
from updater.layout import Layout
from updater.preflight import Finding, failed, ok, warning
from updater.preflight.plan import Plan
from updater.releases import service


def writable(layout: Layout, plan: Plan) -> Finding:
    """Every place that a deployment writes to. A way back can do without some of them."""
    needed = (layout.root, layout.releases, layout.own, layout.logs)
    made = (
        layout.shared, layout.backups, layout.journal, layout.journal / "closed", layout.marks, layout.run,
        layout.cache, layout.launchers, layout.configurations, layout.bound_settings,
    )  # fmt: skip
    if gone := next((it for it in needed if not it.is_dir()), None):
        return failed(f"{gone} is missing", f"make the root whole: updater init {layout.root}")
    for directory in (*needed, *(it for it in made if os.path.lexists(it))):
        probe = directory / durable.temporary_name("preflight")
        try:
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as failure:
            return (failed if directory in needed else plan.problem)(
                f"{directory} cannot be written: {failure.strerror}",
                "run updater as the user that owns the root, and see that the filesystem is mounted read-write",
            )
    return ok(f"{layout.root} is complete and writable")


def user(layout: Layout) -> Finding:
    """Backups of what another user owns may come out as ours."""
    owner = layout.root.stat().st_uid
    if os.geteuid() not in (0, owner):
        return warning(
            "updater runs as another user than the root's owner",
            f"run it as that user: sudo -u '#{owner}' updater …",
        )
    return ok("updater runs as the root's owner" if os.geteuid() == owner else "updater runs as root")


def current(layout: Layout) -> Finding:
    here = service.in_service(layout)
    if here.problem:
        return failed(
            here.problem, f"look at what {layout.current} is, and move it away: mv current current.aside"
        )
    if here.kind == "dangling":
        return warning(
            f"`current` names {here.version}, which is not there any more",
            "this deployment mends it; should it fail, put an installed release into service with `updater activate VERSION`",
        )
    if here.kind == "none":
        return ok("no release is in service yet")
    if os.path.isabs(here.target):
        return warning("`current` is an absolute link", "this deployment makes it relative")
    return ok(f"{here.version} is in service")


def records(layout: Layout) -> Finding:
    """A directory at ``.updater/good`` (a copy without symlinks) would fail the commit, after the outage."""
    for link in (layout.good, layout.previous):
        if os.path.lexists(link) and not link.is_symlink():
            return failed(f"{link} is not a symlink", f"move it away: mv {link} {link}.aside")
    return ok("good and previous are as updater made them")


def hold(layout: Layout, plan: Plan) -> Finding:
    """Somebody wants nothing new in service; no flag passes that. A way back is not barred."""
    found = holding.read(layout)
    if found is None:
        return ok("nobody holds updates")
    remedy = "ask who holds them; lift it with `updater release-hold`"
    return (warning if plan.kind == "rollback" else failed)(found.describe(), remedy)


def messages(config: Config) -> Finding:
    """Whether messages can be sent; without them everything else goes on as it does."""
    from updater import notifications

    urls, problems = notifications.targets(config.notify)
    if urls and not notifications.installed():
        problems.append("the library apprise is not installed, so nobody is told of anything")
        return warning(f"notify: {'; '.join(problems)}", f"install it beside updater: {notifications.REMEDY}")
    if problems or not urls:
        return warning(
            f"notify: {'; '.join(problems) or 'no address'}",
            "correct [notify] in updater.toml; `updater notify-test` tries it",
        )
    return ok(f"messages go to {len(urls)} address{'es' if len(urls) > 1 else ''}")
