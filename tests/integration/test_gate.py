"""The gate: an application that is busy is not interrupted, and whoever cannot say counts as busy (F50)."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_cancel import in_phase
from tests.integration.test_ways_out import holder_pid
from tests.site import Site, eventually

SHELLS = [it for it in ("sh", "busybox sh", "mksh", "zsh") if shutil.which(it.split()[0])]

QUERY = """
[gate]
sqlite = { path = "data/trades.db", busy_if = "SELECT count(*) FROM trades WHERE status = 'open'" }
"""


def trades(site: Site, status: str) -> None:
    with (
        contextlib.closing(sqlite3.connect(site.layout.shared / "data" / "trades.db")) as connection,
        connection,
    ):
        connection.execute("CREATE TABLE IF NOT EXISTS trades (id INTEGER PRIMARY KEY, status TEXT)")
        connection.execute("DELETE FROM trades")
        connection.execute("INSERT INTO trades (status) VALUES (?)", (status,))


def test_an_open_trade_refuses_the_update_and_nothing_is_touched(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(extra=QUERY)
    trades(site, "open")
    pid = site.status()["processes"][0]["pid"]
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 9 and "may not be interrupted now" in done.err and "gives 1" in done.err, done.text
    assert "v1.0.0 is in service, untouched" in done.err
    assert site.status()["processes"][0]["pid"] == pid
    assert site.updater("rollback", "--to", "v1.1.0").code == 9, "going back interrupts as well"
    trades(site, "closed")
    assert site.updater("deploy", "v1.1.0").code == 0
    site.runs("v1.1.0")
    trades(site, "open")
    forced = site.updater("activate", "v1.0.0", "--force")
    assert forced.code == 0, forced.text
    record = site.history()[-1]
    assert record["forced"] and any("although it is busy" in it for it in record["warnings"])


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('sqlite = { path = "data/missing.db", busy_if = "SELECT 1" }', "missing.db is not there"),
        ('sqlite = { path = "data/trades.db", busy_if = "SELECT nonsense" }', "no such column"),
        ('sqlite = { path = "data/trades.db", busy_if = "DELETE FROM trades" }', "readonly|query_only|attempt to write"),
        (
            'timeout = 0.5\nsqlite = { path = "data/trades.db", busy_if = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) SELECT max(x) FROM n" }',
            "interrupted",
        ),
        ('command = ["python", "-c", "import sys; print(\'3 open\'); sys.exit(1)"]', "3 open"),
        ('command = ["python", "-c", "import sys; sys.exit(7)"]', "exited with 7"),
        ('command = ["no-such-program"]', "No such file"),
        ('timeout = 0.5\ncommand = ["sleep", "60"]', "did not end within 0.5 s"),
        ('file = "data/busy"', "data/busy is there: printing"),
        ('file = "data/pipe"', "data/pipe is there"),
        (
            'url = "http://bot:hunter2@127.0.0.1:1/busy?token=abcdef"',
            "GET http://***@127.0.0.1:1/busy?token=***: [Errno 111]|GET http://***@127.0.0.1:1/busy?token=***: [Errno 61]",
        ),
    ],
)  # fmt: skip
def test_whatever_is_not_a_clear_yes_refuses(site: Site, setting: str, says: str) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    trades(site, "open")
    (site.layout.shared / "data" / "busy").write_text("printing\nmore\n")
    os.mkfifo(site.layout.shared / "data" / "pipe")
    site.configure(extra=f"\n[gate]\n{setting}\n")
    done = site.updater("deploy", "v1.1.0", timeout=60)
    assert done.code == 9, done.text
    assert any(word in done.err for word in says.split("|")), done.err
    site.runs("v1.0.0")
    with contextlib.closing(sqlite3.connect(site.layout.shared / "data" / "trades.db")) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (1,), (
            "a question changes nothing"
        )


@contextlib.contextmanager
def answering(answers: list[tuple[int, bytes]]) -> Iterator[str]:
    """An application's own address; the last answer stays."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/busy"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (204, b"", 0), (200, b'{"busy": false}', 0), (200, b"free\n", 0),
        (200, b'{"busy": true, "open": 2}', 9), (200, b"busy", 9), (409, b"2 open trades", 9), (503, b"", 9),
        (200, b'{"busy": false, "trades": "' + b"x" * 9000 + b'"}', 0),
        (200, b"<html>rubbish</html>", 9), (200, b'{"busy": "no"}', 9), (500, b"", 9), (302, b"", 9), (404, b"", 9),
    ],
)  # fmt: skip
def test_an_address_is_asked(site: Site, status: int, body: bytes, code: int) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    with answering([(status, body)]) as url:
        site.configure(extra=f'\n[gate]\nurl = "{url}"\n')
        done = site.updater("deploy", "v1.1.0")
    assert done.code == code, done.text
    site.runs("v1.0.0" if code else "v1.1.0")


