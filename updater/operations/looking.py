"""Looking: what is in service, what is installed, what happened. Nothing here locks or changes anything (F53)."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from updater import hold, records, words
from updater.deployment import configuration, journal
from updater.deployment.holder import holder
from updater.errors import NotFound, PreflightFailed, UsageError
from updater.layout import Layout
from updater.operations import advising
from updater.processes import family, state
from updater.releases import service

if TYPE_CHECKING:
    from updater.operations import Root

Json = dict[str, Any]


def status(layout: Layout) -> Json:
    """Everything a person asks first; read from the link, the pid files and the journal at this moment.

    It needs no configuration that is right: a typing error must not hide what runs. What is wrong with the file is in
    ``configuration``.
    """
    here = service.in_service(layout)
    name, processes, wrong, instead = _configured(layout, here.version)
    good, previous = service.named_by(layout, layout.good), service.named_by(layout, layout.previous)
    running = deployment_now(layout)
    last = records.last(layout, but=("nothing-to-do",))
    found = [it.as_json() for it in state.status(layout, processes)]
    marked = family.marked(layout)
    lost = {it.name: it.as_status() for it in state.strays(layout, marked)}
    found = [lost[it["name"]].as_json() if it["name"] in lost else it for it in found]
    found += [it.as_json() for name, it in lost.items() if name not in processes]
    left = state.leftovers(layout, marked)
    held = hold.read(layout)
    without_data = advising.without_data(layout)
    return {
        "name": name,
        "root": str(layout.root),
        "in_service": {"version": here.version, "kind": here.kind, "target": here.target},
        "good": good,
        "previous": previous,
        "by_hand": here.kind == "release" and here.version != good and running is None,
        "processes": found,
        "leftovers": [{"name": it.name, "pid": it.row.pid, "release": it.release} for it in left],
        "deployment": running,
        "hold": held and held.as_json(),
        "last": last
        and {
            key: last[key]
            for key in (
                "id",
                "kind",
                "origin",
                "outcome",
                "from",
                "to",
                "wanted",
                "restored",
                "ended",
                "text",
                "error",
            )
        },
        "configuration": wrong,
        "advice": [
            *advising.mistake(wrong, instead),
            *([f"{held.describe()} (updater release-hold)"] if held else []),
            *advising.half_done(layout),
            *advising.not_in_the_history(layout),
            *without_data,
            *advising.in_service(layout, here, good, running, found, last, may_start=not without_data),
            *map(advising.lost, lost.values()),
            *advising.left_behind(left),
        ],
    }


def _configured(layout: Layout, version: str | None) -> tuple[str, Mapping[str, Any], str | None, str]:
    """The application's name, its processes, what is wrong with the file, and what is used instead.

    Checking every key takes as long as all the rest of a look, so a file that is as it was when the release was started
    is not checked again.
    """
    if kept := configuration.as_kept(layout, version):
        return kept.name, dict.fromkeys(kept.processes), None, ""
    known = configuration.read(layout)
    wrong = known.wrong.line if known.wrong else None
    return known.config.name, known.config.processes, wrong, known.instead


def deployment_now(layout: Layout) -> Json | None:
    """The deployment that runs or was interrupted; None if there is none."""
    paths = journal.unfinished(layout)
    if not paths:
        return None
    with contextlib.suppress(OSError):
        found = describe(layout, paths[-1])
        return found if found["outcome"] is None else None  # its journal may stay for a while
    return None


def describe(layout: Layout, path: Path) -> Json:
    """Where a deployment stands, from its journal, with the illustration of the progress file."""
    log, at_work = journal.read(path), holder(layout)
    end = journal.ending(layout, path, log)
    if at_work is None and end is None:
        log = journal.read(
            path
        )  # it may have come to its end between the two looks; then it is not interrupted
        end = journal.ending(layout, path, log)
    request, before = log.request, log.before
    begun = [line for line in log.lines if line.kind == "intent"]
    shown = records.read_json(layout.progress) or {}
    found: Json = {
        "id": log.id,
        "kind": request.get("kind"),
        "wanted": request.get("wanted"),
        "from": before.get("in_service"),
        "to": log.data("resolve").get("version"),
        "started": before.get("at"),
        "phase": begun[-1].phase if begun else None,
        "seq": log.lines[-1].seq if log.lines else -1,
        "phases": [{"name": line.phase, "done": log.finished(line.phase or "")} for line in begun],
        "rolling_back": log.rolling_back is not None,
        "outcome": end["outcome"] if end is not None else None,
        "error": end["error"] if end is not None else None,
        "ended_by": _ended_by(end),
        "interrupted": end is None and at_work is None,
        "stale": bool(at_work and at_work.stale and end is None),
        "owner": at_work.owner.describe() if at_work and end is None else None,
        "damaged": log.damaged,
    }
    if shown.get("id") == log.id and shown.get("phase") == found["phase"]:
        found |= {key: shown.get(key) for key in ("text", "done", "total")}
        found["percent"] = _percent(shown.get("done"), shown.get("total"))
    return found


def _percent(done: object, total: object) -> float | None:
    """How far the phase is; None where nobody knows."""
    if not isinstance(done, int | float) or not isinstance(total, int | float) or total <= 0:
        return None
    return round(min(100.0, max(0.0, 100 * done / total)), 1)


def progress(layout: Layout) -> Json | None:
    """The running deployment, else the last one, or what an emergency script did after it; None if there was never one."""
    unfinished = journal.unfinished(layout)
    if not unfinished and (record := _script_since(layout)):
        return _as_progress(record)
    paths = unfinished or journal.closed(layout)
    with contextlib.suppress(FileNotFoundError):
        return describe(layout, paths[-1]) if paths else None
    return progress(layout)  # it has ended since, and its journal lies among those that have


def _ended_by(record: Json | None) -> str | None:
    """What an emergency script says of itself; None if it was none."""
    return (record["text"] or "by a script") if record and records.by_script(record) else None


def _script_since(layout: Layout) -> Json | None:
    """The last record, if a script wrote it and it has no journal."""
    found = records.last(layout)
    if found and records.by_script(found) and journal.find(layout, found["id"]) is None:
        return found
    return None


def _as_progress(record: Json) -> Json:
    """What there is to say of something that has no journal, in the form of :func:`describe`."""
    return {
        **{key: record[key] for key in ("id", "kind", "wanted", "from", "to", "started", "outcome", "error")},
        "ended_by": _ended_by(record), "phase": None, "seq": -1, "phases": [], "rolling_back": False, "interrupted": False,
        "stale": False, "owner": None, "damaged": False,
    }  # fmt: skip


def steps(layout: Layout, identifier: str) -> list[Json]:
    """The phases of a deployment in their order, with what became of each: ``state`` is ``done``, ``running``, ``failed``,
    ``undone``, ``skipped`` (it ended before) or ``pending``; ``seconds`` that it took, and the ``text`` that it said.

    Raises:
        NotFound: there is no journal of it (any more).
    """
    from updater.deployment import phases
    from updater.deployment.transaction import Request

    log, closed = _journal(layout, identifier)
    took = {it["name"]: it["seconds"] for it in log.phases() if it["name"]}
    undone = {line.phase for line in log.lines if line.kind == "undone"}
    begun = list(took)
    request = Request.from_json(log.request)
    ended = closed or log.end is not None or log.rolling_back is not None

    def state(name: str) -> str:
        if name not in took:
            return "skipped" if ended else "pending"
        if log.finished(name):
            return "undone" if name in undone and name in words.SHOWN_UNDONE else "done"
        return "failed" if ended or name != begun[-1] else "running"

    # What has nothing to do leaves no trace, so before the last one that began there is nothing to come any more.
    ahead = [it.name for it in phases.of(request) if request.puts_data_back or it.name not in _FOR_DATA]
    if begun and begun[-1] in ahead:
        ahead = ahead[ahead.index(begun[-1]) + 1 :]
    return [
        {"name": name, "state": state(name), "seconds": took.get(name), "text": log.data(name).get("say")}
        for name in dict.fromkeys([*begun, *ahead])
    ]


def _journal(layout: Layout, identifier: str) -> tuple[journal.Log, bool]:
    """A deployment's journal, also when it is put away between being found and being read; and whether it is put away."""
    for _ in range(2):
        if path := journal.find(layout, identifier):
            with contextlib.suppress(FileNotFoundError):
                return journal.read(path), path.parent.name == "closed"
    raise NotFound(f"there is no journal of {identifier}")


