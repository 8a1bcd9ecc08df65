"""The gate: may the application be interrupted now? Open trades, a print job, somebody in the middle of something.

Every question that is configured is asked; one that says busy, or cannot be answered, is enough (F50). Guessing that it
will be all right is what costs money.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from updater.backups import sqlite
from updater.config import Config, GateConfig
from updater.layout import Layout

Check = Callable[[], None] | None


class Answer(NamedTuple):
    """``free``: it may be interrupted. ``certain``: it said so itself; False: it could not be asked. ``reason`` in a line."""

    free: bool
    reason: str
    certain: bool = True


def ask(layout: Layout, config: Config, version: str, check: Check = None) -> Answer:
    """Ask every question about the release in service; the first that is not answered with free decides."""
    gate = config.gate
    answers = [
        act(layout, config, version, check)
        for asked, act in (
            (gate.busy_if, _query), (gate.file, _file), (gate.url, _url), (gate.command, _command),
        )
        if asked
    ]  # fmt: skip
    busy = [it for it in answers if not it.free]
    if busy:
        return next((it for it in busy if it.certain), busy[0])
    return Answer(True, "; ".join(it.reason for it in answers) or "nothing is asked")


def _unknown(reason: str) -> Answer:
    return Answer(False, f"it cannot be told: {reason}", certain=False)


def _query(layout: Layout, config: Config, _version: str, _check: Check) -> Answer:
    gate = config.gate
    place = layout.shared / gate.database
    shown = f"shared/{gate.database}"
    if not place.is_file():
        return _unknown(f"{shown} is not there")
    try:
        value = _first_value(place, gate)
    except sqlite3.Error as failure:
        return _unknown(f"{shown}: {failure}")
    if value in (None, 0, "", b"", "0"):
        return Answer(True, f"{shown}: nothing is open")
    return Answer(False, f"{shown}: {gate.busy_if.strip()} gives {str(value)[:100]}")


def _first_value(place: Path, gate: GateConfig) -> object:
    deadline = time.monotonic() + gate.timeout

    def ask(connection: sqlite3.Connection) -> object:
        connection.execute("PRAGMA query_only=1")
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        row = connection.execute(gate.busy_if).fetchone()
        return row[0] if row else None

    return sqlite.look(place, ask, timeout=gate.timeout)


def _file(layout: Layout, config: Config, _version: str, _check: Check) -> Answer:
    place = layout.shared / config.gate.file
    shown = f"shared/{config.gate.file}"
    try:
        place.lstat()
    except FileNotFoundError:
        return Answer(True, f"{shown} is not there")
    except OSError as failure:
        return _unknown(f"{shown}: {failure.strerror}")
    text = _first_line(place)
    return Answer(False, f"{shown} is there{f': {text}' if text else ''}")


def _first_line(place: Path) -> str:
    """The beginning of the first line of a file; nothing of anything else: a pipe would be waited for."""
    with contextlib.suppress(OSError):
        fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                text = os.read(fd, 200).decode("utf-8", "replace")
                return text.split("\n", 1)[0].strip()
        finally:
            os.close(fd)
    return ""


def _url(_layout: Layout, config: Config, _version: str, check: Check) -> Answer:
    import http.client

    from updater.health import http as asking

    gate = config.gate
    url = asking.shown(gate.url)
    try:
        status, body = asking.fetch(gate.url, gate.timeout, check)
    except (OSError, ValueError, http.client.HTTPException) as failure:
        return _unknown(f"GET {url}: {failure or type(failure).__name__}")
    text = " ".join(body.split())[:200]
    told = f"GET {url} answered {status}{f': {text}' if text else ''}"
    said = _said(status, body)
    return _unknown(told) if said is None else Answer(said == "free", told)


def _said(status: int, body: str) -> str | None:
    if status in (409, 423, 503):
        return "busy"
    if status == 204:
        return "free"
    if status != 200:
        return None
    word = body.strip().strip('"').lower()
    if word in ("free", "busy"):
        return word
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(body)
        if isinstance(found, dict) and isinstance(found.get("busy"), bool):
            return "busy" if found["busy"] else "free"
    return None


def _command(layout: Layout, config: Config, version: str, check: Check) -> Answer:
    from updater.processes import commands

    gate = config.gate
    shown = " ".join(gate.command)
    try:
        done = commands.run(
            layout, version, gate.command,
            timeout=gate.timeout, secrets=config.own_variables, check=check,
        )  # fmt: skip
    except OSError as failure:
        return _unknown(f"`{shown}`: {failure.strerror}")
    said = " ".join(done.tail(3).split())[:200]
    told = f"`{shown}`{f': {said}' if said else ''}"
    if done.timed_out:
        return _unknown(f"`{shown}` did not end within {gate.timeout:g} s")
    if done.status in (0, 1):
        return Answer(done.status == 0, told)
    return _unknown(f"`{shown}` exited with {done.status}{f': {said}' if said else ''}")
