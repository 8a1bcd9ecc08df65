"""What is remembered: the history of deployments, the progress of the present one, and the text logs.

``update_history.json`` is a JSON array with one record on each line, so that a shell can append to it and one damaged
line loses one record only (F54).
"""

from __future__ import annotations

import contextlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from updater import durable
from updater.layout import Layout

HISTORY_KEPT = 1000
"""Records kept in the history; older ones move to ``update_history.1.json``."""

LOG_KEPT = 5 * 1024**2
"""Bytes after which a text log is moved to ``<name>.1``."""

Json = dict[str, Any]


def now() -> datetime:
    """The one clock for records: aware, UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime | None = None) -> str:
    """A moment as text for records: ISO 8601, UTC, milliseconds."""
    return (moment or now()).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: object) -> datetime | None:
    """The moment that :func:`stamp` wrote; None if it is not one."""
    with contextlib.suppress(ValueError, TypeError):
        found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        return found if found.tzinfo else None
    return None


def read_json(path: Path) -> Json | None:
    """A JSON object from a file; None if there is none or it is damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(durable.read(path))
        return found if isinstance(found, dict) else None
    return None


def parse_history(text: str) -> tuple[list[Json], list[str]]:
    """The records in the text of a history file, oldest first, and the lines that are damaged."""
    records, damaged = [], []
    with contextlib.suppress(ValueError, RecursionError):  # somebody may have laid out the array anew
        found = json.loads(text)
        if isinstance(found, list) and all(map(_is_record, found)):
            return found, []
    for line in text.splitlines():
        body = line.strip().rstrip(",").strip()
        if body in ("", "[", "]", "[]"):
            continue
        record: object = None
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(body.removeprefix("[").removesuffix("]") if body[0] == "[" else body)
        if isinstance(record, dict) and _is_record(record):
            records.append(record)
        else:
            damaged.append(line)
    return records, damaged


def _is_record(found: object) -> bool:
    """Whether it can be shown: other programs, and people, write here as well."""
    forms = {"error": dict, "configuration": dict, "phases": list, "warnings": list}
    return isinstance(found, dict) and all(
        found.get(key) is None or isinstance(found[key], form) for key, form in forms.items()
    )


def format_history(records: list[Json]) -> str:
    """The text of a history file: a JSON array, one record on each line."""
    lines = ",\n".join(
        durable.encodable(json.dumps(record, ensure_ascii=False, sort_keys=True)) for record in records
    )
    return f"[\n{lines}\n]\n" if records else "[\n]\n"


SCRIPT = "script"
"""The ``origin`` of what an emergency script has done."""

_TEXTS = (
    "kind", "origin", "user", "reason", "from", "to", "wanted", "digest", "started", "ended", "backup", "restored", "text",
)  # fmt: skip


def whole(record: Json) -> Json:
    """A record with every field that people are shown: one that a script or a person wrote may lack most of them."""
    texts = {key: None if record.get(key) is None else str(record[key]) for key in _TEXTS}
    error, phases = record.get("error"), record.get("phases") or ()
    told = {key: record.get(key) for key in ("configuration", "data")}
    return {
        **record,
        **texts,
        **{key: it if isinstance(it, dict) else None for key, it in told.items()},
        **{key: _number(record.get(key)) for key in ("seconds", "outage_seconds")},
        "id": str(record.get("id") or ""),
        "kind": texts["kind"] or "change",
        "outcome": str(record.get("outcome") or "unknown"),
        "error": _whole_error(error) if isinstance(error, dict) else None,
        "phases": [
            {"name": str(it.get("name")), "seconds": _number(it.get("seconds"))} for it in phases if isinstance(it, dict)
        ],
        "warnings": list(map(str, record.get("warnings") or ())),
        "forced": bool(record.get("forced")),
        "recovered": bool(record.get("recovered")),
    }  # fmt: skip


def _whole_error(error: Json) -> Json:
    details = error.get("details")
    return {
        **error,
        "message": str(error.get("message") or "nothing tells why"),
        "details": list(map(str, details)) if isinstance(details, list) else [],
        **{key: None if error.get(key) is None else str(error[key]) for key in ("state", "advice")},
    }


def _number(found: object) -> float | None:
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def by_script(record: Json) -> bool:
    """Whether an emergency script wrote this record; where it ended somebody's deployment its name is in the text."""
    return (
        record.get("origin") == SCRIPT
        or re.search(r"\b[a-z_]+\.sh\b", str(record.get("text") or "")) is not None
    )


def _read_history(path: Path) -> tuple[list[Json], list[str]]:
    with contextlib.suppress(OSError):
        return parse_history(path.read_text(encoding="utf-8", errors="replace"))
    return [], []


def history(layout: Layout) -> list[Json]:
    """All deployments that have ended, oldest first, each with all its fields."""
    return [whole(it) for it in _read_history(layout.history)[0]]


def last(layout: Layout, *, but: tuple[str, ...] = ()) -> Json | None:
    """The newest record whose outcome is none of ``but``."""
    found = (it for it in reversed(_read_history(layout.history)[0]) if it.get("outcome") not in but)
    return next((whole(it) for it in found), None)


def damaged_history(layout: Layout) -> int:
    """How many lines of the history cannot be read; they are kept aside by the next deployment."""
    return len(_read_history(layout.history)[1])


def add_to_history(layout: Layout, record: Json) -> None:
    """Add a record durably, once: a record whose ``id`` is there already replaces it (doing twice is harmless)."""
    text = ""
    with contextlib.suppress(FileNotFoundError):
        text = layout.history.read_text(encoding="utf-8", errors="replace")
    records, damaged = parse_history(text)
    if damaged:
        aside = layout.history.with_name(f"update_history.damaged-{now():%Y%m%d%H%M%S}.json")
        durable.write(aside, text)
        log(
            layout,
            f"{len(damaged)} damaged lines in {layout.history.name}; the file as it was is {aside.name}",
            error=True,
        )
    records = [other for other in records if other.get("id") != record.get("id")] + [record]
    if len(records) > HISTORY_KEPT:
        older = layout.history.with_name("update_history.1.json")
        archive = _read_history(older)[0] + records[:-HISTORY_KEPT]
        durable.write(older, format_history(list({str(it.get("id")): it for it in archive}.values())))
        records = records[-HISTORY_KEPT:]
    durable.write(layout.history, format_history(records))


def log(layout: Layout, text: str, *, error: bool = False) -> None:
    """One line in ``update.log``, and in ``errors.log`` too if it is one. Never fails: a log decides nothing."""
    for path in (layout.update_log, layout.errors_log) if error else (layout.update_log,):
        with contextlib.suppress(OSError):
            if path.exists() and not path.is_file():
                continue  # opening a pipe would wait for ever
            if path.exists() and path.stat().st_size > LOG_KEPT:
                path.replace(path.with_name(f"{path.name}.1"))
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{stamp()} {'ERROR ' if error else ''}{text}\n")
