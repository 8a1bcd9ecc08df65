"""What every probe is made of: whom it asks, its answer, and a limit that nothing on the other side can stretch."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from updater.config import ProbeConfig, ProcessConfig
from updater.layout import Layout

Check = Callable[[], None]


@dataclass(frozen=True)
class Answer:
    """What a probe found. ``summary`` is one line; ``evidence`` what explains a failure."""

    ok: bool
    summary: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """Whom a probe asks about."""

    layout: Layout
    process: ProcessConfig
    version: str
    secrets: tuple[str, ...] = ()
    """Variables that are updater's alone."""


@dataclass
class Told:
    """What is known so far, and how to end the asking."""

    answer: Answer | None = None
    abort: Callable[[], None] = lambda: None


def within(seconds: float, act: Callable[[Told], Answer], silent: Answer, check: Check | None) -> Answer:
    """Ask for at most ``seconds`` in all. A time limit of a socket is one for each byte: whoever drips them is never late.

    Returns what ``act`` returns; when the time is up, what it had told until then, else ``silent``. ``check`` is
    called several times a second; what it raises ends the asking.
    """
    told = Told()
    answers: list[Answer | Exception] = []

    def work() -> None:
        try:
            answers.append(act(told))
        except Exception as failure:
            answers.append(failure)

    asking = threading.Thread(target=work, name="probe", daemon=True)
    deadline = time.monotonic() + seconds
    asking.start()
    try:
        while asking.is_alive() and (left := deadline - time.monotonic()) > 0:
            if check:
                check()
            asking.join(min(left, 0.1))
    finally:
        late, known = asking.is_alive(), told.answer  # what it says after the abort is the abort's doing
        if late:
            with contextlib.suppress(OSError):
                told.abort()
    if late:
        return known or silent
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def why(failure: Exception, probe: ProbeConfig) -> str:
    """A failed connection in people's words."""
    if isinstance(failure, TimeoutError):
        return f"no answer within {probe.timeout:g} s"
    if isinstance(failure, ConnectionRefusedError):
        return "nobody listens there"
    return str(failure) or type(failure).__name__
