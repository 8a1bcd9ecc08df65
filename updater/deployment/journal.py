"""The journal: the durable, append-only record of one deployment, and the only source of its status.

One line per event: 16 hex digits of the SHA-256 of the rest, a space, canonical JSON. Each line is written with one
``write(2)`` to a file opened with ``O_APPEND`` and flushed before anything acts on it: *intent* before the act,
*done* after it. A kill between act and record leaves the world ahead of the last line, never behind it; so does a power cut
between *done* and the line that follows it, before which nothing acts: one flush takes both.

``.updater/journal/<id>.jsonl`` is a deployment that has not ended; ``journal/closed/`` holds those that have.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from updater import durable
from updater.layout import Layout
from updater.records import history, moment, now, stamp, whole
from updater.subprocesses import boot_id

FORMAT = 1
CLOSED_KEPT = 50
SUFFIX = ".jsonl"
LARGEST = 16 * 1024**2
"""Bytes; a deployment writes some ten thousand."""

Json = dict[str, Any]


class Line(NamedTuple):
    """One event. ``kind``: begin, intent, done, failed, undo, undone, note, lost, recover or end."""

    seq: int
    kind: str
    phase: str | None
    at: str
    data: Mapping[str, Any]
    mono: float | None = None
    """Seconds of a clock that never jumps, comparable within the same ``boot``."""
    boot: str = ""


def encode(line: Json) -> bytes:
    """The bytes of one journal line, newline included."""
    body = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return _sum(body) + b" " + body + b"\n"


def _sum(body: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(body).hexdigest()[:16].encode()


def decode(raw: bytes) -> Line | None:
    """The line that :func:`encode` wrote, without its newline; None if it is torn or damaged."""
    checksum, _, body = raw.partition(b" ")
    if _sum(body) != checksum:
        return None
    try:
        found = json.loads(body)
        data = found.get("data")
        return Line(
            seq=int(found["seq"]),
            kind=str(found["kind"]),
            phase=None if found.get("phase") is None else str(found["phase"]),
            at=str(found["at"]),
            data=data if isinstance(data, dict) else {},
            mono=float(found["mono"]) if isinstance(found.get("mono"), int | float) else None,
            boot=str(found.get("boot", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


class Log(NamedTuple):
    """What a journal says, up to its first damaged line. ``sound`` is the length in bytes of that part.

    ``lost``: whole lines follow the damaged one. That is no torn end, as a kill leaves it: something else damaged the file, and
    what happened after its sound part is unknown.
    """

    id: str
    lines: Sequence[Line]
    sound: int
    damaged: bool
    lost: bool = False

    @property
    def begin(self) -> Mapping[str, Any]:
        """What was so before the deployment, and what it was asked to do; {} if even that line is lost."""
        return self.lines[0].data if self.lines and self.lines[0].kind == "begin" else {}

    @property
    def request(self) -> Json:
        """What was asked; {} if that cannot be told."""
        found = self.begin.get("request")
        return found if isinstance(found, dict) else {}

    @property
    def before(self) -> Json:
        """The world before; what is of another form than ours, a newer updater's perhaps, is left out."""
        found = self.begin.get("before")
        kept = dict(found) if isinstance(found, dict) else {}
        if not isinstance(kept.get("running", []), list):
            del kept["running"]
        return kept

    def seconds(self) -> float | None:
        """Seconds since it began, whatever the wall clock did; None if that was before the machine's last start."""
        first = self.lines[0] if self.lines else None
        if first is None or first.mono is None or first.boot != boot_id():
            return None
        return round(max(0.0, time.monotonic() - first.mono), 3)

    def age(self, kind: str, phase: str) -> float | None:
        """Seconds since a phase's first line of that kind, through a start of the machine by the wall clock; None if there is none."""
        line = next((it for it in self.lines if it.kind == kind and it.phase == phase), None)
        if line is None:
            return None
        if line.mono is not None and line.boot == boot_id():
            return round(max(0.0, time.monotonic() - line.mono), 3)
        at = moment(line.at)
        return round(max(0.0, (now() - at).total_seconds()), 3) if at else None

    def phases(self) -> list[Json]:
        """The phases that began, with the seconds that each took until its next line; one that was cut off has none."""
        found = []
        for line in self.lines:
            if line.kind != "intent":
                continue
            after = next(
                (it for it in self.lines if it.seq > line.seq and it.kind in ("done", "failed")), None
            )
            timed = after and line.mono is not None and after.mono is not None and line.boot == after.boot
            seconds = (
                round(after.mono - line.mono, 3) if timed and after and after.mono and line.mono else None
            )
            found.append({"name": line.phase, "seconds": seconds})
        return found

    @property
    def end(self) -> Mapping[str, Any] | None:
        """How it ended; None if it has not."""
        return next((line.data for line in reversed(self.lines) if line.kind == "end"), None)

    def data(self, phase: str) -> Mapping[str, Any]:
        """What a phase recorded when it was done; {} if it was not."""
        return next((it.data for it in reversed(self.lines) if it.kind == "done" and it.phase == phase), {})

    def intended(self) -> list[str]:
        """The phases that began and have not been undone, in the order in which they began."""
        phases: list[str] = []
        for line in self.lines:
            if line.kind == "intent" and line.phase and line.phase not in phases:
                phases.append(line.phase)
            elif line.kind == "undone" and line.phase in phases:
                phases.remove(line.phase)
        return phases

    def finished(self, phase: str) -> bool:
        return any(line.kind == "done" and line.phase == phase for line in self.lines)

    @property
    def rolling_back(self) -> Line | None:
        """The line that decided the way back, if it was decided: from there it is never forward again."""
        return next((line for line in self.lines if line.kind == "failed"), None)

    @property
    def incomplete(self) -> bool:
        """Whether lines were lost, now or before an earlier recovery: then only the facts on the disk count."""
        return self.lost or any(line.kind == "lost" for line in self.lines)

    @property
    def recoveries(self) -> int:
        return sum(line.kind == "recover" for line in self.lines)


