"""The keys of ``updater.toml``: what each may hold, its default, and what it is for.

:data:`SECTIONS` and the tables beside it are the one list of them. Checking, the commented file that ``updater init`` writes, and the
reference all come from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
REPOSITORY = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]/(?!\.{1,2}$)[A-Za-z0-9_.-]+")
URL = re.compile(r"https?://[^\s/]+\S*")
HOST = re.compile(r"[A-Za-z0-9_.:-]{1,253}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TARGET = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,127}")
EVENTS = ("available", "updated", "rolled-back", "needs-you")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60
"""Minutes."""
MOST_TARGETS = 20
RESERVED_PROCESSES = {"child", "update", "errors", "update_history", "update_progress"}


class Wrong(Exception):
    """A value that does not fit; the caller knows where it stands."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What a value must be, in words, and what reads it; that raises Wrong."""

    words: str
    read: Callable[[Any], T]

    def __call__(self, value: Any) -> T:
        return self.read(value)


def _kind(words: str) -> Callable[[Callable[[Any], T]], Kind[T]]:
    return lambda read: Kind(words, read)


@dataclass(frozen=True)
class Key:
    """One key: its name, how its value is read, its default as TOML text (None: it has none), what it is for."""

    name: str
    read: Kind[Any]
    default: str | None
    doc: str
    example: str | None = None


def suggest(word: object, known: tuple[str, ...] | list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@_kind("a text")
def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Wrong('must be a text such as "…"')
    if "\0" in value:
        raise Wrong("must not hold a NUL byte")
    return value


def _matching(pattern: re.Pattern[str], what: str) -> Kind[str]:
    def read(value: Any) -> str:
        if not pattern.fullmatch(text := _text(value)):
            raise Wrong(f"must be {what}, not {text!r}")
        return text

    return Kind(what, read)


def _one_of(*choices: str) -> Kind[str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise Wrong(
                f"must be one of {', '.join(map(repr, choices))}, not {value!r}{suggest(value, choices)}"
            )
        return str(value)

    return Kind("one of " + ", ".join(f'"{it}"' for it in choices), read)


def _number(low: float, high: float, *, whole: bool = False) -> Kind[Any]:
    def read(value: Any) -> Any:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise Wrong(f"must be a {'whole ' if whole else ''}number, not {value!r}")
        if not low <= value <= high:
            raise Wrong(f"must be between {low:g} and {high:g}, not {value!r}")
        return value if whole else float(value)

    return Kind(f"a {'whole ' if whole else ''}number{_between(low, high)}", read)


def _between(low: float, high: float) -> str:
    return f", {low:g} or more" if high >= 2**50 else f" from {_plain(low)} to {_plain(high)}"


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


@_kind("true or false")
def _yes_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"must be true or false, not {value!r}")
    return value


@_kind("a list of words")
def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) and word for word in value):
        raise Wrong('must be a list of words such as ["python", "-m", "bot"]')
    if any("\0" in word for word in value):
        raise Wrong("must not hold a NUL byte")
    return tuple(value)


@_kind("a table of texts")
def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Wrong('must be a table of texts such as { MODE = "paper" }')
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise Wrong(f"{name!r} is not a name for an environment variable")
        if name.startswith("UPDATER_"):
            # By these updater knows its processes again; another value would make them somebody else's.
            raise Wrong(f"{name} is set by updater itself; give it another name")
        if "\0" in text:
            raise Wrong(f"{name} must not hold a NUL byte")
    return dict(value)


@_kind("a relative path")
def relative(value: Any) -> str:
    path = PurePosixPath(_text(value))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise Wrong(f"must be a relative path without '..', not {value!r}")
    return str(path)


@_kind("a relative path")
def _inside(value: Any) -> str:
    return "." if value == "." else relative(value)


