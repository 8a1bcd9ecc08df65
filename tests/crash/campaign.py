"""Chooses points, tries them in several processes at once, and tells what came out."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import multiprocessing.util
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash import disk as disks
from tests.crash import faults
from tests.crash.calls import Call
from tests.crash.disk import Disk
from tests.crash.faults import CAN_FAIL, ERRORS, Point, Result
from tests.crash.operations import OPERATIONS
from tests.crash.world import World, forking
from tests.forks import Forks

FULL = {
    "kill": 6500, "kill all": 3500, "power cut": 5900, "power cut once done": 200, "error": 5600, "kill a child": 300, "full disk": 200, "network": 100, "clock": 200,
    "double": 3000, "suspended": 200, "script": 600,
}  # fmt: skip
"""How many points of each mode a full run tries: 10,000 kills, 6,000 power cuts, more than 6,000 errors, 3,000 double faults."""

SAMPLE = {
    "kill": 5, "kill all": 1, "power cut": 2.5, "power cut once done": 1.2, "error": 2, "kill a child": 0.3, "full disk": 0.2, "double": 0.7,
    "suspended": 0.3, "script": 0.6, "network": 0.5, "clock": 0.2,
}  # fmt: skip
"""How many points of each mode and operation the tests try, times the operation's weight."""
SAMPLE_SEED = 1
DISKS = ("power cut", "power cut once done", "full disk")
"""Modes that need a filesystem of their own."""

KINDS = (
    (r"\.updater/journal/", "journal"),
    (r"(.* )?(current|VERSION|\.updater/(good|previous))$", "link"),
    (r"(.* )?\.updater/swap", "moved data"),
    (r"shared/(\.updater-[^/]*|data)(/|$)", "data"),
    (r"releases/[^/]*/\.release(/|$)", "seal"),
    (r"releases(/|$)", "release"),
    (r"shared/backups(/|$)", "backup"),
    (r"(.* )?shared/logs/update_history", "history"),
    (r"shared/logs(/|$)", "log"),
    (r"\.updater/(run|launchers)(/|$)", "process"),
    (r"\.updater/marks(/|$)", "mark"),
    (r"\.updater/cache(/|$)", "cache"),
    (r"", "other"),
)
"""What a path is about."""
BULK = {"log", "cache", "release", "backup"}
"""Where calls are many and alike."""
DECIDING = {"link", "moved data", "data", "history"}
"""What decides what a crash means."""
REMOVED = {"release", "backup"}
"""What is removed piece by piece."""


def kind(call: Call) -> str:
    """What a call is about: journal, link, data, seal ..."""
    text = " ".join(call.paths)
    return next(name for pattern, name in KINDS if re.match(pattern, text))


def stratified(calls: Sequence[Call], count: int, choice: random.Random) -> list[Call]:
    """Some of these calls, as far as ``count`` goes: in turn one that gives something else its name and decides what a crash means,
    and one that is the first or the last of its kind on its kind of thing; then the rest, what is bulk last."""
    groups: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        groups[kind(call), call.name].append(call)
    deciding = [
        it
        for (about, name), group in groups.items()
        if (about in DECIDING and name.startswith(("rename", "unlink", "symlink")))
        or (about in REMOVED and name == "unlinkat")
        for it in group
    ]
    ends = [it for group in groups.values() for it in dict.fromkeys((group[-1], group[0]))]
    choice.shuffle(deciding)
    ends.sort(key=lambda it: (kind(it) in BULK, choice.random()))
    rest = list(calls)
    choice.shuffle(rest)
    rest.sort(key=lambda it: kind(it) in BULK)
    mixed = itertools.chain.from_iterable(itertools.zip_longest(deciding, ends))
    order = dict.fromkeys([*(it for it in mixed if it), *rest])
    return sorted(itertools.islice(order, count))


