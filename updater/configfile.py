"""Reads ``updater.toml``: every key known, every value checked, every error with its line (:mod:`updater.configkeys`)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
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
    NotifyConfig,
    ProbeConfig,
    ProcessConfig,
    ScheduleConfig,
    ServerConfig,
    SourceConfig,
)
from updater.configkeys import (
    DUMP,
    NAME,
    NEEDED_BY_PROBE,
    PROBE,
    PROCESS,
    RESERVED_PROCESSES,
    SECTIONS,
    Key,
    Wrong,
    relative,
    suggest,
)
from updater.errors import ConfigError

_TABLES = (*SECTIONS, "shared", "processes")
_TABLES_IN = {"backup": ("dumps",)}

_WORD = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEY = re.compile(rf"\s*({_WORD}(?:\s*\.\s*{_WORD})*)\s*=(.*)")
"""A line with a key, dotted or not (https://toml.io/en/v1.0.0#keys)."""


def load(file: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read or something in it is wrong; each detail names file, line and key.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read {file}: {reason}",
            state="Nothing was changed.",
            advice="put it back; what a release ran with is kept in .updater/configurations/.",
        ) from failure
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
    return replace(config, text=text)


def _config_error(file: Path, problems: list[str]) -> ConfigError:
    count = "an error" if len(problems) == 1 else f"{len(problems)} errors"
    return ConfigError(
        f"{count} in {file}",
        details=problems,
        state="Nothing was changed.",
        advice=f"correct {file.name}; `updater preflight` checks it.",
    )


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
        elif key := _KEY.match(line):
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
                self.wrong((*where, name), f"unknown key{suggest(name, [*known, *also])}")
                continue
            try:
                values[name] = known[name].read(value)
            except Wrong as wrong:
                self.wrong((*where, name), str(wrong))
        return values

    def config(self, data: Mapping[str, Any]) -> Config:
        for name in data:
            if name not in _TABLES:
                self.wrong((name,), f"unknown section{suggest(name, list(_TABLES))}")
        found = {
            name: self.keys((name,), self.table((name,), data.get(name, {})), keys, _TABLES_IN.get(name, ()))
            for name, keys in SECTIONS.items()
        }
        return Config(
            file=self.file,
            **found["app"],
            **found["releases"],
            source=self.source(found["source"]),
            new_keys=found["config"].get("new_keys", Config.new_keys),
            shared=self.shared(self.table(("shared",), data.get("shared", {}))),
            environment=EnvironmentConfig(**found["environment"]),
            processes=self.processes(self.table(("processes",), data.get("processes", {}))),
            health=HealthConfig(**found["health"]),
            backup=BackupConfig(**found["backup"], dumps=self.dumps(data)),
            gate=self.gate(found["gate"]),
            migrate=MigrateConfig(**found["migrate"]),
            server=ServerConfig(**found["server"]),
            notify=self.notify(found["notify"]),
            schedule=self.schedule(found["schedule"]),
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

    def notify(self, values: dict[str, Any]) -> NotifyConfig:
        if "urls_file" in values:
            values["urls_file"] = (self.file.parent / Path(values["urls_file"]).expanduser()).absolute()
        found = NotifyConfig(**values)
        for name in ("events", "timeout"):
            if name in values and not found.configured:
                self.wrong(("notify", name), "does nothing without urls, urls_env or urls_file")
        return found

    def schedule(self, values: dict[str, Any]) -> ScheduleConfig:
        found = ScheduleConfig(**values)
        if found.update and found.window is None:
            self.wrong(("schedule", "update"), 'needs a window: write window = "02:00-04:00"')
        if found.update and not found.days:
            self.wrong(("schedule", "days"), "must name a day, or nothing is ever updated")
        if found.update and not found.check_every:
            self.wrong(("schedule", "check_every"), "must not be 0 where update is true")
        return found

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
                links[relative(inside)] = relative(below)
            except Wrong as wrong:
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
            for needed in NEEDED_BY_PROBE.get(str(kind), ()):
                if needed not in table:
                    self.wrong(here, f"a probe of type {kind} needs {needed}")
            if kind:
                probes.append(ProbeConfig(**values))
        if not any(probe.type == "alive" for probe in probes):
            probes.insert(0, ProbeConfig("alive"))  # a dead process is never healthy
        return tuple(probes)
