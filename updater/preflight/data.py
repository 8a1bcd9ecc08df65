"""Checks around the data and the application: would the backup succeed, may it be interrupted, is it well now?"""

from __future__ import annotations

import os
import shutil
from datetime import timedelta

from updater import records
from updater.backups import catalogue, dumps, gather, sqlite
from updater.config import Config
from updater.errors import BackupFailed, UpdaterError
from updater.layout import Layout
from updater.preflight import Check, failed, ok, warning
from updater.preflight.plan import Plan
from updater.releases import service

CHECKED = 64 * 1024**2
"""Bytes up to which a database is checked here already; a larger one is checked on its copy in the backup."""

OLD = timedelta(days=7)


def databases(layout: Layout, config: Config, plan: Plan) -> Check:
    """Every database can be read, and the small ones are whole."""
    try:
        found = gather.gather(layout, config.backup)
    except BackupFailed as failure:
        make = warning if plan.force or plan.kind == "rollback" else failed
        return make("databases", failure.message, failure.advice or "see [backup] in updater.toml")
    wrong = []
    for it in found.databases:
        try:
            problem = sqlite.integrity_in_use(it.place) if it.size <= CHECKED else ""
        except UpdaterError as failure:
            problem = failure.message
        if problem not in ("", "ok"):
            wrong.append(f"shared/{gather.shown(it.path)}: {problem}")
    if wrong:
        remedy = "go back to an earlier backup (updater backup list), or mend it (sqlite3 FILE '.recover')"
        make = warning if plan.force or plan.kind == "rollback" else failed
        return make("databases", "; ".join(wrong), remedy)
    return ok(
        "databases",
        f"{len(found.databases)} SQLite databases can be backed up" if found.databases else "there are none",
    )


def backup_space(layout: Layout, config: Config, plan: Plan) -> Check:
    """Room for the copies of the databases and the dumps, and for a whole backup if the latest cannot be built upon. A dump is
    taken to be as large as its last one."""
    try:
        found = gather.gather(layout, config.backup)
    except BackupFailed as failure:
        return warning("backup", failure.message, failure.advice or "see [backup] in updater.toml")
    earlier = catalogue.found(layout)
    last = earlier[-1].manifest.dumps if earlier else ()
    dumped = sum(it.size for it in last if it.name in config.backup.dumps)
    copies = sum(it.size for it in found.databases) + dumped
    everything = sum(min(it.size, it.allocated) for part in found.parts.values() for it in part) + dumped
    needed = copies + (everything // 4 if earlier else everything * 3 // 4)
    place = layout.backups if layout.backups.is_dir() else layout.shared
    free = shutil.disk_usage(place).free
    text = f"{free / 1e6:,.0f} MB free, {needed / 1e6:,.0f} MB needed for the backup of {everything / 1e6:,.0f} MB"
    if free < needed:
        make = warning if plan.force or plan.kind == "rollback" else failed
        return make("backup", text, "remove old backups (`updater backup prune`), old logs or old releases")
    return ok("backup", text)


def dump_commands(layout: Layout, config: Config, plan: Plan) -> Check:
    """The programs that dump other databases and put them back are there; whether they work, only a backup shows."""
    if not config.backup.dumps:
        return ok("dumps", "none are configured")
    if missing := dumps.missing(layout, config):
        make = warning if plan.force or plan.kind == "rollback" else failed
        return make(
            "dumps",
            f"not found: {'; '.join(missing)}",
            "install it, or correct [backup.dumps] in updater.toml",
        )
    return ok("dumps", f"the commands for {', '.join(config.backup.dumps)} are there")


def last_backup(layout: Layout) -> Check:
    earlier = catalogue.found(layout)
    if not earlier:
        return ok("last backup", "there is none yet; each deployment makes one")
    made = records.moment(earlier[-1].manifest.created)
    now = records.now()
    if made and made > now + timedelta(minutes=5):
        return warning(
            "clock", f"{earlier[-1].id} is from the future: the clock is wrong now, or was then",
            "set the clock (timedatectl set-ntp true); certificates and logs depend on it",
        )  # fmt: skip
    if made and now - made > OLD:
        return ok(
            "last backup", f"{earlier[-1].id} is {(now - made).days} days old; this deployment makes another"
        )
    return ok("last backup", f"{earlier[-1].id} is there")


def emergency_tools() -> Check:
    """What a shell needs to open a backup when Python is gone."""
    missing = [name for name in ("tar", "zstd") if shutil.which(name) is None]
    if missing:
        return warning(
            "emergency", f"{' and '.join(missing)} missing: a backup could not be opened without Python",
            f"install it: apt-get install {' '.join(missing)} (macOS: brew install {' '.join(missing)})",
        )  # fmt: skip
    return ok("emergency", "tar and zstd are there to open a backup without Python")


def may_be_interrupted(layout: Layout, config: Config, plan: Plan) -> Check:
    """The gate, asked now; what counts is the answer at the moment."""
    from updater import gate

    here = service.in_service(layout).release
    if not config.gate.asks or here is None:
        return ok("gate", "nothing is asked")
    answer = gate.ask(layout, config, here)
    if answer.free:
        return ok("gate", answer.reason)
    waits = config.gate.on_busy == "wait"
    remedy = "nothing: the deployment waits" if waits else "wait until it is free, or --force"
    return warning("gate", f"busy: {answer.reason}", "nothing: --force was given" if plan.force else remedy)


def healthy_now(layout: Layout, config: Config) -> Check:
    """What is not well now is no base to come back to."""
    from updater import health
    from updater.processes import state

    here = service.in_service(layout).release
    running = [it.name for it in state.running(layout) if it.release == here and it.name in config.processes]
    if here is None or not running:
        return ok("health", "nothing runs")
    ill = [it for it in health.ask_all(layout, config, here, running) if it.decides and not it.answer.ok]
    if ill:
        return warning(
            "health", f"{here} is not healthy now: {ill[0].process}: {ill[0].answer.summary}",
            "see `updater health`; a failed deployment would come back to that",
        )  # fmt: skip
    return ok("health", f"{', '.join(running)} of {here} healthy")


def readable_by_us(layout: Layout) -> Check:
    """Backups of what another user owns may come out as ours."""
    owner = layout.root.stat().st_uid
    if os.geteuid() not in (0, owner):
        return warning(
            "user", "updater runs as another user than the root's owner",
            f"run it as that user: sudo -u '#{owner}' updater …",
        )  # fmt: skip
    return ok("user", "updater runs as the root's owner" if os.geteuid() == owner else "updater runs as root")
