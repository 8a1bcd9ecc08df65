"""What a deployment would do, found by the same code that does it, without writing anything (F52)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from updater import preflight as checking
from updater import strangers
from updater.deployment import phases
from updater.deployment.holder import holder
from updater.deployment.phases import resolution
from updater.deployment.transaction import Request
from updater.operations import Root
from updater.preflight import Finding, Look, checks, settings, source
from updater.preflight.plan import Plan
from updater.releases import marks, service

Json = dict[str, Any]


def preflight(root: Root, request: Request, *, offline: bool = False) -> Json:
    """Every check for a deployment, read-only. ``offline``: the source is not asked."""
    known: list[Plan] = []

    def find() -> Finding:
        found = resolution.resolve(root.layout, root.config, request, remember=False)
        known.append(found.plan(request))
        return checking.ok(f"{found.source} has {found.tag or found.version}")

    first: dict[str, Look] = {"lock": partial(_nobody_at_work, root)}
    if not offline:
        first["source"] = find
        if root.config.source.type == "github":
            first["api"] = partial(source.api, root.config.source)
    results = checking.run(first)
    unknown = Plan(None, False, None, force=request.force, forced=request.command("--force"))
    plan = replace(known[0] if known else unknown, thorough=True)
    results += checking.run(checks.all_checks(root.layout, root.config, plan))
    return {
        "target": plan.target,
        "configuration": _configuration(root, plan),
        "checks": [check.as_json() for check in results],
        "ready": all(check.result != "failed" for check in results),
    }


def _configuration(root: Root, plan: Plan) -> Json | None:
    """What would become of the application's settings; None for a release that is not installed yet."""
    if not (plan.target and plan.installed):
        return None
    return settings.changes(root.layout, root.config, plan).report.as_json()


def _nobody_at_work(root: Root) -> Finding:
    found = holder(root.layout)
    if found is None:
        if unknown := strangers.holding(root.layout):
            held = ", ".join(it.describe() for it in unknown)
            return checking.failed(f"this root is locked: {held}", strangers.advice(unknown))
        return checking.ok("no other operation is at work")
    return checking.failed(f"{found.owner.describe()} is at work", "wait for it, or `updater cancel`")


def plan(root: Root, request: Request) -> Json:
    """The phases that a deployment would go through, and every check. Writes nothing.

    Raises:
        SourceFailed, VerificationFailed, UsageError: what the deployment itself would end with.
    """
    layout = root.layout
    found = resolution.resolve(layout, root.config, request, remember=False)
    here = service.in_service(layout).release
    checked = checking.run(checks.all_checks(layout, root.config, found.plan(request)))
    steps = [] if found.nothing else _steps(root, found, here)
    return {
        "from": here,
        "to": found.version,
        "installed": found.installed,
        "summary": found.nothing or f"{found.version} would be put into service; now: {here or 'nothing'}",
        "phases": steps,
        "configuration": _configuration(root, found.plan(request)),
        "preflight": [check.as_json() for check in checked],
        "bad": marks.read(layout).bad.get(found.version),
    }


def _steps(root: Root, found: resolution.Resolved, here: str | None) -> list[Json]:
    names = ", ".join(root.config.processes) or "no processes"
    health = root.config.health
    does = {
        "fetch": f"{found.artifact_name} from {found.source}",
        "verify": "its digest and its tree against what the source published",
        "unpack": f"releases/{found.version}",
        "build": f"releases/{found.version}/.venv",
        "seal": "manifest, flush, seal",
        "gate": "may it be interrupted?",
        "backup": "shared/, read back and matched",
        "drain": "asked once more",
        "stop": names,
        "configure": "new keys into the files in shared/config, or the settings that it last ran with",
        "activate": f"current → releases/{found.version} (now: {here or 'nothing'})",
        "start": names,
        "probe": f"{health.successes} passes in a row within {health.timeout:g} s",
        "watch": f"{health.watch:g} s",
        "commit": f"{found.version} is good; old releases beyond {root.config.keep} go",
    }
    skipped = {"resolve", "preflight"} | (
        {"fetch", "verify", "unpack", "build", "seal"} if found.installed else set()
    )
    wanted = phases.of(Request("deploy"))
    return [{"name": it.name, "does": does.get(it.name, "")} for it in wanted if it.name not in skipped]
