"""Can this deployment succeed, and be undone? Every check runs, all results are shown at once, nothing is changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from updater.errors import PreflightFailed, UpdaterError


class Finding(NamedTuple):
    """What one look has found. ``result``: ``ok``, ``warning`` or ``failed``; ``remedy`` says what to do about the last two."""

    result: str
    summary: str
    remedy: str | None = None


@dataclass(frozen=True)
class Check:
    """A finding under the name of its check. ``seconds``: how long it took."""

    name: str
    result: str
    summary: str
    remedy: str | None = None
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


Look = Callable[[], Finding]


def ok(summary: str) -> Finding:
    return Finding("ok", summary)


def warning(summary: str, remedy: str) -> Finding:
    return Finding("warning", summary, remedy)


def failed(summary: str, remedy: str) -> Finding:
    return Finding("failed", summary, remedy)


LIMIT = 20.0
"""Seconds that one check may take; a dead network mount must not keep the others from being shown."""


def run(looks: Mapping[str, Look], *, limit: float = LIMIT) -> list[Check]:
    """Look at everything at once, whatever the others say; what cannot be looked at, or not within ``limit`` seconds, has
    failed."""
    results: dict[str, Check] = {}

    def make(name: str, look: Look) -> None:
        begun = time.monotonic()
        found = _made(look)
        results[name] = Check(
            name, found.result, found.summary, found.remedy, round(time.monotonic() - begun, 3)
        )

    threads = [threading.Thread(target=make, args=it, daemon=True) for it in looks.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + limit
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = f"the check did not end within {limit:g} s"
    remedy = "look for a network, a network mount or a disk that does not answer"
    return [dict(results).get(name) or Check(name, "failed", late, remedy, limit) for name in looks]


def _made(look: Look) -> Finding:
    try:
        return look()
    except UpdaterError as failure:
        return failed(failure.message, failure.advice or "see what it says")
    except Exception as failure:
        return failed(f"the check could not be made: {failure}", "see errors.log")


def judge(results: Sequence[Check]) -> None:
    """Raise PreflightFailed if any check failed, with all of them and their remedies."""
    wrong = [check for check in results if check.result == "failed"]
    if not wrong:
        return
    raise PreflightFailed(
        wrong[0].summary if len(wrong) == 1 else f"{len(wrong)} preflight checks failed",
        details=[f"{check.name}: {check.summary}\n  remedy: {check.remedy}" for check in wrong],
        advice="do what the remedies say, then run the command again; `updater preflight` shows every check.",
    )
