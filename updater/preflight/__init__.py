"""Can this deployment succeed, and be undone? Every check runs, all results are shown at once, nothing is changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from updater.errors import PreflightFailed


@dataclass(frozen=True)
class Check:
    """One answer. ``result``: ``ok``, ``warning`` or ``failed``; ``remedy`` says what to do about the last two."""

    name: str
    result: str
    summary: str
    remedy: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def ok(name: str, summary: str) -> Check:
    return Check(name, "ok", summary)


def warning(name: str, summary: str, remedy: str) -> Check:
    return Check(name, "warning", summary, remedy)


def failed(name: str, summary: str, remedy: str) -> Check:
    return Check(name, "failed", summary, remedy)


LIMIT = 20.0
"""Seconds that one check may take; a dead network mount must not keep the others from being shown."""


def run(checks: Sequence[Callable[[], Check]], *, limit: float = LIMIT) -> list[Check]:
    """Run every check, all at once, whatever the others say; one that cannot be made, or not within ``limit`` seconds, is a
    failed one."""
    results: list[Check | None] = [None] * len(checks)

    def make(number: int) -> None:
        try:
            results[number] = checks[number]()
        except Exception as failure:
            text = f"the check could not be made: {failure}"
            results[number] = failed(_name(checks[number]), text, "see errors.log")

    threads = [threading.Thread(target=make, args=(number,), daemon=True) for number in range(len(checks))]
    for thread in threads:
        thread.start()
    until = time.monotonic() + limit
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = "look for a network mount or a disk that does not answer"
    return [
        result or failed(_name(check), f"the check did not end within {limit:g} s", late)
        for check, result in zip(checks, results, strict=True)
    ]


def _name(check: Callable[[], Check]) -> str:
    return str(
        getattr(check, "__name__", getattr(getattr(check, "func", None), "__name__", "check"))
    ).replace("_", " ")


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
