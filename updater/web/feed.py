"""The live stream: what is appended to the journals, how far the present phase is, and the lines of the log.

One look at the disk every :data:`EVERY` seconds serves all listeners, and there is none while nobody listens. The journals alone
are the source: this server, another one or a shell may have started the deployment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from updater import words
from updater.deployment import journal
from updater.deployment.journal import Line
from updater.errors import UpdaterError
from updater.layout import Layout
from updater.operations import looking
from updater.web.secrecy import blank

EVERY = 0.1
"""Seconds between two looks."""

PING = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy closes the stream."""

BEHIND = 2000
"""Events that a slow listener may lag behind before it is sent away; it comes back with its Last-Event-ID."""

LISTENERS = 200
"""Streams at once."""

REMEMBERED = 100
"""Deployments of which it is remembered what was told; more than the journals that are kept."""

Json = dict[str, Any]
_EVENT_ID = re.compile(r"(\d{8}T\d{6}-[0-9a-f]{6}):(\d{1,9})")


@dataclass(frozen=True)
class Event:
    """One event. Only lines of a journal have an id: they alone can be asked for again."""

    kind: str
    data: Json
    id: str = ""

    def encode(self) -> bytes:
        """As HTML's "Server-sent events" has it."""
        head = f"id: {self.id}\n" if self.id else ""
        return f"{head}event: {self.kind}\ndata: {json.dumps(self.data, ensure_ascii=True, default=str)}\n\n".encode()


def of_line(identifier: str, line: Line) -> Event:
    """A journal's line for people who watch: what happened, not what an undo needs to know."""
    data: Json = {
        "deployment": identifier,
        "seq": line.seq,
        "kind": line.kind,
        "phase": line.phase,
        "at": line.at,
    }
    if line.phase:
        data["words"] = words.phase(line.phase)
    if isinstance(said := line.data.get("say"), str):
        data["text"] = said
    if line.kind in ("failed", "note"):
        data |= {
            key: line.data[key]
            for key in ("message", "details", "state", "advice", "text")
            if key in line.data
        }
    if line.kind == "end":
        data["outcome"] = line.data.get("outcome")
        data["error"] = line.data.get("error")
    return Event("line", blank(data), f"{identifier}:{line.seq}")


def position(text: str | None) -> tuple[str, int] | None:
    """The deployment and the line that an event's id names; None if it is no such id."""
    found = _EVENT_ID.fullmatch(text or "")
    return (found[1], int(found[2])) if found else None


@dataclass(eq=False)
class Listener:
    """One stream, and what is waiting for it."""

    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(BEHIND))
    _over: bool = False

    def give(self, event: Event) -> None:
        if self._over:
            return
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        """The stream ends after what is in the queue, or at once if that is full: it comes back with the id of the last line that it
        had, and one that was left out before that would never be told."""
        if self._over:
            return
        self._over = True
        if self.queue.full():
            while not self.queue.empty():
                self.queue.get_nowait()
        self.queue.put_nowait(None)


