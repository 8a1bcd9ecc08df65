"""A root with an application that writes all the time, which can be put back to an earlier state in some milliseconds.

The application keeps a file that tells whether it runs, answers HTTP, and commits a row to two databases (one with a write-ahead log, one with a rollback journal) again and
again; what is committed it notes in a file outside the root. So whoever looks afterwards knows what must not be lost.

A third database lies beside them and is never written to: SQLite's own flushes, which put the other two on the disk again and again, do
nothing for it, so a copy of it that updater has not flushed is lost in a power cut.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from examples.release_server import Release, ReleaseServer
from tests.crash import calls, clock
from tests.forks import COMMANDS, Done, Forks, Running, Step, command, program, worker
from tests.site import REPOSITORY, Site, eventually

APPLICATION = """
import os, signal, socket, sqlite3, sys, time
def told(name):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name)) as file:
        return file.read().strip()
VERSION, BEHAVIOUR, SCHEMA = told("VERSION"), told("behaviour"), int(told("schema"))
if BEHAVIOUR == "crash":
    raise KeyError("exchange")
if BEHAVIOUR == "migrates and dies":
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "migrate.py")) as file:
        exec(file.read())
databases = {name: sqlite3.connect(f"data/{name}.db", timeout=10) for name in ("trades", "log")}
if databases["trades"].execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
    sys.exit("the database is of another schema than this code")
for it in databases.values():
    it.execute("PRAGMA synchronous=EXTRA")  # FULL forgets to flush the removal of a rollback journal
def note(what):
    with open("data/last.new", "w") as file:
        file.write(what)
        file.flush()
        os.fsync(file.fileno())
    os.replace("data/last.new", "data/last.txt")
def stop(*_):
    note("stopped")
    os._exit(0)
last = open("data/last.txt").read() if os.path.exists("data/last.txt") else "stopped"
if last not in ("running", "stopped"):
    sys.exit(f"data/last.txt is damaged: {last!r}")
if last != "running":
    note("running")
