"""Random commands, crashes, edits by hand and callers at once on a real root, held against a simple model of what it should be.

A long run: ``MODEL_EXAMPLES=50 MODEL_STEPS=40 pytest -s tests/crash/test_model.py``; with ``MODEL_SHRINK=1`` a failure is made smaller.
What was typed is printed step by step.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from examples.release_server import Release, ReleaseServer
from tests.crash.model import CALLS, Kept, Model, Published, arm
from tests.forks import COMMANDS, Forks, Running, Step, command, worker
from tests.site import REPOSITORY, SERVE, Done, Site, documented, eventually, is_over
from updater import durable
from updater.backups import unpacking
from updater.deployment import journal
from updater.deployment.transaction import Request

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="forks of a process that has loaded everything"
)

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "3"))
STEPS = int(os.environ.get("MODEL_STEPS", "12"))
KEEP = 3

CONFIGURATION = """
[backup]
keep = 1000
[migrate]
command = ["python", "-S", "migrate.py"]
timeout = 20
"""

WRITES = """
import sqlite3
row, place = f"{time.time_ns()} by " + told("VERSION"), os.environ["UPDATER_ROOT"]
connection = sqlite3.connect("data/trades.db", timeout=20)
connection.execute("INSERT INTO trades (what) VALUES (?)", (row,))
connection.commit()
connection.close()
with open(os.path.join(place, "..", "witness"), "a") as file:
    file.write(row + "\\n")
"""

MIGRATE = """
import os, sqlite3, sys
schema, breaks = {schema}, {breaks}
if schema:
    connection = sqlite3.connect("data/trades.db")
    if connection.execute("PRAGMA user_version").fetchone()[0] < schema:
        connection.execute(f"ALTER TABLE trades ADD COLUMN c{{schema}} REAL")
        connection.execute(f"PRAGMA user_version = {{schema}}")
    connection.commit()
    connection.close()
if breaks and "UPDATER_REHEARSAL" not in os.environ:
    sys.exit("no such exchange")
