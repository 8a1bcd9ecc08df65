"""kill -9 while data are moved: afterwards they are the old ones or the new ones, whole, and every committed row is somewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.crash.test_kill import came, chosen, count, run
from tests.integration.test_migration import (
    ALTER,
    MIGRATE,
    WRITES,
    columns,
    database,
    nothing_left,
    whats,
    with_trades,
)
from tests.integration.test_ways_out import holder_pid
from tests.site import SERVE, Site, eventually

CALLS = ("rename", "fsync", "replace", "unlink")


def insert(site: Site, what: str) -> None:
    with contextlib.closing(sqlite3.connect(database(site))) as connection, connection:
        connection.execute("INSERT INTO trades (what) VALUES (?)", (what,))


def state(site: Site) -> tuple[list[str], str]:
    return whats(database(site)), (site.layout.shared / "data" / "state.json").read_text()


def server(site: Site) -> Path:
    """What stands for a database that lies elsewhere and is kept by dumps."""
    return site.place / "server"


DUMPED = """
[backup.dumps.server]
dump = ["cat", "{place}"]
restore = ["sh", "-c", 'cat > "$0.new" && mv "$0.new" "$0"; while [ -e "$0.slow" ]; do sleep 0.1; done', "{place}"]
"""


@pytest.mark.parametrize("call", CALLS)
def test_killed_while_it_restores(site: Site, call: str) -> None:
    with_trades(site)
    site.configure(extra=DUMPED.format(place=server(site)))
    server(site).write_text("old")
    made = site.updater("--json", "backup", "create", "--label", "the old state").json["id"]
    insert(site, "second")
    (site.layout.shared / "data" / "state.json").write_text("later")
    (site.layout.shared / "data" / "extra.json").write_text("extra")
    server(site).write_text("later")
    later, old = state(site), (["first"], "old")
    request: dict[str, Any] = {"kind": "restore", "wanted": made}
    total = count(site, call, request)
    assert state(site) == old
    kept = site.history()[-1]["backup"]
    kills = 0
    for number in chosen(total):
        assert site.updater("backup", "restore", kept, "--yes").code == 0
        assert state(site) == later
        status, said = run(site, call, number, request)
        kills += came(status, said, number)
        done = site.updater("recover")
        assert done.code in (0, 4), f"{call} {number}: {done.text}"
        here = state(site)
        assert here in (later, old), f"{call} {number}: neither the one nor the other: {here}"
        assert (site.layout.shared / "data" / "extra.json").exists() == (here == later)
        assert server(site).read_text() == here[1], (
            f"{call} {number}: the dump is of another state than the files"
        )
        last = site.history()[-1]
        if last["restored"] == made:  # else it was killed before it had begun
            assert (last["outcome"] == "succeeded") == (here == old), (
                f"{call} {number}: a false report: {last}"
            )
        else:
            assert here == later
        site.runs("v1.0.0")
        nothing_left(site)
        names = {it["id"] for it in site.updater("--json", "backup", "list").json if it["state"] == "ok"}
        if here == old:
            kept = last["backup"]
        assert kept in names, f"{call} {number}: the state from before is in no backup"
    assert kills >= len(chosen(total)) - 1


def test_killed_while_a_dump_is_put_back(site: Site) -> None:
    """In the middle of a command that is not ours: the dump from just before is put back in its place."""
    with_trades(site)
    site.configure(extra=DUMPED.format(place=server(site)))
    server(site).write_text("old")
    made = site.updater("--json", "backup", "create").json["id"]
    server(site).write_text("later")
    insert(site, "second")
    slow = site.place / "server.slow"
    slow.touch()
    running = site.start("backup", "restore", made, "--yes")
    eventually(lambda: server(site).read_text() == "old", "the dump is put back")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    slow.unlink()
    done = site.updater("recover")
    assert done.code in (0, 4), done.text
    assert server(site).read_text() == "later" and whats(database(site)) == ["first", "second"]
    assert site.history()[-1]["outcome"] == "rolled-back" and site.history()[-1]["recovered"]
    site.runs("v1.0.0")
    nothing_left(site)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("ends", ["good", "dies"])
def test_killed_while_it_migrates(site: Site, call: str, ends: str) -> None:
    with_trades(site)
    site.configure(extra=MIGRATE, watch=3 if ends == "dies" else 0.1)
    site.publish("v1.1.0", ends, files={"migrate.py": ALTER, "serve.py": WRITES + SERVE})
    assert site.updater("fetch", "v1.1.0").code == 0
    before = site.updater("--json", "backup", "create", "--label", "before").json["id"]
    request: dict[str, Any] = {"kind": "activate", "wanted": "v1.1.0", "force": True}
    total = count(site, call, request)
    points, kills = chosen(total), 0
    for number in points[len(points) // 2 :] if ends == "dies" else points:
        if site.current() != "v1.0.0":
            assert site.updater("rollback", "--to", "v1.0.0").code == 0
        assert site.updater("backup", "restore", before, "--yes").code == 0
        assert columns(database(site)) == ["id", "what"]
        status, said = run(site, call, number, request)
        kills += came(status, said, number)
        done = site.updater("recover")
        assert done.code in (0, 4), f"{call} {number}: {done.text}"
        version = site.current()
        site.runs(str(version))
        if version == "v1.0.0":
            assert columns(database(site)) == ["id", "what"], (
                f"{call} {number}: the old release, the new schema"
            )
            assert state(site) == (["first"], "old"), f"{call} {number}"
        else:
            assert ends == "good" and columns(database(site)) == ["id", "what", "fee"], f"{call} {number}"
        nothing_left(site)
        assert site.updater("recover").out == "nothing to recover\n"
    assert kills >= len(points) // 2 - 1
