"""Where a deployment stands, for the impatient: percent, bytes and the last line, beside the journal's facts.

``shared/logs/update_progress.json`` is replaced a few times a second and never flushed: the journal decides, this only
illustrates. A progress file that speaks of another deployment than the journal is ignored.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from updater import durable
from updater.layout import Layout
from updater.records import stamp

EVERY = 0.2
"""Seconds between two replacements."""


class Progress:
    """Writes the progress of one deployment. Never fails: it decides nothing."""

    def __init__(self, layout: Layout, identifier: str, **fixed: Any) -> None:
        self._layout = layout
        self._fixed = {"id": identifier, **fixed}
        self._now: dict[str, Any] = {}
        self._written = 0.0

    def phase(self, name: str, index: int, count: int) -> None:
        """A phase begins."""
        self._now = {"phase": name, "index": index, "count": count}
        self._write()

    def tell(self, text: str | None = None, *, done: float | None = None, total: float | None = None) -> None:
        """How far the phase is: a line of text, and ``done`` of ``total`` (bytes or seconds)."""
        changes = {"text": text, "done": done, "total": total}
        self._now.update({key: value for key, value in changes.items() if value is not None})
        if time.monotonic() - self._written >= EVERY:
            self._write()

    def end(self, outcome: str) -> None:
        self._now["outcome"] = outcome
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        with contextlib.suppress(OSError):
            text = json.dumps({**self._fixed, **self._now, "at": stamp()})
            durable.write_quick(self._layout.progress, text + "\n")
