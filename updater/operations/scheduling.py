"""What is done without anybody asking (``[schedule]``): look for a new release, tell it once, deploy it if that is wanted.

``.updater/check.json`` remembers the last look, for the dashboard and across restarts. What the schedule has tried already is not
in it but in the history: there it cannot disagree with what happened.
"""

from __future__ import annotations

import contextlib
import json
import re
from datetime import datetime
from typing import Any

from updater import durable, hold, records, schedule
from updater.deployment import announcing
from updater.deployment.holder import holder
from updater.deployment.transaction import Request
from updater.errors import Busy, LockHeld, SourceFailed, UpdaterError, UsageError, from_json
from updater.layout import Layout
from updater.operations import Root, beginning, deploying
from updater.releases import marks, service

Json = dict[str, Any]

ORIGIN = "schedule"

NOTIFIED = 50
"""Tags of which it is remembered that they were told."""

TEXT = 64 * 1024
"""Characters of release notes, or of any other text, that are remembered."""


def ask(root: Root) -> Json:
    """:func:`updater.operations.beginning.check`; the answer, or the error, is remembered where the root can be written.

    Raises:
        SourceFailed: as there.
    """
    try:
        answer = beginning.check(root)
    except UpdaterError as failure:
        with contextlib.suppress(OSError):
            _remember(root.layout, error=failure.as_json())
        raise
    with contextlib.suppress(OSError):
        _remember(root.layout, answer=answer)
    return answer


def check(root: Root) -> Json:
    """Look for a new release now. Returns what :func:`remembered` does from here on; a source that fails is in ``error``."""
    answer = error = None
    try:
        answer = ask(root)
    except UpdaterError as failure:
        error = failure.as_json()
    known = remembered(root.layout) or {}
    at = records.stamp()
    return {
        "at": at, "answered_at": at, "notified": [], "waiting": None, **known,
        "answer": answer or known.get("answer"), "error": error,
    }  # fmt: skip


def tick(root: Root, *, now: datetime | None = None) -> Json:
    """One round: look, remember, tell a new release once, and deploy it if ``[schedule]`` says so and nothing speaks against it.

    Returns ``at``; the ``answer`` of :func:`ask`, or the ``error``; ``notified``: whether somebody was told of a new release;
    ``update``: null where the schedule deploys nothing or there is nothing new, else ``tag``, the id of the deployment that was
    ``started`` or null, ``why`` not, and whether it is ``waiting`` to be tried again soon. It takes as long as the source, the
    messages and the gate do; the deployment goes on by itself. Never raises for any of them.

    Raises:
        OSError: what was found cannot be remembered; then nothing is told and nothing is deployed.
    """
    now = now or records.now()
    done: Json = {"at": records.stamp(now), "answer": None, "error": None, "notified": False, "update": None}
    try:
        if root.wrong is not None:
            raise root.wrong
        done["answer"] = answer = beginning.check(root)
    except UpdaterError as failure:
        done["error"] = failure.as_json()
        _remember(root.layout, error=done["error"], at=now)
        return done
    _remember(root.layout, answer=answer, at=now, waiting=None)
    done["notified"] = _tell(root, answer)
    if root.config.schedule.update and answer["update"]:
        done["update"] = _update(root, str(answer["update"]["tag"]), now)
        if done["update"]["waiting"]:
            _remember(root.layout, waiting=done["update"]["tag"])
    return done


def due(root: Root, random: float, *, now: datetime | None = None) -> datetime | None:
    """When the next :func:`tick` is due, in UTC; a moment in the past is now, None never. ``random``: from 0 up to 1, drawn once for
    each tick."""
    found = remembered(root.layout) or {}
    return schedule.next_check(
        now or records.now(),
        records.moment(found.get("at")),
        root.config.schedule,
        random,
        waiting=bool(found.get("waiting")),
    )


def remembered(layout: Layout) -> Json | None:
    """The last look: ``at``; ``answer``, the last one that there was, as far as it still holds (else null), and its moment
    ``answered_at``; ``error``, if the last look failed; ``notified``: tags that were told; ``waiting``: the tag of an update that could
    not begin yet. None: nobody has looked yet, or the record is damaged.

    An answer from before another release came into service holds only if that is the update; one that was marked bad since is none.
    """
    found = records.read_json(layout.check)
    if found is None or records.moment(found.get("at")) is None:
        return None
    error = found.get("error")
    notified = found.get("notified")
    return {
        "at": found["at"],
        "answer": _as_of_now(layout, _answer(found.get("answer"))),
        "answered_at": found.get("answered_at") if records.moment(found.get("answered_at")) else None,
        "error": from_json(error).as_json() if isinstance(error, dict) else None,
        "notified": [it for it in notified if _is_tag(it)] if isinstance(notified, list) else [],
        "waiting": found.get("waiting") if _is_tag(found.get("waiting")) else None,
    }


def _remember(layout: Layout, *, at: datetime | None = None, **changes: Any) -> None:
    """Change the record; what is not in ``changes`` stays. ``answer`` and ``error`` are the end of a look."""
    known = remembered(layout) or {}
    if changes.keys() & {"answer", "error"}:
        looked = records.stamp(at)
        known |= {"at": looked, "error": None}
        if "answer" in changes:
            known |= {"answered_at": looked}
    known |= changes
    layout.own.mkdir(exist_ok=True)  # not with its parents: where a root has vanished, none is made
    durable.write(layout.check, json.dumps(known, ensure_ascii=False) + "\n")


