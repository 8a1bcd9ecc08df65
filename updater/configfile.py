"""Reads ``updater.toml``: every key known, every value checked, every error with its line.

:data:`SECTIONS` is the one list of keys. Checking, the commented file that ``updater init`` writes, and the reference
all come from it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from updater.config import (
    BackupConfig,
    Config,
    DumpConfig,
    EnvironmentConfig,
    GateConfig,
    HealthConfig,
    MigrateConfig,
    ProbeConfig,
    ProcessConfig,
    SourceConfig,
)
from updater.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
URL = re.compile(r"https?://[^\s/]+\S*")
RESERVED_PROCESSES = {"child", "update", "errors", "update_history", "update_progress"}


class _Wrong(Exception):
    """A value that does not fit; the caller knows where it stands."""


@dataclass(frozen=True)
class Key:
    """One key: its name, how its value is read, its default as TOML text (None: it has none), what it is for."""

    name: str
    read: Callable[[Any], Any]
    default: str | None
    doc: str
    example: str | None = None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Wrong('must be a text such as "…"')
    if "\0" in value:
        raise _Wrong("must not hold a NUL byte")
    return value


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not pattern.fullmatch(text := _text(value)):
            raise _Wrong(f"must be {what}, not {text!r}")
        return text

    return read


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise _Wrong(
                f"must be one of {', '.join(map(repr, choices))}, not {value!r}{_suggest(value, choices)}"
            )
        return str(value)

    return read


def _number(low: float, high: float, *, whole: bool = False) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise _Wrong(f"must be a {'whole ' if whole else ''}number, not {value!r}")
        if not low <= value <= high:
            raise _Wrong(f"must be between {low:g} and {high:g}, not {value!r}")
        return value if whole else float(value)

    return read


def _yes_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(f"must be true or false, not {value!r}")
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) and word for word in value):
        raise _Wrong('must be a list of words such as ["python", "-m", "bot"]')
    if any("\0" in word for word in value):
        raise _Wrong("must not hold a NUL byte")
    return tuple(value)


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _Wrong('must be a table of texts such as { MODE = "paper" }')
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise _Wrong(f"{name!r} is not a name for an environment variable")
        if name.startswith("UPDATER_"):
            # By these updater knows its processes again; another value would make them somebody else's.
            raise _Wrong(f"{name} is set by updater itself; give it another name")
        if "\0" in text:
            raise _Wrong(f"{name} must not hold a NUL byte")
    return dict(value)


def _inside(value: Any) -> str:
    path = PurePosixPath(_text(value))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise _Wrong(f"must be a relative path without '..', not {value!r}")
    return str(path)


def _query(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or value.keys() != {"path", "busy_if"}:
        raise _Wrong('must be { path = "…", busy_if = "SELECT …" }')
    return {"database": _inside(value["path"]), "busy_if": _text(value["busy_if"])}


def _several(read: Callable[[Any], str], example: str) -> Callable[[Any], tuple[str, ...]]:
    def read_all(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise _Wrong(f"must be a list such as {example}")
        return tuple(map(read, value))

    return read_all


_signal = _one_of("TERM", "INT", "QUIT", "HUP")

SECTIONS: dict[str, tuple[Key, ...]] = {
    "app": (Key("name", _matching(NAME, "a short name of letters, digits, '.', '_' or '-'"), '"app"', "What people call the application."),),
    "source": (
        Key("type", _one_of("github", "directory"), '"github"', "Where releases come from: GitHub, or a local folder of artifacts."),
        Key("repository", _matching(REPOSITORY, "OWNER/NAME"), None, "The repository on GitHub.", '"owner/name"'),
        Key("api_url", _matching(URL, "an http(s) address"), '"https://api.github.com"', "GitHub Enterprise: https://HOST/api/v3"),
        Key("channel", _one_of("stable", "prerelease"), '"stable"', "Which releases count as updates; drafts never do."),
        Key("asset", _text, None, "A pattern that one uploaded file of each release matches. Left out: the source tarball of the tag.", '"app-*.tar.gz"'),
        Key("checksums", _text, None, "A pattern for an uploaded file of SHA-256 sums that must list the asset. Left out: not used.", '"SHA256SUMS"'),
        Key("token_env", _matching(re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "the name of an environment variable"), '"GITHUB_TOKEN"', "The environment variable that holds an access token (private repositories, more requests an hour)."),
        Key("path", _text, None, "type = \"directory\": the folder, relative to this file.", '"artifacts"'),
        Key("max_size", _number(1024, 2**50, whole=True), str(2 * 1024**3), "Largest artifact accepted, in bytes."),
        Key("connect_timeout", _number(0.1, 600), "10.0", "Seconds to wait for a connection."),
        Key("stall_timeout", _number(0.1, 3600), "30.0", "Seconds without a byte after which a download is taken up anew."),
    ),
    "releases": (Key("keep", _number(2, 1000, whole=True), "5", "How many good releases stay installed; the current, the previous good and pinned ones always do."),),
    "environment": (
        Key("python", _text, None, "The Python of the virtualenv: a version such as \"3.11\" or a path. Left out: the newest that fits the project's requires-python.", '"3.11"'),
        Key("tool", _one_of("auto", "uv", "venv"), '"auto"', "What builds it: uv, or plain venv and pip; auto takes uv where it is installed."),
        Key("requirements", _words, None, "Files inside the release to install from. Left out: uv.lock, pylock.toml, requirements*.txt or pyproject.toml, whichever is found first.", '["requirements.txt"]'),
        Key("timeout", _number(1, 86400), "1800.0", "Seconds a build may take."),
    ),
    "backup": (
        Key("keep", _number(1, 1000, whole=True), "5", "How many backups stay; one that a retained release may need, and one with a label, always do."),
        Key("databases", _several(_inside, '["data/trades.db"]'), "[]", "SQLite databases that must be there, relative to shared/. Others are found by themselves.", '["data/trades.db"]'),
        Key("exclude", _several(_inside, '["data/cache/*"]'), "[]", "Patterns of paths relative to shared/ that are left out.", '["data/cache/*"]'),
        Key("logs", _yes_no, "true", "Whether shared/logs is part of a backup."),
        Key("max_log_size", _number(4096, 2**50, whole=True), str(64 * 1024**2), "Bytes; of a log of more than twice that only the end is kept."),
    ),
    "gate": (
        Key("sqlite", _query, None, "May the application be interrupted? Busy if the query's first value is anything but 0, empty or nothing.", '{ path = "data/trades.db", busy_if = "SELECT count(*) FROM trades WHERE status = \'open\'" }'),
        Key("command", _words, None, "Or a command that exits with 0 if it may and with 1 if not; what it prints says why.", '["python", "-m", "bot.busy"]'),
        Key("url", _matching(URL, "an http(s) address"), None, "Or an address that answers 204, or JSON with a boolean \"busy\", or the word free or busy.", '"http://127.0.0.1:8080/busy"'),
        Key("file", _inside, None, "Or a file, relative to shared/: busy as long as it is there.", '"data/busy"'),
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
    Key("path", _inside, None, "file: a heartbeat, relative to shared/.", '"data/heartbeat"'),
    Key("max_age", _number(0.1, 86400), "30.0", "file: seconds since it was last written."),
    Key("timeout", _number(0.05, 3600), "5.0", "Seconds one try may take."),
    Key("required", _yes_no, "true", "false: a failure is a warning and decides nothing (a probe that needs the internet)."),
)  # fmt: skip

_NEEDED_BY_PROBE = {
    "alive": (),
    "http": ("url",),
    "tcp": ("port",),
    "command": ("command",),
    "file": ("path",),
}
_TABLES = (*SECTIONS, "shared", "processes")
_TABLES_IN = {"backup": ("dumps",)}


def load(file: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read or something in it is wrong; each detail names file, line and key.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read {file}: {reason}", state="Nothing was changed.") from failure
    return parse(text, file)


def parse(text: str, file: Path) -> Config:
    """Check the text of a configuration file; ``file`` gives its place for errors and relative paths."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise _config_error(file, [f"{file.name}: {failure}"]) from failure
    reader = _Reader(file, _lines(text))
    config = reader.config(data)
    if reader.problems:
        raise _config_error(file, reader.problems)
    return config


