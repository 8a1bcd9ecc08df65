"""The endpoints of the REST API (design page, section 8): one table, each entry the face of one verb of :mod:`updater.operations`.

The server routes by it and the OpenAPI document is made from it, so neither can differ from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from updater import errors, operations
from updater.deployment.transaction import Request
from updater.errors import UpdaterError
from updater.layout import Layout
from updater.operations import Root, deploying, looking
from updater.web import models

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One request that was let in: who asks (``user``, ``origin``), and for what."""

    place: Layout
    user: str
    origin: str
    asked: Any
    """The body or the query string, as the endpoint's type."""

    def root(self) -> Root:
        """The root, whatever is wrong with ``updater.toml``."""
        return operations.open_root(self.place.root, tolerant=True)

    def strict_root(self) -> Root:
        """The root; for what looks for new releases or throws away old ones.

        Raises:
            ConfigError: ``updater.toml`` is wrong.
        """
        return operations.open_root(self.place.root)


@dataclass(frozen=True)
class Endpoint:
    """``takes``: the type of the body, or with GET of the query string; ``gives``: that of the answer, which is sent with ``status``.
    ``fails``: the errors that a client should expect."""

    method: str
    path: str
    does: str
    act: Callable[[Call], Any]
    takes: type
    gives: type
    status: int = 200
    fails: Sequence[type[UpdaterError]] = ()
    example: Json = field(default_factory=dict)
    waits: bool = True
    """For the source, for probes, for the lock, for a long read: then it must not keep those waiting who only look."""


_TAKEN_OVER = ("force", "replace", "rebuild", "restore_data", "keep_config", "reason")
"""What a body and a request call by the same name."""


def _launch(call: Call, kind: str, wanted: str | None, **more: Any) -> Json:
    same = {name: getattr(call.asked, name) for name in _TAKEN_OVER if hasattr(call.asked, name)}
    request = Request(kind, wanted, origin=call.origin, user=call.user, **same, **more)
    root = call.root() if request.goes_back else call.strict_root()
    deployment = deploying.launch(root.layout, request)
    deployment.close()
    return {"id": deployment.id, "recovered": deployment.recovered}


def check(call: Call) -> Json:
    from updater.operations import scheduling

    return scheduling.ask(call.strict_root())


def preflight(call: Call) -> Json:
    from updater.operations import planning

    asked: models.PreflightQuery = call.asked
    return planning.preflight(call.strict_root(), Request("deploy", asked.tag), offline=asked.offline)


def start(call: Call) -> Json:
    return _launch(call, "deploy", call.asked.tag)


def fetch(call: Call) -> Json:
    return _launch(call, "fetch", call.asked.tag)


def rollback(call: Call) -> Json:
    return _launch(call, "rollback", call.asked.to)


def activate(call: Call) -> Json:
    return _launch(call, "activate", call.asked.version)


def restore(call: Call) -> Json:
    from updater.operations import backing

    asked: models.Restore = call.asked
    found = backing.restorable(call.root(), asked.id, asked.parts)
    return _launch(call, "restore", found["id"], parts=tuple(asked.parts))


def progress(call: Call) -> Json:
    operations.find_root(call.place.root)
    found = looking.progress(call.place)
    return {"deployment": found, "last_event": found and f"{found['id']}:{found['seq']}"}


def cancel(call: Call) -> Json:
    return {"id": deploying.ask_to_cancel(call.root().layout)[1]}


def history(call: Call) -> Json:
    root, asked = call.root(), call.asked
    return {"deployments": looking.history(root, limit=asked.limit), "damaged": looking.damaged_history(root)}


def releases(call: Call) -> Json:
    return {"releases": looking.releases(call.root())}


def diff(call: Call) -> Json:
    return looking.diff(call.root(), call.asked.version)


def verify(call: Call) -> Json:
    from updater.operations import keeping

    return {"reports": keeping.verify(call.root(), call.asked.version, everything=call.asked.all)}


def pin(call: Call) -> Json:
    from updater.operations import keeping

    return {"version": keeping.pin(call.root(), call.asked.version, call.asked.reason)}


def unpin(call: Call) -> Json:
    from updater.operations import keeping

    return {"version": keeping.unpin(call.root(), call.asked.version)}


def mark_bad(call: Call) -> Json:
    from updater.operations import keeping

    return {"version": keeping.mark_bad(call.root(), call.asked.version, call.asked.reason)}


