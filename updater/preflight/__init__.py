"""Can this deployment succeed, and be undone? Every check runs, all results are shown at once, nothing is changed."""

from __future__ import annotations

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


def run(checks: Sequence[Callable[[], Check]]) -> list[Check]:
    """Run every check, whatever the others say; one that cannot be made is a failed one."""
    results = []
    for check in checks:
        try:
            results.append(check())
        except Exception as failure:
            name = getattr(check, "__name__", getattr(getattr(check, "func", None), "__name__", "check"))
            results.append(
                failed(name.replace("_", " "), f"the check could not be made: {failure}", "see errors.log")
            )
    return results


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
