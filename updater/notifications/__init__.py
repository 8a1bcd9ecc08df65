"""Messages to people about a deployment, through the library apprise, which knows a hundred services by their address.

Nothing here decides anything: what cannot be sent is a problem to be told, never a failure. The library runs in a child
(:mod:`updater.notifications.sender`) with a hard limit of time, so that neither its imports nor a service that does not answer is
ever in the way. Addresses hold passwords: they go to the child by a pipe, and into no message, log or error.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from updater import durable, redaction, subprocesses
from updater.config import NotifyConfig
from updater.configkeys import EVENTS, MOST_TARGETS, TARGET

REMEDY = "pip install 'updater[notify]'"

KINDS = {"available": "info", "updated": "success", "rolled-back": "warning", "needs-you": "failure"}
"""What apprise calls the sorts of messages."""

LONGEST = 64 * 1024
"""Bytes of a file of addresses."""


class Sent(NamedTuple):
    """What became of a message to one service. ``problem`` is empty if it was taken."""

    service: str
    problem: str = ""


@dataclass
class Sending:
    """What became of a message. ``problems``: what is wrong besides, with all of it or with how it is configured."""

    services: list[Sent] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def arrived(self) -> bool:
        """Whether at least one service has taken it."""
        return any(not it.problem for it in self.services)

    def all_problems(self) -> list[str]:
        """Every problem, on one line each."""
        return [*self.problems, *(f"{it.service}: {it.problem}" for it in self.services if it.problem)]


class Targets(NamedTuple):
    """The addresses of a configuration, and what is wrong with them."""

    urls: tuple[str, ...]
    problems: list[str]


def notify(config: NotifyConfig, event: str, title: str, body: str) -> list[str]:
    """Send a message about an event to every service, if the configuration wants to hear of it. Never raises.

    It takes ``config.timeout`` seconds at most. Returns what went wrong, a line each, without any address.
    """
    return send(config, event, title, body).all_problems() if wanted(config, event) else []


def wanted(config: NotifyConfig, event: str) -> bool:
    """Whether anybody wants to hear of an event."""
    return config.configured and event in config.events


def send(config: NotifyConfig, event: str, title: str, body: str) -> Sending:
    """The same, whatever events are wanted, with what became of it at each service."""
    urls, problems = targets(config)
    found = Sending(problems=problems)
    if not urls:
        return found
    if not installed():
        found.problems.append(f"no message was sent, since the library apprise is not installed: {REMEDY}")
        return found
    message = {"urls": urls, "title": title, "body": body, "kind": KINDS.get(event, "info")}
    command = [sys.executable, "-P", "-m", "updater.notifications.sender"]
    try:
        done = subprocesses.run(command, timeout=config.timeout, feed=[json.dumps(message).encode()])
    except OSError as failure:
        found.problems.append(f"no message was sent: {failure.strerror}")
        return found
    found.services = _answers(urls, done.output, config.timeout if done.timed_out else None)
    if not done.timed_out and done.status:
        said = redactor(urls).text(done.tail(1))
        found.problems.append(f"the sender ended with {done.status}{f': {said}' if said else ''}")
    return found


def _answers(urls: Sequence[str], output: str, limit: float | None) -> list[Sent]:
    """What the sender has said of each service, one JSON object a line; what a service's library prints is passed over."""
    names: dict[int, str] = {}
    ends: dict[int, str] = {}
    blank = redactor(urls)
    for line in output.splitlines():
        said: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(line)
        if not isinstance(said, dict) or not isinstance(index := said.get("index"), int):
            continue
        if isinstance(name := said.get("service"), str):
            names[index] = blank.text(name)
        if isinstance(problem := said.get("problem"), str):
            ends[index] = " ".join(blank.text(problem).split())[:300]
    late = f"no answer within {limit:g} s" if limit is not None else "no answer"
    return [Sent(names.get(it) or f"address {it + 1}", ends.get(it, late)) for it in range(len(urls))]


def installed() -> bool:
    """Whether the library is there; it is not imported."""
    from importlib.util import find_spec

    return find_spec("apprise") is not None


def targets(config: NotifyConfig) -> Targets:
    """Every address, each once, and why some are not to be had; ``problems`` also tells of a file that others can read."""
    problems: list[str] = []
    words = list(config.urls)
    if config.urls_env:
        given = os.environ.get(config.urls_env, "").split()
        words += given
        if not given:
            problems.append(f"urls_env: the environment variable {config.urls_env} is not set, or empty")
    if config.urls_file:
        words += _from_file(os.path.realpath(config.urls_file), problems)
    found = list(dict.fromkeys(it for it in words if TARGET.fullmatch(it)))
    if len(found) < len(set(words)):
        problems.append(f"{len(set(words)) - len(found)} of the addresses is none: NAME://… is expected")
    if len(found) > MOST_TARGETS:
        problems.append(f"more than {MOST_TARGETS} addresses; the others get nothing")
    return Targets(tuple(found[:MOST_TARGETS]), problems)


def _from_file(path: str, problems: list[str]) -> list[str]:
    from pathlib import Path

    try:
        text = durable.read(Path(path), LONGEST).decode()
        if os.stat(path).st_mode & (stat.S_IRGRP | stat.S_IROTH):
            problems.append(f"urls_file: {path} can be read by others, and holds passwords: chmod 600 {path}")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        problems.append(f"urls_file: {path} cannot be read: {reason}")
        return []
    lines = [line.strip() for line in text.splitlines()]
    return [word for line in lines if not line.startswith("#") for word in line.split()]


def redactor(urls: Sequence[str]) -> redaction.Redactor:
    """Blanks out addresses and each part of them: with most services one of the parts is the password."""
    return redaction.Redactor(redaction.secrets_of_urls(urls, shortest=1))


__all__ = ["EVENTS", "Sending", "Sent", "notify", "send", "targets", "wanted"]