def prune(call: Call) -> Json:
    from updater.operations import keeping

    return {"removed": keeping.prune(call.strict_root(), call.asked.keep)}


def hold(call: Call) -> Json:
    from updater.operations import keeping

    return keeping.hold(call.root(), call.asked.reason, call.user)


def release_hold(call: Call) -> Json:
    from updater.operations import keeping

    return keeping.release_hold(call.root(), call.user)


def status(call: Call) -> Json:
    return looking.status(operations.find_root(call.place.root))


def health(call: Call) -> Json:
    from updater.operations import running

    return running.ask_health(call.root())


def logs(call: Call) -> Json:
    path = looking.log_file(call.root(), call.asked.process)
    return {
        "file": str(path.relative_to(call.place.root)),
        "lines": looking.tail(path, call.asked.lines)[0],
    }


def start_processes(call: Call) -> Json:
    from updater.operations import running

    warnings: list[str] = []
    return {
        "processes": running.start(call.root(), call.asked.processes, warn=warnings.append),
        "warnings": warnings,
    }


def stop_processes(call: Call) -> Json:
    from updater.operations import running

    warnings: list[str] = []
    return {
        "stopped": running.stop(call.root(), call.asked.processes, warn=warnings.append),
        "warnings": warnings,
    }


def restart_processes(call: Call) -> Json:
    from updater.operations import running

    warnings: list[str] = []
    return {
        "processes": running.restart(call.root(), call.asked.processes, warn=warnings.append),
        "warnings": warnings,
    }


def force_stop(call: Call) -> Json:
    from updater.operations import running

    warnings: list[str] = []
    return {"killed": running.force_stop(call.root(), warn=warnings.append), "warnings": warnings}


def unlock(call: Call) -> Json:
    return {"recovered": deploying.unlock(call.root())}


def recover(call: Call) -> Json:
    return {"recovered": deploying.recover(call.root())}


def backups(call: Call) -> Json:
    from updater.operations import backing

    return {"backups": backing.listing(call.root())}


def create_backup(call: Call) -> Json:
    from updater.operations import backing

    return backing.create(call.root(), label=call.asked.label, force=call.asked.force)


def verify_backup(call: Call) -> Json:
    from updater.operations import backing

    return {"reports": backing.verify(call.root(), call.asked.id, everything=call.asked.all)}


def prune_backups(call: Call) -> Json:
    from updater.operations import backing

    return {"removed": backing.prune(call.strict_root(), call.asked.keep)}


_LOCKED = (errors.LockHeld, errors.RollbackFailed, errors.ConfigError)
_DEPLOYS = (*_LOCKED, errors.PreflightFailed)
_SOURCE = (errors.ConfigError, errors.SourceFailed, errors.RateLimited)
_STARTS = (*_LOCKED, errors.NotFound, errors.HealthFailed, errors.ProcessFailed)

