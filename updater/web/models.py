"""What goes in and out, as types: bodies and query strings are checked against them, and the OpenAPI document is made of them.

Answers are the very objects that ``updater --json`` prints. Their types name what a client may rely on; there may be more in them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

# `$` alone lets a newline pass at the end; the lookahead means the same in Python's and in JavaScript's expressions.
_TAG = r"^[A-Za-z0-9][A-Za-z0-9._+@/-]*$(?!\n)"
_LINE = r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)"
_PROCESS = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$(?!\n)"

Tag = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=_TAG,
        description="A release's tag.",
        examples=["v1.4.0"],
    ),
]
Version = Annotated[
    str,
    Meta(
        min_length=1, max_length=100, pattern=_TAG, description="An installed release, by its version or tag.",
        examples=["v1.4.0"],
    ),
]  # fmt: skip
Reason = Annotated[
    str,
    Meta(
        max_length=500,
        pattern=_LINE,
        description="Why; kept in the history.",
        examples=["requested by ops"],
    ),
]
Force = Annotated[
    bool, Meta(description="Past a bad mark, a busy application or files that were edited; it is recorded.")
]
KeepConfig = Annotated[
    bool, Meta(description="Leave the settings as they are, although the release ran with others before.")
]
BackupId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9_-]+$(?!\n)",
        description="A backup, or `latest`.",
        examples=["backup_20261124_101502"],
    ),
]
Part = Literal["config", "data", "dumps", "logs"]
ProcessName = Annotated[str, Meta(min_length=1, max_length=64, pattern=_PROCESS, examples=["bot"])]
Names = Annotated[list[ProcessName], Meta(max_length=100)]
Outcome = str
When = Annotated[str, Meta(description="ISO 8601, UTC.", examples=["2026-11-24T10:15:02.120Z"])]


class Body(Struct, forbid_unknown_fields=True):
    """A request's body: a JSON object; other keys than these are refused."""


class Nothing(Body):
    """An empty object, or no body at all."""


class Start(Body):
    """Which release, and how. Without ``tag`` the newest of the channel."""

    tag: Tag | None = None
    replace: Annotated[
        bool, Meta(description="Where the tag now has other content: install that beside the old release.")
    ] = False
    force: Force = False
    keep_config: KeepConfig = False
    reason: Reason = ""


class Fetch(Body):
    """A release to install without activating it."""

    tag: Tag
    replace: bool = False
    rebuild: Annotated[bool, Meta(description="Build the environment of an installed release anew.")] = False
    force: Force = False


class Rollback(Body):
    """Where to; without ``to`` the previous good release."""

    to: Version | None = None
    restore_data: Annotated[
        bool, Meta(description="Also put back the data that it had when it was left.")
    ] = False
    force: Force = False
    keep_config: KeepConfig = False
    reason: Reason = ""


class Activate(Body):
    version: Version
    force: Force = False
    keep_config: KeepConfig = False
    reason: Reason = ""


class Release(Body):
    version: Version
    reason: Reason = ""


class Verify(Body):
    """Which release; without one that in service, with ``all`` every one."""

    version: Version | None = None
    all: bool = False


class Prune(Body):
    keep: (
        Annotated[int, Meta(ge=1, le=1000, description="How many stay; else what updater.toml says.")] | None
    ) = None


class Processes(Body):
    """Which processes; none named means all."""

    processes: Names = []


class Hold(Body):
    reason: Reason = ""


class CreateBackup(Body):
    label: Annotated[
        str,
        Meta(
            max_length=200,
            pattern=_LINE,
            description="What it is for; one with a label is never pruned by itself.",
        ),
    ] = ""
    force: Annotated[bool, Meta(description="Keep a corrupt database as it is instead of refusing.")] = False


class Restore(Body):
    id: BackupId
    parts: Annotated[list[Part], Meta(max_length=4, description="None named: config, data and dumps.")] = []
    force: Force = False
    reason: Reason = ""


class VerifyBackup(Body):
    id: BackupId | None = None
    all: bool = False


