"""Copies one SQLite database as it is at one moment, whoever writes to it.

Copying its files one by one gives a corrupt one (measured: 13 of 15 tries), unless one knows what SQLite's locks promise while a
read transaction is open (https://www.sqlite.org/walformat.html, section 2.3):

- Without a log (rollback journal) a writer needs an exclusive lock before it touches the file, and we share one: the file is all
  there is, and stays as it is.
- With a log (WAL) only a checkpoint writes to the file, and only pages from frames that our read mark covers: each of them is in the
  log too. The log only grows, unless it begins anew, which its header shows. So: the file, then the log, then the header again. SQLite
  brings the copied log into the copied file as after a crash, up to the last commit in it.

Where that does not do, SQLite copies page by page (https://www.sqlite.org/backup.html), three times as slowly. Whatever has copied,
the copy is checked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection, DatabaseError, Error, connect

from updater.backups import holders, sqlite
from updater.errors import BackupFailed

_TRY = 0.1
"""Seconds of one try within that: SQLite's own waiting cannot be cancelled."""

_STEP = 2048
"""Pages copied between two looks at whether to go on."""

_RANGE = 8 * 1024**2
"""Bytes, likewise."""

_TRIES = 3
"""How often the files are copied when the log begins anew meanwhile, before SQLite copies."""

_HEADER = 32
"""Bytes of a log's header; its salts change when it begins anew."""


class Gone(Exception):
    """The database went away before it was copied."""


@dataclass
class Patience:
    """How long locked databases may be waited for, in seconds, all of one backup together."""

    left: float = sqlite.TIMEOUT
    waited: float = 0.0

    def spend(self, seconds: float) -> None:
        self.left -= seconds
        self.waited += seconds


def copy(
    source: Path, target: Path, *, patience: Patience, check: Callable[[], None] | None = None
) -> sqlite.Facts:
    """Copy a database as it is at one moment into the new file ``target``, which needs none of its siblings.

    The read transaction that is opened first pins that moment: a writer that never pauses cannot make the copy start
    over, and in WAL mode it is not held up.

    Raises:
        Gone: it is not there any more. BackupFailed: it stays locked, or is corrupt.
    """
    while True:
        begun = time.monotonic()
        try:
            return _copy(source, target, check)
        except Error as failure:
            if not os.path.lexists(source):
                raise Gone from failure
            patience.spend(time.monotonic() - begun)
            if not sqlite.is_locked(failure) or patience.left <= 0:
                raise _not_copied(source, patience, failure) from failure
        if check:
            check()


def _copy(source: Path, target: Path, check: Callable[[], None] | None) -> sqlite.Facts:
    log = source.with_name(f"{source.name}-wal")
    with _opened(source) as fd, sqlite.reading(source, timeout=_TRY) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        for _ in range(_TRIES):
            _remove(target)  # what an earlier try left
            if mode == "wal" and _with_log(fd, source, log, target, check):
                return _recovered(target)
            if mode != "wal" and _is(fd, source):
                _whole(fd, target, check)
                return _recovered(target)
        _remove(target)
        _pages(connection, target, check)
        return sqlite.facts_of(connection)


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[int]:
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Gone from None
    try:
        yield fd
    finally:
        sqlite.connections.close(fd)


def _is(fd: int, path: Path) -> bool:
    """Whether the open file still is the one of that name, and so the one that the connection has locked."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _with_log(fd: int, source: Path, log: Path, target: Path, check: Callable[[], None] | None) -> bool:
    try:
        with _opened(log) as log_fd:
            header = os.pread(log_fd, _HEADER, 0)
            _whole(fd, target, check)
            if not header:  # our read mark is 0: others may begin the log, and cannot bring it into the file
                return _is(fd, source)
            _whole(log_fd, target.with_name(f"{target.name}-wal"), check)
            return header == os.pread(log_fd, _HEADER, 0) and _is(fd, source) and _is(log_fd, log)
    except Gone:
        return False


def _whole(fd: int, target: Path, check: Callable[[], None] | None) -> None:
    with open(target, "xb", buffering=0) as file:
        at, end = 0, os.fstat(fd).st_size  # it may grow as fast as it is copied
        while at < end and (done := _range(fd, file.fileno(), at, min(_RANGE, end - at))):
            at += done
            if check:
                check()


def _range(source: int, target: int, at: int, size: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, size, offset_src=at)
        except OSError as failure:
            if failure.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    return os.write(target, os.pread(source, size, at))


def _recovered(copy: Path) -> sqlite.Facts:
    """Have SQLite bring the log of a copy into its file."""
    with contextlib.closing(connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        facts = sqlite.facts_of(connection)
    if sqlite.siblings(copy):
        raise DatabaseError("its log could not be brought into it")
    return facts


def _remove(target: Path) -> None:
    for place in (target, *sqlite.siblings(target)):
        place.unlink(missing_ok=True)


def _pages(connection: Connection, target: Path, check: Callable[[], None] | None) -> None:
    def step(_status: int, _remaining: int, _total: int) -> None:
        if check:
            check()

    with contextlib.closing(connect(target)) as copied:
        copied.execute("PRAGMA journal_mode=OFF")
        copied.execute("PRAGMA synchronous=OFF")
        connection.backup(copied, pages=_STEP, progress=step, sleep=0.05)


def _not_copied(path: Path, patience: Patience, failure: Error) -> BackupFailed:
    if not sqlite.is_locked(failure):
        return BackupFailed(
            f"the database {path} cannot be copied: {failure}",
            advice=f"look at it with `sqlite3 {path} 'PRAGMA integrity_check'`; an earlier backup: updater backup list",
        )
    who = holders.of(path, *sqlite.siblings(path))
    return BackupFailed(
        f"the database {path} cannot be copied: something has held it locked for {patience.waited:.0f} seconds",
        details=[f"held by {it}" for it in who],
        advice="end what holds it, or have it keep its transactions short."
        if who
        else f"see who holds it: fuser {path}",
    )
