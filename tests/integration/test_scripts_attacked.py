"""The emergency scripts, attacked: by data in odd states, odd files, and an environment that is not theirs."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.integration.test_migration import MIGRATE, ask, columns, database, nothing_left, whats, with_trades
from tests.integration.test_ways_out import holder_pid
from tests.shells import script, tools
from tests.site import SERVE, Site, eventually

LOG = """
import os, signal, sqlite3, time
connection = sqlite3.connect("data/trades.db")
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("INSERT INTO trades (what) VALUES ('by the new release')")
connection.commit()
"""
"""Whoever is killed after this leaves a log beside a database that had none, with all that it has written."""

ALTER = """
import sqlite3
connection = sqlite3.connect("data/trades.db")
connection.execute("ALTER TABLE trades ADD COLUMN fee REAL")
connection.commit()
connection.close()
"""
REAL = "if not os.environ.get('UPDATER_REHEARSAL'): "


def without_a_log(site: Site) -> None:
    with_trades(site)
    with contextlib.closing(sqlite3.connect(database(site))) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    assert not list(database(site).parent.glob("trades.db-*"))


def as_before(site: Site) -> None:
    assert not list(database(site).parent.glob("trades.db-*")), "it would be read into the database"
    assert ask(database(site), "PRAGMA integrity_check") == [("ok",)]
    assert columns(database(site)) == ["id", "what"] and whats(database(site)) == ["first"]


def test_what_a_migration_that_was_killed_wrote_does_not_come_back_by_its_log(site: Site) -> None:
    """Out of memory, perhaps: SQLite reads a log into whatever database lies beside it."""
    without_a_log(site)
    site.configure(extra=MIGRATE)
    killed = LOG + REAL + "os.kill(os.getpid(), signal.SIGKILL)"
    site.publish("v1.1.0", files={"migrate.py": killed})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and "exited with -9" in done.err, done.text
    as_before(site)
    nothing_left(site)


def test_nor_does_it_when_a_script_takes_it_back(site: Site, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    without_a_log(site)
    site.configure(extra=MIGRATE)
    waits = LOG + REAL + "open('data/now', 'w').close(); time.sleep(60)"
    site.publish("v1.1.0", files={"migrate.py": waits})
    running = site.start("deploy", "v1.1.0")
    eventually((site.layout.shared / "data" / "now").exists, "the migration has written")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    done = script(site, path, "emergency_rollback.sh", "--yes")
    assert done.code == 0, done.text
    as_before(site)
    assert not list(site.layout.shared.rglob(".updater-*")) and not site.layout.swap.exists()


def test_nor_does_what_the_new_release_wrote(site: Site, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    without_a_log(site)
    site.configure(extra=MIGRATE, watch=60)
    site.publish("v1.1.0", files={"migrate.py": ALTER, "serve.py": LOG + SERVE})
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: (site.answer() or "").startswith("1.1.0"), "the new release answers")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    done = script(site, path, "emergency_rollback.sh", "--yes")
    assert done.code == 0, done.text
    as_before(site)
    kept = next(site.layout.shared.glob(".updater-kept-*"))
    numbers = {line.split("  ")[1]: line.split("  ")[0] for line in (kept / "PATHS").read_text().splitlines()}
    for end in ("", "-wal"):  # side by side again they are what the new release had
        (kept / "new" / numbers[f"data/trades.db{end}"]).rename(kept / f"trades.db{end}")
    assert whats(kept / "trades.db") == ["first", "by the new release"]


@pytest.mark.parametrize("by", ["script", "updater"])
def test_nor_does_what_was_written_to_data_that_came_back_in_vain(
    site: Site, tmp_path: Path, by: str
) -> None:
    """With the data of a backup the application does not start: the present ones come back."""
    path = tools(tmp_path / "bin")
    without_a_log(site)
    (site.layout.shared / "data" / "state.json").write_text("bad")
    made = site.updater("--json", "backup", "create").json["id"]
    (site.layout.shared / "data" / "state.json").write_text("good")
    fussy = "if open('data/state.json').read() == 'bad':\n" + LOG.replace("\n", "\n    ") + "os._exit(1)\n"
    site.publish("v1.1.0", files={"serve.py": fussy + SERVE})
    assert site.updater("deploy", "v1.1.0").code == 0
    how = ("restore_backup.sh", made, "--yes")
    done = script(site, path, *how) if by == "script" else site.updater("backup", "restore", *how[1:])
    assert done.code == 4, done.text
    as_before(site)
    site.runs("v1.1.0")
