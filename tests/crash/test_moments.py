"""Killed at moments that have a name: whoever comes next finishes or undoes what was half done."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
from pathlib import Path

from tests.integration.test_migration import database, nothing_left, whats, with_trades
from tests.integration.test_ways_out import holder_pid
from tests.site import Site, eventually
from updater.subprocesses import Identity

SLOW = """#!/bin/sh
# A launcher asks for the date right before it writes its pid file.
case $PWD in
    */releases/v1.1.0) : >"{reached}"; exec sleep 3600 ;;
esac
exec {date} "$@"
"""


def test_a_launcher_without_its_pid_file_is_ended_by_the_recovery(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    assert site.updater("fetch", "v1.1.0").code == 0
    tools, reached = site.place / "tools", site.place / "reached"
    tools.mkdir()
    (tools / "date").write_text(SLOW.format(reached=reached, date=shutil.which("date")))
    (tools / "date").chmod(0o755)
    site.environment["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    running = site.start("activate", "v1.1.0")
    eventually(reached.exists, "the launcher is before its pid file")
    assert not site.layout.pid_file("web").exists()
    (left,) = site.running("launchers/v1.1.0")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    done = site.updater("pin", "v1.0.0")
    assert done.code == 0, done.text
    site.runs("v1.0.0")
    assert Identity.of(left.pid) is None
    assert len(site.running("serve.py")) == 1


DUMPED = """
[backup.dumps.server]
dump = ["cat", "{place}"]
restore = ["sh", "-c", 'cat > "$0.new" && mv "$0.new" "$0"; while [ -e "$0.slow" ]; do sleep 0.1; done', "{place}"]
"""


def insert(site: Site, what: str) -> None:
    with contextlib.closing(sqlite3.connect(database(site))) as connection, connection:
        connection.execute("INSERT INTO trades (what) VALUES (?)", (what,))


def server(site: Site) -> Path:
    """What stands for a database that lies elsewhere and is kept by dumps."""
    return site.place / "server"


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