_FOR_DATA = ("choose", "stage", "restore", "load")
"""Phases that only a deployment which puts data back goes through."""


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


def marked_bad(layout: Layout, tag: str) -> str | None:
    """Why a tag's release is marked bad; None if it is not."""
    from updater import versions
    from updater.releases import marks

    return marks.read(layout).bad.get(versions.release_name(tag))


def history(root: Root, *, limit: int | None = None) -> list[Json]:
    """Past deployments, newest first."""
    found = list(reversed(records.history(root.layout)))
    return found[:limit] if limit else found


def one_of_history(root: Root, identifier: str) -> Json:
    """All that is on record of one deployment: by its id, the beginning of it, or ``latest``.

    Raises:
        NotFound: there is none. UsageError: there are several.
    """
    every = history(root)
    if identifier == "latest":
        found = every[:1]
    else:
        found = [it for it in every if it["id"] == identifier][
            :1
        ]  # a script may have added another of that id
        found = found or [it for it in every if it["id"].startswith(identifier)]
    if len(found) == 1:
        return found[0]
    advice = "updater --json history tells every id"
    if found:
        several = ", ".join(str(it.get("id")) for it in found[:5])
        raise UsageError(f"{identifier} may be any of {several}", advice=advice)
    raise NotFound(f"there is no deployment {identifier} in the history", advice=advice)


