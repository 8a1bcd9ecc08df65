"""Writes a part of a backup whole. :mod:`delta` writes only what has changed since a whole one that another backup holds already.

A whole archive is shared by all backups that build on it, by hard links: each backup's directory holds everything that it
needs, and removing one never harms another.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from updater import durable
from updater.backups import archive, index
from updater.backups.archive import Archive, Content
from updater.backups.gather import Found, shown
from updater.backups.index import SUM, Entry
from updater.backups.manifest import Part
from updater.backups.readback import ReadBack
from updater.backups.stored import names
from updater.errors import Cancelled

HOLLOW = 64
"""A giant that is that many times as large as what it takes on the disk keeps no block sums: they would be larger than itself."""

_GIANT = 1024**3


@dataclass
class Writing:
    """What all parts of one backup share."""

    directory: Path
    threads: int
    begun: int
    """From when on the files were looked at, in nanoseconds since the epoch."""
    sums: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file: of the bytes that were meant to be written, or, of an archive that is read back while it is
    written, of those that were read and found to hold what was meant."""
    linked: set[str] = field(default_factory=set)
    """Parts whose full archive is shared with another backup."""
    proving: dict[str, Future[None]] = field(default_factory=dict)
    """Looks, under way, whether the shared archive of a part is as it was written."""
    taken: set[str] = field(default_factory=set)
    """Parts that were taken over as they are from a backup that was read back just now."""
    entries: dict[str, Sequence[Entry]] = field(default_factory=dict)
    """What each part holds."""
    bases: dict[str, Base] = field(default_factory=dict)
    """The whole archive of each part, written now or shared."""
    changed: set[str] = field(default_factory=set)
    """Paths that were written to while they were read."""
    check: Callable[[], None] | None = None
    on_bytes: Callable[[int], None] | None = None
    warnings: list[str] = field(default_factory=list)
    done: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)
    _reading_back: list[tuple[ReadBack, Sequence[Entry]]] = field(default_factory=list)

    def look(self) -> None:
        """Called often, by every thread: raises if somebody cancelled, or another thread has failed."""
        if self._stopped.is_set():
            raise Cancelled("the backup was given up")
        if self.check:
            self.check()

    def give_up(self) -> None:
        """Something failed: every thread comes to its end, and none touches the directory any more."""
        self._stopped.set()
        for back, _ in self._reading_back:
            back.join()

    def reads_back(self, back: ReadBack, entries: Sequence[Entry]) -> None:
        self._reading_back.append((back, entries))

    def confirm(self) -> None:
        """Wait until everything has been read back; only then its sums are known.

        Raises:
            BackupDamaged: it is not as it was written.
        """
        for back, entries in self._reading_back:
            self.sums[back.path.name] = back.confirm(entries)

    def passed(self, count: int) -> None:
        self.done += count
        if self.on_bytes:
            self.on_bytes(self.done)

    def index(self, name: str, entries: Sequence[Entry]) -> None:
        """Write an index."""
        raw = index.encode(self.begun, entries)
        durable.write_new(self.directory / name, raw)
        self.sums[name] = hashlib.sha256(raw).hexdigest()

    def tell_changed(self, found: Found, content: Content) -> None:
        """A log may grow while it is read; anything else that does is worth a word."""
        if content.changed:
            self.changed.add(found.path)
        if content.changed and not found.path.startswith("logs/"):
            self.warnings.append(f"shared/{shown(found.path)} was written to while it was read")


@dataclass(frozen=True)
class Base:
    """A part as another backup holds it whole: where, and what is in it. ``begun``: when its files were looked at, in
    nanoseconds since the epoch."""

    directory: Path
    part: str
    begun: int
    entries: Mapping[str, Entry]

    @property
    def files(self) -> tuple[str, str, str]:
        return names(self.part)


def entry(found: Found, **more: Any) -> Entry:
    return replace(
        Entry(
            found.path, found.kind, found.mode, found.mtime, found.owner,
            size=found.size, link=found.link, sparse=found.kind == "file" and archive.is_sparse(found),
        ),
        **more,
    )  # fmt: skip


def whole(writing: Writing, part: str, paths: Sequence[Found]) -> Part:
    """Write a part whole; while it is written, a thread reads back what is on the disk already (:meth:`Writing.confirm`)."""
    archive_name, index_name, blocks_name = names(part)
    with (
        open(writing.directory / blocks_name, "xb") as file,
        Archive(
            writing.directory / archive_name, threads=writing.threads, summed=False, check=writing.look
        ) as out,
    ):
        blocks = _Blocks(file)
        entries: list[Entry] = []
        back = ReadBack(out.path, out.grown, check=writing.look)
        writing.reads_back(back, entries)
        for found in paths:
            with contextlib.suppress(archive.Vanished):
                entries.append(_store(writing, out, blocks, found))
        file.flush()
        if blocks.count:  # of an empty file there is only the name
            durable.flush(file.fileno())
    writing.sums[blocks_name] = blocks.sha256
    writing.index(index_name, entries)
    writing.entries[part] = entries
    writing.bases[part] = Base(writing.directory, part, writing.begun, {it.path: it for it in entries})
    return part_of(archive_name, None, entries)


class _Blocks:
    """The file of block sums, and the number of those that it holds."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.count = 0

    def write(self, sums: bytes) -> None:
        self._file.write(sums)
        self._hash.update(sums)
        self.count += len(sums) // SUM

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _store(writing: Writing, out: Archive, blocks: _Blocks, found: Found) -> Entry:
    if found.kind != "file":
        out.header(found)
        return entry(found)
    kept = index.BLOCKS_FROM <= found.size <= max(_GIANT, HOLLOW * found.allocated)
    start = blocks.count if kept else None
    content = out.file(found, blocks.write if kept else None)
    writing.tell_changed(found, content)
    writing.passed(found.size)
    return entry(found, digest=content.digest, start=start)


def part_of(full: str, delta: str | None, entries: Sequence[Entry]) -> Part:
    files = [it for it in entries if it.kind == "file"]
    return Part(full, delta, len(files), sum(it.size for it in files))
