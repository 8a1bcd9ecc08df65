"""SQLite databases: found by their header, copied as they are at one moment while the application writes, checked.

A database is up to four files. Copying them one by one while somebody writes gives a corrupt one (measured: 13 of 15
tries), so only SQLite itself copies here (https://www.sqlite.org/backup.html).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from updater.errors import BackupFailed

MAGIC = b"SQLite format 3\0"
SIBLINGS = ("-wal", "-shm", "-journal")
"""What lies beside a database while it is used; with it these move, and without it they are worth nothing."""

TIMEOUT = 30.0
"""Seconds to wait for a writer that holds the database exclusively."""

_STEP = 2048
"""Pages copied between two looks at whether to go on."""


class Facts(NamedTuple):
    """What identifies a schema: the application's own number, and the SHA-256 over what is defined in the database."""

    user_version: int
    schema: str


def is_database(path: Path) -> bool:
    """Whether the file is a SQLite database, by its header. An unreadable one is not."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and os.read(fd, len(MAGIC)) == MAGIC
        finally:
            os.close(fd)
    return False


def siblings(path: Path) -> list[Path]:
    """The files beside a database that belong to it and are there now."""
    return [it for end in SIBLINGS if os.path.lexists(it := path.with_name(path.name + end))]


def _uri(path: Path, options: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{options}"


@contextlib.contextmanager
def looking(path: Path, *, timeout: float) -> Iterator[sqlite3.Connection]:
    """A connection for a look that leaves nothing behind: beside a database in WAL mode that nobody uses, an ordinary one would
    make two files. ``timeout``: seconds to wait for a writer that holds it exclusively.

    Raises:
        sqlite3.Error
    """
    if siblings(path):
        with reading(path, timeout=timeout) as connection:
            yield connection
        return
    with contextlib.closing(sqlite3.connect(_uri(path, "mode=ro&immutable=1"), uri=True)) as connection:
        yield connection


@contextlib.contextmanager
def reading(path: Path, *, timeout: float = TIMEOUT) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. One that needs a recovery first (a hot journal) is opened for that. ``timeout``: seconds
    to wait for a writer that holds it exclusively.

    Raises:
        sqlite3.Error
    """
    connection = sqlite3.connect(_uri(path, "mode=ro"), uri=True, timeout=timeout, isolation_level=None)
    try:
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError as failure:
            if failure.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise
            connection.close()
            connection = sqlite3.connect(
                _uri(path, "mode=rw"), uri=True, timeout=timeout, isolation_level=None
            )
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        yield connection
    finally:
        connection.close()


def copy(
    source: Path,
    target: Path,
    *,
    check: Callable[[], None] | None = None,
    on_pages: Callable[[int, int], None] | None = None,
) -> Facts:
    """Copy a database as it is at one moment into the new file ``target``, which needs none of its siblings.

    The read transaction that is opened first pins that moment: a writer that never pauses cannot make the copy start
    over, and in WAL mode it is not held up. ``on_pages`` gets pages done and in all.

    Raises:
        BackupFailed: it is locked or corrupt.
    """

    def step(_status: int, remaining: int, total: int) -> None:
        if check:
            check()
        if on_pages:
            on_pages(total - remaining, total)

    try:
        with reading(source) as connection, contextlib.closing(sqlite3.connect(target)) as copied:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            copied.execute("PRAGMA journal_mode=OFF")
            copied.execute("PRAGMA synchronous=OFF")
            connection.backup(copied, pages=_STEP, progress=step, sleep=0.05)
            return _facts(connection)
    except sqlite3.Error as failure:
        raise BackupFailed(
            f"the database {source} cannot be copied: {failure}",
            advice=_advice(source, failure),
        ) from failure


def _advice(path: Path, failure: sqlite3.Error) -> str:
    if getattr(failure, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"something has held it locked for {TIMEOUT:g} seconds: see `fuser {path}`."
    return (
        f"look at it with `sqlite3 {path} 'PRAGMA integrity_check'`; an earlier backup: updater backup list"
    )


def facts(path: Path) -> Facts:
    """The facts of a database in use.

    Raises:
        sqlite3.Error
    """
    with looking(path, timeout=5.0) as connection:
        return _facts(connection)


def _facts(connection: sqlite3.Connection) -> Facts:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
        "ORDER BY type, name"
    ).fetchall()
    return Facts(int(version), hashlib.sha256(repr(rows).encode("utf-8", "surrogatepass")).hexdigest())


def integrity_in_use(path: Path) -> str:
    """``ok``, or what ``PRAGMA integrity_check`` found, for a database that may be written to meanwhile."""
    try:
        with looking(path, timeout=5.0) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as failure:
        return str(failure)
    return "ok" if found == ["ok"] else "; ".join(found)


def integrity(path: Path) -> str:
    """``ok``, or what ``PRAGMA integrity_check`` found, for a file that nobody writes to."""
    try:
        uri = _uri(path, "mode=ro&immutable=1")
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA mmap_size=67108864")
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as failure:
        return str(failure)
    return "ok" if found == ["ok"] else "; ".join(found)