HOOKS = """
[gate]
on_busy = "wait"
wait = {wait}
file = "data/busy"
drain = ["python", "-c", "import os, pathlib; pathlib.Path(os.environ['UPDATER_SHARED'], 'data', 'hooks').open('a').write('drain ' + os.environ['UPDATER_RELEASE'] + chr(10))"]
resume = ["python", "-c", "import os, pathlib; pathlib.Path(os.environ['UPDATER_SHARED'], 'data', 'hooks').open('a').write('resume ' + os.environ['UPDATER_RELEASE'] + chr(10))"]
"""


def hooks(site: Site) -> list[str]:
    path = site.layout.shared / "data" / "hooks"
    return path.read_text().splitlines() if path.exists() else []


def test_it_drains_waits_until_free_and_resumes_in_the_new_release(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(extra=HOOKS.format(wait=60))
    busy = site.layout.shared / "data" / "busy"
    busy.touch()
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: hooks(site), "it drains")
    assert site.current() == "v1.0.0" and running.poll() is None
    busy.unlink()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, out + err
    site.runs("v1.1.0")
    assert hooks(site) == ["drain v1.0.0", "resume v1.1.0"]
    assert not site.layout.drained.exists()


def test_waiting_has_a_limit_and_the_application_goes_on(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(extra=HOOKS.format(wait=0.5))
    (site.layout.shared / "data" / "busy").touch()
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 9 and "of waiting" in done.err, done.text
    assert hooks(site) == ["drain v1.0.0", "resume v1.0.0"]
    site.runs("v1.0.0")


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_whoever_is_stopped_while_waiting_leaves_an_application_that_goes_on(site: Site, end: str) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(extra=HOOKS.format(wait=600))
    (site.layout.shared / "data" / "busy").touch()
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "gate") and hooks(site), "it waits")
    if end == "cancel":
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
        assert running.returncode == 130
    else:
        os.kill(holder_pid(site), signal.SIGKILL)
        running.communicate(timeout=60)
        assert site.updater("recover").code == 0
    assert hooks(site) == ["drain v1.0.0", "resume v1.0.0"]
    site.runs("v1.0.0")
    site.is_clean()


TELLS = """import json, os, pathlib, sys; place = pathlib.Path(os.environ['UPDATER_SHARED'], 'data', 'told'); \
place.open('a').write(json.dumps([sys.argv, sys.executable, os.getcwd(), dict(os.environ)]) + chr(10))"""


def test_every_shell_can_resume_as_updater_does(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    words = ["python", "-c", TELLS, "it's", "$HOME `id`", "a\nb"]
    site.configure(
        extra=f'\n[gate]\nfile = "data/busy"\non_busy = "wait"\ndrain = ["true"]\nresume = {json.dumps(words)}\n'
    )
    (site.layout.shared / "data" / "busy").touch()
    site.environment |= {"PYTHONPATH": "/nowhere", "UPDATER_TRIAL": "1"}
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "gate") and site.layout.drained.exists(), "it waits")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    assert site.layout.resume.stat().st_mode & 0o777 == 0o700
    for shell in SHELLS:
        command = ["zsh", "--emulate", "sh"] if shell == "zsh" else shell.split()
        env = {**site.env(), "GITHUB_TOKEN": "updater's alone"}
        subprocess.run([*command, site.layout.resume], env=env, cwd="/", check=True, timeout=60)
    assert site.updater("recover").code == 0
    told = [json.loads(line) for line in (site.layout.shared / "data" / "told").read_text().splitlines()]
    *by_shells, by_updater = told
    for name in ("PWD", "OLDPWD", "_", "SHLVL"):  # a shell has its own
        by_updater[3].pop(name, None)
    assert len(by_shells) == len(SHELLS)
    for it in by_shells:
        assert not {"PYTHONPATH", "UPDATER_TRIAL", "GITHUB_TOKEN"} & set(it[3])
        assert [*it[:3], {name: it[3].get(name) for name in by_updater[3]}] == by_updater
    assert by_updater[0][1:] == words[3:] and by_updater[3]["UPDATER_RELEASE"] == "v1.0.0"
    assert not site.layout.drained.exists() and not site.layout.resume.exists()