class Feed:
    """Watches one root for all its listeners."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.listeners: set[Listener] = set()
        self._watching: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._stopped = False

    def full(self) -> bool:
        return len(self.listeners) >= LISTENERS

    async def listen(self, after: tuple[str, int] | None) -> AsyncGenerator[bytes, None]:
        """The stream from behind ``after``; without it from the beginning of the deployment that runs, if one does."""
        if self._stopped:
            return
        listener = Listener()
        self.listeners.add(listener)  # first, so that nothing is missed between the past and the present
        try:
            if self._watching is None or self._watching.done():
                self._ready.clear()
                self._watching = asyncio.create_task(self._watch())
            # What comes after the first look is told live, what came before it is past.
            await self._ready.wait()
            yield b"retry: 2000\n\n"
            told: dict[str, int] = dict([after]) if after else {}
            for event in await run_in_threadpool(lambda: list(past(self.layout, after))):
                name, seq = position(event.id) or ("", -1)
                told[name] = seq
                yield event.encode()
            if now := await run_in_threadpool(_present, self.layout):
                yield now.encode()
            async for chunk in self._live(listener, told):
                yield chunk
        finally:
            self.listeners.discard(listener)

    async def _live(self, listener: Listener, told: dict[str, int]) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(PING):
                    event = await listener.queue.get()
            except TimeoutError:
                yield b": ping\n\n"
                continue
            if event is None:
                return
            name, seq = position(event.id) or ("", 0)
            if name and seq <= told.get(name, -1):
                continue
            yield event.encode()

    async def _watch(self) -> None:
        try:
            look = Look(self.layout)
            await run_in_threadpool(look.changes)
            self._ready.set()
            while self.listeners:
                for event in await run_in_threadpool(look.changes):
                    for listener in list(self.listeners):
                        listener.give(event)
                await asyncio.sleep(EVERY)
        finally:  # should it fail: a listener that comes back starts it anew, one that stays would wait for ever
            self._ready.set()
            self.close()

    def stop(self) -> None:
        """The server ends: end every stream, and begin none."""
        self._stopped = True
        self.close()

    def close(self) -> None:
        """End every stream; their pages come back by themselves."""
        for listener in list(self.listeners):
            listener.end()


def past(layout: Layout, after: tuple[str, int] | None) -> Iterator[Event]:
    """The lines behind ``after``, of that deployment and of all since; without it those of the deployment that runs."""
    if after:
        names = [it for it in journal.identifiers(layout) if it >= after[0]]
    else:
        names = [it.name.removesuffix(journal.SUFFIX) for it in journal.unfinished(layout)[-1:]]
    for name in names:
        for line in journal.lines(layout, name, after[1] if after and name == after[0] else -1):
            yield of_line(name, line)


def _present(layout: Layout) -> Event | None:
    with contextlib.suppress(OSError):
        if found := looking.progress(layout):
            return Event("progress", blank(found))
    return None


class Look:
    """Remembers what was seen, and tells what is new. The first look is only to take note of what is there."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._first = True
        self._put_away: set[str] = set()
        """Deployments of which everything was told."""
        self._sizes: dict[str, int] = {}
        self._seqs: dict[str, int] = {}
        self._signs: object = None
        self._log: tuple[int, int] | None = None
        """The log's inode, and up to where it was told."""

    def changes(self) -> list[Event]:
        """What happened since the last look; nothing while the root is gone, and what was seen before is not told again."""
        found: list[Event] = []
        for what in (self._lines, self._progress, self._log_lines) if self.layout.root.is_dir() else ():
            with contextlib.suppress(OSError, UpdaterError):
                for event in what():
                    found.append(
                        event
                    )  # one by one: what was noted as seen must not be lost by a failure after it
        return found

    def _lines(self) -> Iterator[Event]:
        for name in journal.identifiers(self.layout):
            place = journal.find(self.layout, name) if name not in self._put_away else None
            if place is None:
                continue
            away, size = place.parent.name == "closed", _size(place)
            if self._sizes.get(name) != size and not (away and self._first):
                for line in journal.lines(self.layout, name, self._seqs.get(name, -1)):
                    self._seqs[name] = line.seq
                    yield of_line(name, line)
                self._sizes[name] = size
            if away:  # and was before it was read: nothing comes after that
                self._put_away.add(name)
        self._first = False
        for old in sorted({*self._sizes, *self._put_away})[:-REMEMBERED]:
            self._put_away.discard(old)
            self._sizes.pop(old, None)
            self._seqs.pop(old, None)

    def _facts(self) -> object:
        """What changes when the progress does: cheaper to look at than the progress itself."""
        with contextlib.suppress(OSError):
            found = self.layout.progress.stat()
            return found.st_mtime_ns, found.st_ino, dict(self._seqs)
        return dict(self._seqs)

    def _progress(self) -> Iterator[Event]:
        if (signs := self._facts()) == self._signs:
            return
        self._signs = signs
        if event := _present(self.layout):
            yield event

    def _log_lines(self) -> Iterator[Event]:
        try:
            seen = self.layout.update_log.stat()
        except FileNotFoundError:  # not yet there, or the root is going away just now
            self._log = self._log or (0, 0)
            return
        inode, size = seen.st_ino, seen.st_size
        before, self._log = self._log, (inode, size)
        if before in (None, self._log):
            return
        begun = before[1] if before and before[0] == inode and before[1] < size else 0  # else it is a new log
        with looking.open_log(self.layout.update_log) as file:
            file.seek(max(begun, size - 64 * 1024))
            whole, _, rest = file.read(size - file.tell()).rpartition(b"\n")
        self._log = inode, size - len(rest)
        for line in whole.splitlines():
            yield Event("log", {"text": blank(line.decode(errors="replace"))})


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return -1
