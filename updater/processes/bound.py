"""The configuration that is bound to a release: that with which its processes were last started.

``updater.toml`` is one file for all releases. Somebody edits it for the new one, the new one fails, and the old one is
to be started again: with what is configured now it may not run (F51). So each launcher holds, as a comment, the
configuration that it was written for, and the way back goes by that.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from updater import durable, shellwords
from updater.config import Config, ProbeConfig, ProcessConfig
from updater.layout import Layout

MARK = "# updater.toml, as it was when this was written: "
"""How the line in a launcher begins."""

UNREADABLE = "unreadable"
"""Stands for what cannot be written in a comment."""


def line(process: ProcessConfig) -> str:
    """A process's configuration as one line of a shell script (JSON in ASCII knows no line breaks)."""
    return MARK + json.dumps(asdict(process))


def for_shells(process: ProcessConfig) -> Iterator[str]:
    """The parts of it that an emergency script needs, as comments of their own: no shell reads JSON.

    How it is stopped, and its probes. Where a command is asked, what it runs with besides. Paths are relative to the root.
    """
    yield f"# stop: {process.stop_signal} {_seconds(process.stop_timeout)}"
    for probe in process.probes:
        mark = "# probe:" if probe.required else "# probe-not-required:"
        words = " ".join(filter(None, (probe.type, _seconds(probe.timeout), _asked(probe))))
        yield f"{mark} {words}"
    if any(probe.type == "command" for probe in process.probes):
        yield f"# cwd: {_or_unreadable(shellwords.comment(process.cwd))}"
        for name, value in process.env.items():
            yield f"# env: {name} {_or_unreadable(shellwords.comment(value))}"


def _asked(probe: ProbeConfig) -> str:
    """What a probe asks, as shell words; ``unreadable`` if it holds a line break, which would end the comment."""
    match probe.type:
        case "http":
            status = "2xx" if probe.status is None else str(probe.status)
            words = [probe.url, status, *([probe.contains] if probe.contains else [])]
        case "tcp":
            words = [probe.host, str(probe.port)]
        case "file":
            words = [f"shared/{probe.path}", _seconds(probe.max_age)]
        case "command":
            return (
                UNREADABLE
                if shellwords.comment(*probe.command) is None
                else shellwords.command(probe.command)
            )
        case _:
            words = []
    return _or_unreadable(shellwords.comment(*words))


def _or_unreadable(words: str | None) -> str:
    return UNREADABLE if words is None else words


def _seconds(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def of_release(layout: Layout, version: str) -> dict[str, ProcessConfig]:
    """What the launchers of a release were written for, by the name of the process."""
    found = {}
    with contextlib.suppress(OSError):
        for path in sorted((layout.launchers / version).iterdir()):
            process = _read(path)
            if process and process.name == path.name:
                found[path.name] = process
    return found


def configuration(layout: Layout, config: Config, version: str, names: Iterable[str]) -> Config:
    """``config`` with the processes as they were when they were last started from a release.

    Those are ``names`` and what is configured still. One of which nothing is kept (an older version of updater started
    it) is as ``config`` has it.
    """
    kept, asked = of_release(layout, version), list(names)
    order = [name for name in config.processes if name in kept or name in asked]
    order += [name for name in asked if name in kept and name not in order]
    return replace(config, processes={name: kept.get(name) or config.processes[name] for name in order})


def _read(path: Path) -> ProcessConfig | None:
    try:
        lines = durable.read(path).decode().splitlines()
        data = json.loads(next(it for it in lines if it.startswith(MARK)).removeprefix(MARK))
        return _process(data)
    except (OSError, StopIteration, TypeError, ValueError, KeyError, AttributeError):
        return None  # older, or damaged: as if nothing were kept


def _process(data: Mapping[str, Any]) -> ProcessConfig:
    known = _known(ProcessConfig, data)
    known["command"] = tuple(map(str, known["command"]))
    known["probes"] = tuple(
        ProbeConfig(**{**_known(ProbeConfig, it), "command": tuple(it.get("command") or ())})
        for it in known["probes"]
    )
    return ProcessConfig(**known)


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}