def _tell(root: Root, answer: Json) -> bool:
    """Tell of a new release, once for each tag; one of which nobody could be told is told again by the next round."""
    from updater.notifications import messages

    layout, config = root.layout, root.config
    if not config.notify.configured or not answer["update"]:
        return False
    tag = str(answer["update"]["tag"])
    told = (remembered(layout) or {}).get("notified", [])
    if tag in told:
        return False
    by_itself = f"nothing; it is deployed by itself, {_window(root)}" if config.schedule.update else ""
    message = messages.available(announcing.about_of(layout, config), answer, by_itself=by_itself)
    sending = message and announcing.deliver(layout, config, message)
    if not sending or not sending.arrived:
        return False
    _remember(layout, notified=[*told, tag][-NOTIFIED:])
    return True


def _window(root: Root) -> str:
    begin, end = root.config.schedule.window or (0, 0)
    days = root.config.schedule.days
    on = "" if len(days) == 7 else f" on {', '.join(days)}"
    return f"between {begin // 60:02}:{begin % 60:02} and {end // 60:02}:{end % 60:02}{on}"


def _update(root: Root, tag: str, now: datetime) -> Json:
    """Deploy a release if nothing speaks against it."""
    found: Json = {"tag": tag, "started": None, "why": "", "waiting": False}
    why = _not_at_all(root, tag, now)
    if why is None and (why := _not_yet(root)):
        found["waiting"] = True
    if why is not None:
        return found | {"why": why}
    request = Request("deploy", tag, origin=ORIGIN, reason=f"[schedule], {_window(root)}")
    try:
        deployment = deploying.launch(root.layout, request)
    except UpdaterError as failure:
        return found | {"why": failure.message, "waiting": isinstance(failure, LockHeld)}
    deployment.close()
    records.log(root.layout, f"the schedule deploys {tag} ({deployment.id})")
    return found | {"started": deployment.id}


def _not_at_all(root: Root, tag: str, now: datetime) -> str | None:
    """Why an update is not begun in this round, nor soon."""
    layout = root.layout
    if not schedule.may_update_now(now, root.config.schedule):
        return f"it is not {_window(root)}"
    if held := hold.read(layout):
        return held.describe()
    if service.in_service(layout).release is None:
        return "nothing is in service: the first deployment is for a person to make"
    if (before := _tried(layout, tag)) and records.by_script(before):
        return f"an emergency script went back from {tag} ({before['id']}); updater deploy {tag}"
    if before:
        return f"the schedule has tried {tag} already: {before.get('outcome')} ({before.get('id')}); updater deploy {tag}"
    return None


def _not_yet(root: Root) -> str | None:
    """Why an update must wait for a while."""
    from updater import gate

    layout, config = root.layout, root.config
    if at_work := holder(layout):
        return f"{at_work.owner.describe()} is at work"
    here = service.in_service(layout).release
    if here is not None and config.gate.asks:
        answer = gate.ask(layout, config, here)
        if not answer.free:
            return f"busy: {answer.reason}"
    return None


def _tried(layout: Layout, tag: str) -> Json | None:
    """The deployment of a tag by the schedule that has ended, if it says anything of the release: one for which the application
    became busy, or the source was not reached, does not."""
    made = [
        it
        for it in records.history(layout)
        if (it["origin"] == ORIGIN and it["wanted"] == tag) or _undone(it, tag)
    ]
    error = made[-1]["error"] if made else None
    codes = (Busy.exit_code, SourceFailed.exit_code)
    again = isinstance(error, dict) and error.get("exit_code") in codes
    return made[-1] if made and not again else None


def _undone(record: Json, tag: str) -> bool:
    """Whether an emergency script went back from a release: who had to do that does not want it tonight again."""
    going_back = record["kind"] == "rollback"
    left = record["from"] if going_back else record["to"]
    undone = going_back or record["outcome"] in ("rolled-back", "rollback-failed")
    return records.by_script(record) and undone and left in (tag, _name(tag))


def _as_of_now(layout: Layout, answer: Json | None) -> Json | None:
    """What of an answer still holds."""
    if answer is None:
        return None
    here = service.in_service(layout).release
    update = answer["update"]
    name = _name(update["tag"]) if update else None
    if answer["in_service"] != here:
        if here is None or here != name:
            return None
        return answer | {"in_service": here, "update": None}
    if name is not None and (reason := marks.read(layout).bad.get(name)) is not None:
        return answer | {"update": None, "skipped": {"tag": update["tag"], "reason": reason}}
    return answer


def _answer(found: object) -> Json | None:
    """An answer as :func:`beginning.check` gives it, from a record that may hold anything."""
    if not isinstance(found, dict):
        return None
    update, skipped, warnings = found.get("update"), found.get("skipped"), found.get("warnings")
    if isinstance(update, dict) and _is_tag(update.get("tag")):
        url = _text(update.get("url"))
        update = {
            "tag": update["tag"],
            "name": _text(update.get("name")),
            "published_at": update.get("published_at")
            if records.moment(update.get("published_at"))
            else None,
            "notes": _text(update.get("notes")),
            "url": url if url and re.match(r"https?://", url) else None,
        }
    else:
        update = None
    return {
        "in_service": _text(found.get("in_service")),
        "newest": found.get("newest") if _is_tag(found.get("newest")) else None,
        "update": update,
        "skipped": {"tag": skipped["tag"], "reason": _text(skipped.get("reason")) or ""}
        if isinstance(skipped, dict) and _is_tag(skipped.get("tag"))
        else None,
        "source": _text(found.get("source")) or "",
        "warnings": [it[:TEXT] for it in warnings if isinstance(it, str)][:20]
        if isinstance(warnings, list)
        else [],
    }


def _text(value: object) -> str | None:
    return value[:TEXT] if isinstance(value, str) else None


def _is_tag(value: object) -> bool:
    return isinstance(value, str) and _name(value) is not None


def _name(tag: str) -> str | None:
    from updater import versions

    with contextlib.suppress(UsageError):
        return versions.release_name(tag)
    return None