signal.signal(signal.SIGTERM, stop)
rows = os.open(%(rows)r, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
listening = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
begun, number, due = time.monotonic(), 0, 0.0
while True:
    if "dies" in BEHAVIOUR and time.monotonic() > begun + 0.25:
        os._exit(7)
    if time.monotonic() >= due:
        due, number = time.monotonic() + %(every)r, number + 1
        what = f"{VERSION}/{os.getpid()}/{begun}/{number}"
        more = (", fee", ", 1.5") if SCHEMA == 2 else ("", "")
        databases["trades"].execute(f"INSERT INTO trades (what{more[0]}) VALUES (?{more[1]})", (what,))
        databases["log"].execute("INSERT INTO lines (what) VALUES (?)", (what,))
        for name, it in databases.items():
            it.commit()
            os.write(rows, f"{name} {what}\\n".encode())
    listening.settimeout(max(0.001, due - time.monotonic()))
    try:
        connection, _ = listening.accept()
    except TimeoutError:
        continue
    with connection:
        connection.settimeout(2)
        try:
            if connection.recv(65536):
                body = VERSION.encode() + b" is well"
                connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %%d\\r\\n\\r\\n" %% len(body) + body)
        except OSError:
            pass
"""

MIGRATION = """
import sqlite3
connection = sqlite3.connect("data/trades.db")
connection.execute("BEGIN IMMEDIATE")
if connection.execute("PRAGMA user_version").fetchone()[0] < 2:
    connection.execute("ALTER TABLE trades ADD COLUMN fee REAL")
    connection.execute("UPDATE trades SET fee = 0")
    connection.execute("PRAGMA user_version = 2")
connection.commit()
connection.close()
"""

MIGRATE = """
[migrate]
command = ["python", "migrate.py"]
timeout = 20
"""

DUMPED = """
[backup.dumps.server]
dump = ["cat", "{place}"]
restore = ["sh", "-c", 'cat > "$0.new" && mv "$0.new" "$0"', "{place}"]
"""
"""What stands for a database that lies elsewhere, in a file, and is kept by dumps."""

STATE, LATER_STATE = '{"open": []}\n', '{"open": ["BTC"]}\n'

TABLES = {"trades": "trades", "log": "lines"}
"""The databases that are written to, each with its table."""

IDLE = "archive"
"""The database that is not: whatever happens to the others, it holds :data:`ARCHIVED` and nothing else, in every state and every backup."""
ARCHIVED = frozenset(f"archived/{number}/{'.' * 400}" for number in range(50))
"""Its rows, some pages of them."""


class Violation(Exception):
    """A promise that was broken."""


def forking(package: Path | None) -> Forks:
    """The process in whose forks everything runs. ``package``: a directory with another updater in it."""
    modules = (*COMMANDS, "pyseccomp", "time_machine", calls.__name__, clock.__name__)
    return Forks(modules, package=package, family=True)


@dataclass
class Saved:
    """A state of the root to come back to: where its copy lies, what had been noted, and how the place of things was set."""

    copy: Path
    rows: str
    elsewhere: str
    settings: dict[str, Any]
    running: bool


@dataclass
class World:
    """``disk``: the directory in which the root lies, on the filesystem that is tried; ``place``: everything else. ``every``: seconds
    between two rows. ``days``: by how many the clock is wrong in what is started from now on. Worlds that share the process that
    forks are used one at a time."""

    place: Path
    disk: Path
    every: float = 0.03
    package: Path | None = None
    shared_forks: Forks | None = None
    site: Site = field(init=False)
    days: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        self.disk.mkdir(parents=True, exist_ok=True)
        self.rows = self.place / "rows"
        self.elsewhere = self.place / "server"
        self.elsewhere.touch()
        self.saved_elsewhere = ""
        self.last_row = ""
        """The newest row that had been noted for both databases where the present state was saved."""
        self.writers: set[str] = set()
        """The numbers of the processes that had written before anything was interrupted."""
        releases: list[Release] = []
        self.server = ReleaseServer(REPOSITORY, releases)
        self.server.__enter__()
        self.forks = self.shared_forks or forking(self.package)
        self.site = Site(self.disk, self.server, releases)
        self.site.server.quota = 10**9  # a full run asks for more than an hour's
        self.site.configure(watch=0.08, interval=0.05, keep=8)
        self.saved: dict[str, Saved] = {}
        self.first = self.save("empty", running=False)

    def end(self) -> None:
        self.forks.kill_family()
        if not self.shared_forks:
            self.forks.end()
        self.server.__exit__(None, None, None)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # what happens in it

    def publish(
        self, tag: str, behaviour: str = "good", *, schema: int = 1, files: dict[str, str] | None = None
    ) -> None:
        if any(it.tag == tag for it in self.site.releases):
            return
        text = APPLICATION % {"rows": str(self.rows), "every": self.every}
        own = {
            "serve.py": text,
            "schema": f"{schema}\n",
            "migrate.py": MIGRATION,
            "notes.txt": f"of {tag}\n" * 40,
        }
        self.site.publish(tag, behaviour, files={**own, **(files or {})})

    def make_databases(self) -> None:
        data = self.site.layout.shared / "data"
        data.mkdir(exist_ok=True)
        for name, table in TABLES.items():
            with contextlib.closing(sqlite3.connect(data / f"{name}.db")) as made:
                made.execute(f"PRAGMA journal_mode={'WAL' if name == 'trades' else 'DELETE'}")
                made.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, what TEXT)")
                made.execute("PRAGMA user_version = 1" if name == "trades" else "PRAGMA user_version = 7")
                made.commit()
        with contextlib.closing(sqlite3.connect(data / f"{IDLE}.db")) as made:
            made.execute("CREATE TABLE lines (id INTEGER PRIMARY KEY, what TEXT)")
            made.executemany("INSERT INTO lines (what) VALUES (?)", [(it,) for it in sorted(ARCHIVED)])
            made.commit()
        (data / "state.json").write_text(STATE)

    def start(
        self, what: str, arguments: Sequence[str], *first: Step, env: Mapping[str, str] | None = None
    ) -> Running:
        """Begin, in a fork, ``worker`` with a request, ``command`` with the command line's words, or any other ``program``; ``first``:
        what is done in it before."""
        do: Step
        if what == "worker":
            do = partial(worker, str(self.site.root), arguments[0], log=False)
        else:
            do = partial({"command": command, "program": program}[what], arguments)
        wrong = partial(clock.be_wrong, self.days)
        return self.forks.start(wrong, *first, do, cwd=self.site.root, env=env or self.site.env())

    def command(self, *arguments: str) -> Done:
        """The command line, to its end."""
        return self.start("command", arguments).wait()

    def must(self, *arguments: str) -> Done:
        done = self.command(*arguments)
        if done.code != 0:
            raise Violation(f"updater {' '.join(arguments)}: exit {done.code}\n{done.text}")
        return done

    def work(self, kind: str, wanted: str | None = None, **more: Any) -> Done:
        """A deployment's process, to its end."""
        request = json.dumps({"kind": kind, "wanted": wanted, **more})
        return self.start("worker", [request]).wait()

    def must_work(self, kind: str, wanted: str | None = None, **more: Any) -> None:
        done = self.work(kind, wanted, **more)
        if done.code != 0:
            raise Violation(f"{kind} {wanted}: exit {done.code}\n{done.text}\n{self.last_words()}")

    def last_words(self) -> str:
        """What the history tells of the last deployment, as far as it explains anything."""
        last = (self.site.history() or [{}])[-1]
        told = {
            it: last.get(it)
            for it in ("kind", "from", "to", "outcome", "recovered", "data", "warnings", "error")
        }
        return json.dumps(told, indent=1)[:4000]

    # where it stands

    def save(self, name: str, *, running: bool) -> Saved:
        """Keep the present state, without its processes."""
        self.forks.kill_family()
        copy = self.place / "states" / name
        shutil.rmtree(copy, ignore_errors=True)
        copy.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", self.site.root, copy], check=True)
        noted = self.rows.read_text() if self.rows.exists() else ""
        self.saved[name] = Saved(copy, noted, self.elsewhere.read_text(), dict(self.site.settings), running)
        return self.saved[name]

    def back_to(self, state: Saved) -> None:
        """The root as it was then, and its application running if it did."""
        self.days = 0
        self.forks.kill_family()
        if self.site.root.exists():
            subprocess.run(["rm", "-rf", self.site.root], check=True)
        subprocess.run(["cp", "-a", state.copy, self.site.root], check=True)
        self.site.settings = dict(state.settings)
        self.rows.write_text(state.rows)
        self.elsewhere.write_text(state.elsewhere)
        self.saved_elsewhere = state.elsewhere
        if state.running:
            self.must("start", "--no-wait")
            eventually(self.writes(len(state.rows)), "the application writes", 20)
        noted = [it.split()[1] for it in self.rows.read_text().splitlines() if it.count("/") == 3]
        self.last_row = ["", *re.findall(r"^log (.*)$", state.rows, re.MULTILINE)][-1]
        self.writers = {it.split("/")[1] for it in noted}

    def writes(self, size: int) -> Callable[[], bool]:
        return lambda: self.rows.exists() and self.rows.stat().st_size > size

    # what is so

    def acknowledged(self) -> dict[str, set[str]]:
        """What the application has noted as committed, by database; a last line that was cut off is none."""
        found: dict[str, set[str]] = {name: set() for name in TABLES}
        text = self.rows.read_text() if self.rows.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            name, _, what = line.partition(" ")
            found[name].add(what)
        return found

    def held(self, data: Path, *, some: bool = False) -> dict[str, set[str]]:
        """What the databases in a directory hold that are written to, each of them checked; the idle one must be as it was made.
        ``some``: not all of them need to be there."""
        found = {}
        for name, table in {**TABLES, IDLE: "lines"}.items():
            place = data / f"{name}.db"
            if some and not place.exists():
                continue
            if not place.exists():
                raise Violation(f"{place} is gone")
            found[name] = _rows(place, table)
        if found.pop(IDLE, ARCHIVED) != ARCHIVED:
            raise Violation(f"{data / IDLE}.db does not hold what it was made with, and nobody writes to it")
        return found

    def schema(self) -> int:
        place = self.site.layout.shared / "data" / "trades.db"
        with contextlib.closing(sqlite3.connect(place, timeout=10)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            columns = [row[1] for row in connection.execute("PRAGMA table_info(trades)")]
        if ("fee" in columns) != (version == 2):
            raise Violation(f"half a migration: version {version}, columns {columns}")
        return int(version)

    def missing(self) -> dict[str, set[str]]:
        """What was noted as committed and is not in the databases below ``shared/``. The file beside them must be whole as well."""
        noted = self.acknowledged()  # first: the application goes on
        data = self.site.layout.shared / "data"
        held = self.held(data)
        if (state := (data / "state.json").read_text()) not in (STATE, LATER_STATE):
            raise Violation(f"state.json, to which nobody writes, is {state!r}")
        return {name: noted[name] - held[name] for name in TABLES if noted[name] - held[name]}

    def in_backups(self, names: Iterable[str]) -> list[dict[str, set[str]]]:
        """What the databases in backups hold, as somebody would see it who unpacks them."""
        found = []
        for name in names:
            into = self.place / "unpacked"
            shutil.rmtree(into, ignore_errors=True)
            self.must("backup", "restore", name, "--to", str(into))
            found.append(self.held(into / "data"))
            shutil.rmtree(into)
        return found


def _rows(place: Path, table: str) -> set[str]:
    """What a database holds.

    Raises:
        Violation: it is damaged; an empty file, of which a power cut has left the name alone, is as well.
    """
    try:
        with contextlib.closing(sqlite3.connect(place, timeout=10)) as connection:
            check = connection.execute("PRAGMA integrity_check").fetchall()
            if check != [("ok",)]:
                raise Violation(f"{place} is damaged: {check[:3]}")
            return {row[0] for row in connection.execute(f"SELECT what FROM {table}")}
    except sqlite3.Error as failure:
        raise Violation(f"{place} cannot be read: {failure}") from failure