def _config_error(file: Path, problems: list[str]) -> ConfigError:
    count = "an error" if len(problems) == 1 else f"{len(problems)} errors"
    return ConfigError(
        f"{count} in {file}",
        details=problems,
        state="Nothing was changed.",
        advice=f"correct {file.name}; `updater preflight` checks it.",
    )


def _suggest(word: object, known: tuple[str, ...] | list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


_Where = tuple[str | int, ...]


def _lines(text: str) -> dict[_Where, int]:
    """Where each table and key stands: path (with the index of array tables) -> line, counted from 1."""
    places: dict[_Where, int] = {}
    counts: dict[_Where, int] = {}
    table: _Where = ()
    inside_text: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if inside_text:
            inside_text = None if inside_text in line else inside_text
            continue
        if header := re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line):
            table = _resolve(_split(header[2]), counts)
            if header[1] == "[[":
                plain = (*_resolve(_split(header[2])[:-1], counts), _split(header[2])[-1])
                counts[plain] = counts.get(plain, -1) + 1
                table = (*plain, counts[plain])
            for depth in range(1, len(table) + 1):  # [a.b] makes a table a as well
                places.setdefault(table[:depth], number)
        elif key := re.match(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=(.*)", line):  # fmt: skip
            places.setdefault((*table, *_split(key[1])), number)
            for quotes in ('"""', "'''"):
                if key[2].count(quotes) == 1:
                    inside_text = quotes
    return places


def _split(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s]+", dotted)]


def _resolve(parts: list[str], counts: Mapping[_Where, int]) -> _Where:
    path: _Where = ()
    for part in parts:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path])
    return path


