"""Migrations, and the rule by which data come back or stay when a release fails (design page, section 5; F06, F48)."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.site import SERVE, Site

MIGRATE = """
[migrate]
command = ["python", "migrate.py"]
timeout = 20
"""

ALTER = """
import os, sqlite3
connection = sqlite3.connect("data/trades.db")
if connection.execute("PRAGMA user_version").fetchone()[0] < 2:
    connection.execute("ALTER TABLE trades ADD COLUMN fee REAL")
    connection.execute("PRAGMA user_version = 2")
connection.commit()
connection.close()
"""

WRITES = """
import sqlite3
with open("data/state.json", "w") as file:
    file.write("new")
connection = sqlite3.connect("data/trades.db")
connection.execute("INSERT INTO trades (what) VALUES ('by the new release')")
connection.commit()
connection.close()
"""


def database(site: Site) -> Path:
    return site.layout.shared / "data" / "trades.db"


def ask(place: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(place)) as connection:
        return connection.execute(query).fetchall()


def columns(place: Path) -> list[str]:
    return [row[1] for row in ask(place, "PRAGMA table_info(trades)")]


def whats(place: Path) -> list[str]:
    return [row[0] for row in ask(place, "SELECT what FROM trades ORDER BY id")]


def with_trades(site: Site) -> None:
    site.deployed("v1.0.0")
    with contextlib.closing(sqlite3.connect(database(site))) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE trades (id INTEGER PRIMARY KEY, what TEXT)")
        connection.execute("INSERT INTO trades (what) VALUES ('first')")
    (site.layout.shared / "data" / "state.json").write_text("old")


def nothing_left(site: Site) -> None:
    site.is_clean()
    assert not list(site.layout.shared.rglob(".updater-*"))
    assert not site.layout.swap.exists() and not site.layout.swapped.exists()
    assert not list(site.layout.own.glob(".tmp-*"))


def kept_in(site: Site, name: str, into: Path) -> Path:
    done = site.updater("backup", "restore", name, "--to", str(into))
    assert done.code == 0, done.text
    return into / "data" / "trades.db"


def test_a_migration_is_rehearsed_then_run_and_its_schema_is_in_the_history(site: Site) -> None:
    with_trades(site)
    site.configure(extra=MIGRATE)
    site.publish("v1.1.0", files={"migrate.py": ALTER})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 0, done.text
    assert "rehearsing the migration" in done.out and "migrating the databases" in done.out
    assert columns(database(site)) == ["id", "what", "fee"] and whats(database(site)) == ["first"]
    assert ask(database(site), "PRAGMA journal_mode") == [("wal",)], "it is in the mode in which it was"
    found = site.history()[-1]["data"]
    assert found["changed"] == ["data/trades.db"] and found["after"]["data/trades.db"][0] == 2
    site.runs("v1.1.0")
    nothing_left(site)
    back = site.updater("rollback", "--restore-data")
    assert back.code == 0, back.text
    assert columns(database(site)) == ["id", "what"] and whats(database(site)) == ["first"]
    nothing_left(site)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (ALTER + "raise SystemExit('no such exchange')", "exited with 1"),
        ("import time\ntime.sleep(600)", "did not end within 2 s"),
        ("open('data/trades.db', 'r+b').write(b'x' * 5000)", "data/trades.db is corrupt"),
        ("import os\nos.unlink('data/trades.db')", "data/trades.db is corrupt: it is not there any more"),
    ],
)
def test_a_migration_that_fails_in_rehearsal_costs_nothing(site: Site, script: str, says: str) -> None:
    with_trades(site)
    site.configure(extra=MIGRATE.replace("20", "2"))
    site.publish("v1.1.0", files={"migrate.py": script})
    pid = site.status()["processes"][0]["pid"]
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and says in done.err, done.text
    assert "v1.0.0 is in service, untouched" in done.err
    assert site.status()["processes"][0]["pid"] == pid
    assert columns(database(site)) == ["id", "what"] and whats(database(site)) == ["first"]
    nothing_left(site)


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "import time; time.sleep(600)"])
def test_a_migration_that_fails_for_real_leaves_the_untouched_database(site: Site, end: str) -> None:
    with_trades(site)
    site.configure(extra=MIGRATE.replace("20", "3"))
    other = "open('data/state.json', 'w').write('half')"
    fails = f"{ALTER}\nif 'UPDATER_REHEARSAL' not in os.environ:\n    {other}\n    {end}"
    site.publish("v1.1.0", files={"migrate.py": fails})
    before = database(site).read_bytes()
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and "the migration" in done.err and "rolled back" in done.err, done.text
    assert database(site).read_bytes() == before, "it is the very file"
    told = f"had also changed data/state.json in shared/: as before in {site.history()[-1]['backup']}"
    assert told in done.err, done.text
    assert whats(database(site)) == ["first"]
    site.runs("v1.0.0")
    nothing_left(site)


def test_what_a_migration_leaves_running_is_ended_and_keeps_no_lock(site: Site) -> None:
    """F17: in a session of its own it would write to the database that the application uses next, and lock the root for ever."""
    with_trades(site)
    site.configure(extra=MIGRATE)
    daemon = "if os.fork() == 0:\n    os.setsid()\n    os.execvp('sleep', ['sleep', '3600'])\n"
    site.publish("v1.1.0", files={"migrate.py": ALTER + daemon})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 0, done.text
    warned = [it for it in site.history()[-1]["warnings"] if "left something running" in it]
    assert len(warned) == 2 and all("sleep 3600" in it for it in warned), "in rehearsal and for real"
    assert not site.running("3600")
    assert site.updater("stop").code == 0


def test_a_migration_may_take_longer_than_the_application_to_become_healthy(site: Site) -> None:
    """F30."""
    with_trades(site)
    site.configure(timeout=0.5, extra=MIGRATE)
    site.publish("v1.1.0", files={"migrate.py": f"import time; time.sleep(1.5)\n{ALTER}"})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 0, done.text
    phases = {it["name"]: it["seconds"] for it in site.history()[-1]["phases"]}
    assert phases["migrate"] > 1.4 and "fee" in columns(database(site))


def test_a_rehearsal_that_reaches_the_real_database_is_told(site: Site) -> None:
    with_trades(site)
    site.configure(extra=MIGRATE)
    site.publish("v1.1.0", files={"migrate.py": ALTER.replace('"data/', f'"{site.layout.shared}/data/')})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and "has changed the real data/trades.db" in done.err, done.text
    name = next(it for it in site.updater("--json", "backup", "list").json)["id"]
    assert name in done.err


@pytest.mark.parametrize("configured", [True, False], ids=["by a command", "by itself at its start"])
def test_a_release_that_changed_the_schema_wrote_and_failed_gives_the_data_back(
    site: Site, tmp_path: Path, configured: bool
) -> None:
    with_trades(site)
    site.configure(extra=MIGRATE if configured else "")
    start = WRITES if configured else ALTER + WRITES
    site.publish("v1.1.0", "dies", files={"migrate.py": ALTER, "serve.py": start + SERVE})
    site.configure(watch=3)
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4, done.text
    assert columns(database(site)) == ["id", "what"] and whats(database(site)) == ["first"]
    assert (site.layout.shared / "data" / "state.json").read_text() == "old", "the data are of one moment"
    site.runs("v1.0.0")
    found = site.history()[-1]["data"]
    assert found["schema"] == "changed" and found["kept"] in done.err, done.text
    kept = kept_in(site, found["kept"], tmp_path / "look")
    assert columns(kept) == ["id", "what", "fee"] and whats(kept) == ["first", "by the new release"]
    listed = {it["id"]: it for it in site.updater("--json", "backup", "list").json}
    assert listed[found["kept"]]["release"] == "v1.1.0", "they are the data of the release that wrote them"
    nothing_left(site)


def test_a_dump_from_the_stop_is_not_put_back_over_what_could_not_be_kept(site: Site) -> None:
    """What the new release wrote to a database that cannot be dumped now is nowhere else."""
    with_trades(site)
    server = site.place / "server"
    server.write_text("old")
    dumped = f"""
