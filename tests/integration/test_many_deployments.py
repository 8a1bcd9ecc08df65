"""A bot that writes all the time, through one deployment after the other, half of them bad: every row that it has committed is there.

``DEPLOYMENTS=100`` is the full run; a few of each kind do for every day.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from tests.site import SERVE, Site, eventually

DEPLOYMENTS = int(os.environ.get("DEPLOYMENTS", "4"))

WRITER = """
import contextlib, itertools, os, sqlite3, threading, time
from pathlib import Path
HERE = Path(__file__)
KIND, ACKNOWLEDGED = HERE.with_name("kind").read_text().strip(), HERE.with_name("acknowledged").read_text()
def on_trial():
    return os.path.exists(os.environ["UPDATER_TRIAL_FILE"])
database = sqlite3.connect("data/trades.db", check_same_thread=False, isolation_level=None, timeout=20)
database.execute("PRAGMA journal_mode=WAL")
database.execute("CREATE TABLE IF NOT EXISTS trades (name TEXT PRIMARY KEY, padding TEXT)")
if "migrates" in KIND:
  with contextlib.suppress(sqlite3.OperationalError):  # it has done so before
    database.execute(f"ALTER TABLE trades ADD COLUMN c{HERE.with_name('VERSION').read_text().strip().replace('.', '_')} TEXT")
def trade():
    with open(ACKNOWLEDGED, "a", buffering=1) as acknowledged:
        for number in itertools.count():
            if "migrates" in KIND and on_trial():  # what is new in the schema may be taken back
                time.sleep(0.01)
                continue
            name = f"{os.getpid()}-{time.time_ns()}-{number}"
            database.execute("INSERT INTO trades (name, padding) VALUES (?, ?)", (name, "x" * 200))
            acknowledged.write(f"{name}\\n")
            time.sleep(0.001)
threading.Thread(target=trade, daemon=True).start()
"""

KINDS = ("good", "sick", "good migrates", "crash", "good", "dies", "good", "sick migrates")
"""What a release does; half of them are bad: before they write, after they wrote, after they changed the schema."""


@pytest.mark.timeout(120 + 20 * DEPLOYMENTS)
def test_every_committed_row_is_there_after_all_of_it(site: Site) -> None:
    acknowledged = site.place / "acknowledged"
    acknowledged.touch()
    site.configure(watch=1.2, keep=3, extra="\n[backup]\nkeep = 3\n")
    in_service, outcomes = None, []
    for number, kind in zip(range(DEPLOYMENTS), itertools.cycle(KINDS), strict=False):
        version = f"v1.{number}.0"
        files = {"serve.py": WRITER + SERVE, "kind": kind, "acknowledged": str(acknowledged)}
        site.publish(version, kind.split()[0], files=files)
        written = acknowledged.stat().st_size
        done = site.updater("deploy", version)
        good = kind.startswith("good")
        assert done.code == (0 if good else 4), done.text
        in_service = version if good else in_service
        site.runs(str(in_service))
        outcomes.append(site.history()[-1]["outcome"])
        eventually(partial(_grown, acknowledged, written), "it writes on")
    assert outcomes == ["succeeded" if it.startswith("good") else "rolled-back" for it in _kinds()]
    assert site.updater("stop").code == 0
    assert not _lost(site, acknowledged)
    print(f"{DEPLOYMENTS} deployments, {len(acknowledged.read_text().splitlines()):,} rows, all there")
    assert site.updater("backup", "verify", "--all").code == 0
    site.is_clean()


def _grown(file: Path, size: int) -> bool:
    return file.stat().st_size > size


def _kinds() -> list[str]:
    return list(itertools.islice(itertools.cycle(KINDS), DEPLOYMENTS))


def _lost(site: Site, acknowledged: Path) -> set[str]:
    place = site.layout.shared / "data" / "trades.db"
    with contextlib.closing(sqlite3.connect(place)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        there = {name for (name,) in database.execute("SELECT name FROM trades")}
    wanted = set(acknowledged.read_text().splitlines())
    assert len(wanted) > 100 * DEPLOYMENTS, "it has written all the time"
    return wanted - there
