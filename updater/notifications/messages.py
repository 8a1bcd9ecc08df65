"""What messages say: pure functions from a record of the history, an error or an answer of the source to a title and a text.

Records may come from a journal that somebody has damaged, and texts from anywhere: nothing of them is taken for granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from updater import words
from updater.errors import Busy, UpdaterError
from updater.redaction import Redactor

Json = dict[str, Any]

TITLE, TEXT, LINE = 200, 4000, 400
"""Characters of a title, of a text and of one line of it, at most: the least that services take is about that."""

NOTES = 1500
"""Characters of release notes."""

DETAILS = 12
"""Lines of evidence."""


@dataclass(frozen=True)
class Message:
    """``event`` is one of ``available``, ``updated``, ``rolled-back`` and ``needs-you``."""

    event: str
    title: str
    body: str

    def without_secrets(self, redactor: Redactor) -> Message:
        return Message(self.event, redactor.text(self.title), redactor.text(self.body))


@dataclass(frozen=True)
class About:
    """Of what application the message is, and on which machine in which directory."""

    name: str
    machine: str
    root: str


def of_record(about: About, record: Json) -> Message | None:
    """What is told of a deployment that has ended; None: nothing, since who asked for it has seen it."""
    event = event_of(record)
    if event is None:
        return None
    error = record.get("error")
    if not isinstance(error, dict):
        return _message(about, event, _success(record), _of_success(record))
    prefix = {"needs-you": "needs you: "}.get(event, "")
    if event == "needs-you" and record.get("outcome") != "rollback-failed":
        prefix = f"the scheduled {_text(record, 'kind')} was not done: "
    return _message(about, event, prefix + _text(error, "message"), _of_failure(record, error))


def event_of(record: Json) -> str | None:
    """Which event the end of a deployment is."""
    outcome, kind = record.get("outcome"), record.get("kind")
    if outcome == "rollback-failed":
        return "needs-you"
    if outcome == "rolled-back":
        return "rolled-back"
    if outcome == "succeeded" and kind in ("deploy", "activate"):
        return "updated"
    if outcome == "succeeded" and kind in ("rollback", "restore"):
        return "rolled-back"
    if outcome == "failed" and record.get("origin") == "schedule":  # nobody has seen it
        error = record.get("error")
        busy = isinstance(error, dict) and error.get("code") == Busy.code
        return None if busy else "needs-you"  # what was busy is tried again
    return None


def of_error(about: About, error: UpdaterError, kind: str, origin: str) -> Message | None:
    """What is told of a deployment that could not even begin."""
    from updater.errors import LockHeld, RollbackFailed

    if isinstance(error, RollbackFailed):
        return _message(about, "needs-you", f"needs you: {error.message}", _of_error(error.as_json()))
    if origin == "schedule" and not isinstance(error, LockHeld):
        title = f"the scheduled {kind} was not done: {error.message}"
        return _message(about, "needs-you", title, _of_error(error.as_json()))
    return None


def available(about: About, answer: Json, *, by_itself: str = "") -> Message | None:
    """What is told of a new release; None if there is none. ``by_itself``: when it is deployed without anybody asking."""
    update = answer.get("update")
    if not isinstance(update, dict) or not (tag := _text(update, "tag")):
        return None
    return _message(about, "available", f"{tag} is available", _of_update(answer, update, tag, by_itself))


def a_test(about: About) -> Message:
    """What ``updater notify-test`` sends."""
    lines = ["This is how updater tells of new releases, updates, ways back and what needs you."]
    return _message(about, "available", "a test of updater's messages", iter(lines))


def _of_update(answer: Json, update: Json, tag: str, by_itself: str) -> Iterator[str]:
    yield f"in service: {_text(answer, 'in_service') or 'nothing'}"
    if published := _text(update, "published_at"):
        yield f"published: {words.moment(published)}"
    if url := _text(update, "url"):
        yield url
    notes = update.get("notes")
    if isinstance(notes, str) and notes.strip():
        cut = notes.strip()[:NOTES]
        yield from ("", *cut.splitlines(), *(["…"] if len(cut) < len(notes.strip()) else []), "")
    yield f"Next: {by_itself or f'updater deploy {tag}'}"


def _success(record: Json) -> str:
    kind, to = record.get("kind"), _text(record, "to") or "?"
    if record.get("outcome") != "succeeded":  # a script ended it, and gave no error
        return f"{to}: {_text(record, 'outcome')} {_text(record, 'text')}".strip()
    if kind == "restore":
        return f"the data of {_text(record, 'restored') or 'a backup'} were put back"
    return f"{'back to' if kind == 'rollback' else 'updated to'} {to}"


def _of_success(record: Json) -> Iterator[str]:
    yield _moved(record)
    try:
        done, back = words.succeeded(record)
        yield done
    except (KeyError, TypeError, ValueError):
        back = ""
    yield from _asked(record)
    yield from _warnings(record)
    if back:
        yield f"Next: nothing{back}"


def _of_failure(record: Json, error: Json) -> Iterator[str]:
    yield _moved(record)
    if isinstance(took := record.get("seconds"), int | float):
        down = record.get("outage_seconds")
        outage = f", interrupted for {words.seconds(down)}" if isinstance(down, int | float) and down else ""
        yield f"{_text(record, 'outcome')} after {words.seconds(took)}{outage}"
    yield from _asked(record)
    data = record.get("data")
    if isinstance(data, dict) and (restored := _text(data, "restored")):
        yield f"data restored from: {restored}"
    yield from _warnings(record)
    yield from _of_error(error)


def _of_error(error: Json) -> Iterator[str]:
    details = error.get("details")
    lines = (
        [line for it in details if isinstance(it, str) for line in it.splitlines()]
        if isinstance(details, list)
        else []
    )
    yield from (f"  {line}" for line in lines[:DETAILS])
    if len(lines) > DETAILS:
        yield f"  … {len(lines) - DETAILS} lines more: updater history latest"
    yield from filter(None, [_text(error, "state")])
    if advice := _text(error, "advice"):
        yield f"Next: {advice}"


def _moved(record: Json) -> str:
    kind = _text(record, "kind") or "deploy"
    if kind == "restore":
        return f"restore of {_text(record, 'restored') or _text(record, 'wanted') or '?'}"
    to = _text(record, "to") or _text(record, "wanted") or "?"
    return f"{kind}: {_text(record, 'from') or 'nothing'} → {to}"


def _asked(record: Json) -> Iterator[str]:
    who = [it for it in (_text(record, "user"), f"({_text(record, 'origin')})") if it not in ("", "()")]
    if record.get("recovered"):
        who.append("and it was interrupted")
    if who:
        reason = _text(record, "reason")
        yield f"asked for by {' '.join(who)}{f': {reason}' if reason else ''}"


def _warnings(record: Json) -> Iterator[str]:
    found = record.get("warnings")
    for line in [it for it in found if isinstance(it, str)][:5] if isinstance(found, list) else ():
        yield f"warning: {line}"


def _message(about: About, event: str, what: str, lines: Iterator[str]) -> Message:
    body = [_clean(line)[:LINE] for line in lines]
    end = f"({about.root} on {about.machine})"
    text = "\n".join(body)
    cut = TEXT - len(end) - 3
    text = text if len(text) <= cut else f"{text[:cut]}…"
    return Message(event, _clean(f"{about.name}: {' '.join(what.split())}")[:TITLE], f"{text}\n{_clean(end)}")


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _clean(line: str) -> str:
    return _CONTROL.sub(" ", line)


def _text(data: Json, key: str) -> str:
    found = data.get(key)
    return " ".join(found.split()) if isinstance(found, str) else ""
