"""Real database servers for tests: private, in a short directory of their own, ended with the test."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.site import eventually, free_port

PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/sbin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
)

DOCUMENT = Path(__file__).parents[1] / "docs" / "databases.md"


def example(heading: str) -> tuple[str, dict[str, Any]]:
    """The first TOML under a heading of docs/databases.md: its very text, and the table of its only dump."""
    found = re.search(rf"^## {re.escape(heading)}.*?```toml\n(.*?)```", DOCUMENT.read_text(), re.S | re.M)
    assert found is not None, heading
    (table,) = tomllib.loads(found[1])["backup"]["dumps"].values()
    return found[1], table


def program(*names: str) -> str:
    """The path of a server's program; skips the test, with words, where there is none."""
    for name in names:
        places = [
            os.environ.get("PATH", os.defpath),
            *sorted((it for p in PLACES for it in glob.glob(p)), reverse=True),
        ]
        if found := shutil.which(name, path=os.pathsep.join(places)):
            return found
    pytest.skip(f"NOT TESTED: no {names[0]} on this machine (.ci/run installs it on Debian)")


def somebody() -> dict[str, Any]:
    """For a server that refuses to run as root: another user, as arguments of Popen; nothing if we are not root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("NOT TESTED: the server refuses to run as root, and there is no user nobody")


@contextlib.contextmanager
def short_directory(owner: dict[str, Any]) -> Iterator[Path]:
    """A directory whose path is short enough for a socket in it."""
    place = Path(tempfile.mkdtemp(prefix="updater-db-", dir="/tmp"))
    try:
        if owner:
            os.chown(place, owner["user"], owner["group"])
        yield place
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def serving(
    command: Sequence[str], log: Path, *, stop: int = signal.SIGTERM, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, **more
        )
    try:
        yield server
    finally:
        server.send_signal(stop)
        try:
            server.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@dataclass
class Postgres:
    """A cluster; its role ``bot`` owns the databases and is no superuser."""

    place: Path
    port: int
    bin: Path

    def url(self, database: str, user: str = "bot", password: str = "of-the-bot") -> str:
        return f"postgresql://{user}:{password}@/{database}?host={self.place}&port={self.port}"

    def sql(self, text: str, database: str = "postgres", user: str = "bot") -> list[str]:
        """Run SQL; the rows, with a bar between columns."""
        done = subprocess.run(
            [self.bin / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", self.url(database, user)],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def database(self, name: str) -> str:
        """A new database that belongs to ``bot``; returns its address."""
        self.sql(f"DROP DATABASE IF EXISTS {name}", user="admin")
        self.sql(f"CREATE DATABASE {name} OWNER bot", user="admin")
        return self.url(name)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    bin = Path(program("initdb")).resolve().parent
    owner = somebody()
    with short_directory(owner) as place:
        data = place / "data"
        made = subprocess.run(
            [bin / "initdb", "-D", data, "-U", "admin", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            capture_output=True, text=True, check=False, cwd=place, **owner,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        it = Postgres(place, free_port(), bin)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(place),
            "fsync": "off",
            "port": str(it.port),
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        log = place / "log"
        with serving(
            [str(bin / "postgres"), "-D", str(data), *words], log, stop=signal.SIGINT, cwd=place, **owner
        ) as server:
            ready = [bin / "pg_isready", "-q", "-h", place, "-p", str(it.port)]
            eventually(
                lambda: server.poll() is not None or subprocess.run(ready, check=False).returncode == 0,
                "PostgreSQL answers",
            )
            assert server.poll() is None, log.read_text()
            it.sql("CREATE ROLE bot LOGIN", user="admin")
            yield it


@dataclass
class MariaDB:
    env: dict[str, str]

    def sql(self, text: str, *words: str) -> list[str]:
        done = subprocess.run(
            ["mariadb", "--batch", "--skip-column-names", *words],
            input=text, capture_output=True, text=True, check=False, env={**os.environ, **self.env},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@contextlib.contextmanager
def mariadb() -> Iterator[MariaDB]:
    """A server with a user ``bot``, who has the rights that the guide names and is found in ``~/.my.cnf``."""
    daemon, install = program("mariadbd"), program("mariadb-install-db")
    program("mariadb-dump")
    user = pwd.getpwuid(os.geteuid()).pw_name
    with short_directory({}) as place:
        data = place / "data"
        made = subprocess.run(
            [install, "--no-defaults", f"--datadir={data}", f"--user={user}", "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True, text=True, check=False, cwd=place,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        command = [
            daemon, "--no-defaults", f"--datadir={data}", f"--socket={place}/s", f"--pid-file={place}/pid",
            "--skip-networking", f"--user={user}",
        ]  # fmt: skip
        env = {"HOME": str(place)}
        (place / ".my.cnf").write_text(f"[client]\nuser=bot\npassword=of-the-bot\nsocket={place}/s\n")
        it, log = MariaDB(env), place / "log"
        ping = ["mariadb-admin", "--no-defaults", "--user=root", f"--socket={place}/s", "ping"]
        with serving(command, log, cwd=place) as server:
            eventually(
                lambda: (
                    server.poll() is not None
                    or subprocess.run(ping, capture_output=True, check=False).returncode == 0
                ),
                "MariaDB answers",
            )
            assert server.poll() is None, log.read_text()
            it.sql(
                "CREATE DATABASE bot; CREATE USER bot@localhost IDENTIFIED BY 'of-the-bot';"
                "GRANT ALL ON bot.* TO bot@localhost;",
                "--user=root", "--password=",
            )  # fmt: skip
            yield it


@dataclass
class Redis:
    port: int

    def ask(self, *words: str) -> str:
        command = ["redis-cli", "-p", str(self.port), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@contextlib.contextmanager
def redis() -> Iterator[Redis]:
    server = program("redis-server")
    with short_directory({}) as place:
        it = Redis(free_port())
        command = [
            server,
            "--port",
            str(it.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(place),
            "--appendonly",
            "yes",
            "--save",
            "",
        ]
        # While it writes its first append-only file, as after a restore, it ends by no other signal.
        with serving(command, place / "log", stop=signal.SIGKILL):
            ping = ["redis-cli", "-p", str(it.port), "ping"]
            eventually(
                lambda: subprocess.run(ping, capture_output=True, check=False).stdout == b"PONG\n",
                "Redis answers",
            )
            yield it