def damaged_history(root: Root) -> int:
    """How many records of the history cannot be read."""
    return records.damaged_history(root.layout)


def log_file(root: Root, name: str | None) -> Path:
    """The log of a process, or updater's own.

    Raises:
        NotFound: there is no such process.
    """
    if name in (None, "update"):
        return root.layout.update_log
    if name == "errors":
        return root.layout.errors_log
    if name not in root.config.processes:
        known = ", ".join(["update", "errors", *root.config.processes])
        raise NotFound(f"there is no process {name!r}", advice=f"one of: {known}")
    return root.layout.process_log(str(name))


def tail(path: Path, lines: int) -> tuple[list[str], int]:
    """The last lines of a log, and the place in bytes where they end; of a long one only its last megabyte is read.

    Raises:
        PreflightFailed: it is no regular file.
    """
    with contextlib.suppress(FileNotFoundError), open_log(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - 1024**2))
        found = file.read(size - file.tell()).decode(errors="replace").splitlines()
        return found[-lines:] if lines else [], size
    return [], 0


def open_log(path: Path) -> BinaryIO:
    """A log, open for reading. Of a pipe the first read, and even the opening, would wait for ever.

    Raises:
        PreflightFailed: it is no regular file. FileNotFoundError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return open(fd, "rb")
    os.close(fd)
    raise PreflightFailed(
        f"{path} is not a regular file, so it is no log that could be shown",
        state="Nothing was changed.",
        advice=f"move it away (mv {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix('.aside')))}); a new one is made.",
    )


def diff(root: Root, version: str | None) -> Json:
    """What changes between the release in service and another (by default the previous good one), from the manifests, and
    in the defaults of the settings.

    Raises:
        UsageError: there is nothing to compare.
    """
    from updater.releases import marks, store, verification
    from updater.settings import changing

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
        "configuration": changing.between(layout, root.config.shared, mine.version, theirs.version).as_json(),
    }
