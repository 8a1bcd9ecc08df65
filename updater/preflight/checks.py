"""The list of checks, in the order in which they are shown. Each looks at one thing; what it says stands where it looks."""

from __future__ import annotations

from functools import partial

from updater.config import Config
from updater.layout import Layout
from updater.preflight import Look, application, data, installation, machine, releases, settings, space
from updater.preflight.plan import Plan


def all_checks(layout: Layout, config: Config, plan: Plan) -> dict[str, Look]:
    """Every check for a deployment that needs no network: name -> what looks."""
    needs = space.Needs(layout, config, plan)
    checks: dict[str, Look] = {
        "root": partial(installation.writable, layout, plan),
        "user": partial(installation.user, layout),
        "current": partial(installation.current, layout),
        "records": partial(installation.records, layout),
        "space": needs.bytes,
        "inodes": needs.inodes,
        "clock": partial(machine.clock, layout),
        "release in service": partial(releases.in_service, layout, plan),
        "rollback": partial(releases.way_back, layout, plan),
        "data in releases": partial(releases.databases_inside, layout, plan),
    }
    if plan.kind != "fetch":
        checks |= {
            "hold": partial(installation.hold, layout, plan),
            "data in place": partial(data.in_place, layout, plan),
            "databases": partial(data.databases, layout, config, plan),
            "dumps": partial(data.dump_commands, layout, config, plan),
            "last backup": partial(data.last_backup, layout),
            "emergency": partial(data.without_python, layout, plan),
            "gate": partial(application.may_be_interrupted, layout, config, plan),
            "health": partial(application.healthy, layout, config),
            "ports": partial(application.ports, layout, config, plan),
            "shared files": partial(application.shared_files, layout, config),
            "power": partial(machine.power, plan),
        }
        if config.unit:
            checks["unit"] = partial(machine.unit, config.unit)
        if plan.target and plan.installed:
            checks["settings"] = partial(settings.settings, layout, config, plan)
    if config.notify.configured:
        checks["notify"] = partial(installation.messages, config)
    if plan.thorough or plan.builds:
        checks["memory"] = machine.memory
    if plan.target:
        checks["marks"] = partial(releases.not_marked_bad, layout, plan)
    if plan.target and not plan.builds:
        checks["environment"] = partial(releases.target_environment, layout, plan.target)
    else:
        checks["environment"] = partial(releases.build_tool, config)
    return checks
