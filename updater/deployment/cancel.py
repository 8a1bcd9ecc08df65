"""Cancelling: a signal asks, the deployment stops at the next safe place and is undone."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from updater.errors import Cancelled


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM wait: a recovery that is broken off half-way would only have to begin again."""
    came: list[int] = []
    try:
        with _handling(dict.fromkeys((signal.SIGINT, signal.SIGTERM), lambda it, _frame: came.append(it))):
            yield
    finally:
        for arrived in came:
            signal.raise_signal(arrived)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM is as Ctrl-C, and a closed terminal (SIGHUP) ends nothing: between a stop and its start it would leave
    the application down with nobody told."""
    with _handling({signal.SIGTERM: signal.default_int_handler, signal.SIGHUP: lambda _number, _frame: None}):
        yield


@contextlib.contextmanager
def _handling(handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], object]]) -> Iterator[None]:
    before = {}
    with contextlib.suppress(ValueError):  # not the main thread: it gets no signals
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Cancellation:
    """A request to stop. ``check`` is called often; ``interrupting`` marks code that may wait long in one call."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._by = ""
        self._shielded = False
        self._interrupting = False

    def ask(self, by: str) -> None:
        """Ask to stop; ``by`` says who or what, for the report."""
        if not self._shielded:
            self._by = by
            self._asked.set()

    def check(self) -> None:
        """Raise Cancelled if somebody asked, unless the way back has begun."""
        if self._asked.is_set() and not self._shielded:
            raise Cancelled(f"cancelled by {self._by}")

    def shield(self) -> None:
        """From here on nothing is cancelled: the deployment is being undone, or is committed."""
        self._shielded = True

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within it a signal raises at once, also out of a blocking read. What runs there must be safe to leave anywhere."""
        self._interrupting = True
        try:
            self.check()
            yield
        finally:
            self._interrupting = False

    def listen(self) -> None:
        """Take SIGINT and SIGTERM as requests; a closed terminal (SIGHUP) does not stop a deployment."""

        def arrived(number: int, _frame: FrameType | None) -> None:
            self.ask(signal.Signals(number).name)
            if self._interrupting:
                self._interrupting = False
                self.check()

        signal.signal(signal.SIGINT, arrived)
        signal.signal(signal.SIGTERM, arrived)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
