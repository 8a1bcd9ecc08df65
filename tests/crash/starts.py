"""How tests/crash/load.py starts deployments, cancels them, and meddles with what is there meanwhile."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from examples.release_server import Release
from tests import warm
from tests.crash.ledger import files
from tests.crash.plans import KINDS, PHASES, Plan
from tests.dashboard import Dashboard
from tests.site import REPOSITORY, Site, eventually, free_port
from updater import lock
from updater.deployment import journal
from updater.deployment.transaction import Request
from updater.operations import deploying

Json = dict[str, Any]
KEEP = 3
"""Releases, and backups."""
PUBLISHED = 30
"""Releases that the source still has."""


@dataclass
class Answer:
    """What became of one start. ``record``: as it was told to whoever started it."""

    how: str
    code: int
    text: str
    record: Json | None = None

    @property
    def refused(self) -> bool:
        return self.code == 6


class Starts:
    """Whoever wants something of the root: shells, two dashboards and their clients. ``must`` hears what is not as it must be."""

    def __init__(self, site: Site, must: Callable[[bool, str], None]) -> None:
        self.site, self.must = site, must
        self.counts: Counter[str] = Counter()
        self.commands: list[subprocess.Popen[str]] = []

    def first(self) -> Json:
        """The first release, and the dashboards. Returns its record."""
        self.site.server.quota = 10**9
        self.configure({})
        begun = Plan(0, "good", ("warm",))
        self.publish(begun)
        answer = self.start("warm", begun, Request("deploy", begun.tag, user=getpass.getuser()))
        assert answer.record and answer.code == 0, answer.text
        self.dashboard, self.other = (Dashboard(self.site, "--port", str(free_port())) for _ in range(2))
        return answer.record

    def end(self) -> None:
        for it in (self.dashboard, self.other):
            it.end()

    def all_at_once(self, it: Plan, request: Request) -> tuple[list[Answer], Json | None]:
        """Start it as planned, and wait for its end. Returns what each start was told, and what the cancel was."""
        over = threading.Event()
        self.commands = []
        with ThreadPoolExecutor(6) as pool:
            meddling = pool.submit(self._meddle, it, over)
            starting = [pool.submit(self.start, how, it, request) for how in it.starts]
            try:
                answers = [one.result() for one in starting]
            finally:
                over.set()
            cancelled = meddling.result()
        eventually(lambda: lock.owner(self.site.layout) is None, "the lock is free again")
        return answers, cancelled

    def configure(self, settings: Json) -> None:
        """``updater.toml`` for one deployment."""
        known = {"watch": 0.3, "timeout": 20, "keep": KEEP, **settings}
        migrate = known.pop("migrate", "")
        self.site.configure(**known, extra=f"\n[backup]\nkeep = {KEEP}\n{migrate}")

    def publish(self, it: Plan) -> None:
        kind = KINDS[it.kind]
        release = self.site.publish(it.tag, kind.behaviour, files=files(self.site, it.tag, kind.changes))
        if kind.damaged == "cut":
            release.archive = release.tarball(REPOSITORY)[:-200]
        elif kind.damaged:
            other = {**release.tree, "behaviour": (b"another\n", "100644")}
            body = Release(it.tag, other, published=release.published).tarball(REPOSITORY)
            release.archive = body
        del self.site.releases[:-PUBLISHED]
        self.site.server.requests.clear()

    def request(self, it: Plan) -> Request:
        kind, layout = KINDS[it.kind], self.site.layout
        before = os.path.basename(os.readlink(layout.previous)) if layout.previous.is_symlink() else None
        user = getpass.getuser()
        if kind.command == "rollback" and before:
            return Request("rollback", None, user=user)
        if kind.command == "activate" and before:
            return Request("activate", before, user=user)
        self.publish(it)
        return Request("deploy", it.tag, user=user)

    def start(self, how: str, it: Plan, request: Request) -> Answer:
        if how == "warm" and sys.platform != "linux":
            how = "command"
        self.counts[f"started by {how}"] += 1
        if how == "api":
            return self._api(self.dashboard if it.restart or it.number % 2 else self.other, request)
        return self._warm(request) if how == "warm" else self._command(request)

    def _warm(self, request: Request) -> Answer:
        said = warm.deploy(self.site.root, request.as_json(), self.site.env())
        record = said.get("ended")
        failed = (record or said).get("error")
        return Answer(
            "warm",
            failed["exit_code"] if isinstance(failed, dict) else 1 if failed else 0,
            json.dumps(said)[:3000],
            record,
        )

    def _api(self, dashboard: Dashboard, request: Request) -> Answer:
        path, body = {
            "deploy": ("/api/update/start", {"tag": request.wanted}),
            "rollback": ("/api/update/rollback", {}),
            "activate": ("/api/releases/activate", {"version": request.wanted}),
        }[request.kind]
        answer = dashboard.apart("POST", path, body, headers=dashboard.authorized())
        if answer.status_code != 202:
            told = answer.json()
            return Answer(
                "api",
                6 if (answer.status_code, told.get("code")) == (409, "locked") else told.get("exit_code", 1),
                answer.text,
            )
        identifier = answer.json()["id"]
        record = eventually(lambda: deploying.end_of(self.site.layout, identifier), f"{identifier} ends", 120)
        return Answer("api", (record["error"] or {}).get("exit_code", 0), answer.text, record)

    def _command(self, request: Request) -> Answer:
        running = self.site.start("--json", request.kind, *([request.wanted] if request.wanted else []))
        self.commands.append(running)
        out, err = running.communicate(timeout=120)
        told = json.loads(out) if out.strip() else {}
        self.must("Traceback" not in err, f"the command printed a traceback: {err[-3000:]}")
        return Answer("command", running.returncode, f"{out[-3000:]}{err[-2000:]}", told.get("deployment"))

    def _meddle(self, it: Plan, over: threading.Event) -> Json | None:
        """Cancel, or restart the other server, in the midst of it. Returns what the cancel said."""
        if not (it.cancel or it.restart):
            return None
        while not over.is_set() and not self._is_in(it.phase):
            time.sleep(0.01)
        over.wait(it.delay)
        if it.restart:
            port = self.other.port
            self.other.kill(signal.Signals[f"SIG{it.restart}"])
            self.other = Dashboard(self.site, "--port", str(port))
            self.counts["servers restarted"] += 1
            return None
        self.counts[f"cancelled by {it.cancel}"] += 1
        if it.cancel == "api":
            answer = self.dashboard.apart(
                "POST", "/api/update/cancel", {}, headers=self.dashboard.authorized()
            )
            self.must(
                answer.status_code in (202, 409),
                f"the cancel was answered with {answer.status_code}: {answer.text}",
            )
            return {"id": answer.json().get("id")} if answer.status_code == 202 else None
        if it.cancel == "command":
            done = self.site.updater("--json", "cancel")
            self.must(done.code in (0, 2, 4, 7), f"`updater cancel` ended with {done.code}: {done.text}")
            return dict(done.json.get("deployment") or {}) if done.code != 2 else None
        eventually(lambda: self.commands or over.is_set(), "the command is started")
        for running in self.commands[:1]:
            running.send_signal(signal.SIGINT)
        return None

    def _is_in(self, phase: str) -> bool:
        """Whether the running deployment has come to a phase, or to one behind it that it has too."""
        order = PHASES.index(phase)
        for path in journal.unfinished(self.site.layout):
            lines = journal.lines(self.site.layout, path.name.removesuffix(journal.SUFFIX))
            begun = [line.phase for line in lines if line.kind == "intent"]
            return any(name in PHASES and PHASES.index(name) >= order for name in begun if name)
        return False
