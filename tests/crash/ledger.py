"""An application that writes into two databases all the time and notes outside the root what it has committed; and the
proof that all of it is there."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.site import SERVE, Site
from updater.backups import catalogue, unpacking

DATABASES = {"trades": ("WAL", 0.02), "ledger": ("DELETE", 0.05)}
"""Name -> its journal mode, and the seconds between two rows."""

WRITER = f"""
import itertools, os, sqlite3, threading, time
def mine(name):
    with open(os.path.join(os.path.dirname(__file__), name)) as file:
        return file.read().strip()
def writes(name, journal, pause):
    database = sqlite3.connect(f"data/{{name}}.db", check_same_thread=False, isolation_level=None, timeout=20)
    database.execute(f"PRAGMA journal_mode={{journal}}")
    database.execute("CREATE TABLE IF NOT EXISTS rows (name TEXT PRIMARY KEY, release TEXT)")
    if mine("changes") == "itself":
        database.executescript("DROP TABLE IF EXISTS extra; CREATE TABLE extra (c_" + mine("VERSION").replace(".", "_") + " TEXT)")
    version = mine("VERSION")
    def write():
        noted = os.open(mine("noted") + "/" + name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for number in itertools.count():
            row = f"{{os.getpid()}}-{{time.time_ns()}}-{{number}}"
            database.execute("INSERT INTO rows VALUES (?, ?)", (row, version))
            os.write(noted, f"v{{version}} {{row}}\\n".encode())
            time.sleep(pause)
    threading.Thread(target=write, daemon=True).start()
for name, (journal, pause) in {DATABASES!r}.items():
    writes(name, journal, pause)
"""

MIGRATE = f"""
import os, sqlite3, sys
with open("changes") as file, open("VERSION") as version:
    changes, column = file.read().strip(), version.read().strip().replace(".", "_")
for name in {list(DATABASES)!r}:
    database = sqlite3.connect(f"data/{{name}}.db", isolation_level=None)
    database.executescript(f"DROP TABLE IF EXISTS extra; CREATE TABLE extra (c_{{column}} TEXT)")
    if changes != "migrates":
        database.execute("DELETE FROM rows")
if changes == "fails rehearsed" or (changes == "fails" and "UPDATER_REHEARSAL" not in os.environ):
    sys.exit("it cannot be migrated")
"""

DIES_SOONER = "threading.Timer(0.9,", "threading.Timer(0.45,"


def files(site: Site, tag: str, changes: str) -> dict[str, str]:
    """What a release of the application has besides what every test's has."""
    return {
        "serve.py": WRITER + SERVE.replace(*DIES_SOONER),
        "migrate.py": MIGRATE,
        "changes": changes,
        "noted": str(site.place / "noted"),
        "stamp": f"{tag.removeprefix('v')}\n",
    }


@dataclass
class Ledger:
    """What was noted, and where each row must be."""

    site: Site
    rows: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in DATABASES})
    """Those that must be in the database at the end."""
    in_backups: int = 0
    _read: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.site.place / "noted").mkdir()

    @property
    def total(self) -> int:
        return sum(map(len, self.rows.values())) + self.in_backups

    def grown(self) -> bool:
        """Whether each database has got a row that was not looked at yet."""
        return all(self._size(name) > self._read.get(name, 0) for name in DATABASES)

    def _size(self, name: str) -> int:
        with contextlib.suppress(FileNotFoundError):
            return (self.site.place / "noted" / name).stat().st_size
        return 0

    def look(self, record: Mapping[str, Any] | None = None) -> list[str]:
        """Look for what was noted since the last time. ``record``: how the deployment ended that ran meanwhile; by the data
        rule what its release wrote may be in the backup that it names. Returns what is wrong."""
        problems = []
        data = (record or {}).get("data") or {}
        moved = data.get("schema") == "changed" and "kept" in data and record is not None
        for name in DATABASES:
            noted = self._fresh(name)
            away = {row for release, row in noted if moved and record and release == record["to"]}
            here = {row for _, row in noted} - away
            missing = here - present(self.site.layout.shared / "data" / f"{name}.db", here)
            problems += [f"{name}.db: {len(missing)} rows are gone: {_some(missing)}"] if missing else []
            self.rows[name] |= here
            if away:
                problems += self._kept(name, away, data.get("kept"))
        return problems

    def _fresh(self, name: str) -> list[tuple[str, str]]:
        place, begun = self.site.place / "noted" / name, self._read.get(name, 0)
        if not place.exists():
            return []
        with place.open("rb") as file:
            file.seek(begun)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read[name] = begun + len(whole) + len(newline)
        pairs = (line.split() for line in whole.decode().splitlines())
        return [(release, row) for release, row in pairs]

    def _kept(self, name: str, rows: set[str], backup: str | None) -> list[str]:
        """The rows of a release whose schema was taken back."""
        if backup is None:
            return [f"{name}.db: {len(rows)} rows were taken back and are kept nowhere: {_some(rows)}"]
        self.in_backups += len(rows)
        with tempfile.TemporaryDirectory(dir=self.site.place) as into:
            found = catalogue.find(self.site.layout, backup)
            unpacking.unpack(found.directory, Path(into) / "shared", ("data",))
            missing = rows - present(Path(into) / "shared" / "data" / f"{name}.db", rows)
        return [f"{name}.db: {len(missing)} rows are not in {backup}: {_some(missing)}"] if missing else []

    def all_there(self) -> list[str]:
        """At the end, with nobody writing."""
        problems = self.look()
        for name, rows in self.rows.items():
            place = self.site.layout.shared / "data" / f"{name}.db"
            with contextlib.closing(sqlite3.connect(place)) as database:
                if (sound := database.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                    problems.append(f"{name}.db is corrupt: {sound[:3]}")
            if missing := rows - present(place, rows):
                problems.append(f"{name}.db: at the end {len(missing)} rows are gone: {_some(missing)}")
        return problems


def present(place: Path, rows: Iterable[str]) -> set[str]:
    """Those of the rows that are in the database."""
    asked, found = sorted(rows), set()
    with contextlib.closing(sqlite3.connect(place, timeout=20)) as database:
        for at in range(0, len(asked), 500):
            some = asked[at : at + 500]
            marks = ", ".join("?" * len(some))
            found |= {
                name for (name,) in database.execute(f"SELECT name FROM rows WHERE name IN ({marks})", some)
            }
    return found


def _some(rows: Iterable[str]) -> str:
    found = sorted(rows)
    return ", ".join(found[:3]) + (f" … {found[-1]}" if len(found) > 3 else "")
