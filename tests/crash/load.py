"""A long life in a few minutes: deployment after deployment on one root, a third of them of bad releases, while others read
`current`, listen to events, write into the databases, cancel, and start deployments at the same time.

    python -m tests.crash.load [--deployments 500] [--seed N] [--from 1] [--json FILE]

What each deployment does follows from the seed and its number alone, so that what is found wrong can be done again. It ends
with 1 if anything was wrong; then the root stays where it is.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from examples.release_server import Release, ReleaseServer
from tests.crash.bystanders import LISTENERS, READERS
from tests.crash.ledger import Ledger
from tests.crash.measures import Measures
from tests.crash.plans import KINDS, Plan, plan
from tests.crash.starts import KEEP, Answer, Starts
from tests.forks import REPOSITORY_TOP
from tests.site import REPOSITORY, Site, eventually
from updater.deployment import housekeeping, journal
from updater.deployment.transaction import Request
from updater.processes import state
from updater.releases import marks, store

Json = dict[str, Any]
OUTCOMES = ("succeeded", "rolled-back", "failed", "cancelled", "nothing-to-do", "rollback-failed")


class Load:
    """One run. ``violations`` is what was found wrong, in words that tell how to see it again."""

    def __init__(
        self, site: Site, seed: int, deployments: int, first: int = 1, say: Callable[[str], None] = print
    ) -> None:
        self.site, self.seed, self.deployments, self.first, self.say = site, seed, deployments, first, say
        self.violations: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.refused = 0
        self.accepted: list[str] = []
        """Every deployment that was begun, in order."""
        self.slowest: tuple[float, str] = (0.0, "none")
        self.plan: Plan | None = None
        self.starts, self.ledger, self.measures = Starts(site, self._must), Ledger(site), Measures(site)
        self.ready = threading.Event()
        self.seen: Json = {}
        """What those who looked on have seen."""

    def run(self) -> None:
        begun = time.monotonic()
        self.accepted.append(self.starts.first()["id"])
        try:
            self._look_on()
            for number in range(self.first, self.first + self.deployments):
                self._one(plan(self.seed, number))
            self._one(
                Plan(self.first + self.deployments, "good", ("warm",))
            )  # it prunes what is left to prune
            self.plan = None
            self._all_is_well()
        except Exception:
            self._wrong(f"it broke off: {traceback.format_exc()}")
        finally:
            self.looked_on.kill()
            self.looked_on.communicate()
            self.starts.end()
        self.seconds = time.monotonic() - begun

    def _one(self, it: Plan) -> None:
        self.plan, before = it, self.site.current()
        self.starts.configure(KINDS[it.kind].settings)
        request = self.starts.request(it)
        begun = time.monotonic()
        answers, cancelled = self.starts.all_at_once(it, request)
        how = f"{it.tag}, {it.kind}{f', cancelled by {it.cancel}' if it.cancel else ''}"
        self.slowest = max(self.slowest, (time.monotonic() - begun, how))
        record = self._judge_starts(it, answers)
        if record:
            self._judge(it, record, before, request)
        else:
            now = self.site.current()
            self._must(now == before, f"nothing was started, and {now} is in service, not {before}")
        self._judge_cancel(cancelled)
        for problem in self.ledger.look(record):
            self._wrong(problem)
        asked = self.starts.dashboard.get(it.asked)
        self._must(asked.status_code == 200, f"GET {it.asked}: {asked.status_code} {asked.text[:500]}")
        self.measures.sample(self.starts.dashboard.process.pid)
        self._nothing_left(thorough=it.number % 25 == 0)
        if it.number % 10 == 0:
            self._progress(it.number - self.first + 1)

    # What must be so.

    def _wrong(self, text: str) -> None:
        if it := self.plan:
            text = f"{it.tag}: {text}\n    {it}\n    again: python -m tests.crash.load --seed {self.seed} --from {max(1, it.number - 2)} --deployments 4"
        self.violations.append(text)
        self.say(f"WRONG {text}")

    def _must(self, true: bool, text: str) -> None:
        if not true:
            self._wrong(text)

    def _judge_starts(self, it: Plan, answers: list[Answer]) -> Json | None:
        taken = [one for one in answers if not one.refused]
        self.refused += len(answers) - len(taken)
        if len(taken) > 1 and len({(one.record or {}).get("id") for one in taken} - {None}) > 1:
            records = sorted((one.record for one in taken if one.record), key=lambda one: str(one["started"]))
            for one, other in itertools.pairwise(records):
                self._must(
                    one["ended"] <= other["started"],
                    f"two deployments at a time: {one['id']} and {other['id']}",
                )
        self._must(bool(taken), f"no start was taken: {[one.text for one in answers]}")
        history = self._history()
        known = {one["id"]: one for one in history}
        for told in sorted(taken, key=lambda one: str((one.record or {}).get("id"))):
            if told.record is None:
                broken_off = it.cancel == "sigint" and told.code == 130
                self._must(broken_off, f"started by {told.how} it ended with {told.code}: {told.text}")
                continue
            self.accepted.append(told.record["id"])
            self._must(
                known.get(told.record["id"], {}).get("outcome") == told.record["outcome"],
                f"told and recorded differ: {told.record}",
            )
            wanted = (told.record["error"] or {}).get("exit_code", 0)
            self._must(told.code == wanted, f"the exit code is {told.code}, by the record {wanted}")
        ids = [one["id"] for one in history]
        self._must(
            ids == self.accepted,
            f"the history has {set(ids) ^ set(self.accepted)} too much or too little, of {len(ids)} records",
        )
        if ids != self.accepted:
            self.accepted = ids
        return next(
            (one for one in reversed(history) if one["id"] in {a.record["id"] for a in taken if a.record}),
            None,
        )

    def _judge(self, it: Plan, record: Json, before: str | None, request: Request) -> None:
        kind, layout, outcome = KINDS[it.kind], self.site.layout, record["outcome"]
        self.outcomes[outcome] += 1
        expected = [kind.ends, *(["cancelled"] if it.cancel else [])]
        if len(it.starts) > 1:
            expected.append("nothing-to-do")
        self._must(
            outcome in expected,
            f"it ended {outcome}, not {' or '.join(expected)}: {json.dumps(record['error'])}",
        )
        if outcome in ("failed", "rolled-back"):
            self._must(
                record["error"]["exit_code"] == kind.code,
                f"exit code {record['error']['exit_code']}, not {kind.code}: {record['error']}",
            )
        here = record["to"] if outcome in ("succeeded", "nothing-to-do") else before
        if request.kind == "activate" or (request.kind == "deploy" and here != before):
            self._must(here in (request.wanted, before), f"{here} is not what was asked for: {request}")
        if outcome not in ("succeeded", "nothing-to-do"):
            told = f"{record['error']['message']} {record['error']['state']}"
            self._must(
                f"{before} is in service" in told,
                f"the report does not tell that {before} is in service: {told}",
            )
        good = os.path.basename(os.readlink(layout.good))
        self._must(self.site.current() == here, f"{self.site.current()} is in service, not {here}")
        self._must(good == here, f"`good` names {good}, not {here}")
        self._must(
            (self.site.root / "VERSION").read_text().strip() == str(here).removeprefix("v"),
            "VERSION is of another release",
        )
        answer = self.site.answer() or ""
        self._must(
            answer.startswith(f"{str(here).removeprefix('v')} "),
            f"the application answers {answer!r}, not as {here}",
        )
        running = [(one.name, one.release) for one in state.running(layout)]
        self._must(running == [("web", here)], f"running is {running}, not web of {here}")
        if kind.behaviour != "good" and outcome == "rolled-back":
            self._must(it.tag in marks.read(layout).bad, f"{it.tag} is not marked bad")
        if record["warnings"]:
            self._wrong(f"it warned: {record['warnings']}")

    def _judge_cancel(self, told: Json | None) -> None:
        if told and told.get("id"):
            record = next((one for one in self._history() if one["id"] == told["id"]), None)
            self._must(record is not None, f"the cancel named {told['id']}, of which there is no record")
            if record and "outcome" in told:
                self._must(
                    told["outcome"] == record["outcome"],
                    f"the cancel told {told['outcome']}, the record {record['outcome']}",
                )

    def _history(self) -> list[Json]:
        older = self.site.layout.history.with_name("update_history.1.json")
        return [*(json.loads(older.read_text()) if older.exists() else ()), *self.site.history()]

    def _nothing_left(self, *, thorough: bool) -> None:
        """No name that ends with a deployment, and no more releases and backups than are kept."""
        layout = self.site.layout
        left = [
            *layout.journal.glob("*.jsonl*"),
            *layout.own.glob("swap*"),
            *layout.shared.glob(".updater-*"),
        ]
        left += [
            path
            for path in (layout.trial, layout.run / "child", layout.room, layout.emergency, layout.drained)
            if path.exists()
        ]
        places = (
            layout.root,
            layout.own,
            layout.releases,
            layout.shared,
            layout.logs,
            layout.backups,
            layout.shared / "data",
        )
        left += [path for place in places for path in place.glob(".tmp-*")]
        if thorough:
            left += [path for path in layout.root.rglob(".*") if path.name.startswith((".tmp-", ".updater-"))]
            own = [it for it in self.site.processes() if "serve.py" in " ".join(it.cmdline())]
            self._must(len(own) == 1, f"{len(own)} processes of the application run")
            kept = len(list((layout.journal / "closed").iterdir()))
            self._must(kept <= journal.CLOSED_KEPT, f"{kept} ended journals are kept")
            self.measures.weigh(self.plan.number if self.plan else self.first + self.deployments)
        self._must(not left, f"left over: {sorted({str(path.relative_to(layout.root)) for path in left})}")
        installed = {release.version for release in store.installed(layout)}
        names = {path.name for path in layout.releases.iterdir()}
        self._must(names == installed, f"in releases/ is {names ^ installed}, which is no installed release")
        for place in (layout.launchers, layout.configurations):
            strange = {path.name.removesuffix(".toml") for path in place.iterdir()} - installed
            self._must(not strange, f"{place.name} has {strange}, which are not installed")
        backups = [path.name for path in layout.backups.iterdir()]
        if self._history()[-1]["outcome"] != "succeeded":
            return  # what failed prunes nothing
        self._must(not (more := housekeeping.plan(layout, KEEP)), f"{more} should be pruned")
        self._must(len(installed) <= 2 * KEEP + 1, f"{len(installed)} releases are installed")
        self._must(len(backups) <= KEEP + len(installed), f"there are {len(backups)} backups")

    # Those who look on, and the end.

    def _look_on(self) -> None:
        self.looked_on = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.bystanders", str(self.site.root), self.starts.dashboard.url, self.starts.other.url],
            cwd=REPOSITORY_TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        threading.Thread(target=self._hear, args=(self.looked_on,), daemon=True).start()
        assert self.ready.wait(60), "those who look on do not come to it"

    def _hear(self, made: subprocess.Popen[str]) -> None:
        for line in made.stdout or ():
            if line == "ready\n":
                self.ready.set()
            elif line.startswith("{"):
                self.seen = json.loads(line)
            else:
                self._wrong(line.strip())

    def _all_is_well(self) -> None:
        layout = self.site.layout
        closed = journal.find(layout, self.accepted[-1])
        last = f"{self.accepted[-1]}:{journal.read(closed).lines[-1].seq}" if closed else ""
        assert self.looked_on.stdin
        self.looked_on.stdin.write(f"{last}\n")
        self.looked_on.stdin.flush()
        self.looked_on.wait(120)
        eventually(lambda: self.seen, "what those who looked on have seen")
        for it in self.seen["listeners"]:
            self._must(
                it["ended"] == self.accepted[1:],
                f"{it['name']} has not seen the end of {set(self.accepted[1:]) ^ set(it['ended'])}",
            )
        self._must(all(self.seen["reads"]), f"a reader has read nothing: {self.seen['reads']}")
        self._nothing_left(thorough=True)
        done = self.site.updater("stop")
        self._must(done.code == 0, f"`updater stop`: {done.text}")
        for problem in self.ledger.all_there():
            self._wrong(problem)
        done = self.site.updater("backup", "verify", "--all")
        self._must(done.code == 0, f"`updater backup verify --all`: {done.text}")
        self._must(len(set(self.accepted)) == len(self.accepted), "a record is there twice")
        for it in (self.starts.dashboard, self.starts.other):
            self._must(
                (code := it.kill(signal.SIGTERM)) in (0, -signal.SIGTERM),
                f"`updater serve` ended with {code} at SIGTERM",
            )
            text = it.log.read_text()
        self._must("Traceback" not in text, f"`updater serve` printed a traceback: {text[-3000:]}")
        eventually(lambda: not self._strays(), "every process has ended", 20)
        for problem in (*self.measures.not_steady(), *self.measures.not_bounded()):
            self._wrong(problem)

    def _strays(self) -> list[str]:
        return [
            " ".join(it.cmdline())
            for it in self.site.processes(marked=True)
            if it.status() != psutil.STATUS_ZOMBIE
        ]

    def _progress(self, done: int) -> None:
        now = self.measures.samples[-1]
        outcomes = ", ".join(f"{self.outcomes[it]} {it}" for it in OUTCOMES if self.outcomes[it])
        self.say(
            f"{done:4}/{self.deployments}  {self.site.current()}  {outcomes}  rows {self.ledger.total:,}  "
            f"refused {self.refused}  rss {now.rss / 1e6:.1f} MB  fds {now.fds}  threads {now.threads}  wrong {len(self.violations)}"
        )

    def report(self) -> Json:
        counts, listeners = self.starts.counts, self.seen.get("listeners", [])
        return {
            "seed": self.seed,
            "deployments": len(self.accepted),
            "outcomes": {it: self.outcomes[it] for it in OUTCOMES if self.outcomes[it]},
            "started": {it: counts[f"started by {it}"] for it in ("warm", "api", "command")},
            "refused_starts": self.refused,
            "cancels": {it: counts[f"cancelled by {it}"] for it in ("command", "api", "sigint")},
            "servers_restarted": counts["servers restarted"],
            "readers": READERS,
            "reads": sum(self.seen.get("reads", [])),
            "releases_read": len(self.seen.get("releases", [])),
            "rows": self.ledger.total,
            "rows_in_backups": self.ledger.in_backups,
            "listeners": LISTENERS,
            **{name: sum(it[name] for it in listeners) for name in ("lines", "others", "connections", "sent_away")},
            "server": self.measures.report(),
            "slowest": {"seconds": round(self.slowest[0], 2), "what": self.slowest[1]},
            "seconds": round(self.seconds, 1),
            "violations": self.violations,
        }  # fmt: skip


def table(found: Json) -> Iterator[str]:
    server = found["server"]

    def held(name: str) -> str:
        it = server[name]
        return f"{it['rss'] / 1e6:.1f} MB, {it['fds']} descriptors, {it['threads']} threads"

    def many(it: Json) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in it.items()) or "none"

    measured = (
        {
            "updater serve": f"{held('first')} after {server['warm_up']} deployments",
            "  at the end": held("last"),
            "  at most": held("most"),
            "  grows by": f"{server['rss_slope'] / 1000:.2f} kB a deployment",
        }
        if server
        else {}
    )
    rows = {
        "deployments": f"{found['deployments']} (seed {found['seed']}): {many(found['outcomes'])}",
        "started by": many(found["started"]),
        "refused starts": found["refused_starts"],
        "cancels": many(found["cancels"]),
        "reads of `current`": f"{found['reads']:,} by {found['readers']} readers, of {found['releases_read']} releases",
        "committed rows": f"{found['rows']:,}, of them {found['rows_in_backups']:,} in the backups that the reports name",
        "events": f"{found['lines']:,} lines and {found['others']:,} others, to {found['listeners']} listeners",
        "streams": f"{found['connections']} connections, {found['sent_away']} ended by the server; it was restarted {found['servers_restarted']} times",
        **measured,
        "slowest deployment": f"{found['slowest']['seconds']} s: {found['slowest']['what']}",
        "duration": f"{found['seconds']:.0f} s, {found['seconds'] / max(1, found['deployments']):.2f} s a deployment",
        "violations": len(found["violations"]),
    }
    yield from (f"{name:20} {value}" for name, value in rows.items())
    yield "bytes a deployment by which files grow (those that do):"
    yield from (f"  {name:60} {value:>10,}" for name, value in server.get("growth", {}).items())


@contextlib.contextmanager
def world(place: Path) -> Iterator[Site]:
    releases: list[Release] = []
    with ReleaseServer(REPOSITORY, releases) as server:
        site = Site(place, server, releases)
        try:
            yield site
        finally:
            site.end()


def main() -> int:
    reading = argparse.ArgumentParser(prog="python -m tests.crash.load", description=__doc__)
    reading.add_argument("--deployments", type=int, default=500)
    reading.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    reading.add_argument("--from", dest="first", type=int, default=1, help="the number of the first one")
    reading.add_argument("--json", type=Path, help="where the result goes besides")
    asked = reading.parse_args()
    place = Path(tempfile.mkdtemp(prefix="load-"))
    print(f"seed {asked.seed}, in {place}", flush=True)
    with world(place) as site:
        load = Load(
            site, asked.seed, asked.deployments, asked.first, say=lambda text: print(text, flush=True)
        )
        load.run()
        found = load.report()
    print("\n".join(table(found)))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    if load.violations:
        print(f"{len(load.violations)} violations; the root stays in {place}:", *load.violations, sep="\n  ")
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