@dataclass
class Plan:
    """What a run tries, and what it leaves out, with the reason."""

    points: list[Point] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def shares(total: float, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide ``total`` in proportion to the sizes; at least one each."""
    whole = sum(sizes.values())
    return {name: max(1, round(total * size / whole)) for name, size in sizes.items()} if whole else {}


def weighted(each: float, names: Iterable[str], seed: str) -> dict[str, int]:
    """So many for each operation, times its weight; of a part of one some operations get one, by the seed."""
    found = {}
    for name in names:
        whole, part = divmod(each * OPERATIONS[name].weight, 1)
        found[name] = int(whole) + (random.Random(f"{seed}/{name}").random() < part)
    return {name: number for name, number in found.items() if number}


def plan(
    golden: Mapping[str, Sequence[Call]],
    recoveries: Mapping[tuple[str, int], int],
    counts: Mapping[str, float],
    seed: int,
    *,
    each: bool = False,
) -> Plan:
    """The points of a run. ``golden``: the calls of each operation; ``recoveries``: how many a recovery after a kill has.

    ``each``: the counts are for each operation, times its weight, and not for all of them together."""
    made = Plan()
    sizes = {name: len(calls) for name, calls in golden.items()}
    for mode, wanted in counts.items():
        if mode in DISKS and (why := disks.missing()):
            made.left_out[mode] = why
            continue
        fitting = _fitting(mode, sizes)
        for name, share in (
            weighted(wanted, fitting, f"{seed}/{mode}") if each else shares(wanted, fitting)
        ).items():
            choice = random.Random(f"{seed}/{mode}/{name}")
            if mode == "double":
                made.points += _doubles(name, recoveries, share, seed, choice)
                continue
            calls = _candidates(mode, golden[name])
            made.points += [
                Point(name, mode, number, more, seed) for number, more in _of(mode, calls, share, choice)
            ]
    return made


def fits(mode: str, name: str) -> bool:
    """Whether a mode makes sense for an operation."""
    deployment = OPERATIONS[name].what == "worker"
    if mode == "network":
        return name in ("deploy", "fetch")
    if mode == "script":
        return deployment and name not in ("fetch", "restore", "restore data alone", "roll back with data")
    if mode == "kill a child":
        return deployment and name not in ("fetch", "restore", "restore data alone")
    return deployment or mode not in ("full disk", "double")


def _fitting(mode: str, sizes: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if fits(mode, name)}


def _candidates(mode: str, calls: Sequence[Call]) -> Sequence[Call]:
    if mode == "kill a child":
        return [it for it in calls if it.pid != calls[0].pid]
    return calls


def _of(
    mode: str, calls: Sequence[Call], share: int, choice: random.Random
) -> Iterator[tuple[int, tuple[str | int, ...]]]:
    """The points of one operation in one mode: the number and what else there is to choose."""
    if mode == "power cut once done":
        pairs = [(it, "lost") for it in disks.FILESYSTEMS] + [(it, "kept") for it in disks.FILESYSTEMS]
        yield from ((0, pairs[step % 4]) for step in range(share))
        return
    if mode == "full disk":
        for step in range(share):
            yield 4 + step * 12, ("ext4",)
        return
    if mode == "clock":
        for index, call in enumerate(stratified(calls, share, choice)):
            yield call.number, ((365, -365)[index % 2],)
        return
    if mode == "error":
        kinds = [(name, often) for name in ERRORS for often in ("once", "from then on")]
        choice.shuffle(kinds)
        for index in range(share):
            name, often = kinds[index % len(kinds)]
            fitting = [it for it in calls if it.name in CAN_FAIL[name]]
            if fitting:
                yield choice.choice(stratified(fitting, max(8, share), choice)).number, (name, often)
        return
    kinds_of_disk = disks.FILESYSTEMS if share >= 24 else (choice.choice(disks.FILESYSTEMS),)
    combinations = itertools.cycle(itertools.product(kinds_of_disk, disks.MODELS))
    rounds = stratified(calls, share, choice)
    while rounds:
        for call in rounds:
            yield call.number, next(combinations) if mode == "power cut" else ()
        share -= len(rounds)
        rounds = stratified(calls, share, choice) if share > 0 else []


def _doubles(
    name: str, recoveries: Mapping[tuple[str, int], int], wanted: int, seed: int, choice: random.Random
) -> list[Point]:
    every = [
        Point(name, "double", first, (second,), seed)
        for (operation, first), count in recoveries.items()
        if operation == name
        for second in range(1, count + 1)
    ]
    return sorted(choice.sample(every, min(wanted, len(every))), key=lambda it: (it.number, it.more))


def firsts(name: str, calls: Sequence[Call], wanted: int, seed: int) -> list[int]:
    """First deaths of an operation to choose second ones from; each is followed by a recovery of some dozen calls."""
    choice = random.Random(f"{seed}/first/{name}")
    late = [it.number for it in calls if kind(it) not in BULK and it.number > len(calls) // 4]
    return choice.sample(late, min(max(1, wanted // 25), len(late)))


# the processes that try them

_worlds: dict[str, tuple[World, Disk | None]] = {}
_forks: list[Forks] = []
_place = Path()
_package: Path | None = None


def begin_job(place: Path, package: Path | None) -> None:
    global _place, _package
    _place, _package = place / f"j{os.getpid()}", package
    os.environ["PYTEST_XDIST_WORKER"] = f"gw{os.getpid() % 32}"  # ports of its own
    multiprocessing.util.Finalize(None, end_worlds, exitpriority=10)


def end_worlds() -> None:
    """Kill what lives in the worlds of this process, and unmount their disks."""
    for world, disk in _worlds.values():
        with contextlib.suppress(Exception):
            world.end()
        if disk:
            with contextlib.suppress(Exception):
                disk.end()
    _worlds.clear()
    while _forks:
        _forks.pop().end()
    shutil.rmtree(_place, ignore_errors=True)


def _world(filesystem: str) -> tuple[World, Disk | None]:
    """The world of this process on a filesystem, ``""`` for memory."""
    if filesystem not in _worlds:
        place = _place / (filesystem or "mem")
        place.mkdir(parents=True, exist_ok=True)
        disk = Disk(filesystem, place / "image", place / "disk") if filesystem else None
        if not _forks:
            _forks.append(forking(_package))
        # Each flush of the application takes all of ext4's journal with it: it writes seldom where flushes are what is tried.
        every = 0.15 if disk else 0.03
        _worlds[filesystem] = World(place, place / "disk", every, _package, _forks[0]), disk
    return _worlds[filesystem]


def _filesystem(point: Point) -> str:
    return str(point.more[0]) if point.mode in DISKS else ""


def try_point(point: Point, deploy: bool = True) -> Result:
    """Try one point in this process's world."""
    try:
        world, disk = _world(_filesystem(point))
    except Exception as failure:
        return Result(point, "harness", text=f"{type(failure).__name__}: {failure}")
    try:
        return faults.run(world, disk, point, deploy=deploy)
    except Exception as failure:
        _renew(_filesystem(point))
        return Result(point, "harness", text=f"{type(failure).__name__}: {failure}")


def _renew(filesystem: str) -> None:
    """A world that has come apart is not used again."""
    world, disk = _worlds.pop(filesystem)
    with contextlib.suppress(Exception):
        world.end()
    if disk:
        with contextlib.suppress(Exception):
            disk.end()
    shutil.rmtree(_place / (filesystem or "mem"), ignore_errors=True)


def try_points(points: Sequence[Point], deploy_every: int) -> list[Result]:
    return [try_point(it, deploy=index % deploy_every == 0) for index, it in enumerate(points)]


def look(name: str, runs: int = 2) -> list[Call]:
    """The calls of an operation: the shortest of some runs, so that every number is reached in most."""
    world, _ = _world("")
    return min((faults.golden(world, OPERATIONS[name]) for _ in range(runs)), key=len)


def look_at_recovery(name: str, number: int) -> tuple[str, int, int]:
    """How many calls a recovery after a kill at that point has."""
    world, _ = _world("")
    return name, number, len(faults.recovery_calls(world, OPERATIONS[name], number))


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A directory in memory, where there is one: what is tried is not the machine's disk."""
    memory = Path("/dev/shm")
    above = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    _sweep(above)
    made = tempfile.mkdtemp(prefix=f"crash-{os.getpid()}-", dir=above)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sweep(above: Path) -> None:
    """Remove what a run has left that was killed itself: mounted filesystems, and memory."""
    for place in above.glob("crash-*-*"):
        pid = place.name.split("-")[1]
        if not pid.isdigit() or os.path.exists(f"/proc/{pid}"):
            continue
        for line in Path("/proc/mounts").read_text().splitlines():
            mounted = line.split()[1].replace("\\040", " ")
            if mounted.startswith(f"{place}/"):
                subprocess.run(["umount", "-l", mounted], check=False, capture_output=True)
        shutil.rmtree(place, ignore_errors=True)


@dataclass
class Run:
    """One run: how it was asked for and what came out."""

    seed: int
    counts: Mapping[str, float]
    operations: Sequence[str] = tuple(OPERATIONS)
    jobs: int = 3
    deploy_every: int = 1
    package: Path | None = None
    budget: float | None = None
    stop: bool = False
    each: bool = False
    results: list[Result] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    planned: int = 0

    def go(self, note: Path | None = None) -> None:
        """Choose and try. ``note``: a file that gets each result as a line of JSON as soon as it is there."""
        began = time.monotonic()
        with workplace() as place, self._pool(place) as pool, contextlib.ExitStack() as stack:
            file = stack.enter_context(open(note, "w")) if note else None
            golden = dict(zip(self.operations, pool.map(look, self.operations), strict=True))
            _tell(f"{sum(map(len, golden.values()))} calls in {len(golden)} operations")
            recoveries = self._recoveries(pool, golden)
            made = plan(golden, recoveries, self.counts, self.seed, each=self.each)
            self.left_out = made.left_out
            self.planned = len(made.points)
            batches = _batches(made.points)
            _tell(f"{len(made.points)} points")
            waiting = {pool.submit(try_points, it, self.deploy_every) for it in batches}
            for done in as_completed(waiting):
                if done.cancelled():
                    continue
                for result in done.result():
                    self.results.append(result)
                    if file:
                        file.write(json.dumps(result.as_json()) + "\n")
                        file.flush()
                    if result.outcome in ("violation", "harness"):
                        _tell(told(result))
                _tell_progress(len(self.results), len(made.points), time.monotonic() - began)
                late = self.budget is not None and time.monotonic() - began > self.budget
                if late or (self.stop and any(it.outcome == "violation" for it in self.results)):
                    for it in waiting:
                        it.cancel()
        self.seconds = time.monotonic() - began

    def _pool(self, place: Path) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.jobs, context, begin_job, (place, self.package))

    def _recoveries(
        self, pool: ProcessPoolExecutor, golden: Mapping[str, Sequence[Call]]
    ) -> dict[tuple[str, int], int]:
        wanted = self.counts.get("double", 0)
        if not wanted:
            return {}
        sizes = _fitting("double", {name: len(calls) for name, calls in golden.items()})
        each = weighted(wanted, sizes, f"{self.seed}/double") if self.each else shares(wanted, sizes)
        asked = [(name, it) for name in each for it in firsts(name, golden[name], each[name], self.seed)]
        found = pool.map(look_at_recovery, *zip(*asked, strict=True))
        return {(name, number): count for name, number, count in found if count}


