"""What each page shows, as plain data for its template; and what is said before something is done."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from updater import operations, records, words
from updater.deployment.transaction import Request
from updater.errors import NotFound, UpdaterError
from updater.layout import Layout
from updater.operations import Root, backing, keeping, looking, running, scheduling
from updater.web import models
from updater.web.problems import Refused

Json = dict[str, Any]
View = Callable[[Layout, Mapping[str, str]], Json]


def _root(layout: Layout) -> Root:
    return operations.open_root(layout.root, tolerant=True)


def frame(layout: Layout) -> Json:
    """What every page shows: the application's name, what is in service, whether a deployment runs."""
    return {"name": _root(layout).config.name, "running": looking.deployment_now(layout)}


def overview(layout: Layout, asked: Mapping[str, str]) -> Json:
    operations.find_root(layout.root)
    status = looking.status(layout)
    used = running.resources(layout)
    for it in status["processes"]:
        it["resources"] = used.get(it["name"])
    return {
        "name": status["name"],
        "running": status["deployment"],
        "status": status,
        "since": _since(layout, status["in_service"]["version"]),
        "check": _checked(scheduling.remembered(layout)),
        **deployment(layout, asked),
    }


def _checked(found: Json | None) -> Json | None:
    """What the source said, as far as it still holds; None if it was never asked."""
    if found is None:
        return None
    answer = found["answer"] or {}
    return {**found, "offer": answer.get("update"), "skipped": answer.get("skipped")}


def _since(layout: Layout, version: str | None) -> str | None:
    """When the release in service was put there, as far as the history tells."""
    for it in looking.history(_root(layout)):
        if it.get("to") == version and it.get("kind") != "fetch" and it.get("outcome") == "succeeded":
            return it.get("ended")
    return None


def deployment(layout: Layout, _asked: Mapping[str, str]) -> Json:
    """The deployment that runs, else the last one: its phases, its end, and the log's last lines."""
    operations.find_root(layout.root)
    found = looking.progress(layout)
    if found is None:
        return {"deployment": None, "steps": [], "record": None, "lines": []}
    record = None
    with contextlib.suppress(UpdaterError):
        record = looking.one_of_history(_root(layout), found["id"])
    with contextlib.suppress(NotFound):
        return {
            "deployment": found,
            "steps": looking.steps(layout, found["id"]),
            "record": record,
            "lines": looking.tail(layout.update_log, 40)[0],
            "told": record and _told(record),
        }
    return {"deployment": found, "steps": [], "record": record, "lines": [], "told": None}


def _told(record: Json) -> str | None:
    with contextlib.suppress(KeyError):
        return "".join(words.succeeded(record)) if not record.get("error") else None
    return None


def health(layout: Layout, _asked: Mapping[str, str]) -> Json:
    try:
        return {"health": running.ask_health(_root(layout)), "problem": None, "at": records.stamp()}
    except UpdaterError as failure:
        return {"health": None, "problem": failure.message, "at": records.stamp()}


def health_page(layout: Layout, asked: Mapping[str, str]) -> Json:
    return {**frame(layout), **health(layout, asked)}


def releases(layout: Layout, _asked: Mapping[str, str]) -> Json:
    root = _root(layout)
    return {**frame(layout), "releases": looking.releases(root), "keep": root.config.keep}


def backups(layout: Layout, _asked: Mapping[str, str]) -> Json:
    root = _root(layout)
    return {**frame(layout), "backups": backing.listing(root), "keep": root.config.backup.keep}


def history(layout: Layout, asked: Mapping[str, str]) -> Json:
    root = _root(layout)
    limit = 1000 if asked.get("all") else 50
    found = looking.history(root)
    return {
        **frame(layout),
        "records": found[:limit],
        "more": len(found) > limit,
        "damaged": looking.damaged_history(root),
    }


def one_of_history(layout: Layout, asked: Mapping[str, str]) -> Json:
    record = looking.one_of_history(_root(layout), asked["id"])
    return {**frame(layout), "record": record, "steps": _steps(layout, record), "told": _told(record)}


def _steps(layout: Layout, record: Json) -> list[Json]:
    """What became of each phase. Once the journal is gone the record alone tells no failed phase from one that was done."""
    with contextlib.suppress(NotFound):
        return looking.steps(layout, record["id"])
    state = "done" if record.get("outcome") in ("succeeded", "nothing-to-do") else ""
    return [{**it, "state": state, "text": None} for it in record.get("phases") or ()]


