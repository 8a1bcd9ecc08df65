"""Checks of the data: would the backup succeed, and could it be opened in an emergency?"""

from __future__ import annotations

import shutil
import sqlite3
from datetime import timedelta

from updater import records
from updater.backups import catalogue, dumps, gather, holders, sqlite
from updater.config import Config
from updater.errors import BackupFailed, UpdaterError
from updater.layout import Layout
from updater.preflight import Finding, ok, warning
from updater.preflight.plan import Plan

CHECKED = 64 * 1024**2
"""Bytes up to which a database is checked here already; a larger one is checked on its copy in the backup."""

OLD = timedelta(days=7)


def databases(layout: Layout, config: Config, plan: Plan) -> Finding:
    """Every database can be read, and the small ones are whole."""
    try:
        found = gather.gather(layout, config.backup)
    except BackupFailed as failure:
        return plan.problem(failure.message, failure.advice or "see [backup] in updater.toml")
    locked: list[str] = []
    wrong = [
        f"shared/{gather.shown(path)}: it was a SQLite database in the last backup and is none any more"
        for path in catalogue.no_databases_any_more(layout, found)
    ]
    for it in found.databases:
        shown = f"shared/{gather.shown(it.path)}"
        try:
            problem = sqlite.integrity_in_use(it.place) if it.size <= CHECKED else ""
        except sqlite3.Error:
            locked.append(f"{shown} is {holders.told(it.place)}")
            continue
        except UpdaterError as failure:
            problem = failure.message
        if problem not in ("", "ok"):
            wrong.append(f"{shown}: {problem}")
    if wrong:
        remedy = "go back to an earlier backup (updater backup list), or mend it (sqlite3 FILE '.recover')"
        return plan.problem("; ".join(wrong), remedy)
    if locked:
        remedy = f"end what holds it, or have it keep its transactions short: the backup waits {sqlite.TIMEOUT:g} s for it"
        return warning("; ".join(locked), remedy)
    return ok(
        f"{len(found.databases)} SQLite databases can be backed up" if found.databases else "there are none",
    )


def dump_commands(layout: Layout, config: Config, plan: Plan) -> Finding:
    """The programs that dump other databases and put them back are there; whether they work, only a backup shows."""
    if not config.backup.dumps:
        return ok("none are configured")
    if missing := dumps.missing(layout, config):
        return plan.problem(
            f"not found: {'; '.join(missing)}",
            "install it, or correct [backup.dumps] in updater.toml",
        )
    return ok(f"the commands for {', '.join(config.backup.dumps)} are there")


def last_backup(layout: Layout) -> Finding:
    earlier = catalogue.found(layout)
    if not earlier:
        return ok("there is none yet; each deployment makes one")
    made = records.moment(earlier[-1].manifest.created)
    now = records.now()
    if made and now - made > OLD:
        return ok(f"{earlier[-1].id} is {(now - made).days} days old; this deployment makes another")
    return ok(f"{earlier[-1].id} is there")


def emergency_tools() -> Finding:
    """What a shell needs to open a backup when Python is gone."""
    missing = [name for name in ("tar", "zstd") if shutil.which(name) is None]
    if missing:
        return warning(f"{' and '.join(missing)} missing: a backup could not be opened without Python",
            f"install it: apt-get install {' '.join(missing)} (macOS: brew install {' '.join(missing)})",
        )  # fmt: skip
    return ok("tar and zstd are there to open a backup without Python")