def parse(identifier: str, raw: bytes) -> Log:
    """Read a journal's bytes; reading stops at the first line that is torn or damaged."""
    lines: list[Line] = []
    sound = 0
    while (end := raw.find(b"\n", sound)) >= 0:
        line = decode(raw[sound:end])
        if line is None:
            break
        lines.append(line)
        sound = end + 1
    lost = not lines or any(decode(rest) for rest in raw[sound:].split(b"\n")[1:])
    return Log(identifier, lines, sound, damaged=sound != len(raw), lost=lost)


def read(path: Path) -> Log:
    """Read a journal file. Raises OSError if it cannot be read."""
    return parse(path.name.removesuffix(SUFFIX), _content(path))


def _content(path: Path) -> bytes:
    """What a journal holds; nothing if it is far larger than one can be: then something else has written it."""
    return b"" if path.stat().st_size > LARGEST else durable.read(path, LARGEST)


def ending(layout: Layout, path: Path, log: Log | None = None) -> Json | None:
    """The record with which a deployment ended; None if it has not.

    A script on a machine without any SHA-256 tool cannot write the last line, and puts the journal away without it: then the
    history tells, or nothing does (``unknown``).
    """
    log = log or read(path)
    if log.end is not None:
        return whole({"id": log.id, **log.end})
    if path.parent.name != "closed":
        return None
    found = (it for it in reversed(history(layout)) if it["id"] == log.id)
    return next(found, whole({"id": log.id}))


def outcome(layout: Layout, identifier: str) -> str | None:
    """How a deployment has ended; ``""``: it has not, None: nothing is left that could tell."""
    path = find(layout, identifier)
    if path is None:
        return None
    end = ending(layout, path)
    return str(end["outcome"]) if end else ""


def unfinished(layout: Layout) -> list[Path]:
    """The journals of deployments that have not ended, oldest first."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path for path in layout.journal.iterdir() if _is_journal(path))
    return []


def closed(layout: Layout) -> list[Path]:
    """The journals of deployments that have ended, oldest first."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path for path in (layout.journal / "closed").iterdir() if _is_journal(path))
    return []


def identifiers(layout: Layout) -> list[str]:
    """Every deployment that has a journal, oldest first. Those that have not ended are looked for first: one that is put away
    meanwhile is then found by both looks, else by none."""
    names = [path.name for path in (*unfinished(layout), *closed(layout))]
    return sorted({name.removesuffix(SUFFIX) for name in names})


def _places(layout: Layout, identifier: str) -> tuple[Path, Path]:
    """Where a journal lies before and after its end. It only moves that way, so that who tries them in this order finds it."""
    name = f"{identifier}{SUFFIX}"
    return layout.journal / name, layout.journal / "closed" / name


def find(layout: Layout, identifier: str) -> Path | None:
    """The journal of a deployment, wherever it lies now; it may be put away before it is read."""
    return next((path for path in _places(layout, identifier) if path.is_file()), None)