def logs(layout: Layout, asked: Mapping[str, str]) -> Json:
    root = _root(layout)
    name = asked.get("process") or "update"
    path = looking.log_file(root, name)
    return {
        **frame(layout), "process": name, "file": str(path.relative_to(layout.root)),
        "lines": looking.tail(path, 300)[0],
        "names": ["update", "errors", *root.config.processes],
    }  # fmt: skip


def update(layout: Layout, asked: Mapping[str, str]) -> Json:
    """Everything to know before the button: what is new, whether it can succeed, what will happen, what is at stake."""
    from updater.operations import planning

    wanted = _start(asked)
    root = operations.open_root(layout.root)
    check = _checked(scheduling.check(root))
    offered = check and check["offer"]
    tag = wanted.tag or (str(offered["tag"]) if offered else None)
    found = planning.preflight(root, Request("deploy", tag)) if tag else None
    return {
        **frame(layout),
        "check": check,
        "tag": tag,
        "notes": offered if offered and offered["tag"] == tag else None,
        "preflight": found,
        "gate": running.ask_gate(root),
        "sentences": before_update(layout, models.Start(tag=tag)),
        "values": {key: asked.get(key, "") for key in ("reason",)},
    }


def _start(asked: Mapping[str, str]) -> models.Start:
    """Which update a page's address asks for.

    Raises:
        Refused: what it names cannot be a tag.
    """
    try:
        return msgspec.convert({"tag": asked.get("tag") or None}, models.Start)
    except msgspec.ValidationError as wrong:
        raise Refused(400, "usage", f"the address does not fit: {wrong}") from None


def result(layout: Layout, title: str, answer: Json) -> Json:
    return {**frame(layout), "title": title, "answer": answer}


# what is said before something is done


def _outage(layout: Layout) -> str:
    """What to expect, from what was measured: the last deployments that stopped something."""
    past = [it.get("outage_seconds") for it in looking.history(_root(layout))[:20]]
    known = [float(it) for it in past if isinstance(it, int | float) and it > 0][:5]
    return (
        f"about {words.seconds(statistics.median(known))} (the last {len(known)} took that long)"
        if known
        else "some seconds"
    )


def _stopping(layout: Layout) -> list[str]:
    root = _root(layout)
    names = running.present(root)
    said = []
    if names:
        said.append(
            f"{', '.join(names)} will be stopped and started again; expect an interruption of {_outage(layout)}."
        )
    gate = running.ask_gate(root)
    if gate["asks"]:
        said.append(
            f"It may be interrupted now: {gate['reason']}." if gate["free"]
            else f"It may not be interrupted now: {gate['reason']}. Without force this will be refused or wait."
        )  # fmt: skip
    return said


def _back(layout: Layout) -> str:
    here = looking.status(layout)["in_service"]["version"]
    return (
        f"If anything fails, everything is undone and {here} runs again."
        if here
        else "If anything fails, everything is undone."
    )


def before_update(layout: Layout, asked: Any) -> list[str]:
    root = _root(layout)
    last = next((it for it in backing.listing(root) if it["state"] == "ok"), None)
    size = f" (the last one holds {words.size(last['size'])})" if last else ""
    watch = root.config.health.watch
    return [
        f"{asked.tag or 'The newest release'} is fetched, verified and built while the application runs.",
        f"A backup of shared/ is made and read back{size}.",
        *_stopping(layout),
        f"It then must pass its health checks and is watched for {words.seconds(watch)} before it counts as good.",
        _back(layout),
    ]


def before_fetch(_layout: Layout, asked: Any) -> list[str]:
    return [f"{asked.tag} is fetched, verified and built. The application is not touched."]


def before_rollback(layout: Layout, asked: Any) -> list[str]:
    to = asked.to or looking.status(layout)["previous"]
    if to is None:
        return ["There is no earlier good release on record; this will be refused."]
    said = [f"{to} is put into service again, with the settings it ran with. No network is needed."]
    if asked.restore_data:
        said.append(
            "The data that it had when it was left are put back; the present ones are kept as a backup first."
        )
    else:
        said.append("The data stay as they are; a backup is made first.")
    return [*said, *_stopping(layout), _back(layout)]


