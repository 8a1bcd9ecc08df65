"""The application's settings: what this deployment would do to them, and what it needs from the user first."""

from __future__ import annotations

from updater.config import Config
from updater.layout import Layout
from updater.preflight import Finding, failed, ok, warning
from updater.preflight.plan import Plan
from updater.releases import service
from updater.settings import changing, report


def changes(layout: Layout, config: Config, plan: Plan) -> changing.Changes:
    """What putting an installed release into service would change in the settings. Reads only."""
    assert plan.target is not None
    move = changing.Move(
        service.in_service(layout).release,
        plan.target,
        add=config.new_keys == "add",
        restore=not plan.keep_config,
    )
    return changing.plan(layout, config.shared, move)


def settings(layout: Layout, config: Config, plan: Plan) -> Finding:
    found = changes(layout, config, plan)
    lacking = found.report.missing
    if lacking:
        commands = "; ".join(it["command"] for it in lacking)
        text = f"{', '.join(it['file'] for it in lacking)} missing"
        remedy = f"in {layout.root}: {commands}; then look through it"
        if any(it["needed"] for it in lacking):
            return failed(text, remedy)
        return warning(text, remedy)
    if found.warnings:
        return warning("; ".join(found.warnings), "correct the file, or compare it by hand")
    said = report.lines(found.report.as_json(), ahead=True)
    if found.report.by_hand or (found.report.offered and config.new_keys == "show"):
        return warning("; ".join(said), "add by hand what the application needs")
    return ok("; ".join(said) or "nothing to change")
