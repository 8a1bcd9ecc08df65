"""Roots that are broken as in real life, one for each scenario of UPDATE_FAILURE_GUIDE.md and some of the other guides."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.docs.preparations import preparation
from tests.docs.world import World
from tests.integration.test_cancel import _fill, in_phase
from tests.integration.test_ways_out import holder_pid
from tests.site import SERVE, eventually


def both(world: World) -> None:
    """v1.4.0 is in service and good, v1.3.2 was before it."""
    world.site.deployed("v1.3.2", "v1.4.0")


def at_work(world: World, phase: str = "watch", behaviour: str = "good") -> subprocess.Popen[str]:
    """v1.3.2 is good, and the deployment of v1.4.0 is in a phase."""
    world.site.deployed("v1.3.2")
    world.site.publish("v1.4.0", behaviour)
    world.configure(watch=600)
    running = world.site.start("deploy", "v1.4.0")
    world.after.callback(running.communicate, timeout=60)
    eventually(lambda: in_phase(world.site, phase), f"phase {phase}")
    return running


def python_is_gone(world: World, version: str) -> None:
    """What an upgrade of the system does to a virtualenv."""
    python = world.site.layout.release(version) / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/usr/bin/python3.10")


def everything_dies(world: World) -> None:
    """What a power cut, or a restart of the machine, does to processes."""
    for process in world.site.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    eventually(lambda: not world.site.running("serve.py"), "all of it is dead")


def stranger(world: World, *command: str) -> None:
    """Somebody else's program; the page calls its pid 7001."""
    running = subprocess.Popen(
        command, cwd=world.site.root, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()

    world.after.callback(end)
    world.says["7001"] = str(running.pid)


def names_github(world: World) -> None:
    """Let messages name GitHub, as they do for a reader."""
    world.says["api.github.com"] = urlsplit(world.server.api_url).netloc


@preparation("broken-release")
def broken_release(world: World) -> None:
    """v1.4.0 crashes at its start; it was tried by somebody who is not there, and rolled back."""
    world.site.deployed("v1.3.2")
    world.site.publish("v1.4.0", "crash")
    assert world.site.updater("deploy").code == 4


@preparation("broken-figures")
def broken_figures(world: World) -> None:
    """v1.4.0 passes every check and yet is wrong."""
    both(world)


@preparation("broken-way-back")
def broken_way_back(world: World) -> None:
    """v1.4.0 is sick, and meanwhile the Python of v1.3.2 has gone: exit code 5."""
    world.site.deployed("v1.3.2")
    world.site.publish("v1.4.0", "sick")
    world.configure(timeout=2)
    running = world.site.start("deploy", "v1.4.0")
    eventually(lambda: in_phase(world.site, "probe"), "phase probe")
    python_is_gone(world, "v1.3.2")
    out, err = running.communicate(timeout=60)
    assert running.returncode == 5, out + err


@preparation("broken-power-cut")
def broken_power_cut(world: World) -> None:
    """The machine went down in the middle of the deployment of v1.4.0."""
    running = at_work(world)
    os.kill(holder_pid(world.site), signal.SIGKILL)
    everything_dies(world)
    running.communicate(timeout=60)
    world.configure()


@preparation("broken-restart")
def broken_restart(world: World) -> None:
    """The machine was restarted, and nothing starts the application."""
    both(world)
    everything_dies(world)


@preparation("broken-current-directory")
def broken_current_directory(world: World) -> None:
    """Somebody copied a release to where the link was."""
    both(world)
    current = world.site.layout.current
    current.unlink()
    shutil.copytree(world.site.layout.release("v1.4.0"), current, symlinks=True)


@preparation("broken-current-deleted")
def broken_current_deleted(world: World) -> None:
    both(world)
    world.site.layout.current.unlink()


@preparation("broken-release-deleted")
def broken_release_deleted(world: World) -> None:
    """The directory of the release in service was deleted, and its processes ended."""
    both(world)
    assert world.site.updater("stop").code == 0
    shutil.rmtree(world.site.layout.release("v1.4.0"))


@preparation("broken-files")
def broken_files(world: World) -> None:
    """A file of the release in service was edited in place: in v1.3.2 it is the same file, stored once."""
    both(world)
    file = world.site.layout.release("v1.4.0") / "serve.py"
    file.chmod(0o644)
    with file.open("w") as writing:
        writing.write("import serv\n")
    everything_dies(world)


@preparation("broken-environment")
def broken_environment(world: World) -> None:
    """An upgrade of the system took away the Python of both releases."""
    both(world)
    for version in ("v1.3.2", "v1.4.0"):
        python_is_gone(world, version)
    everything_dies(world)


@preparation("broken-own-directory")
def broken_own_directory(world: World) -> None:
    """Somebody has deleted .updater/ while the application runs."""
    both(world)
    shutil.rmtree(world.site.layout.own)


def no_python(world: World) -> None:
    """Neither updater nor any Python is on the PATH."""
    programs = world.place / "programs"
    programs.mkdir()
    for directory in ("/bin", "/usr/bin"):
        for tool in Path(directory).iterdir():
            if not tool.name.startswith(("python", "pip", "uv")) and not (programs / tool.name).exists():
                (programs / tool.name).symlink_to(tool)
    world.environment["PATH"] = str(programs)


@preparation("broken-hung-updater")
def broken_hung_updater(world: World) -> None:
    """The deployment of v1.4.0 does not get on any more: its process is frozen, for an hour."""
    at_work(world)
    os.kill(holder_pid(world.site), signal.SIGSTOP)
    layout, hour_ago = world.site.layout, time.time() - 3600
    for sign in (layout.lock_owner, layout.progress, *layout.journal.glob("*.jsonl")):
        os.utime(sign, (hour_ago, hour_ago))
    world.configure()


@preparation("broken-everything")
def broken_everything(world: World) -> None:
    """The deployment hangs, the application has died, and there is neither updater nor any Python."""
    broken_hung_updater(world)
    for process in world.site.running("serve.py"):
        process.kill()
    no_python(world)


@preparation("broken-updater")
def broken_updater(world: World) -> None:
    """v1.4.0 has died, and there is neither updater nor any Python."""
    both(world)
    everything_dies(world)
    no_python(world)


@preparation("broken-locked-by-a-stranger")
def broken_locked_by_a_stranger(world: World) -> None:
    """A cron job that somebody wrote locks the root."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells who holds a lock")
    both(world)
    job = world.place / "srv" / "copy_to_nas.py"
    job.write_text(
        "import fcntl, os, time\nfcntl.flock(os.open('.', os.O_RDONLY), fcntl.LOCK_EX)\ntime.sleep(3600)\n"
    )
    stranger(world, sys.executable, str(job))
    eventually(lambda: world.site.updater("pin", "v1.4.0").code == 6, "it has the lock")


@preparation("broken-disk-full")
def broken_disk_full(world: World) -> None:
    """A real full disk; needs the right to mount one."""
    srv = world.place / "srv"
    aside = world.place / "aside"
    srv.rename(aside)
    srv.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=450m", "tmpfs", srv], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the right to mount a small disk")
    world.after.callback(subprocess.run, ["umount", "-l", srv], check=True)
    shutil.copytree(aside, srv, symlinks=True, dirs_exist_ok=True)
    world.site.deployed("v1.3.2")
    world.site.publish("v1.4.0")
    _fill(world.site.layout.logs / "debug.log")


DATABASE = "CREATE TABLE trades (id INTEGER PRIMARY KEY, symbol TEXT); INSERT INTO trades (symbol) VALUES ('BTC'), ('ETH');"


def database(world: World) -> Path:
    place = world.site.layout.shared / "data" / "trades.db"
    with contextlib.closing(sqlite3.connect(place)) as connection:
        connection.executescript(DATABASE)
    return place


@preparation("broken-database")
def broken_database(world: World) -> None:
    """The database is garbage; there is a backup from before."""
    place = database(world)
    world.site.deployed("v1.3.2")
    world.site.publish("v1.4.0")
    assert world.site.updater("backup", "create").code == 0
    with place.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


OLD_CODE = """
import sqlite3
if sqlite3.connect("data/trades.db").execute("PRAGMA user_version").fetchone()[0] > 1:
    raise SystemExit("the database is of a newer version")
"""
NEW_CODE = """
import sqlite3
sqlite3.connect("data/trades.db").executescript("PRAGMA user_version = 2")
"""


@preparation("broken-schema")
def broken_schema(world: World) -> None:
    """v1.4.0 has changed the database, and v1.3.2 cannot read it."""
    database(world)
    for tag, code in (("v1.3.2", OLD_CODE), ("v1.4.0", NEW_CODE)):
        world.site.publish(tag, files={"serve.py": code + SERVE})
        done = world.site.updater("deploy", tag)
        assert done.code == 0, done.text


@preparation("broken-configuration")
def broken_configuration(world: World) -> None:
    """A typing error in updater.toml."""
    both(world)
    file = world.site.layout.config
    file.write_text(file.read_text().replace("stop_timeout", "stop_timout"))


READS_SETTINGS = """
import tomllib
with open("config/settings.toml", "rb") as file:
    tomllib.load(file)
"""


@preparation("broken-settings")
def broken_settings(world: World) -> None:
    """An edit of the application's own settings, and a restart: it does not start any more."""
    config = world.site.layout.config
    config.write_text(
        config.read_text().replace(
            "[shared]\n", '[shared]\n"config/settings.toml" = "config/settings.toml"\n'
        )
    )
    settings = world.site.layout.shared / "config" / "settings.toml"
    settings.write_text('mode = "paper"\n')
    world.site.publish("v1.4.0", files={"serve.py": READS_SETTINGS + SERVE})
    assert world.site.updater("deploy").code == 0
    settings.write_text("mode = paper\n")
    assert world.site.updater("restart").code == 4


@preparation("broken-stop")
def broken_stop(world: World) -> None:
    """The dashboard takes no notice of the polite signal, and would be given an hour."""
    world.configure(stop_timeout=3600)
    world.site.publish("v1.4.0", "stubborn")
    assert world.site.updater("deploy").code == 0


@preparation("broken-port")
def broken_port(world: World) -> None:
    """Somebody else's program took the dashboard's port while the application was down."""
    both(world)
    everything_dies(world)
    stranger(world, sys.executable, "-m", "http.server", str(world.site.port), "--bind", "127.0.0.1")
    eventually(lambda: world.site.answer() is not None, "it listens")


@preparation("broken-token")
def broken_token(world: World) -> None:
    """The access token has expired."""
    world.site.deployed("v1.3.2")
    world.site.publish("v1.4.0")
    names_github(world)
    world.server.token = "ghp_new"
    world.environment["GITHUB_TOKEN"] = "ghp_old"


@preparation("broken-quota")
def broken_quota(world: World) -> None:
    """GitHub's quota for callers without a token is used up."""
    world.site.deployed("v1.3.2")
    world.site.publish("v1.4.0")
    names_github(world)
    world.server.quota = 0


@preparation("broken-network")
def broken_network(world: World) -> None:
    """The source cannot be reached; somebody has brought v1.4.0 in a file."""
    world.site.deployed("v1.3.2")
    brought = world.place / "srv" / "bot-v1.4.0.tar.gz"
    brought.write_bytes(world.site.publish("v1.4.0").tarball("example/app"))
    world.says["api.github.com"] = "127.0.0.1:9"
    world.configure(source='repository = "example/app"\napi_url = "http://127.0.0.1:9"\nconnect_timeout = 2')


@preparation("broken-history")
def broken_history(world: World) -> None:
    """The history and the journal of an interrupted deployment are damaged."""
    broken_power_cut(world)
    (journal,) = world.site.layout.journal.glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"\0" * 64, *lines[4:]]))
    history = world.site.layout.history
    history.write_bytes(b"[\n\0\0\0" + history.read_bytes()[6:])
