"""``updater.toml`` as data (design page, section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class SourceConfig(NamedTuple):
    type: str = "github"
    """``github`` or ``directory``."""
    repository: str = ""
    """``owner/name`` on GitHub."""
    api_url: str = "https://api.github.com"
    channel: str = "stable"
    """``stable`` or ``prerelease``."""
    asset: str | None = None
    """A glob for the uploaded asset; None: the source tarball of the tag."""
    checksums: str | None = None
    """A glob for an uploaded file of SHA-256 sums that must list the asset; None: not used."""
    token_env: str = "GITHUB_TOKEN"
    path: Path | None = None
    """The folder of a ``directory`` source, absolute."""
    max_size: int = 2 * 1024**3
    """Largest artifact accepted, in bytes."""
    connect_timeout: float = 10.0
    stall_timeout: float = 30.0
    """Seconds without a byte after which a download is resumed."""


class EnvironmentConfig(NamedTuple):
    python: str | None = None
    """A version such as ``3.11`` or a path; None: the newest that fits the project's ``requires-python``."""
    tool: str = "auto"
    """``auto``, ``uv`` or ``venv``."""
    requirements: tuple[str, ...] | None = None
    """Files inside the release to install from; None: found by themselves."""
    timeout: float = 1800.0
    """Seconds a build may take."""


@dataclass(frozen=True)
class ProbeConfig:
    type: str
    """``alive``, ``http``, ``tcp``, ``command`` or ``file``."""
    url: str = ""
    status: int | None = None
    """http: the status expected; None: any 2xx."""
    contains: str | None = None
    """http: a text the body must contain."""
    host: str = "127.0.0.1"
    port: int = 0
    command: tuple[str, ...] = ()
    path: str = ""
    """file: relative to ``shared/``."""
    max_age: float = 30.0
    """file: seconds since its last change."""
    timeout: float = 5.0
    """Seconds one try may take."""
    required: bool = True
    """A probe that is not required warns and never decides (it may need the internet)."""


@dataclass(frozen=True)
class ProcessConfig:
    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "."
    """Relative to the release."""
    stop_timeout: float = 20.0
    """Seconds between SIGTERM and SIGKILL."""
    stop_signal: str = "TERM"
    probes: tuple[ProbeConfig, ...] = (ProbeConfig("alive"),)


class HealthConfig(NamedTuple):
    successes: int = 3
    interval: float = 1.0
    timeout: float = 60.0
    watch: float = 60.0


@dataclass(frozen=True)
class DumpConfig:
    """A database that no file copy can keep, by the commands that dump it and put it back."""

    name: str
    dump: tuple[str, ...]
    """Writes the dump to its standard output."""
    restore: tuple[str, ...]
    """Reads it from its standard input."""
    check: tuple[str, ...] = ()
    """Reads it too, and exits with 0 if it can be restored; empty: not asked."""
    timeout: float = 600.0
    """Seconds that each of them may take."""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BackupConfig:
    keep: int = 5
    databases: tuple[str, ...] = ()
    """SQLite files that must be there, relative to ``shared/``; others are found by themselves."""
    exclude: tuple[str, ...] = ()
    """Patterns of paths relative to ``shared/`` that are left out."""
    logs: bool = True
    max_log_size: int = 64 * 1024**2
    """Bytes; of a log of more than twice that only the end is kept."""
    dumps: Mapping[str, DumpConfig] = field(default_factory=dict)


class MigrateConfig(NamedTuple):
    """How a release brings the databases to its own schema; without a command it does so by itself, or not at all."""

    command: tuple[str, ...] = ()
    """Run in the new release, with its interpreter, while nothing else uses the data."""
    timeout: float = 600.0
    """Seconds that it may take."""
    rehearse: bool = True
    """Whether it is run on a copy first, while the old release is still in service."""


class NotifyConfig(NamedTuple):
    """Who is told what; without an address nobody."""

    urls: tuple[str, ...] = ()
    """Addresses as apprise takes them. They hold passwords: they are not shown."""
    urls_env: str = ""
    """An environment variable that holds more of them."""
    urls_file: Path | None = None
    """A file that holds more of them, absolute."""
    events: tuple[str, ...] = ("available", "updated", "rolled-back", "needs-you")
    timeout: float = 15.0
    """Seconds that all messages of one event may take."""

    def __repr__(self) -> str:
        return f"NotifyConfig({len(self.urls)} urls, {self.urls_env!r}, {self.urls_file!r}, {self.events!r}, {self.timeout!r})"

    @property
    def configured(self) -> bool:
        return bool(self.urls or self.urls_env or self.urls_file)


class ScheduleConfig(NamedTuple):
    """When a new release is looked for, and whether it is deployed without anybody asking."""

    check_every: float = 21600.0
    """Seconds; 0: never."""
    jitter: float = 0.1
    """The fraction of it by which a look may be sooner or later."""
    update: bool = False
    window: tuple[int, int] | None = None
    """Begin and end in minutes since midnight, local time; the end may be 1440, or before the begin: it is on the next day then."""
    days: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    """Days on which the window begins."""


class GateConfig(NamedTuple):
    """Questions to the application whether it may be interrupted; without any it always may."""

    command: tuple[str, ...] = ()
    """Exits with 0 if it may, with 1 if not; what it prints says why."""
    url: str = ""
    """Answers 204, or JSON with a boolean ``busy``, or the word ``free`` or ``busy``; 409, 423 and 503 mean busy too."""
    file: str = ""
    """Relative to ``shared/``; busy as long as it is there."""
    database: str = ""
    """A SQLite database, relative to ``shared/``, for ``busy_if``."""
    busy_if: str = ""
    """A query; busy if its first value is anything but 0, empty or nothing."""
    timeout: float = 10.0
    """Seconds one question may take."""
    on_busy: str = "refuse"
    wait: float = 3600.0
    """Seconds that ``on_busy = "wait"`` waits at most."""
    drain: tuple[str, ...] = ()
    """A command that makes the application take on nothing new."""
    resume: tuple[str, ...] = ()
    """Its counterpart, run afterwards whatever happened."""

    @property
    def asks(self) -> bool:
        return bool(self.command or self.url or self.file or self.busy_if)


@dataclass(frozen=True)
class ServerConfig:
    """The REST API and the dashboard."""

    host: str = "127.0.0.1"
    port: int = 5000
    public_url: str | None = None
    """The address by which browsers reach it through a reverse proxy."""


@dataclass(frozen=True)
class Config:
    file: Path
    name: str = "app"
    unit: str = ""
    """What starts it with the machine: a systemd unit, or a launchd service."""
    source: SourceConfig = field(default_factory=SourceConfig)
    keep: int = 5
    min_free: int = 10**9
    """Bytes that must be free before a release is fetched."""
    new_keys: str = "add"
    """What becomes of settings that a release's defaults have and the user's file has not: ``add`` or ``show``."""
    shared: Mapping[str, str] = field(default_factory=dict)
    """Path inside a release -> path under ``shared/``."""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    processes: Mapping[str, ProcessConfig] = field(default_factory=dict)
    health: HealthConfig = field(default_factory=HealthConfig)
    backup: BackupConfig = field(default_factory=BackupConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    migrate: MigrateConfig = field(default_factory=MigrateConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    notify: NotifyConfig = field(default_factory=NotifyConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    text: str = field(default="", repr=False, compare=False)
    """What all this was read from; empty if it was not read."""

    @property
    def own_variables(self) -> tuple[str, ...]:
        """Environment variables that hold secrets of updater's own; neither the application nor builds of packages get them."""
        return tuple(filter(None, (self.source.token_env, self.notify.urls_env)))