def before_activate(layout: Layout, asked: Any) -> list[str]:
    return [
        f"{asked.version} is put into service. No network is needed; a backup is made first.",
        *_stopping(layout),
        _back(layout),
    ]


def before_cancel(layout: Layout, _asked: Any) -> list[str]:
    found = looking.deployment_now(layout)
    if found is None:
        return ["No deployment is running; this will be refused."]
    return [
        f"The {found['kind']} of {found['to'] or found['wanted'] or 'a release'} is stopped, and everything it did is undone."
    ]


def before_restore(layout: Layout, asked: Any) -> list[str]:
    found = backing.restorable(_root(layout), asked.id, asked.parts)
    said = [
        f"{found['id']} was made {words.moment(found['created'])}"
        + (f", with the data of {found['release']}." if found["release"] else "."),
        f"Its {', '.join(found['parts'])} take the place of the present ones, which are kept as another backup first.",
    ]
    if found["in_service"] and found["release"] not in (None, found["in_service"]):
        said.append(
            f"In service is {found['in_service']}, not {found['release']}: it will get the older data."
        )
    return [*said, *_stopping(layout)]


def before_backup(_layout: Layout, _asked: Any) -> list[str]:
    return ["A backup of shared/ is made while the application runs; it counts once it has been read back."]


def before_verify(_layout: Layout, _asked: Any) -> list[str]:
    return ["Everything is read to its end and compared. Nothing is changed."]


def before_pin(_layout: Layout, asked: Any) -> list[str]:
    return [f"{asked.version} is never pruned."]


def before_unpin(_layout: Layout, asked: Any) -> list[str]:
    return [f"{asked.version} may be pruned again."]


def before_mark_bad(_layout: Layout, asked: Any) -> list[str]:
    return [f"{asked.version} is never taken by itself again, nor rolled back to."]


def before_prune(layout: Layout, asked: Any) -> list[str]:
    doomed = keeping.prunable(_root(layout), asked.keep)
    return [f"Removed will be: {', '.join(doomed)}." if doomed else "There is nothing to remove."]


def before_prune_backups(layout: Layout, asked: Any) -> list[str]:
    doomed = backing.prunable(_root(layout), asked.keep)
    return [f"Removed will be: {', '.join(doomed)}." if doomed else "There is nothing to remove."]


def _those(asked: Any) -> str:
    return ", ".join(asked.processes) or "Every process"


def before_start(_layout: Layout, asked: Any) -> list[str]:
    return [f"{_those(asked)} is started from the release in service."]


def before_stop(layout: Layout, asked: Any) -> list[str]:
    return [f"{_those(asked)} is stopped, and stays so until it is started again.", *_gate(layout)]


def before_restart(layout: Layout, asked: Any) -> list[str]:
    return [f"{_those(asked)} is stopped and started again.", *_gate(layout)]


def _gate(layout: Layout) -> list[str]:
    gate = running.ask_gate(_root(layout))
    return (
        [f"The application says that it may not be interrupted now: {gate['reason']}."]
        if not gate["free"]
        else []
    )


def before_recover(_layout: Layout, _asked: Any) -> list[str]:
    return ["The interrupted deployment is finished or undone, whichever is safe."]


def before_hold(_layout: Layout, _asked: Any) -> list[str]:
    return [
        "Nothing new goes into service until the hold is released, neither by hand nor by the schedule. Going back stays possible."
    ]


def before_release_hold(layout: Layout, _asked: Any) -> list[str]:
    found = looking.status(layout)["hold"]
    return [
        f"Held by {found['by']} since {words.moment(found['at'])}: {found['reason']}"
        if found
        else "Nothing is held."
    ]


def before_force_stop(layout: Layout, _asked: Any) -> list[str]:
    names = running.present(_root(layout))
    return [
        f"Killed without being asked: {', '.join(names)}."
        if names
        else "Nothing that updater manages is running.",
        "What they were doing is lost: open trades stay open, half-written files stay half-written. A deployment at work is cancelled.",
        *_gate(layout),
    ]


def before_unlock(layout: Layout, _asked: Any) -> list[str]:
    found = looking.deployment_now(layout)
    at_work = f"{found['owner']} is ended" if found and found["owner"] else "Whoever holds the lock is ended"
    return [
        f"{at_work}, politely and after 30 s firmly; then what it left is recovered.",
        "Use this only if it makes no progress any more: cancelling is gentler.",
    ]