[backup.dumps.server]
dump = ["sh", "-c", 'test ! -e "$0.down" && cat "$0"', "{server}"]
restore = ["sh", "-c", 'cat > "$0"', "{server}"]
"""
    writes = f"open({str(server)!r}, 'w').write('by the new release'); open('{server}.down', 'w')\n"
    site.configure(extra=MIGRATE + dumped, watch=3)
    site.publish("v1.1.0", "dies", files={"migrate.py": ALTER, "serve.py": WRITES + writes + SERVE})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 5 and server.read_text() == "by the new release", done.text
    assert "what v1.1.0 wrote to server could not be kept" in done.err
    assert whats(database(site)) == ["first"], "the rest is back, and what was written is kept"
    assert "--only dumps" in done.err and "it is not in the backup: the dump server" in done.text
    site.runs("v1.0.0")
    (site.place / "server.down").unlink()
    told = re.search(r"updater backup restore (\S+) --only dumps", done.err)
    assert told is not None
    again = site.updater("backup", "restore", told[1], "--only", "dumps", "--yes")
    assert again.code == 0 and server.read_text() == "old", again.text
    newest = site.updater("--json", "backup", "list").json[0]
    assert [it["name"] for it in newest["dumps"]] == ["server"], "what was written is kept first"


@pytest.mark.parametrize("configured", [True, False], ids=["with a migration", "without"])
def test_what_a_failed_release_wrote_stays_where_the_schema_did_not_change(
    site: Site, configured: bool
) -> None:
    with_trades(site)
    site.configure(extra=MIGRATE if configured else "", watch=3)
    site.publish("v1.1.0", "dies", files={"migrate.py": "pass", "serve.py": WRITES + SERVE})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4, done.text
    assert whats(database(site)) == ["first", "by the new release"]
    assert site.history()[-1]["data"]["schema"] == "unchanged"
    site.runs("v1.0.0")
    nothing_left(site)


@pytest.mark.parametrize("configured", [True, False], ids=["by a command", "by itself at its start"])
def test_what_a_failed_release_wrote_is_kept_aside_where_no_backup_of_it_can_be_made(
    site: Site, configured: bool, mount: Callable[[str, Path | None], Path]
) -> None:
    """Nothing is ever overwritten that does not exist somewhere else: neither rows, nor other files, nor what is dumped."""
    with_trades(site)
    shutil.rmtree(site.layout.backups)
    mount(str(site.layout.backups.relative_to(site.place)), None)
    dump = 'dump = ["echo", "x"]\nrestore = ["sh", "-c", "cat > data/loaded"]\n'
    site.configure(extra=(MIGRATE if configured else "") + f"[backup.dumps.other]\n{dump}", watch=3)
    breaks = "import os, subprocess\nsubprocess.run(['mount', '-o', 'remount,ro', os.environ['UPDATER_SHARED'] + '/backups'], check=True)\n"
    start = ("" if configured else ALTER) + WRITES + breaks
    site.publish("v1.1.0", "dies", files={"migrate.py": ALTER, "serve.py": start + SERVE})
    done = site.updater("deploy", "v1.1.0")
    data = site.layout.shared / "data"
    assert columns(database(site)) == ["id", "what"] and whats(database(site)) == ["first"], done.text
    assert (data / "state.json").read_text() == "old" and not (data / "loaded").exists()
    site.runs("v1.0.0")
    kept = {}
    for place in site.layout.shared.glob(".updater-kept-*"):
        for line in (place / "PATHS").read_text().splitlines():
            number, _, path = line.partition("  ")
            moved = [it for name in ("old", "new") if (it := place / name / number).exists()]
            kept |= {path: moved[0]} if moved else {}
    assert whats(kept["data/trades.db"]) == ["first", "by the new release"], kept
    assert kept["data/state.json"].read_text() == "new"
    assert site.history()[-1]["data"]["aside"][0] in done.err, done.text
    if configured:
        assert done.code == 5 and "what v1.1.0 wrote to other could not be kept" in done.err, done.text
        assert f"updater backup restore {site.history()[-1]['backup']}" in done.err
    else:
        assert done.code == 4, done.text


def test_what_a_failed_release_wrote_is_kept_without_the_dump_that_cannot_be_made(site: Site) -> None:
    """The rows are in a backup then; what is dumped stays as the failed release left it, and that is said."""
    with_trades(site)
    dump = 'dump = ["sh", "-c", "test ! -e data/broken && echo x"]\nrestore = ["sh", "-c", "cat > data/loaded"]\n'
    site.configure(extra=f"{MIGRATE}[backup.dumps.other]\n{dump}", watch=3)
    start = WRITES + "open('data/broken', 'w').close()\n"
    site.publish("v1.1.0", "dies", files={"migrate.py": ALTER, "serve.py": start + SERVE})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 5 and "what v1.1.0 wrote to other could not be kept" in done.err, done.text
    assert whats(database(site)) == ["first"] and not (site.layout.shared / "data" / "loaded").exists()
    out = site.place / "kept"
    assert site.updater("backup", "restore", site.history()[-1]["data"]["kept"], "--to", str(out)).code == 0
    assert whats(out / "data" / "trades.db") == ["first", "by the new release"]
    site.runs("v1.0.0")


def test_it_is_not_said_that_nothing_was_lost_where_the_backup_does_not_hold_all(site: Site) -> None:
    with_trades(site)
    database(site).rename(site.place / "elsewhere.db")
    database(site).symlink_to(site.place / "elsewhere.db")
    site.publish("v1.1.0", "sick", files={"serve.py": ALTER + SERVE})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and "leads out of shared/" in done.text, done.text
    assert "Nothing was lost" not in done.err and "but for what its warnings tell" in done.err


def test_going_back_runs_no_migration_and_a_broken_database_bars_no_rollback(site: Site) -> None:
    with_trades(site)
    site.configure(extra=MIGRATE + '[backup]\ndatabases = ["data/trades.db"]\n')
    site.publish("v1.1.0", files={"migrate.py": ALTER})
    assert site.updater("deploy", "v1.1.0").code == 0
    assert site.updater("activate", "v1.0.0").code == 0, "v1.0.0 has no migrate.py"
    assert site.updater("deploy", "v1.1.0").code == 0
    for it in (database(site), *database(site).parent.glob("trades.db-*")):
        it.write_bytes(b"rubbish, no header")
    done = site.updater("rollback")
    assert done.code == 0, done.text
    site.runs("v1.0.0")
    mended = site.updater("rollback", "--to", "v1.1.0", "--restore-data")
    assert mended.code == 0, mended.text
    assert whats(database(site)) == ["first"], "and a restore mends it"
