"""Looks at databases while an application writes to them: what they tell is of one moment."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from updater.backups import sqlite

WRITER = """
import itertools, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
database.execute("PRAGMA synchronous=OFF")
print("writing", flush=True)
for number in itertools.count():
    database.execute("INSERT INTO rows VALUES (?)", (f"{hash(str(number))} {number}",))
    if number % 50 == 49:
        database.execute("DELETE FROM rows WHERE rowid IN (SELECT min(rowid) FROM rows)")
"""


def made(path: Path, journal: str) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA journal_mode={journal}")
        database.execute("CREATE TABLE rows (name TEXT PRIMARY KEY)")
        database.executemany("INSERT INTO rows VALUES (?)", ((f"{hash(it)} {it}",) for it in range(20_000)))
    return path


@contextlib.contextmanager
def written_to(path: Path) -> Iterator[None]:
    writing = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    try:
        assert writing.stdout and writing.stdout.readline() == "writing\n"
        yield
    finally:
        writing.kill()
        writing.communicate()


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_database_that_is_written_to_is_not_called_corrupt(tmp_path: Path, journal: str) -> None:
    """Between two transactions nothing lies beside a database with a rollback journal: that does not mean that nobody uses it."""
    path = made(tmp_path / "trades.db", journal)
    with written_to(path):
        found = {sqlite.integrity_in_use(path) for _ in range(25)}
        schemas = {sqlite.facts(path) for _ in range(25)}
    assert found == {"ok"} and len(schemas) == 1


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_look_at_a_database_that_nobody_uses_leaves_nothing_beside_it(tmp_path: Path, journal: str) -> None:
    path = made(tmp_path / "trades.db", journal)
    assert sqlite.integrity_in_use(path) == "ok" and sqlite.facts(path).user_version == 0
    assert os.listdir(tmp_path) == ["trades.db"]