class _Reader:
    """Walks the data once; problems are collected so that all are shown at once."""

    def __init__(self, file: Path, lines: Mapping[_Where, int]) -> None:
        self.file = file
        self.lines = lines
        self.problems: list[str] = []

    def wrong(self, where: _Where, text: str) -> None:
        place = where
        while place and place not in self.lines:
            place = place[:-1]
        line = f":{self.lines[place]}" if place else ""
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
        self.problems.append(f"{self.file.name}{line}: {name}: {text}")

    def table(self, where: _Where, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self.wrong(where, f"must be a table [{'.'.join(map(str, where))}]")
        return {}

    def keys(
        self, where: _Where, table: Mapping[str, Any], keys: tuple[Key, ...], also: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        known = {key.name: key for key in keys}
        values = {}
        for name, value in table.items():
            if name in also:
                continue
            if name not in known:
                self.wrong((*where, name), f"unknown key{_suggest(name, [*known, *also])}")
                continue
            try:
                values[name] = known[name].read(value)
            except _Wrong as wrong:
                self.wrong((*where, name), str(wrong))
        return values

    def config(self, data: Mapping[str, Any]) -> Config:
        for name in data:
            if name not in _TABLES:
                self.wrong((name,), f"unknown section{_suggest(name, list(_TABLES))}")
        found = {
            name: self.keys((name,), self.table((name,), data.get(name, {})), keys, _TABLES_IN.get(name, ()))
            for name, keys in SECTIONS.items()
        }
        return Config(
            file=self.file,
            name=found["app"].get("name", Config.name),
            source=self.source(found["source"]),
            keep=found["releases"].get("keep", Config.keep),
            shared=self.shared(self.table(("shared",), data.get("shared", {}))),
            environment=EnvironmentConfig(**found["environment"]),
            processes=self.processes(self.table(("processes",), data.get("processes", {}))),
            health=HealthConfig(**found["health"]),
            backup=BackupConfig(**found["backup"], dumps=self.dumps(data)),
            gate=self.gate(found["gate"]),
            migrate=MigrateConfig(**found["migrate"]),
        )

    def source(self, values: dict[str, Any]) -> SourceConfig:
        kind = values.get("type", "github")
        if kind == "github" and "repository" not in values:
            self.wrong(("source",), 'repository is missing: write repository = "OWNER/NAME"')
        if kind == "directory" and "path" not in values:
            self.wrong(
                ("source",), 'path is missing: write path = "FOLDER", the folder that holds the artifacts'
            )
        if "path" in values:
            values["path"] = (self.file.parent / Path(values["path"]).expanduser()).absolute()
        if "api_url" in values:
            values["api_url"] = values["api_url"].rstrip("/")
        return SourceConfig(**values)

    def gate(self, values: dict[str, Any]) -> GateConfig:
        values |= values.pop("sqlite", {})
        if "resume" in values and "drain" not in values:
            self.wrong(("gate", "resume"), "does nothing without drain")
        if "drain" in values and "resume" not in values:
            self.wrong(("gate", "drain"), "needs resume, or what it stopped would stay stopped")
        return GateConfig(**values)

    def shared(self, table: Mapping[str, Any]) -> dict[str, str]:
        links: dict[str, str] = {}
        for inside, below in table.items():
            try:
                links[_inside(inside)] = _inside(below)
            except _Wrong as wrong:
                self.wrong(("shared", inside), str(wrong))
        for inside in links:
            top = PurePosixPath(inside).parts[0]
            if top in (".venv", ".release", "VERSION"):
                self.wrong(("shared", inside), f"{top} belongs to updater")
            if any(str(parent) in links for parent in PurePosixPath(inside).parents):
                self.wrong(("shared", inside), "lies inside another shared path")
        for inside, below in links.items():
            if PurePosixPath(below).parts[0] == "backups":
                self.wrong(("shared", inside), "shared/backups belongs to updater")
        return links

    def dumps(self, data: Mapping[str, Any]) -> dict[str, DumpConfig]:
        backup = data.get("backup")
        tables = backup.get("dumps", {}) if isinstance(backup, dict) else {}
        dumps: dict[str, DumpConfig] = {}
        for name, value in self.table(("backup", "dumps"), tables).items():
            where = ("backup", "dumps", name)
            if not NAME.fullmatch(name) or name.lower() in map(str.lower, dumps):
                rule = "letters, digits, '.', '_' or '-', each name once"
                self.wrong(where, f"{name!r} cannot be the name of a dump: {rule}")
            elif dump := self.dump(where, name, value):
                dumps[name] = dump
        return dumps

    def dump(self, where: _Where, name: str, value: Any) -> DumpConfig | None:
        body = self.table(where, value)
        values = self.keys(where, body, DUMP)
        for needed in ("dump", "restore"):
            if needed not in body and isinstance(value, dict):
                self.wrong(where, f"{needed} is missing: what cannot be put back is no backup")
        return DumpConfig(name=name, **values) if {"dump", "restore"} <= values.keys() else None

    def processes(self, table: Mapping[str, Any]) -> dict[str, ProcessConfig]:
        processes = {}
        for name, value in table.items():
            where = ("processes", name)
            if not NAME.fullmatch(name) or name in RESERVED_PROCESSES:
                self.wrong(where, f"{name!r} cannot be the name of a process")
                continue
            body = self.table(where, value)
            values = self.keys(where, body, PROCESS, also=("probes",))
            if "command" not in body:
                self.wrong(where, 'command is missing: write command = ["python", "-m", "…"]')
            if "command" in values:
                processes[name] = ProcessConfig(
                    name=name, probes=self.probes(where, body.get("probes", [])), **values
                )
        return processes

    def probes(self, where: _Where, value: Any) -> tuple[ProbeConfig, ...]:
        if not isinstance(value, list):
            self.wrong((*where, "probes"), f"must be written as [[{'.'.join(map(str, where))}.probes]]")
            return ()
        probes = []
        for index, body in enumerate(value):
            here = (*where, "probes", index)
            table = self.table(here, body)
            values = self.keys(here, table, PROBE)
            kind = values.get("type")
            if "type" not in table:
                self.wrong(here, "type is missing: " + PROBE[0].doc)
            for needed in _NEEDED_BY_PROBE.get(str(kind), ()):
                if needed not in table:
                    self.wrong(here, f"a probe of type {kind} needs {needed}")
            if kind:
                probes.append(ProbeConfig(**values))
        if not any(probe.type == "alive" for probe in probes):
            probes.insert(0, ProbeConfig("alive"))  # a dead process is never healthy
        return tuple(probes)
