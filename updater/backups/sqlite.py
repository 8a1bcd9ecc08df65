"""SQLite databases: found by their header, looked at while the application writes, checked.

A process has one set of POSIX locks for each file, and closing the file once, however it was opened, ends all of them
(https://www.sqlite.org/howtocorrupt.html, section 2.2). What is opened here beside SQLite, a database or what lies beside it, is
therefore closed only when no connection of this process is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

Told = TypeVar("Told")

MAGIC = b"SQLite format 3\0"
SIBLINGS = ("-wal", "-shm", "-journal")
"""What lies beside a database while it is used; with it these move, and without it they are worth nothing."""

WAL = b"\x02\x02"
"""Bytes 18 and 19 of a database in WAL mode (https://www.sqlite.org/fileformat2.html#file_format_version_numbers)."""

TIMEOUT = 30.0
"""Seconds to wait for writers that hold databases exclusively."""

RACY = 2 * 10**9
"""Nanoseconds within which a second change may leave the date of the first; the coarsest clock of a filesystem in use."""


class Facts(NamedTuple):
    """What identifies a schema: the application's own number, and the SHA-256 over what is defined in the database."""

    user_version: int
    schema: str


class _Connections:
    """The connections of this process, and the files that wait for the end of the last one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._waiting: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            self._open += 1

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._open -= 1
            while not self._open and self._waiting:
                os.close(self._waiting.pop())

    def close(self, fd: int) -> None:
        """Close a file of a database, now or later."""
        with self._lock:
            if self._open:
                self._waiting.append(fd)
            else:
                os.close(fd)


connections = _Connections()


def is_database(path: str | Path) -> bool:
    """Whether the file is a SQLite database, by its header. An unreadable one is not."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = False
        try:
            found = stat.S_ISREG(os.fstat(fd).st_mode) and os.read(fd, len(MAGIC)) == MAGIC
        finally:
            # of a database in WAL mode the locks are those of the file beside it
            ours = found or os.fspath(path).endswith(SIBLINGS)
            connections.close(fd) if ours else os.close(fd)
        return found
    return False


class State(NamedTuple):
    """By what a database is known to be as it was: identity, dates and headers of its own file and of its log, both of which
    every commit changes."""

    marks: tuple[tuple[int, ...], ...]
    heads: tuple[bytes, ...]

    def is_older_than(self, moment: int) -> bool:
        """Whether it was left alone for so long before ``moment`` (nanoseconds) that any later change shows."""
        return all(max(it[3:]) < moment - RACY for it in self.marks)

    def is_content_of(self, other: State) -> bool:
        """Whether nothing was written between the two; a rename in between does not matter (it sets the ctime)."""
        return self.heads == other.heads and [it[:4] for it in self.marks] == [it[:4] for it in other.marks]


def state(path: Path, log: Path | None = None) -> State | None:
    """The state of a database; None where that says nothing: it is gone, or somebody is in the middle of a change. ``log``: where
    its log lies, if not beside it."""
    marks, heads = [], []
    for place in (path, log or path.with_name(f"{path.name}-wal")):
        try:
            fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        try:
            it = os.fstat(fd)
            if it.st_size:  # an empty log is none
                marks.append((it.st_dev, it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns))
                heads.append(os.pread(fd, 100, 0))
        finally:
            connections.close(fd)
    if not marks or os.path.lexists(path.with_name(f"{path.name}-journal")):
        return None
    return State(tuple(marks), tuple(heads))


def siblings(path: Path) -> list[Path]:
    """The files beside a database that belong to it and are there now."""
    return [it for end in SIBLINGS if os.path.lexists(it := path.with_name(path.name + end))]


def _uri(path: Path, options: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{options}"


def look(path: Path, ask: Callable[[sqlite3.Connection], Told], *, timeout: float) -> Told:
    """Ask a database that may be in use, and leave nothing behind: beside one in WAL mode that nobody uses, an ordinary connection
    would make two files. That one is read without a lock, and once more with it if somebody has come to use it meanwhile.
    ``timeout``: seconds to wait for a writer that holds it exclusively.

    Raises:
        sqlite3.Error
    """
    before = state(path)
    if before and before.heads[0][18:20] == WAL and not siblings(path):
        found, failure = None, None
        try:
            with contextlib.closing(
                sqlite3.connect(_uri(path, "mode=ro&immutable=1"), uri=True)
            ) as connection:
                found = [ask(connection)]
        except sqlite3.Error as raised:
            failure = raised
        if state(path) == before and not siblings(path):
            if found is None:
                raise failure or sqlite3.OperationalError("it was not read")
            return found[0]
    with reading(path, timeout=timeout) as connection:
        return ask(connection)


@contextlib.contextmanager
def reading(path: Path, *, timeout: float = TIMEOUT) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. One that needs a recovery first (a hot journal) is opened for that. ``timeout``: seconds
    to wait for a writer that holds it exclusively.

    Raises:
        sqlite3.Error
    """
    with connections, _reading(path, timeout) as connection:
        yield connection


@contextlib.contextmanager
def _reading(path: Path, timeout: float) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(_uri(path, "mode=ro"), uri=True, timeout=timeout, isolation_level=None)
    try:
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError as failure:
            if is_locked(failure):
                raise
            connection.close()
            connection = sqlite3.connect(
                _uri(path, "mode=rw"), uri=True, timeout=timeout, isolation_level=None
            )
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        yield connection
    finally:
        connection.close()


def is_locked(failure: sqlite3.Error) -> bool:
    return getattr(failure, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def facts(path: Path) -> Facts:
    """The facts of a database in use.

    Raises:
        sqlite3.Error
    """
    return look(path, facts_of, timeout=5.0)


def facts_of(connection: sqlite3.Connection) -> Facts:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
        "ORDER BY type, name"
    ).fetchall()
    return Facts(int(version), hashlib.sha256(repr(rows).encode("utf-8", "surrogatepass")).hexdigest())


def integrity_in_use(path: Path) -> str:
    """``ok``, or what ``PRAGMA integrity_check`` found, for a database that may be written to meanwhile.

    Raises:
        sqlite3.OperationalError: somebody has held it locked for 5 seconds, which says nothing about it.
    """
    try:
        return look(path, _integrity, timeout=5.0)
    except sqlite3.Error as failure:
        if is_locked(failure):
            raise
        return str(failure)


def _integrity(connection: sqlite3.Connection) -> str:
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    return "ok" if found == ["ok"] else "; ".join(found)


def integrity(path: Path) -> str:
    """``ok``, or what ``PRAGMA integrity_check`` found, for a file that nobody writes to."""
    try:
        uri = _uri(path, "mode=ro&immutable=1")
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA mmap_size=67108864")
            return _integrity(connection)
    except sqlite3.Error as failure:
        return str(failure)
