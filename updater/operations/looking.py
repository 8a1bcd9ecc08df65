"""Looking: what is in service, what is installed, what happened. Nothing here locks or changes anything (F53)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updater import records
from updater.deployment import journal
from updater.deployment.holder import holder
from updater.errors import UsageError
from updater.layout import Layout
from updater.processes import family, state
from updater.processes.family import Marked
from updater.releases import service

if TYPE_CHECKING:
    from updater.operations import Root

Json = dict[str, Any]


def status(layout: Layout) -> Json:
    """Everything a person asks first; read from the link, the pid files and the journal at this moment.

    It needs no configuration that is right: a typing error must not hide what runs. What is wrong with the file is in
    ``configuration``.
    """
    name, processes, wrong = _configured(layout)
    here = service.in_service(layout)
    good, previous = service.named_by(layout, layout.good), service.named_by(layout, layout.previous)
    running = deployment_now(layout)
    last = next(
        (it for it in reversed(records.history(layout)) if it.get("outcome") != "nothing-to-do"), None
    )
    found = [it.as_json() for it in state.status(layout, processes)]
    marked = family.marked(layout)
    lost = {it.name: it.as_status() for it in state.strays(layout, marked)}
    found = [lost[it["name"]].as_json() if it["name"] in lost else it for it in found]
    found += [it.as_json() for name, it in lost.items() if name not in processes]
    left = state.leftovers(layout, marked)
    return {
        "name": name,
        "root": str(layout.root),
        "in_service": {"version": here.version, "kind": here.kind, "target": here.target},
        "good": good,
        "previous": previous,
        "by_hand": here.kind == "release" and good is not None and here.version != good and running is None,
        "processes": found,
        "leftovers": [{"name": it.name, "pid": it.row.pid, "release": it.release} for it in left],
        "deployment": running,
        "last": last
        and {
            key: last.get(key) for key in ("id", "kind", "outcome", "from", "to", "wanted", "ended", "error")
        },
        "configuration": wrong,
        "advice": [
            *_advice(here, good, running, found, wrong),
            *map(_lost_text, lost.values()),
            *_left_text(left),
        ],
    }


def _lost_text(it: state.Status) -> str:
    return f"{it.name} (pid {it.pid}) runs, but its pid file is lost: `updater start` writes it again"


def _left_text(left: list[Marked]) -> list[str]:
    """Advice about what runs on although the process that started it is gone."""
    shown = ", ".join(f"pid {it.row.pid} of {it.name} ({it.release})" for it in left)
    return (
        [f"left behind and still running: {shown}; `updater stop` or `updater restart` ends it"]
        if left
        else []
    )


def _configured(layout: Layout) -> tuple[str, Mapping[str, Any], str | None]:
    """The application's name, its processes, and what is wrong with the file so far as this look can tell."""
    import tomllib

    try:
        data = tomllib.loads(layout.config.read_bytes().decode().removeprefix("\ufeff"))
        processes, app = data.get("processes", {}), data.get("app", {})
        return str(app.get("name", "app")), dict(processes), None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, AttributeError, TypeError) as failure:
        return "app", {}, f"updater.toml cannot be read: {failure}"


def _advice(
    here: service.InService, good: str | None, running: Json | None, found: list[Json], wrong: str | None
) -> list[str]:
    """What a person should do, if anything."""
    advice = [f"{wrong}; correct it: no other command works until then"] if wrong else []
    if here.problem:
        advice.append(f"{here.problem}; move it away and run `updater activate {good or 'VERSION'}`")
    elif here.kind == "dangling":
        advice.append(f"`current` names {here.version}, which is gone: updater activate {good or 'VERSION'}")
    elif here.kind == "none":
        advice.append("nothing is in service: updater deploy")
    elif good and here.version != good and running is None:
        advice.append(f"`current` was pointed at {here.version} by hand; it is taken as the truth")
    if running is None and here.kind == "release":
        advice += [
            f"{it['name']} runs from {it['release']} while {here.version} is in service: updater restart"
            for it in found
            if it["state"] == "running" and it["release"] not in (None, "", here.version)
        ]
    if running and running["interrupted"]:
        advice.append("a deployment was interrupted: updater recover")
    down = [it["name"] for it in found if it["state"] != "running"]
    if down and here.kind == "release" and running is None:
        advice.append(f"not running: {', '.join(down)}: updater start")
    return advice


def deployment_now(layout: Layout) -> Json | None:
    """The deployment that runs or was interrupted; None if there is none."""
    paths = journal.unfinished(layout)
    if not paths:
        return None
    with contextlib.suppress(OSError):
        return describe(layout, paths[-1])
    return None


