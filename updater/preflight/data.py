"""Checks of the data: would the backup succeed, and could it be opened in an emergency?"""

from __future__ import annotations

import shlex
import shutil
import sqlite3
from datetime import timedelta

from updater import emergency, records
from updater.backups import catalogue, dumps, gather, holders, sqlite
from updater.config import Config
from updater.deployment import missing
from updater.errors import BackupFailed, UpdaterError
from updater.layout import Layout
from updater.preflight import Finding, ok, warning
from updater.preflight.plan import Plan

CHECKED = 64 * 1024**2
"""Bytes up to which a database is checked here already; a larger one is checked on its copy in the backup."""

OLD = timedelta(days=7)


def in_place(layout: Layout, plan: Plan) -> Finding:
    """Nothing is missing that a way back could not put back."""
    if lost := missing.told(layout):
        return plan.problem("; ".join(lost), missing.way_out(layout))
    return ok("nothing is missing since a way back was given up")


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


TOOLS = (
    (("tar",), "tar", "a backup could not be opened without Python"),
    (("zstd",), "zstd", "a backup could not be opened without Python"),
    (("sha256sum", "shasum"), "coreutils", "damage could not be told without Python"),
    (("flock", "perl"), "util-linux", "a script could not hold the lock against updater"),
)
"""What the emergency scripts need: one of these programs, what to install for it, what cannot be done without."""


def without_python(layout: Layout, plan: Plan) -> Finding:
    """What a shell needs when Python is gone: its tools, and the scripts as they come with this updater."""
    lacking = [it for it in TOOLS if not any(map(shutil.which, it[0]))]
    told = [f"{' and '.join(' or '.join(it[0]) for it in lacking if it[2] == why)} missing: {why}"
        for why in dict.fromkeys(it[2] for it in lacking)]  # fmt: skip
    remedies = []
    if lacking:
        packages = " ".join(it[1] for it in lacking)
        remedies.append(f"install it: apt-get install {packages} (macOS: brew install {packages})")
    if scripts := _scripts_behind(layout, plan):
        told.append(scripts)
        remedies.append(f"bring them up to date: updater init {shlex.quote(str(layout.root))}")
    if told:
        return warning("; ".join(told), "; ".join(remedies))
    return ok("the emergency scripts are there, and all that they need")


def _scripts_behind(layout: Layout, plan: Plan) -> str | None:
    """Which of the emergency scripts are missing, or are not those of this updater; those a deployment brings up to date itself."""
    names = emergency.lacking(layout)
    missing = [it for it in names if not (layout.scripts / it).is_file()]
    other = [it for it in names if it not in missing]
    told = []
    if missing:
        told.append(f"missing in scripts/: {', '.join(missing)}")
    if other and plan.thorough:
        told.append(f"not as they come with this updater: {', '.join(f'scripts/{it}' for it in other)}")
    return "; ".join(told) or None