ENDPOINTS = (
    Endpoint("GET", "/api/update/check", "Is there a newer release?", check, models.Nothing, models.Checked, fails=(*_SOURCE, errors.ReleaseNotFound)),
    Endpoint("GET", "/api/update/preflight", "Run every check; read-only.", preflight, models.PreflightQuery, models.Preflight, fails=(errors.ConfigError,)),
    Endpoint("POST", "/api/update/start", "Put a release into service, or leave everything as it was. Answers at once.", start, models.Start, models.Accepted, 202, _DEPLOYS, {"tag": "v1.4.0"}),
    Endpoint("GET", "/api/update/progress", "Where the running deployment stands, else how the last one ended.", progress, models.Nothing, models.Progress, waits=False),
    Endpoint("POST", "/api/update/cancel", "Ask the running deployment to stop; everything it did is undone. Answers at once.", cancel, models.Nothing, models.Asked, 202, (errors.UsageError,)),
    Endpoint("POST", "/api/update/rollback", "Go back to the previous good release. Answers at once.", rollback, models.Rollback, models.Accepted, 202, _DEPLOYS, {"reason": "prices are wrong"}),
    Endpoint("GET", "/api/update/history", "Past deployments, newest first.", history, models.HistoryQuery, models.History, waits=False),
    Endpoint("GET", "/api/releases/list", "Installed releases, newest first.", releases, models.Nothing, models.Releases, waits=False),
    Endpoint("POST", "/api/releases/activate", "Put an installed release into service; no network. Answers at once.", activate, models.Activate, models.Accepted, 202, _DEPLOYS, {"version": "v1.3.2"}),
    Endpoint("POST", "/api/releases/fetch", "Install a release without activating it. Answers at once.", fetch, models.Fetch, models.Accepted, 202, _DEPLOYS, {"tag": "v1.4.0"}),
    Endpoint("GET", "/api/releases/diff", "What changes from the release in service to another.", diff, models.DiffQuery, dict, fails=(errors.NotFound, errors.UsageError)),
    Endpoint("POST", "/api/releases/verify", "Re-hash releases against their address.", verify, models.Verify, models.Reports, fails=(errors.NotFound, errors.UsageError), example={"all": True}),
    Endpoint("POST", "/api/releases/pin", "Never prune a release.", pin, models.Release, models.Marked, fails=(*_LOCKED, errors.NotFound), example={"version": "v1.3.2"}),
    Endpoint("POST", "/api/releases/unpin", "Let a release be pruned again.", unpin, models.Release, models.Marked, fails=(*_LOCKED, errors.NotFound), example={"version": "v1.3.2"}),
    Endpoint("POST", "/api/releases/mark-bad", "Never take a release by itself again.", mark_bad, models.Release, models.Marked, fails=_LOCKED, example={"version": "v1.4.0", "reason": "loses orders"}),
    Endpoint("POST", "/api/releases/prune", "Remove old releases.", prune, models.Prune, models.Removed, fails=_LOCKED, example={"keep": 5}),
    Endpoint("GET", "/api/system/status", "What is in service, and does it run?", status, models.Nothing, models.Status, waits=False),
    Endpoint("GET", "/api/system/health", "Ask every probe once.", health, models.Nothing, models.Health, fails=(errors.UsageError, errors.ConfigError)),
    Endpoint("GET", "/api/system/logs", "The end of a log.", logs, models.LogsQuery, models.Logs, fails=(errors.NotFound, errors.PreflightFailed), waits=False),
    Endpoint("POST", "/api/system/start", "Start processes of the release in service.", start_processes, models.Processes, models.Running, fails=_STARTS, example={"processes": ["bot"]}),
    Endpoint("POST", "/api/system/stop", "Stop processes.", stop_processes, models.Processes, models.Stopped, fails=(*_LOCKED, errors.NotFound), example={"processes": ["bot"]}),
    Endpoint("POST", "/api/system/restart", "Stop and start processes.", restart_processes, models.Processes, models.Running, fails=_STARTS, example={"processes": ["bot"]}),
    Endpoint("POST", "/api/system/force-stop", "Kill every managed process at once.", force_stop, models.Nothing, models.Killed, fails=(errors.PreflightFailed,)),
    Endpoint("POST", "/api/system/unlock-update", "End a stuck operation, then recover.", unlock, models.Nothing, models.Recovered, fails=_LOCKED),
    Endpoint("POST", "/api/system/recover", "Bring an interrupted deployment to a safe end.", recover, models.Nothing, models.Recovered, fails=_LOCKED),
    Endpoint("POST", "/api/system/hold", "Let nothing new go into service until the hold is released.", hold, models.Hold, models.Holding, fails=_LOCKED, example={"reason": "holidays"}),
    Endpoint("POST", "/api/system/release-hold", "Let updates go into service again.", release_hold, models.Nothing, models.Released, fails=_LOCKED),
    Endpoint("GET", "/api/backups/list", "The backups, newest first.", backups, models.Nothing, models.Backups, waits=False),
    Endpoint("POST", "/api/backups/create", "Make a backup; it counts once it has been read back.", create_backup, models.CreateBackup, models.Backup, 201, (*_LOCKED, errors.BackupFailed), {"label": "before the audit"}),
    Endpoint("POST", "/api/backups/restore", "Put the data of a backup back in place; the present state is kept first. Answers at once.", restore, models.Restore, models.Accepted, 202, (*_DEPLOYS, errors.NotFound, errors.BackupDamaged), {"id": "latest", "parts": ["data"]}),
    Endpoint("POST", "/api/backups/verify", "Read backups to their end and compare every file.", verify_backup, models.VerifyBackup, models.Reports, fails=(errors.NotFound, errors.BackupDamaged), example={"all": True}),
    Endpoint("POST", "/api/backups/prune", "Remove old backups.", prune_backups, models.Prune, models.Removed, fails=_LOCKED, example={"keep": 5}),
)  # fmt: skip