def describe(layout: Layout, path: Path) -> Json:
    """Where a deployment stands, from its journal, with the illustration of the progress file."""
    log = journal.read(path)
    request = log.begin.get("request") or {}
    before = log.begin.get("before") or {}
    begun = [line for line in log.lines if line.kind == "intent"]
    shown = records.read_json(layout.progress) or {}
    at_work = holder(layout)
    end = log.end
    found: Json = {
        "id": log.id,
        "kind": request.get("kind"),
        "wanted": request.get("wanted"),
        "from": before.get("in_service"),
        "to": log.data("resolve").get("version"),
        "started": before.get("at"),
        "phase": begun[-1].phase if begun else None,
        "phases": [{"name": line.phase, "done": log.finished(line.phase or "")} for line in begun],
        "rolling_back": log.rolling_back is not None,
        "outcome": end.get("outcome") if end is not None else None,
        "error": end.get("error") if end is not None else None,
        "interrupted": end is None and at_work is None,
        "stale": bool(at_work and at_work.stale and end is None),
        "owner": at_work.owner.describe() if at_work and end is None else None,
        "damaged": log.damaged,
    }
    if shown.get("id") == log.id and shown.get("phase") == found["phase"]:
        found |= {key: shown.get(key) for key in ("text", "done", "total")}
    return found


def progress(root: Root) -> Json | None:
    """The running deployment, else the last one; None if there was never one."""
    paths = journal.unfinished(root.layout) or journal.closed(root.layout)
    return describe(root.layout, paths[-1]) if paths else None


def releases(root: Root) -> list[Json]:
    """Installed releases, newest first, with their state; unfinished and damaged ones are told too."""
    from updater.releases import marks, store

    layout = root.layout
    here, found = service.in_service(layout).version, marks.read(layout)
    previous = service.named_by(layout, layout.previous)
    rows = [
        {
            "version": release.version,
            "tag": release.record.tag,
            "state": found.state(release.version),
            "in_service": release.version == here,
            "previous": release.version == previous,
            "pinned": release.version in found.pinned,
            "reason": found.bad.get(release.version) or found.pinned.get(release.version) or "",
            "installed_at": release.record.installed_at,
            "published_at": release.record.published_at,
            "size": release.record.size,
            "files": release.record.files,
            "digest": release.record.digest,
            "proof": release.record.proof,
            "python": (release.record.environment or {}).get("python_version"),
        }
        for release in reversed(store.installed(layout))
    ]
    rows += [{"version": path.name, "state": "unfinished"} for path in store.unfinished(layout)]
    rows += [{"version": path.name, "state": "damaged"} for path in store.damaged(layout)]
    return rows


def history(root: Root, *, limit: int | None = None) -> list[Json]:
    """Past deployments, newest first."""
    found = list(reversed(records.history(root.layout)))
    return found[:limit] if limit else found


def damaged_history(root: Root) -> int:
    """How many records of the history cannot be read."""
    return records.damaged_history(root.layout)


def log_file(root: Root, name: str | None) -> Path:
    """The log of a process, or updater's own.

    Raises:
        UsageError: there is no such process.
    """
    if name in (None, "update"):
        return root.layout.update_log
    if name == "errors":
        return root.layout.errors_log
    if name not in root.config.processes:
        known = ", ".join(["update", "errors", *root.config.processes])
        raise UsageError(f"there is no process {name!r}", advice=f"one of: {known}")
    return root.layout.process_log(str(name))


def tail(path: Path, lines: int) -> Iterator[str]:
    """The last lines of a file; of a long one only its last megabyte is read."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1024**2))
        yield from file.read().decode(errors="replace").splitlines()[-lines:]


def diff(root: Root, version: str | None) -> Json:
    """What changes between the release in service and another (by default the previous good one), from the manifests.

    Raises:
        UsageError: there is nothing to compare.
    """
    from updater.releases import marks, store, verification

    layout = root.layout
    here = service.in_service(layout).version
    if here is None:
        raise UsageError("nothing is in service to compare with")
    found = marks.read(layout)
    names = [release.version for release in store.installed(layout)]
    other = version or marks.rollback_target(found, here, names)
    if other is None:
        raise UsageError(
            "there is no other good release to compare with", advice="name one: updater diff VERSION"
        )
    mine, theirs = store.find(layout, here), store.find(layout, other)
    changes = verification.changes(mine.path, theirs.path)
    mine_packages = dict((mine.record.environment or {}).get("packages") or [])
    their_packages = dict((theirs.record.environment or {}).get("packages") or [])
    return {
        "from": mine.version,
        "to": theirs.version,
        **changes,
        "packages": {
            name: [mine_packages.get(name), their_packages.get(name)]
            for name in sorted(mine_packages.keys() | their_packages.keys())
            if mine_packages.get(name) != their_packages.get(name)
        },
    }