def test_a_resume_script_without_its_mark_is_tidied_away(site: Site) -> None:
    site.deployed("v1.0.0")
    site.layout.resume.write_text("#!/bin/sh\n")
    assert site.updater("recover").code == 0
    assert not site.layout.resume.exists()


def test_a_drain_that_fails_refuses_unless_forced_and_one_without_its_counterpart_is_an_error(
    site: Site,
) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(extra='\n[gate]\ndrain = ["false"]\nresume = ["true"]\n')
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and "the drain command failed" in done.text, done.text
    assert "go on without: updater deploy v1.1.0 --force" in done.err
    site.runs("v1.0.0")
    forced = site.updater("deploy", "v1.1.0", "--force")
    assert forced.code == 0, f"a broken release may be unable to, and must not bar its own end: {forced.text}"
    assert any("although the drain command failed" in it for it in site.history()[-1]["warnings"])
    site.configure(extra='\n[gate]\ndrain = ["true"]\n')
    wrong = site.updater("deploy", "v1.1.0")
    assert wrong.code == 2 and "needs resume" in wrong.err
    site.configure(extra="")


def test_a_deployment_leaves_a_backup_from_the_moment_of_the_stop(site: Site, tmp_path: Path) -> None:
    site.deployed("v1.0.0")
    trades(site, "closed")
    site.publish("v1.1.0", "sick")
    done = site.updater("deploy", "v1.1.0")
    (made,) = [
        it
        for it in site.updater("--json", "backup", "list").json
        if it["deployment"] == site.history()[-1]["id"]
    ]
    assert done.code == 4 and f"Nothing was lost: {made['id']} holds the data from before" in done.err, (
        done.text
    )
    assert site.history()[-1]["backup"] == made["id"] and made["release"] == "v1.0.0"
    assert site.updater("backup", "restore", made["id"], "--to", str(tmp_path / "out")).code == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / "data" / "trades.db")) as connection:
        assert connection.execute("SELECT status FROM trades").fetchall() == [("closed",)]
    site.configure(watch=0, extra="[backup]\nkeep = 2\n")
    for tag in ("v1.2.0", "v1.3.0", "v1.4.0", "v1.5.0"):
        site.deployed(tag)
    kept = site.updater("--json", "backup", "list").json
    assert 2 <= len(kept) <= 4, [it["reason"] for it in kept]


@pytest.mark.parametrize("spoilt", ["dangling", "file", "corrupt"])
def test_what_spoils_a_backup_bars_no_way_back(site: Site, spoilt: str) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    if spoilt == "corrupt":
        database = site.layout.shared / "data" / "trades.db"
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE trades (note TEXT)")
            connection.executemany("INSERT INTO trades VALUES (?)", (("x" * 500,) for _ in range(500)))
        raw = bytearray(database.read_bytes())
        raw[4096 * 5 : 4096 * 9] = os.urandom(4096 * 4)
        database.write_bytes(bytes(raw))
    else:
        site.layout.backups.rename(site.place / "backups")
        if spoilt == "file":
            site.layout.backups.write_text("a file")
        else:
            site.layout.backups.symlink_to("/nonexistent/disk")
    site.publish("v1.2.0")
    refused = site.updater("deploy", "v1.2.0")
    assert refused.code in (3, 4), refused.text
    assert site.updater("stop").code == 0 and site.updater("start").code == 0
    done = site.updater("rollback")
    assert done.code == 0 and "NO backup" in done.text, done.text
    site.runs("v1.0.0")