"""

REMOVED = (
    ".updater/run",
    "VERSION",
    ".updater/check.json shared/logs/update_progress.json",
    ".updater/cache",
    ".updater/lock",
    ".updater/launchers",
)
PLACES = (
    ".",
    "releases",
    ".updater",
    "shared/backups",
    "shared/logs",
    ".updater/marks",
    "scripts",
    ".updater/journal",
)
POINTS = dict.fromkeys(CALLS, 8) | {"fsync": 45, "replace": 14, "unlink": 14, "write": 60, "rename": 8}
"""About how many calls of each kind there are in a deployment."""
some = st.integers(0, 999)
"""Which one of those that there are."""


@dataclass
class Outcome:
    """One way in which commands may end: the exit code of each (none: it was killed), and what the root is like then."""

    codes: tuple[int | None, ...]
    model: Model
    loose: bool = False
    """The data were put back, or may have been: a row that the application wrote meanwhile may be in a backup instead."""
    any_up: bool = False
    lost: bool = False
    """Where the rows are nobody can tell; they are somewhere."""


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@functools.cache
def forks() -> Forks:
    return Forks(COMMANDS)


@dataclass(frozen=True)
class Asked:
    """A deployment or a restore."""

    kind: str
    wanted: str | None = None
    force: bool = False
    restore_data: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        kind = ["backup", "restore"] if self.kind == "restore" else [self.kind]
        wanted = (
            [] if self.wanted is None else ["--to", self.wanted] if self.kind == "rollback" else [self.wanted]
        )
        flags = {"--force": self.force, "--restore-data": self.restore_data, "--yes": self.kind == "restore"}
        return (*kind, *wanted, *(flag for flag, given in flags.items() if given))

    @property
    def request(self) -> dict[str, Any]:
        return Request(
            self.kind, self.wanted, force=self.force, restore_data=self.restore_data, user="somebody"
        ).as_json()


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="updater-model-"))
        self.releases: list[Release] = []
        self.server = ReleaseServer(REPOSITORY, self.releases)
        self.server.__enter__()
        self.site = Site(self.place, self.server, self.releases)
        self.site.configure(keep=KEEP, watch=0.4, timeout=20, extra=CONFIGURATION, stop_timeout=3)
        self.layout = self.site.layout
        self.model = Model()
        self.witness = self.place / "witness"
        self.begun = self.place / "begun"
        self.rows_of_backups: dict[str, frozenset[str]] = {}
        self.written = 0
        self.seen: set[str] = set()
        self.typed_in: set[str] = set()
        self.torn_history = False
        self.steps = 0
        self.said("---- a new root")

    @staticmethod
    def said(text: str) -> None:
        print(text, flush=True)

    # What is done

    def start(
        self, words: Sequence[str], asked: Asked | None = None, call: str = "", number: int = 0
    ) -> Running:
        """Run ``updater WORDS``, or with ``asked`` the worker that these words would start. It dies at its n-th ``call``, if given."""
        root = self.site.root
        do: Step = partial(worker, str(root), json.dumps(asked.request)) if asked else partial(command, words)
        before: list[Step] = [partial(arm, call, number)] if number else []
        return forks().start(*before, do, cwd=root if asked else self.place, env=self.site.env())

    def judged(self, words: Sequence[str], done: Done) -> Done:
        self.said(f"  {' '.join(words)} -> {done.code}")
        assert "Traceback" not in done.text or "log:" in done.text, done.text  # the application's own
        assert "unforeseen" not in done.text, done.text
        assert documented(words, done.code) and done.code != 1, f"{words} ends with {done.code}: {done.text}"
        return done

    def run(self, *words: str, asked: Asked | None = None, real: bool = False) -> Done:
        done = self.site.updater(*words) if real else self.start(words, asked).wait()
        return self.judged(words, done)

    def look(self) -> Any:
        done = self.start(["--json", "status"]).wait()
        assert done.code == 0 and not done.err, done.text
        return done.json

    def do(
        self, words: Sequence[str], ways: list[Outcome], asked: Asked | None = None, real: bool = False
    ) -> Done:
        done = self.run(*words, asked=asked, real=real)
        self.settle((done.code,), ways, done.text)
        return done

    # What is so

    def database(self) -> Path:
        return self.layout.shared / "data" / "trades.db"

    @staticmethod
    def lines(file: Path) -> set[str]:
        return set(file.read_text().splitlines()) if file.exists() else set()

    @staticmethod
    def rows_in(database: Path) -> frozenset[str]:
        with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
            found = [str(row[0]) for row in connection.execute("SELECT what FROM trades")]
        assert len(found) == len(set(found)), f"rows came twice: {found}"
        return frozenset(found)

    def sealed(self) -> set[str]:
        return {
            it.name for it in self.layout.releases.iterdir() if (it / ".release" / "release.json").is_file()
        }

    def marked(self, kind: str) -> set[str]:
        return {it.name.removesuffix(f".{kind}") for it in self.layout.marks.glob(f"*.{kind}")}

    def order(self) -> list[str]:
        def seq(version: str) -> int:
            lines = (self.layout.marks / f"{version}.good").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("seq="))[4:])

        return sorted((v for v in self.marked("good") if v in self.sealed()), key=seq)

    @staticmethod
    def named(link: Path) -> str | None:
        return Path(os.readlink(link)).name if link.is_symlink() else None

    def differences(self, way: Outcome, status: Any, rows: frozenset[str], new: set[str]) -> list[str]:
        """What is not as this outcome has it."""
        it = way.model
        found = []

        def same(what: str, here: object, there: object) -> None:
            if here != there:
                found.append(f"{what}: {here}, not {there}")

        same("current", self.named(self.layout.current), it.current)
        same("good", status["good"], it.good if it.good in it.installed else None)
        same("previous", status["previous"], it.previous if it.previous in it.installed else None)
        same("installed", self.sealed(), it.installed)
        same("bad", self.marked("bad"), it.bad)
        same("pinned", self.marked("pinned"), it.pinned)
        same(
            "order",
            self.order(),
            sorted((v for v in it.order if v in it.installed), key=lambda v: it.order[v]),
        )
        same("held", status["hold"] is not None, it.held)
        if not way.any_up and (it.up is None or it.published[it.up].behaviour != "dies"):
            same("runs", self.up(status), it.up)
        low = it.rows if way.loose else it.rows | new
        if not way.lost and not low <= rows <= it.rows | new:
            found.append(
                f"rows: {sorted(low - rows)} are not there, {sorted(rows - it.rows - new)} should not be"
            )
        return found

    @staticmethod
    def up(status: Any) -> str | None:
        (web,) = status["processes"]
        return web["release"] if web["state"] == "running" else None

    def settle(self, codes: tuple[int | None, ...], ways: list[Outcome], told: str = "") -> None:
        """One of the outcomes must be what is: from here on it is the model."""
        status = self.look()
        rows = self.rows_in(self.database())
        seen = self.lines(self.witness)
        new = seen - self.seen
        misses = []
        for way in ways:
            if way.codes != codes:
                misses.append(f"ends with {codes}, not {way.codes}")
                continue
            if not (found := self.differences(way, status, rows, new)):
                self.model = way.model
                break
            misses.append("; ".join(found))
        else:
            pytest.fail(
                "none of what may be:\n"
                + "\n".join(f"- {it}" for it in misses)
                + f"\n{told}\n{json.dumps(status)}"
            )
        self.model.up = self.up(status)
        self.model.rows = set(rows)
        self.model.ever |= new | rows
        self.seen |= seen
        self.take_in_backups()

    def take_in_backups(self) -> None:
        """Backups that were made; none has gone that should be there."""
        there = {
            it.name: json.loads((it / "manifest.json").read_text())
            for it in self.layout.backups.glob("backup_*")
        }
        assert set(self.model.backups) <= set(there), f"{set(self.model.backups) - set(there)} have gone"
        for name, manifest in sorted(there.items(), key=lambda it: int(it[1]["seq"])):
            if name not in self.model.backups:
                rows = self.rows_of(name)
                assert rows <= self.seen | self.lines(self.begun) | self.typed_in, rows
                self.model.ever |= rows
                self.model.backups[name] = Kept(
                    rows, (manifest["release"] or {}).get("version"), bool(manifest["label"])
                )

    def rows_of(self, name: str) -> frozenset[str]:
        if name not in self.rows_of_backups:
            into = Path(tempfile.mkdtemp(dir=self.place))
            unpacking.unpack(self.layout.backups / name, into / "it", ("data",))
            self.rows_of_backups[name] = self.rows_in(into / "it" / "data" / "trades.db")
            shutil.rmtree(into)
        return self.rows_of_backups[name]

    def kept_aside(self) -> Iterator[frozenset[str]]:
        """Rows in databases that lie in directories of ours below shared/."""
        for place in self.layout.shared.rglob(".updater-*"):
            for file in place.rglob("*"):
                with contextlib.suppress(sqlite3.Error, OSError):
                    if file.is_file() and file.read_bytes()[:6] == b"SQLite":
                        yield self.rows_in(file)

    # What may come of a deployment

    def foretold(self, asked: Asked, model: Model | None = None) -> list[Outcome]:
        m = copy.deepcopy(model or self.model)
        if m.up is not None and m.published[m.up].behaviour == "dies":
            m.up = None
            return [*self.foretold(asked, m), *self.foretold_of(asked, model or self.model)]
        return self.foretold_of(asked, m)

    def foretold_of(self, asked: Asked, model: Model) -> list[Outcome]:
        m = copy.deepcopy(model)
        m.mend()
        refused = partial(self.refused, m)
        if asked.kind == "restore":
            return self.restored(m, asked)
        target, here = asked.wanted, m.here
        runs = m.up == here
        if asked.kind in ("activate", "rollback"):
            target = target or m.back(here)
            if target not in m.installed:
                return refused(2)
            if target == here == m.good and not asked.force and runs:
                return refused(0)
        else:
            if target is None:
                target = m.newest(force=asked.force)
                if target is None or (here and m.published[target].place < m.published[here].place):
                    return refused(0)
            if asked.kind == "fetch" and target in m.installed:
                return refused(7 if m.edited.get(target) and not asked.force else 0)
            if target == here == m.good and not asked.force and (runs or asked.wanted is None):
                return refused(0)
        assert target is not None
        if m.held and asked.kind in ("deploy", "activate"):
            return refused(3)
        if target in m.bad and not asked.force:
            return refused(3)
        if m.edited.get(target) and not asked.force:
            return refused(7)
        m.install(target)
        if asked.kind == "fetch":
            return refused(0)
        return self.switched(m, asked, target)

    @staticmethod
    def refused(model: Model, code: int) -> list[Outcome]:
        return [Outcome((code,), model)]

    def switched(self, m: Model, asked: Asked, target: str) -> list[Outcome]:
        it, here = m.published[target], m.here
        ok = copy.deepcopy(m)
        loose = False
        if asked.restore_data:
            own = [kept for kept in m.backups.values() if kept.release == target]
            if not own:
                return self.refused(m, 2)
            ok.rows, loose = set(own[-1].rows), True
        ok.commit(asked.kind, target)
        ok.prune(KEEP)
        good = Outcome((0,), ok, loose)
        onward = here is not None and it.place > m.published[here].place and not asked.restore_data
        migrates = asked.kind != "rollback" and not (here and it.place < m.published[here].place)
        failed = self.failures(m, target, loose or (migrates and it.schema > 0))
        if it.behaviour == "good":
            return [good]
        if it.behaviour == "dies":
            return [good, *failed]
        if it.behaviour == "breaks":
            return failed if onward and asked.kind != "rollback" else [good, *failed]
        return failed

    @staticmethod
    def failures(m: Model, target: str, loose: bool) -> list[Outcome]:
        """It came back to where it was. One that was never good and was started is bad."""
        back = copy.deepcopy(m)
        if m.current is None:
            back.up, back.version_link = None, False
        elif m.up is not None:
            back.up = m.here
        marked = copy.deepcopy(back)
        if target not in m.order and m.published[target].behaviour != "breaks":
            marked.bad.add(target)
        ways = [Outcome((4,), marked, loose)]
        if m.published[target].behaviour == "breaks":
            ways.append(Outcome((4,), m, loose))  # before anything was stopped
        if m.up is not None and not m.viable(m.here):
            ways += [Outcome((code,), marked, loose, any_up=True) for code in (4, 5)]
        return ways

    def restored(self, m: Model, asked: Asked) -> list[Outcome]:
        if asked.wanted not in m.backups:
            return self.refused(m, 2)
        ok = copy.deepcopy(m)
        ok.rows = set(m.backups[asked.wanted].rows)
        if m.up is not None:
            ok.up = m.here
        ok.prune(KEEP)  # as after each commit
        if m.up is None or m.viable(m.here):
            return [Outcome((0,), ok, loose=True)]
        return [
            Outcome((0,), ok, True, any_up=True),
            *(Outcome((code,), m, True, any_up=True) for code in (4, 5)),
        ]

    def broken_off(self, asked: Asked) -> list[Outcome]:
        """It was killed at some point, and recovered: all of it, or nothing but what is installed."""
        ends = self.foretold(asked)
        ways = [*ends]
        before = copy.deepcopy(self.model)
        mended = copy.deepcopy(before)
        mended.mend()
        installed = copy.deepcopy(mended)
        for end in ends:
            for version in end.model.installed - installed.installed:
                installed.install(version)
        for here in (before, mended, installed):
            here = copy.deepcopy(here)
            restarted = copy.deepcopy(here)
            if restarted.up is not None:
                restarted.up = restarted.here
            for one in (here, restarted):
                marked = copy.deepcopy(one)
                marked.bad |= {v for end in ends for v in end.model.bad if v in one.installed}
                weak = one.up is not None and not one.viable(one.here)
                ways += [Outcome((0,), it, loose=True, any_up=weak) for it in (one, marked)]
        return [Outcome((None,), way.model, True, way.any_up) for way in ways]

    # Rules: releases

    @initialize(wal=st.booleans())
    def begins(self, wal: bool) -> None:
        self.database().parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self.database())) as connection, connection:
            if wal:
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE trades (id INTEGER PRIMARY KEY, what TEXT)")
        for _each in range(2):
            self.publish("good", True, True)
            asked = Asked("deploy")
            self.do(asked.words, self.foretold(asked), asked)
        self.publish("good", True, False)

    @rule(
        behaviour=st.sampled_from(["good", "good", "good", "crash", "sick", "dies", "breaks"]),
        migrates=st.booleans(), writes=st.booleans(),
    )  # fmt: skip
    def publish(self, behaviour: str, migrates: bool, writes: bool) -> None:
        number = len(self.model.published)
        it = Published(f"v1.{number}.0", behaviour, number if migrates and number else 0, writes)
        self.said(f"  publish {it}")
        served = {"good": "good", "breaks": "good"}.get(behaviour, behaviour)
        serve = SERVE.replace("Timer(0.9", "Timer(0.2")
        if writes:
            serve = serve.replace('if BEHAVIOUR == "mute"', WRITES + 'if BEHAVIOUR == "mute"')
        migrate = MIGRATE.format(schema=it.schema, breaks=behaviour == "breaks")
        self.site.publish(
            it.tag, served, files={"serve.py": serve, "migrate.py": migrate, "notes": "the same in each\n"}
        )
        self.model.published[it.tag] = it

    def tag(self, some: int, among: Sequence[str] | None = None) -> str:
        names = sorted(self.model.published if among is None else among, key=lambda it: int(it.split(".")[1]))
        return names[-1 - some % len(names)]  # the newest is the simplest

    def asked(self, kind: str, which: int, force: bool, restore_data: bool = False) -> Asked:
        model = self.model
        if kind == "fresh":
            behaviours = ("good", "good", "dies", "good", "sick", "good", "breaks", "crash")
            self.publish(behaviours[which % len(behaviours)], which % 3 < 2, which % 5 < 3)
            kind = "newest"
        if kind == "newest":
            return Asked("deploy", force=force)
        if kind == "back":
            return Asked("rollback", force=force, restore_data=restore_data)
        if kind == "rollback":
            return Asked("rollback", self.tag(which, sorted(model.installed)), force, restore_data)
        if kind == "activate":
            return Asked("activate", self.tag(which, sorted(model.installed)), force)
        if kind == "restore":
            names = [*model.backups]
            return Asked("restore", names[-1 - which % len(names)] if names else "backup_20260101_000000")
        return Asked(kind, self.tag(which), force)

    KINDS = st.sampled_from(
        ["back", "fresh", "fresh", "newest", "deploy", "fetch", "activate", "rollback", "restore"]
    )

    @rule(
        kind=KINDS,
        which=some,
        force=st.sampled_from([False, False, False, True]),
        data=st.booleans(),
        real=some,
    )
    def transact(self, kind: str, which: int, force: bool, data: bool, real: int) -> None:
        asked = self.asked(kind, which, force, data)
        before = copy.deepcopy(self.model)
        done = self.do(asked.words, self.foretold(asked), asked, real=real % 12 == 11)
        self.record_agrees(done.code, before)

    @rule(kind=KINDS, which=some, force=st.booleans(), data=st.booleans())
    def transact_again(self, kind: str, which: int, force: bool, data: bool) -> None:
        self.transact(kind, which, force, data, 0)

    def record_agrees(self, code: int, before: Model) -> None:
        if self.torn_history or not (history := self.site.history()):
            return
        last = history[-1]
        outcomes = {0: ("succeeded", "nothing-to-do"), 5: ("rollback-failed",)}.get(
            code, ("failed", "rolled-back")
        )
        assert last["outcome"] in outcomes, last
        if last["outcome"] == "succeeded" and last["kind"] in ("deploy", "activate", "rollback"):
            assert last["to"] == self.model.current == self.model.good, last
        if last["outcome"] == "succeeded" and last["kind"] != "fetch":
            assert before.rows <= self.model.backups[last["backup"]].rows, f"the backup lacks rows: {last}"

    @rule(
        what=st.sampled_from(["pin", "unpin", "mark-bad", "hold", "release-hold", "verify", "prune"]),
        which=some,
        keep=st.integers(1, 3),
        real=some,
    )
    def look_after(self, what: str, which: int, keep: int, real: int) -> None:
        if what in ("pin", "unpin", "mark-bad"):
            self.mark(what, which)
        elif what == "prune":
            self.prune(keep, real)
        elif what == "verify":
            self.verify(which)
        else:
            self.hold(what == "hold")

    def prune(self, keep: int, real: int) -> None:
        then = copy.deepcopy(self.model)
        then.prune(keep)
        self.do(["prune", "--yes", "--keep", str(keep)], [Outcome((0,), then)], real=real % 12 == 11)

    def mark(self, verb: str, which: int) -> None:
        version, then = self.tag(which), copy.deepcopy(self.model)
        code = 0 if verb == "mark-bad" or version in then.installed else 2
        if code == 0:
            marks = then.bad if verb == "mark-bad" else then.pinned
            (marks.discard if verb == "unpin" else marks.add)(version)
        self.do([verb, version], [Outcome((code,), then)])

    def hold(self, hold: bool) -> None:
        then = copy.deepcopy(self.model)
        then.held = hold
        self.do(["hold", "--reason", "holidays"] if hold else ["release-hold"], [Outcome((0,), then)])

    def verify(self, which: int) -> None:
        version = self.tag(which)
        done = self.run("verify", version)
        edits = self.model.edited.get(version, set()) if version in self.model.installed else set()
        assert done.code == (2 if version not in self.model.installed else 7 if edits else 0), done.text
        assert all(name in done.text for name in edits), done.text

    # Rules: processes

    def processes(self, verb: str) -> list[Outcome]:
        then = copy.deepcopy(self.model)
        if verb == "stop":
            then.up = None
            return [Outcome((0,), then)]
        if then.here is None:
            return [Outcome((2,), then)]
        behaviour = then.published[then.here].behaviour
        then.up = None if behaviour == "crash" else then.here
        codes = {"crash": (4,), "sick": (4,), "dies": (0, 4)}.get(behaviour, (0,))
        return [Outcome((code,), then, any_up=behaviour == "dies") for code in codes]

    @rule(verb=st.sampled_from(["kill", "start", "stop", "restart"]), real=some)
    def process(self, verb: str, real: int) -> None:
        if verb == "kill":
            self.the_application_dies()
        else:
            self.do([verb], self.processes(verb), real=real % 12 == 11)

    def the_application_dies(self) -> None:
        (web,) = self.look()["processes"]
        if web["state"] == "running":
            self.said(f"  kill -9 {web['pid']}, the application")
            with contextlib.suppress(ProcessLookupError):
                os.kill(web["pid"], signal.SIGKILL)
            eventually(lambda: self.look()["processes"][0]["state"] != "running", "it is gone")
        self.model.up = None

    # Rules: data

    @rule(
        what=st.sampled_from(["write", "write", "backup", "label", "prune"]),
        keep=st.integers(1, 4),
        real=some,
    )
    def data(self, what: str, keep: int, real: int) -> None:
        self.somebody_writes()
        if what == "prune":
            self.prune_backups(keep)
        elif what != "write":
            self.backup(what == "label", real)

    def somebody_writes(self) -> None:
        self.written += 1
        row = f"by hand {self.written}"
        self.said(f"  a row: {row}")
        with contextlib.closing(sqlite3.connect(self.database(), timeout=20)) as connection, connection:
            connection.execute("INSERT INTO trades (what) VALUES (?)", (row,))
        self.model.rows.add(row)
        self.model.ever.add(row)
        self.typed_in.add(row)

    def backup(self, label: bool, real: int) -> None:
        before = set(self.model.backups)
        words = ["backup", "create", *(["--label", "mine"] if label else [])]
        self.do(words, [Outcome((0,), copy.deepcopy(self.model))], real=real % 12 == 11)
        (made,) = set(self.model.backups) - before
        assert self.model.backups[made] == Kept(frozenset(self.model.rows), self.model.here, label)

    def prune_backups(self, keep: int) -> None:
        then = copy.deepcopy(self.model)
        gone = then.prune_backups(keep)
        self.do(["backup", "prune", "--yes", "--keep", str(keep)], [Outcome((0,), then)])
        there = {it.name for it in self.layout.backups.glob("backup_*")}
        assert there == set(self.model.backups), (gone, there)
        self.model.ever &= self.somewhere()

    # Rules: crashes

    @rule(
        kind=KINDS, which=some, force=st.booleans(), data=st.booleans(), call=st.sampled_from([*POINTS]),
        number=st.integers(1, 60), lines=st.integers(0, 45), again=st.integers(0, 25), torn=st.integers(0, 11),
    )  # fmt: skip
    def killed(
        self, kind: str, which: int, force: bool, data: bool, call: str, number: int, lines: int, again: int, torn: int,
    ) -> None:  # fmt: skip
        """kill -9 at the n-th call, or once the journal has so many lines; perhaps the recovery is killed as well."""
        asked = self.asked(kind, which, force, data)
        number = 1 + number % POINTS[call]
        ways = self.broken_off(asked)
        if lines % 2:
            running = self.start(asked.words, asked)
            self.kill_after(running, lines % 33)
        else:
            running = self.start(asked.words, asked, call, number)
        done = running.wait()
        self.said(
            f"  kill -9 of {' '.join(asked.words)} ({f'{lines % 33} lines' if lines % 2 else f'{call} {number}'}) -> {done.code}"
        )
        if done.code >= 0:
            # It had ended; which codes are right is what another rule looks at.
            assert done.code != 1 and documented(asked.words, done.code), done.text
        self.look()
        if open_now := journal.unfinished(self.layout):
            ways += self.tear(open_now[-1], torn, asked)
        if again % 2:
            again_killed = self.start(["recover"], None, call, again).wait()
            self.said(f"  recover, killed at {call} {again} -> {again_killed.code}")
            self.look()
        self.recovered(ways)

    def kill_after(self, running: Running, lines: int) -> None:
        def so_far() -> bool:
            if (
                not Path(f"/proc/{running.pid}/cmdline").exists()
                or not Path(f"/proc/{running.pid}/cmdline").read_bytes()
            ):
                return True
            open_now = journal.unfinished(self.layout)
            with contextlib.suppress(OSError):
                return bool(open_now) and len(open_now[-1].read_bytes().splitlines()) >= lines
            return False

        eventually(so_far, "the journal grows", 60)
        running.kill()

    def tear(self, path: Path, how: int, asked: Asked) -> list[Outcome]:
        """Damage the journal of what was interrupted. What is possible besides then."""
        text = path.read_bytes()
        if how == 0:
            self.said("  its journal loses its end")
            path.write_bytes(text[: len(text) * 2 // 3])
        elif how == 1:
            self.said("  a byte of its journal flips")
            at = len(text) // 2
            path.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        elif how == 2:
            self.said("  its journal is removed")
            path.unlink()
        else:
            return []
        ways = []
        here = self.named(self.layout.current)
        for way in self.broken_off(asked):
            for current in {here, way.model.current, self.model.good}:
                then = copy.deepcopy(way.model)
                then.current = current
                ways.append(Outcome((None,), then, True, any_up=True, lost=True))
        return ways

    def recovered(self, ways: list[Outcome]) -> None:
        for _try in range(5):
            done = self.run("recover")
            if done.code == 0:
                break
            weak = self.model.up is not None and not self.model.viable(self.model.here)
            assert done.code == 5 and (weak or any(it.any_up for it in ways)), done.text
        assert done.code == 0, done.text
        again = self.run("recover")
        assert again.code == 0 and again.out.startswith("nothing to recover\n"), again.text
        self.settle((None,), ways)
        self.verified()

    @rule(
        words=st.sampled_from([("backup", "create"), ("prune", "--yes", "--keep", "1"), ("stop",), ("restart",), ("mark-bad", "v1.0.0")]),
        call=st.sampled_from([*POINTS]), number=st.integers(1, 20),
    )  # fmt: skip
    def killed_command(self, words: tuple[str, ...], call: str, number: int) -> None:
        before = copy.deepcopy(self.model)
        number = 1 + number % max(1, POINTS[call] // 5)
        done = self.start(words, None, call, number).wait()
        self.said(f"  {' '.join(words)}, killed at {call} {number} -> {done.code}")
        assert "Traceback" not in done.text and "unforeseen" not in done.text, done.text
        ways = [copy.deepcopy(before) for _ in range(2)]
        if words[0] == "prune":
            # One by one: any number of them may have gone.
            gone = before.installed - self.sealed()
            may = ways[1].prune(1)
            assert gone <= may, f"{gone - may} were removed"
            half = copy.deepcopy(before)
            for version in gone:
                half.remove(version)
            for version in may - self.marked("good"):
                half.order.pop(version, None)
            assert not gone & set(half.order), "it counts as good although it was pruned"
            ways = [half]
        if words[0] == "mark-bad":
            ways[1].bad.add("v1.0.0")
        outcomes = [Outcome((None,), way, any_up=words[0] in ("stop", "restart")) for way in ways]
        self.look()
        self.recovered(outcomes)

    # Rules: by hand

    @rule(
        what=st.sampled_from(["flip", "flip", "nothing", "remove", "edit", "edit", "mend", "release", "record", "temporary"]),
        which=some, how=some, flag=st.booleans(),
    )  # fmt: skip
    def by_hand(self, what: str, which: int, how: int, flag: bool) -> None:
        {
            "flip": lambda: self.flips_the_link(which, flag),
            "nothing": self.points_the_link_at_nothing,
            "remove": lambda: self.removes_something(REMOVED[how % len(REMOVED)]),
            "edit": lambda: self.edits_a_release(which, ("serve.py", "notes")[how % 2], flag),
            "mend": lambda: self.puts_back_what_was_edited(),
            "release": lambda: self.removes_a_release(which),
            "record": lambda: self.damages_a_record(how, f"update_{('progress', 'history')[flag]}.json"),
            "temporary": lambda: self.leaves_a_temporary_name(PLACES[how % len(PLACES)], flag),
        }[what]()

    def flips_the_link(self, which: int, absolute: bool) -> None:
        if self.model.current is None or not self.model.installed:
            return
        version = self.tag(which, sorted(self.model.installed))
        top = '"$PWD"/' if absolute else ""
        self.typed(f"ln -sfn {top}releases/{version} current")
        self.model.current = version

    def points_the_link_at_nothing(self) -> None:
        self.typed("ln -sfn releases/v0.0.1 current")
        self.model.current = "v0.0.1"

    def typed(self, command: str) -> None:
        self.said(f"  $ {command}")
        subprocess.run(["sh", "-c", command], cwd=self.site.root, check=True)

    def removes_something(self, what: str) -> None:
        self.typed(f"rm -rf {what}")
        if what == "VERSION":
            self.model.version_link = False
        if what == ".updater/run":
            (web,) = self.look()["processes"]
            assert (web["release"] if web["state"] == "running" else None) == self.model.up, web

    def edits_a_release(self, which: int, name: str, in_place: bool) -> None:
        if not self.model.installed:
            return
        version = self.tag(which, sorted(self.model.installed))
        path = self.layout.release(version) / name
        inode = path.stat().st_ino
        if in_place:  # files that are equal are shared between releases
            meant = [
                it for it in self.model.installed if (self.layout.release(it) / name).stat().st_ino == inode
            ]
            self.typed(f"chmod u+w releases/{version}/{name} && echo '# edited' >>releases/{version}/{name}")
        else:
            meant = [version]
            self.typed(
                f"cd releases/{version} && cp {name} x && chmod u+w x && echo '# edited' >>x && mv -f x {name}"
            )
        for it in meant:
            self.model.edited.setdefault(it, set()).add(name)

    def puts_back_what_was_edited(self) -> None:
        for version, names in self.model.edited.items():
            files = next(it for it in self.releases if it.tag == version).tree
            for name in names:
                self.said(f"  {name} of {version} as it was")
                path = self.layout.release(version) / name
                path.unlink()
                path.write_bytes(files[name][0])
        self.model.edited.clear()

    def removes_a_release(self, which: int) -> None:
        others = self.model.installed - {self.model.current or ""}
        if others:
            version = self.tag(which, sorted(others))
            self.typed(f"rm -rf releases/{version}")
            self.model.remove(version)

    def damages_a_record(self, number: int, which: str) -> None:
        path, how = self.layout.logs / which, ("cut", "garbage", "gone", "empty")[number % 4]
        self.said(f"  {which}: {how}")
        text = path.read_bytes() if path.exists() else b""
        if how == "gone":
            path.unlink(missing_ok=True)
        else:
            path.write_bytes({"cut": text[: len(text) // 2], "garbage": b"\0\xff{" + text, "empty": b""}[how])
        self.torn_history = True

    def leaves_a_temporary_name(self, where: str, directory: bool) -> None:
        path = self.site.root / where / durable.temporary_name("x")
        self.said(f"  {path.name} in {where}")
        if directory:
            (path / "below").mkdir(parents=True)
        else:
            path.write_text("half")
        assert self.run("recover").code == 0
        assert not path.exists()

    # Rules: at once

    @rule(
        kinds=st.lists(
            st.sampled_from(
                ["pin", "newest", "fresh", "activate", "back", "fetch", "stop", "start", "create", "prune"]
            ),
            min_size=2,
            max_size=3,
        ),
        which=some,
    )
    def at_once(self, kinds: list[str], which: int) -> None:
        jobs: list[tuple[tuple[str, ...], Asked | None]] = []
        for kind in kinds:
            if kind in ("newest", "fresh", "activate", "back", "fetch"):
                if kind == "activate" and not self.model.installed:
                    continue
                asked = self.asked(kind, which, False)
                jobs.append((asked.words, asked))
            else:
                words = {
                    "pin": ("pin", self.tag(which)),
                    "create": ("backup", "create"),
                    "prune": ("prune", "--yes", "--keep", "2"),
                }
                jobs.append((words.get(kind, (kind,)), None))
        running = [self.start(words, asked) for words, asked in jobs]
        ended = [self.judged(words, one.wait()) for (words, _), one in zip(jobs, running, strict=True)]
        codes = tuple(it.code for it in ended)
        assert any(code != 6 for code in codes), codes
        held = [at for at, code in enumerate(codes) if code == 6]
        if sum(asked is not None for _words, asked in jobs) < 2 and not any(
            asked and at in held for at, (_w, asked) in enumerate(jobs)
        ):
            assert not held, f"commands that wait were refused: {codes}"
        ways = []
        for order in itertools.permutations(range(len(jobs))):
            ways += self.one_after_the_other(jobs, order, codes, Outcome(codes, copy.deepcopy(self.model)))
        self.settle(codes, ways, "\n".join(it.text for it in ended))

    def one_after_the_other(
        self,
        jobs: list[tuple[tuple[str, ...], Asked | None]],
        order: Sequence[int],
        codes: tuple[int, ...],
        so_far: Outcome,
    ) -> list[Outcome]:
        """Every outcome of the commands in this order in which each ends with the code that it had."""
        if not order:
            return [so_far]
        at, *rest = order
        if codes[at] == 6:
            return self.one_after_the_other(jobs, rest, codes, so_far)
        words, asked = jobs[at]
        found = []
        for way in self.alone(words, asked, so_far.model):
            if way.codes == (codes[at],):
                both = Outcome(codes, way.model, so_far.loose or way.loose, so_far.any_up or way.any_up)
                found += self.one_after_the_other(jobs, rest, codes, both)
        return found

    def alone(self, words: tuple[str, ...], asked: Asked | None, model: Model) -> list[Outcome]:
        if asked:
            return self.foretold(asked, model)
        then = copy.deepcopy(model)
        if words[0] in ("stop", "start"):
            mine, self.model = self.model, model
            try:
                return self.processes(words[0])
            finally:
                self.model = mine
        if words[0] == "pin":
            if words[1] not in then.installed:
                return [Outcome((2,), then)]
            then.pinned.add(words[1])
        if words[0] == "prune":
            then.prune(2)
        return [Outcome((0,), then)]

    @rule(kind=KINDS, which=some, lines=st.integers(1, 33))
    def cancelled(self, kind: str, which: int, lines: int) -> None:
        asked = self.asked(kind, which, False)
        ways = self.foretold(asked)
        undone = [Outcome((130,), way.model, True, way.any_up) for way in self.broken_off(asked)]
        running = self.start(asked.words, asked)

        def so_far() -> bool:
            open_now = journal.unfinished(self.layout)
            with contextlib.suppress(OSError):
                return bool(open_now) and len(open_now[-1].read_bytes().splitlines()) >= lines
            return False

        alive = Path(f"/proc/{running.pid}/cmdline")

        def over() -> bool:
            try:
                return not alive.read_bytes()
            except OSError:
                return True

        eventually(lambda: so_far() or over(), "the journal grows", 60)
        told = self.run("cancel")
        done = self.judged(asked.words, running.wait())
        assert told.code in (0, 2, done.code), (told.text, done.text)
        if told.code == 2:
            assert done.code != 130, (told.text, done.text)
        self.settle((done.code,), ways + undone, told.text + done.text)

    # Always

    def somewhere(self) -> set[str]:
        found = set(self.model.rows)
        for kept in self.model.backups.values():
            found |= kept.rows
        return found.union(*self.kept_aside())

    @invariant()
    def every_row_is_somewhere(self) -> None:
        self.steps += 1
        assert self.rows_in(self.database()) == self.model.rows
        lost = self.model.ever - self.somewhere()
        assert not lost, f"lost: {lost}"

    @invariant()
    def everything_agrees(self) -> None:
        if not self.model.published:
            return
        here, root = self.model.here, self.site.root
        status = self.look()
        assert status["in_service"]["version"] == self.model.current
        assert status["deployment"] is None
        assert status["by_hand"] == (here is not None and here != status["good"])
        assert status["configuration"] is None and status["leftovers"] == [], status
        if self.model.version_link and here:
            assert (root / "VERSION").read_text().strip() == here.removeprefix("v")
        if not self.torn_history:
            ids = [it["id"] for it in self.site.history()]
            assert len(ids) == len(set(ids)), "a record is there twice"
        if self.model.up and self.model.viable(self.model.up):
            assert (self.site.answer() or "").startswith(self.model.up.removeprefix("v") + " ")

    @invariant()
    def nothing_is_left_over(self) -> None:
        for directory, below, names in os.walk(self.site.root):
            assert not [it for it in (*below, *names) if durable.is_temporary(it)], directory
            below[:] = [it for it in below if it != ".venv"]
        assert list(self.layout.journal.glob("*.jsonl")) == []
        assert not self.layout.lock_owner.exists() and not (self.layout.run / "child").exists()
        assert not self.layout.trial.exists() or self.model.here != self.model.good
        log = self.layout.worker_log.read_text() if self.layout.worker_log.exists() else ""
        assert not log.strip(), log
        ours = [it for it in self.site.processes() if not is_over(it)]
        strays = [it for it in ours if self.model.up is None or "serve.py" not in " ".join(words_of(it))]
        assert not strays and len(ours) <= 1, [words_of(it) for it in ours]

    def verified(self) -> None:
        done = self.start(["--json", "verify", "--all"]).wait()
        edited = {version: names for version, names in self.model.edited.items() if names}
        assert done.code == (7 if edited else 0), done.text
        for version, names in edited.items():
            assert version in done.out and all(name in done.out for name in names), done.out

    def teardown(self) -> None:
        self.said(f"---- {self.steps} steps")
        try:
            if self.model.published:
                self.verified()
        finally:
            self.server.__exit__(None, None, None)
            self.site.end()
            if not os.environ.get("MODEL_KEEP"):
                shutil.rmtree(self.place, ignore_errors=True)


@pytest.mark.timeout(60 + EXAMPLES * STEPS * 5)
def test_whatever_is_typed_and_whatever_crashes() -> None:
    phases = [
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
        *([Phase.shrink] if os.environ.get("MODEL_SHRINK") else []),
    ]
    try:
        run_state_machine_as_test(
            World,
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, print_blob=True, derandomize=False,
                phases=phases, suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
            ),
        )  # fmt: skip
    finally:
        forks().end()
        forks.cache_clear()
