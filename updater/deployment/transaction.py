"""One deployment: what it was asked, what was so before, what each phase found, and what a phase needs to do its part."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from updater import records
from updater.deployment.cancel import Cancellation
from updater.deployment.journal import Journal, Log
from updater.deployment.progress import Progress
from updater.errors import ConfigError
from updater.layout import Layout
from updater.lock import Lock

if TYPE_CHECKING:
    from updater.config import Config

Json = dict[str, Any]

TOLD = ("data", "data_told", "back_to", "stays_down", "settings_put_back")
"""What the way back finds out, and only the report at its end tells: which backup holds what a release wrote ..."""


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
    keep_config: bool = False
    """The settings stay as they are, although the release ran with others before."""
    origin: str = "shell"
    user: str = ""
    reason: str = ""

    @property
    def puts_data_back(self) -> bool:
        """Whether data of a backup take the place of the present ones."""
        return self.kind == "restore" or self.restore_data

    @property
    def goes_back(self) -> bool:
        """Whether it leads to what is on this machine already; such a way no typing error in ``updater.toml`` may bar."""
        return self.kind in ("activate", "rollback", "restore")

    def as_json(self) -> Json:
        return asdict(self)

    def command(self, *flags: str) -> str:
        """What a person types for it, with more flags; for advice."""
        words = [self.wanted or ""] if self.kind != "rollback" or not self.wanted else ["--to", self.wanted]
        given = {
            "--restore-data": self.restore_data, "--keep-config": self.keep_config,
            "--replace": self.replace, "--rebuild": self.rebuild, "--force": self.force,
        }  # fmt: skip
        words += dict.fromkeys([*(flag for flag, asked in given.items() if asked), *flags])
        verb = "backup restore" if self.kind == "restore" else self.kind
        return " ".join(["updater", verb, *filter(None, words)])

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        """What is missing, or of another type than ours, is as if it were not asked: journals are input."""
        asked: dict[str, Any] = {"kind": "deploy"}
        for name, about in cls.__dataclass_fields__.items():
            value, wanted = data.get(name), bool if about.default is False else str
            if name == "parts" and isinstance(value, list | tuple):
                asked[name] = tuple(map(str, value))
            elif name != "parts" and isinstance(value, wanted):
                asked[name] = value
        return cls(**asked)


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
    wrong: ConfigError | None = None
    """What is wrong with ``updater.toml``; ``config`` is then what the release in service last ran with."""
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(
            self.layout, self.journal.id,
            kind=self.request.kind, wanted=self.request.wanted, **{"from": self.origin},
        )  # fmt: skip

    @classmethod
    def recovered(cls, layout: Layout, config: Config, lock: Lock, journal: Journal, log: Log) -> Transaction:
        """The transaction of a journal whose owner is dead."""
        request = Request.from_json(log.request)
        facts = {line.phase: line.data for line in log.lines if line.kind == "done" and line.phase}
        cancel = Cancellation()
        cancel.shield()
        found = cls(layout, config, lock, journal, cancel, request, log.before, facts)
        for line in log.lines:
            if line.kind == "undone":
                found._take_up(line.data)
        return found

    def told(self) -> Json:
        """What the report has to tell of the way back so far; it must survive a kill on that way."""
        found = {name: self.memory[name] for name in TOLD if name in self.memory}
        return {**found, "warnings": list(self.warnings)} if self.warnings else found

    def _take_up(self, told: Mapping[str, Any]) -> None:
        kinds = {
            "data": dict,
            "data_told": str,
            "back_to": str,
            "stays_down": list,
            "settings_put_back": dict,
        }
        self.memory |= {name: told[name] for name in TOLD if isinstance(told.get(name), kinds[name])}
        if isinstance(warnings := told.get("warnings"), list):
            self.warnings = [str(it) for it in warnings]

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
    def backup_lacks(self) -> bool:
        """Whether that backup does not hold all that there was, which its warnings tell."""
        return bool(self.facts.get("backup", {}).get("lacks"))

    @property
    def subject(self) -> str:
        """What this is about, for people."""
        if self.request.kind == "restore":
            return f"the restore of {self.facts.get('choose', {}).get('backup') or self.request.wanted}"
        return f"the deployment of {self.target or self.request.wanted or 'a release that nothing names'}"

    def began(self, phase: str) -> bool:
        """Whether a phase has begun, by the journal; it may have been undone since."""
        return any(line.kind == "intent" and line.phase == phase for line in self.journal.read().lines)

    @property
    def configuration(self) -> Mapping[str, Any] | None:
        """What became of the application's settings; once they are put back, only what was kept aside then."""
        found = self.memory.get("settings_put_back") or self.facts.get("configure", {}).get("configuration")
        return found if isinstance(found, dict) else None

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
    """Seconds since it was made, and ``already`` before that; unmoved by clock jumps."""

    def __init__(self, already: float = 0.0) -> None:
        self._start = time.monotonic() - already

    def seconds(self) -> float:
        return round(time.monotonic() - self._start, 3)
