"""One deployment: what it was asked, what was so before, what each phase found, and what a phase needs to do its part."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from updater import records
from updater.config import Config
from updater.deployment.cancel import Cancellation
from updater.deployment.journal import Journal, Log
from updater.deployment.progress import Progress
from updater.layout import Layout
from updater.lock import Lock

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What somebody asked for.

    ``kind``: ``deploy``, ``fetch``, ``activate``, ``rollback`` or ``restore``. ``wanted``: a tag or version (None: the
    newest, or the previous good one), or the backup to restore, of which ``parts`` says what; ``restore_data``: go back with
    the data that the release had.
    """

    kind: str
    wanted: str | None = None
    force: bool = False
    replace: bool = False
    rebuild: bool = False
    restore_data: bool = False
    parts: tuple[str, ...] = ()
    origin: str = "shell"
    user: str = ""
    reason: str = ""

    @property
    def puts_data_back(self) -> bool:
        """Whether data of a backup take the place of the present ones."""
        return self.kind == "restore" or self.restore_data

    def as_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**{**known, "parts": tuple(map(str, known.get("parts") or ()))})


@dataclass
class Transaction:
    """A running, or recovered, deployment. Everything an undo needs is in the journal; ``memory`` is only for phases
    of the same process."""

    layout: Layout
    config: Config
    lock: Lock
    journal: Journal
    cancel: Cancellation
    request: Request
    before: Mapping[str, Any]
    """``in_service``, ``good``, ``previous``, ``running`` (names of processes): the world before."""
    facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What each phase recorded when it was done."""
    memory: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(
            self.layout, self.journal.id,
            kind=self.request.kind, wanted=self.request.wanted, **{"from": self.origin},
        )  # fmt: skip

    @classmethod
    def recovered(cls, layout: Layout, config: Config, lock: Lock, journal: Journal, log: Log) -> Transaction:
        """The transaction of a journal whose owner is dead."""
        begin = log.begin
        request = Request.from_json(begin.get("request") or {"kind": "deploy"})
        facts = {line.phase: line.data for line in log.lines if line.kind == "done" and line.phase}
        cancel = Cancellation()
        cancel.shield()
        return cls(layout, config, lock, journal, cancel, request, begin.get("before") or {}, facts)

    @property
    def target(self) -> str | None:
        """The release to put into service, once it is resolved; in a restore the one that is."""
        found = self.facts.get("resolve") or self.facts.get("choose") or {}
        version = found.get("version")
        return version if isinstance(version, str) and _is_name(version) else None

    @property
    def origin(self) -> str | None:
        """The release that was in service before."""
        version = self.before.get("in_service")
        return version if isinstance(version, str) and _is_name(version) else None

    @property
    def backup(self) -> str | None:
        """The backup that holds the data from before, the later one if there are two."""
        for phase in ("stop", "backup"):
            if isinstance(name := self.facts.get(phase, {}).get("backup"), str):
                return name
        return None

    @property
    def subject(self) -> str:
        """What this is about, for people."""
        if self.request.kind == "restore":
            return f"the restore of {self.facts.get('choose', {}).get('backup') or self.request.wanted}"
        return f"the deployment of {self.target or self.request.wanted}"

    def began(self, phase: str) -> bool:
        """Whether a phase has begun, by the journal; it may have been undone since."""
        return any(line.kind == "intent" and line.phase == phase for line in self.journal.read().lines)

    @property
    def running_before(self) -> list[str]:
        """The configured processes that ran before, by name."""
        names = self.before.get("running") or []
        return [name for name in self.config.processes if name in names]

    def must_target(self) -> str:
        target = self.target
        assert target is not None, "resolve comes first"
        return target

    def warn(self, text: str) -> None:
        """Something a person should know that does not stop the deployment."""
        self.warnings.append(text)
        self.say(f"warning: {text}")

    def say(self, text: str, *, error: bool = False) -> None:
        """One line in the log, with the release and the deployment."""
        name = self.target or self.request.wanted or "newest"
        records.log(self.layout, f"[{self.journal.id}] {self.request.kind} {name}: {text}", error=error)


def _is_name(version: str) -> bool:
    """Journals are input as well: a version in one never leads out of ``releases/``."""
    return bool(version) and "/" not in version and "\0" not in version and not version.startswith(".")


class Stopwatch:
    """Seconds since it was made; unmoved by clock jumps."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        return round(time.monotonic() - self._start, 3)