def lines(layout: Layout, identifier: str, after: int = -1) -> list[Line]:
    """The events of a deployment with a sequence number above ``after``, also while its journal is put away; [] if there is none."""
    for path in _places(layout, identifier):
        with contextlib.suppress(OSError):
            return [line for line in read(path).lines if line.seq > after]
    return []


def _is_journal(path: Path) -> bool:
    return (
        path.name.endswith(SUFFIX)
        and not path.name.startswith(".")
        and path.is_file()
        and not path.is_symlink()
    )


class Journal:
    """An open journal. Only the holder of the root's lock writes to it."""

    def __init__(self, layout: Layout, path: Path, seq: int) -> None:
        self.layout = layout
        self.path = path
        self.id = path.name.removesuffix(SUFFIX)
        self._seq = seq
        self._length = path.stat().st_size
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)

    @classmethod
    def create(cls, layout: Layout, begin: Json) -> Journal:
        """Start a deployment: its first line is on the disk when this returns (F09).

        Raises:
            OSError: it is not, and, where the disk lets it be removed, nothing of it is left: what has not begun is not to be
                recovered.
        """
        durable.make_directory(layout.journal / "closed")
        identifier = f"{_next_stamp(layout)}-{os.urandom(3).hex()}"
        path = layout.journal / f"{identifier}{SUFFIX}"
        try:
            durable.write(path, encode(_line(0, "begin", None, begin)))
            return cls(layout, path, 1)
        except OSError:
            with contextlib.suppress(OSError):
                durable.remove(path)
            raise

    @classmethod
    def reopen(cls, layout: Layout, path: Path) -> Journal:
        """Go on with a journal after a crash. A damaged tail is kept aside, then cut off; that lines were lost with it
        stays on record."""
        log = read(path)
        seq = log.lines[-1].seq + 1 if log.lines else 0
        if log.damaged:
            raw = _content(path)
            _keep_aside(path)
            lost = encode(_line(seq, "lost", None, {})) if log.lost else b""
            durable.write(path, raw[: log.sound] + lost)
            seq += log.lost
        return cls(layout, path, seq)

    def record(
        self,
        kind: str,
        phase: str | None = None,
        data: Mapping[str, Any] | None = None,
        *,
        flush: bool = True,
    ) -> None:
        """Append one event; it is on the disk when this returns, or without ``flush`` when the next one is.

        Raises:
            OSError: it is not; the caller must not act on it.
        """
        payload = encode(_line(self._seq, kind, phase, data or {}))
        try:
            if os.write(self._fd, payload) != len(payload):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            if flush:
                durable.flush(self._fd)
        except OSError:
            with contextlib.suppress(OSError):  # else the next line would be glued to half a line
                os.ftruncate(self._fd, self._length)
            raise
        self._seq += 1
        self._length += len(payload)

    def read(self) -> Log:
        return read(self.path)

    def release(self) -> None:
        """Write no more to it; it stays where it is. Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Move an ended journal to ``closed/`` and forget the oldest ones."""
        self.release()
        durable.make_directory(self.path.parent / "closed")
        durable.rename(self.path, self.path.parent / "closed" / self.path.name)
        for old in closed(self.layout)[:-CLOSED_KEPT]:
            with contextlib.suppress(OSError):
                old.unlink()


def _keep_aside(path: Path) -> None:
    """The journal as it was, by a second name: what replaces it leaves that alone."""
    aside = path.with_name(f"{path.name}.damaged")
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:  # a filesystem without hard links
        durable.write(aside, _content(path))


def _next_stamp(layout: Layout) -> str:
    """The time, but never before that of an earlier deployment: a clock that goes back must not mix up their order."""
    stamp = f"{now():%Y%m%dT%H%M%S}"
    earlier = [*closed(layout), *unfinished(layout)]
    latest = max((found[1] for path in earlier if (found := re.match(_STAMPED, path.name))), default="")
    if stamp > latest:
        return stamp
    with contextlib.suppress(ValueError, OverflowError):
        following = datetime.strptime(latest, "%Y%m%dT%H%M%S") + timedelta(seconds=1)
        return f"{following:%Y%m%dT%H%M%S}"
    return stamp


_STAMPED = r"(\d{8}T\d{6})-[0-9a-f]{6}\.jsonl"


def _line(seq: int, kind: str, phase: str | None, data: Mapping[str, Any]) -> Json:
    return {
        "v": FORMAT, "seq": seq, "kind": kind, "phase": phase, "at": stamp(),
        "mono": round(time.monotonic(), 3), "boot": boot_id(), "data": dict(data),
    }  # fmt: skip