@_kind("a table of path and busy_if")
def _query(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or value.keys() != {"path", "busy_if"}:
        raise Wrong('must be { path = "…", busy_if = "SELECT …" }')
    return {"database": relative(value["path"]), "busy_if": _text(value["busy_if"])}


def _several(read: Kind[str], example: str) -> Kind[tuple[str, ...]]:
    def read_all(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise Wrong(f"must be a list such as {example}")
        return tuple(map(read, value))

    return Kind(f"a list, each {read.words}", read_all)


@_kind("a list of addresses")
def _targets(value: Any) -> tuple[str, ...]:
    """Addresses of message services. They hold passwords, so no error repeats one."""
    if not isinstance(value, list) or not all(isinstance(it, str) and TARGET.fullmatch(it) for it in value):
        raise Wrong('must be a list of addresses as apprise takes them, such as ["ntfy://TOPIC"]')
    if len(value) > MOST_TARGETS:
        raise Wrong(f"must not be more than {MOST_TARGETS}")
    return tuple(value)


def _never_or(low: float, high: float) -> Kind[Any]:
    number = _number(0, high)

    def read(value: Any) -> Any:
        if 0 < number(value) < low:
            raise Wrong(f"must be 0 or between {low:g} and {high:g}, not {value!r}")
        return number(value)

    return Kind(f"0, or a number{_between(low, high)}", read)


@_kind("two times of a day")
def _window(value: Any) -> tuple[int, int]:
    """``HH:MM-HH:MM`` as minutes since midnight; the second may be 24:00, or earlier than the first."""
    found = re.fullmatch(r"(\d\d):([0-5]\d)\s*-\s*(\d\d):([0-5]\d)", _text(value))
    hours = [int(it) * 60 for it in found.group(1, 3)] if found else []
    begin, end = (
        [hour + int(it) for hour, it in zip(hours, found.group(2, 4), strict=True)] if found else (0, 0)
    )
    if not (begin < DAY and end <= DAY and begin != end):
        raise Wrong(f'must be two different times of a day such as "02:00-04:00", not {value!r}')
    return begin, end


ABOUT: dict[str, str] = {
    "app": "The application.",
    "source": "Where its releases come from.",
    "releases": "The installed releases.",
    "config": "The application's settings, from release to release.",
    "environment": "The virtualenv that each release gets.",
    "shared": "What outlives a release. Path inside a release = path under shared/; a symlink takes the place of the first.",
    "processes": "The processes of the application, one table each. Without any, updater only switches releases.",
    "probes": "How updater sees that the process is healthy; as many as wanted, `alive` always among them.",
    "backup": "Copies of shared/: before each deployment, and by `updater backup create`.",
    "dumps": "Databases other than SQLite, one table each, by commands that dump them and put them back.",
    "gate": "May the application be interrupted now? Asked before the backup and once more right before the stop; several are all asked.",
    "migrate": "How a new release brings the databases to its schema.",
    "health": "When a release is healthy, and when it counts as good.",
    "server": "The API and the dashboard: `updater serve`.",
    "notify": "Who is told of what happens.",
    "schedule": "What `updater serve` does by itself.",
}
"""What each table is for."""

_signal = _one_of("TERM", "INT", "QUIT", "HUP")

SECTIONS: dict[str, tuple[Key, ...]] = {
    "app": (Key("name", _matching(NAME, "a short name of letters, digits, '.', '_' or '-'"), '"app"', "What people call the application."),
        Key("unit", _matching(UNIT, "the name of a unit"), None, "The systemd unit (macOS: launchd service) that starts it with the machine; preflight looks whether it would.", '"tradebot.service"'),
    ),
    "source": (
        Key("type", _one_of("github", "directory"), '"github"', "Where releases come from: GitHub, or a local folder of artifacts."),
        Key("repository", _matching(REPOSITORY, "OWNER/NAME"), None, "The repository on GitHub.", '"owner/name"'),
        Key("api_url", _matching(URL, "an http(s) address"), '"https://api.github.com"', "GitHub Enterprise: https://HOST/api/v3"),
        Key("channel", _one_of("stable", "prerelease"), '"stable"', "Which releases count as updates; drafts never do."),
        Key("asset", _text, None, "A pattern that one uploaded file of each release matches. Left out: the source tarball of the tag.", '"app-*.tar.gz"'),
        Key("checksums", _text, None, "A pattern for an uploaded file of SHA-256 sums that must list the asset. Left out: not used.", '"SHA256SUMS"'),
        Key("token_env", _matching(VARIABLE, "the name of an environment variable"), '"GITHUB_TOKEN"', "The environment variable that holds an access token (private repositories, more requests an hour)."),
        Key("path", _text, None, "type = \"directory\": the folder, relative to this file.", '"artifacts"'),
        Key("max_size", _number(1024, 2**50, whole=True), str(2 * 1024**3), "Largest artifact accepted, in bytes."),
        Key("connect_timeout", _number(0.1, 600), "10.0", "Seconds to wait for a connection."),
        Key("stall_timeout", _number(0.1, 3600), "30.0", "Seconds without a byte after which a download is taken up anew."),
    ),
    "releases": (Key("keep", _number(2, 1000, whole=True), "5", "How many good releases stay installed; the current, the previous good and pinned ones always do."),
        Key("min_free", _number(0, 2**50, whole=True), str(10**9), "Bytes that must be free before a release is fetched, however little it may need."),
    ),
    "config": (Key("new_keys", _one_of("add", "show"), '"add"', "Keys that are new in a release's default settings (settings.toml.example and its like): add them to the files in shared/config, or only show them."),),
    "environment": (
        Key("python", _text, None, "The Python of the virtualenv: a version such as \"3.11\" or a path. Left out: the newest that fits the project's requires-python.", '"3.11"'),
        Key("tool", _one_of("auto", "uv", "venv"), '"auto"', "What builds it: uv, or plain venv and pip; auto takes uv where it is installed."),
        Key("requirements", _words, None, "Files inside the release to install from. Left out: uv.lock, pylock.toml, requirements*.txt or pyproject.toml, whichever is found first.", '["requirements.txt"]'),
        Key("timeout", _number(1, 86400), "1800.0", "Seconds a build may take."),
    ),
    "backup": (
        Key("keep", _number(1, 1000, whole=True), "5", "How many backups stay; one that a retained release may need, and one with a label, always do."),
        Key("databases", _several(relative, '["data/trades.db"]'), "[]", "SQLite databases that must be there, relative to shared/. Others are found by themselves.", '["data/trades.db"]'),
        Key("exclude", _several(relative, '["data/cache/*"]'), "[]", "Patterns of paths relative to shared/ that are left out.", '["data/cache/*"]'),
        Key("logs", _yes_no, "true", "Whether shared/logs is part of a backup."),
        Key("max_log_size", _number(4096, 2**50, whole=True), str(64 * 1024**2), "Bytes; of a log of more than twice that only the end is kept."),
    ),
    "gate": (
        Key("sqlite", _query, None, "May the application be interrupted? Busy if the query's first value is anything but 0, empty or nothing.", '{ path = "data/trades.db", busy_if = "SELECT count(*) FROM trades WHERE status = \'open\'" }'),
        Key("command", _words, None, "Or a command that exits with 0 if it may and with 1 if not; what it prints says why.", '["python", "-m", "bot.busy"]'),
        Key("url", _matching(URL, "an http(s) address"), None, "Or an address that answers 204, or JSON with a boolean \"busy\", or the word free or busy.", '"http://127.0.0.1:8080/busy"'),
        Key("file", relative, None, "Or a file, relative to shared/: busy as long as it is there.", '"data/busy"'),
        Key("timeout", _number(0.1, 3600), "10.0", "Seconds one question may take. No answer counts as busy."),
        Key("on_busy", _one_of("refuse", "wait"), '"refuse"', "Refuse the deployment (exit code 9), or wait until it is free."),
        Key("wait", _number(0, 30 * 86400), "3600.0", "Seconds to wait at most."),
        Key("drain", _words, None, "A command that makes the application take on nothing new, run before it is stopped.", '["python", "-m", "bot.pause"]'),
        Key("resume", _words, None, "Its counterpart, run afterwards, whether the deployment succeeded or not.", '["python", "-m", "bot.resume"]'),
    ),
    "migrate": (
        Key("command", _words, None, "A command of the new release that brings the databases to its schema. It is rehearsed on a copy, then run after the stop; whatever fails, the untouched database comes back.", '["python", "-m", "bot.migrate"]'),
        Key("timeout", _number(0.1, 7 * 86400), "600.0", "Seconds it may take."),
        Key("rehearse", _yes_no, "true", "Run it on a copy first, while the old release is still in service: in a copy of the release and of shared/ (UPDATER_SHARED tells where; paths must be relative or come from there)."),
    ),
    "health": (
        Key("successes", _number(1, 1000, whole=True), "3", "How many times in a row every probe must pass."),
        Key("interval", _number(0.05, 3600), "1.0", "Seconds between two rounds of probes."),
        Key("timeout", _number(0.1, 86400), "60.0", "Seconds after the start within which the application must be healthy."),
        Key("watch", _number(0, 86400), "60.0", "Seconds that a new release is watched before it counts as good."),
    ),
    "server": (
        Key("host", _matching(HOST, "a host name or an address"), '"127.0.0.1"', "Where `updater serve` listens; anything but this machine's own needs TLS in front."),
        Key("port", _number(1, 65535, whole=True), "5000", "Its port."),
        Key("public_url", _matching(URL, "an http(s) address"), None, "The address by which browsers reach it through a reverse proxy; other names are refused.", '"https://bot.example.org"'),
    ),
    "notify": (
        Key("urls", _targets, None, "Where messages go: addresses as apprise takes them (https://github.com/caronc/apprise/wiki). They are secrets; needs pip install 'updater[notify]'. `updater notify-test` tries them.", '["tgram://TOKEN/CHAT", "mailto://USER:PASSWORD@HOST"]'),
        Key("urls_env", _matching(VARIABLE, "the name of an environment variable"), None, "Or an environment variable that holds them, separated by white space.", '"UPDATER_NOTIFY_URLS"'),
        Key("urls_file", _text, None, "Or a file that holds them, one a line, relative to this one; let nobody else read it (chmod 600).", '"notify.urls"'),
        Key("events", _several(_one_of(*EVENTS), '["needs-you"]'), str(list(EVENTS)).replace("'", '"'), "What is told: a new release, an update, a way back, and what needs a person."),
        Key("timeout", _number(0.1, 600), "15.0", "Seconds that all messages of one event may take together."),
    ),
    "schedule": (
        Key("check_every", _never_or(1, 366 * 86400), "21600.0", "Seconds between two looks for a new release while `updater serve` runs; 0: never."),
        Key("jitter", _number(0, 1), "0.1", "By which fraction of that it is sooner or later, by chance."),
        Key("update", _yes_no, "false", "Whether a new release is deployed without anybody asking: in the window, when the gate is free, never one that was bad."),
        Key("window", _window, None, "When it may be: local time; may cross midnight.", '"02:00-04:00"'),
        Key("days", _several(_one_of(*DAYS), '["sat", "sun"]'), str(list(DAYS)).replace("'", '"'), "On which days the window may begin."),
    ),
}  # fmt: skip

PROCESS: tuple[Key, ...] = (
    Key(
        "command",
        _words,
        None,
        "The program and its arguments; python is the release's own.",
        '["python", "-m", "bot"]',
    ),
    Key(
        "env", _environment, "{}", "Environment variables; names that begin with UPDATER_ are updater's own."
    ),
    Key("cwd", _inside, '"."', "Where it runs, relative to the release."),
    Key("stop_timeout", _number(0, 86400), "20.0", "Seconds between the polite signal and the firm one."),
    Key("stop_signal", _signal, '"TERM"', "The polite signal: TERM, INT, QUIT or HUP."),
)

DUMP: tuple[Key, ...] = (
    Key("dump", _words, None, "Writes the dump to its standard output.", '["sh", "-c", "exec pg_dump --format=custom \\"$DATABASE_URL\\""]'),
    Key("restore", _words, None, "Reads a dump from its standard input and puts the database back; docs/databases.md has tested ones.", '["sh", "-c", "…"]'),
    Key("check", _words, None, "Reads a dump too, and exits with 0 if it can be restored. Left out: not asked.", '["pg_restore", "--file=/dev/null"]'),
    Key("timeout", _number(0.1, 86400), "600.0", "Seconds that each of them may take."),
    Key("env", _environment, "{}", "Environment variables; their values are in no message."),
)  # fmt: skip

PROBE: tuple[Key, ...] = (
    Key("type", _one_of("alive", "http", "tcp", "command", "file"), None, "alive, http, tcp, command or file.", '"http"'),
    Key("url", _matching(URL, "an http(s) address"), None, "http: the address.", '"http://127.0.0.1:8080/health"'),
    Key("status", _number(100, 599, whole=True), None, "http: the status expected. Left out: any 2xx.", "200"),
    Key("contains", _text, None, "http: a text that the answer must contain.", '"ok"'),
    Key("host", _text, '"127.0.0.1"', "tcp: the host."),
    Key("port", _number(1, 65535, whole=True), None, "tcp: the port.", "8080"),
    Key("command", _words, None, "command: passes when it exits with 0.", '["python", "-m", "bot.check"]'),
    Key("path", relative, None, "file: a heartbeat, relative to shared/.", '"data/heartbeat"'),
    Key("max_age", _number(0.1, 86400), "30.0", "file: seconds since it was last written."),
    Key("timeout", _number(0.05, 3600), "5.0", "Seconds one try may take."),
    Key("required", _yes_no, "true", "false: a failure is a warning and decides nothing (a probe that needs the internet)."),
)  # fmt: skip

NEEDED_BY_PROBE = {
    "alive": (),
    "http": ("url",),
    "tcp": ("port",),
    "command": ("command",),
    "file": ("path",),
}