class PreflightQuery(Struct):
    tag: Tag | None = None
    offline: Annotated[bool, Meta(description="Do not ask the source.")] = False


class HistoryQuery(Struct):
    limit: Annotated[int, Meta(ge=1, le=1000, description="How many, newest first.")] = 50


class LogsQuery(Struct):
    process: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=_PROCESS,
            description="A process, `update` or `errors`.",
        ),
    ] = "update"
    lines: Annotated[int, Meta(ge=1, le=1000)] = 50


class DiffQuery(Struct):
    version: Version | None = None


class EventsQuery(Struct):
    after: Annotated[
        str,
        Meta(
            max_length=80,
            pattern=r"^[0-9A-Za-z:-]*$(?!\n)",
            description="As the header Last-Event-ID, for the first connection.",
        ),
    ] = ""


# answers


class Update(Struct):
    tag: str
    name: str | None
    published_at: str | None
    notes: Annotated[str | None, Meta(description="The release notes, Markdown as published.")]
    url: str | None


class Checked(Struct):
    in_service: str | None
    newest: str | None
    update: Update | None
    skipped: dict[str, Any] | None
    source: str
    warnings: list[str]


class Check(Struct):
    name: str
    result: Literal["ok", "warning", "failed"]
    summary: str
    remedy: str | None


class Preflight(Struct):
    ready: bool
    target: str | None
    checks: list[Check]


class Accepted(Struct):
    """The deployment runs, in a process of its own."""

    id: str
    recovered: Annotated[
        list[dict[str, Any]],
        Meta(description="Interrupted deployments that were brought to their end first."),
    ]


class Phase(Struct):
    name: str
    done: bool


class Deployment(Struct):
    id: str
    kind: str | None
    wanted: str | None
    to: str | None
    phase: str | None
    phases: list[Phase]
    rolling_back: bool
    outcome: str | None
    error: dict[str, Any] | None
    interrupted: bool
    stale: bool
    owner: str | None


class Progress(Struct):
    """The deployment that runs, else the last one; null if there was never one."""

    deployment: Deployment | None
    last_event: Annotated[str | None, Meta(description="Give it as `after` to the stream of events.")]


class Asked(Struct):
    """The deployment was asked to stop and undoes what it did; its progress tells when it has."""

    id: str


class Record(Struct):
    """One line of the history."""

    id: str
    outcome: str


class History(Struct):
    deployments: list[dict[str, Any]]
    damaged: int


class Releases(Struct):
    releases: list[dict[str, Any]]


class Recovered(Struct):
    recovered: list[dict[str, Any]]


class Reports(Struct):
    reports: list[dict[str, Any]]


class Removed(Struct):
    removed: list[str]


class Marked(Struct):
    version: str


class InService(Struct):
    version: str | None
    kind: str


class Status(Struct):
    name: str
    in_service: InService
    good: str | None
    previous: str | None
    processes: list[dict[str, Any]]
    deployment: dict[str, Any] | None
    hold: Held | None
    advice: list[str]


class Held(Struct):
    reason: str
    by: str
    at: str


class Holding(Struct):
    hold: Held
    before: Annotated[Held | None, Meta(description="The hold that it replaces.")]
    at_work: Annotated[str | None, Meta(description="The operation that is at work, and goes on.")]


class Released(Struct):
    released: Held | None


class Health(Struct):
    version: str
    healthy: bool
    probes: list[dict[str, Any]]


class Killed(Struct):
    killed: list[str]
    warnings: list[str]


class Stopped(Struct):
    stopped: list[str]
    warnings: list[str]


class Running(Struct):
    processes: list[dict[str, Any]]
    warnings: list[str]


class Logs(Struct):
    file: str
    lines: list[str]


class Backups(Struct):
    backups: list[dict[str, Any]]


class Backup(Struct):
    id: str
    size: int
    stored: int


class Problem(Struct):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    details: list[str]
    state: str | None
    advice: str | None
    exit_code: int | None = None
