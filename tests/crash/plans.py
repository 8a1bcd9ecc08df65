"""What each deployment of tests/crash/load.py does: a pure function of the seed and its number."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What a deployment is of. ``ends``: how it must end if nobody cancels it; ``code``: the exit code then."""

    behaviour: str = "good"
    changes: str = "nothing"
    ends: str = "succeeded"
    code: int = 0
    damaged: str = ""
    command: str = "deploy"
    settings: dict[str, Any] = field(default_factory=dict)


MIGRATE = {"migrate": '[migrate]\ncommand = ["python", "migrate.py"]\n'}
KINDS = {
    "good": Kind(),
    "good, its application changes the schema": Kind(changes="itself"),
    "good, with a migration": Kind(changes="migrates", settings=MIGRATE),
    "back to the one before": Kind(command="rollback"),
    "one before is activated": Kind(command="activate"),
    "crashes at its start": Kind("crash", ends="rolled-back", code=4),
    "answers that it is sick": Kind("sick", ends="rolled-back", code=4, settings={"timeout": 3}),
    "dies in the watch window": Kind("dies", ends="rolled-back", code=4, settings={"watch": 0.9}),
    "changes the schema and dies": Kind("dies", "itself", "rolled-back", 4, settings={"watch": 0.9}),
    "its migration fails in the rehearsal": Kind("good", "fails rehearsed", "failed", 4, settings=MIGRATE),
    "its migration fails": Kind("good", "fails", "rolled-back", 4, settings=MIGRATE),
    "its artifact is cut": Kind("good", ends="failed", code=7, damaged="cut"),
    "its artifact is of other content": Kind("good", ends="failed", code=7, damaged="other"),
}
GOOD = ["good"] * 5 + [name for name, it in KINDS.items() if it.ends == "succeeded" and name != "good"]
BAD = [name for name, it in KINDS.items() if it.ends != "succeeded"]
PHASES = (
    "resolve", "fetch", "unpack", "seal", "backup", "rehearse", "stop", "migrate", "activate", "start", "probe", "watch", "commit",
)  # fmt: skip
ASKED = (
    "/api/update/progress", "/api/update/history?limit=20", "/api/system/status", "/api/releases/list", "/api/backups/list",
    "/api/system/health", "/api/system/logs?process=update&lines=50", "/metrics", "/api/update/check",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What one deployment does: a pure function of the seed and the number."""

    number: int
    kind: str
    starts: tuple[str, ...]
    """How it is started; more than one: at the same time, and one of them must be taken."""
    cancel: str = ""
    """By what it is cancelled: ``command``, ``api`` or ``sigint``."""
    phase: str = ""
    """In which phase it is cancelled, or the second server restarted."""
    delay: float = 0.0
    """Seconds into that phase."""
    restart: str = ""
    """The signal by which the second server goes meanwhile."""
    asked: str = ASKED[0]
    """What the dashboard is asked for afterwards."""

    @property
    def tag(self) -> str:
        return f"v1.{self.number}.0"


def plan(seed: int, number: int) -> Plan:
    """The same seed and number, the same plan."""
    chance = random.Random(f"{seed} {number}")
    kind = chance.choice(BAD if chance.random() < 1 / 3 else GOOD)
    cancel = chance.choice(("command", "api", "sigint")) if chance.random() < 0.16 else ""
    long = KINDS[kind].ends != "failed"
    starts = [chance.choices(("warm", "api", "command"), (5, 3, 2))[0]]
    if cancel == "sigint":
        starts = ["command"]
    if long and chance.random() < 0.12:  # what ends at once might have ended when the other one comes
        starts += chance.choices(("api", "command"), k=chance.choice((1, 2)))
        starts[0] = "command" if cancel == "sigint" else chance.choice(("api", "command"))
    restart = chance.choice(("TERM", "KILL")) if not cancel and chance.random() < 0.05 else ""
    return Plan(
        number, kind, tuple(starts), cancel, chance.choice(PHASES), round(chance.random() * 0.15, 3), restart, chance.choice(ASKED),
    )  # fmt: skip