def _batches(points: Sequence[Point], size: int = 12) -> list[list[Point]]:
    """Points of one operation on one filesystem stay together: its states are made once for each process."""
    made = []
    key = lambda it: (it.mode, _filesystem(it), it.operation)  # noqa: E731
    for _, group in itertools.groupby(sorted(points, key=key), key):
        every = list(group)
        made += [every[at : at + size] for at in range(0, len(every), size)]
    random.Random(len(points)).shuffle(made)
    return made


def told(result: Result) -> str:
    where = f" before {result.call} {result.path}" if result.call else ""
    return f"{result.outcome.upper()} at {result.point.named()!r}{where}: {result.text}"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_told = [0.0]


def _tell_progress(done: int, total: int, seconds: float) -> None:
    if time.monotonic() < _told[0] + 10 and done < total:
        return
    _told[0] = time.monotonic()
    left = (total - done) * seconds / max(1, done)
    _tell(f"{done} of {total} points, {done / seconds:.1f} a second, {left / 60:.0f} min left")


def table(results: Iterable[Result]) -> str:
    """By mode and operation: points, how they ended, the slowest recovery, as a table of Markdown."""
    rows: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    slowest: dict[tuple[str, str], float] = defaultdict(float)
    for it in results:
        key = it.point.mode, it.point.operation
        rows[key][it.outcome] += 1
        slowest[key] = max(slowest[key], it.seconds)
    modes = [it for it in faults.MODES if any(mode == it for mode, _ in rows)]
    lines = [
        "| interrupted by | operation | points | old state | new state | held | violations | not reached | slowest recovery |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]

    def line(name: str, operation: str, keys: list[tuple[str, str]]) -> str:
        sums: Counter[str] = sum((rows[it] for it in keys), Counter())
        slow = max((slowest[it] for it in keys), default=0.0)
        numbers = [sums[it] for it in ("old", "new", "held", "violation", "harness")]
        shown = " | ".join(map(str, [sum(sums.values()), *numbers]))
        return f"| {name} | {operation} | {shown} | {slow:.2f} s |"

    for mode in modes:
        keys = [(mode, it) for it in OPERATIONS if (mode, it) in rows]
        lines += [line(mode, it[1], [it]) for it in keys]
        lines.append(line(f"**{mode}**", "**all**", keys))
    lines.append(line("**all**", "**all**", list(rows)))
    return "\n".join(lines)
