"""Tries points in several processes at once, and tells what came out."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import multiprocessing
import multiprocessing.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.crash import faults
from tests.crash.calls import Call
from tests.crash.disk import Disk
from tests.crash.faults import Point, Result, parsed
from tests.crash.operations import OPERATIONS
from tests.crash.points import DISKS, divided, firsts, plan
from tests.crash.world import World, forking
from tests.forks import Forks

# the processes that try them

_worlds: dict[str, tuple[World, Disk | None]] = {}
_forks: list[Forks] = []
_place = Path()
_package: Path | None = None


def begin_job(place: Path, package: Path | None) -> None:
    global _place, _package
    _place, _package = place / f"j{os.getpid()}", package
    os.environ.setdefault("PYTEST_XDIST_WORKER", f"gw{os.getpid() % 32}")  # ports of its own
    multiprocessing.util.Finalize(None, end_worlds, exitpriority=10)


def _begin_below(place: Path, package: Path | None) -> None:
    """The same in a process that goes with the run, however that ends; what it has mounted the next run unmounts."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    begin_job(place, package)


def end_worlds() -> None:
    """Kill what lives in the worlds of this process, and unmount their disks; what cannot be ended is told."""
    for world, disk in _worlds.values():
        for end in (world.end, *([disk.end] if disk else [])):
            try:
                end()
            except Exception as failure:
                _tell(f"could not be ended: {world.place}: {type(failure).__name__}: {failure}")
    _worlds.clear()
    while _forks:
        _forks.pop().end()
    shutil.rmtree(_place, ignore_errors=True)


def world_on(filesystem: str) -> tuple[World, Disk | None]:
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
        world, disk = world_on(_filesystem(point))
    except Exception as failure:
        return Result(point, "harness", text=f"{type(failure).__name__}: {failure}", asked=point.named())
    try:
        return faults.run(world, disk, point, deploy=deploy)
    except Exception as failure:
        end_worlds()  # what has come apart is not used again
        return Result(point, "harness", text=f"{type(failure).__name__}: {failure}", asked=point.named())


def try_points(points: Sequence[Point], deploy_every: int) -> list[Result]:
    return [try_point(it, deploy=index % deploy_every == 0) for index, it in enumerate(points)]


def look(name: str, runs: int = 2) -> list[Call]:
    """The calls of an operation: the shortest of some runs, so that every number is reached in most."""
    world, _ = world_on("")
    return min((faults.golden(world, OPERATIONS[name]) for _ in range(runs)), key=len)


def look_at_recovery(name: str, number: int) -> tuple[str, int, int]:
    """How many calls a recovery after a kill at that point has."""
    world, _ = world_on("")
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
    fewer: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    planned: int = 0
    sittings: int = 0
    points: int | None = None
    """How many were asked for; None: the full run."""

    def go(self, note: Path | None = None) -> None:
        """Choose and try. ``note``: a file that gets the points, and each result as soon as it is there, as lines of JSON. One that
        is there already is gone on with, points and all."""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(note, "a+")) if note else None
            left = self._noted(file) if file else None
            began = time.monotonic() - self.seconds
            place = stack.enter_context(workplace())
            pool = stack.enter_context(self._pool(place))
            if left is None:
                left = self._plan(pool)
                about = {"left_out": self.left_out, "fewer": self.fewer, "planned": self.planned}
                self._note(file, {"points": [it.named() for it in left], "seed": self.seed, **about})
            self.sittings += 1
            self._note(file, {"sitting": self.sittings})
            _tell(f"{len(left)} points")
            waiting = {pool.submit(try_points, it, self.deploy_every) for it in _batches(left)}
            for done in as_completed(waiting):
                if done.cancelled():
                    continue
                self.seconds = time.monotonic() - began
                for result in done.result():
                    self._take(result, file)
                _tell_progress(len(self.results), self.planned, self.seconds)
                late = self.budget is not None and self.seconds > self.budget
                if late or (self.stop and any(it.outcome == "violation" for it in self.results)):
                    for it in waiting:
                        it.cancel()
        self.seconds = time.monotonic() - began

    def _plan(self, pool: ProcessPoolExecutor) -> list[Point]:
        golden = dict(zip(self.operations, pool.map(look, self.operations), strict=True))
        _tell(f"{sum(map(len, golden.values()))} calls in {len(golden)} operations")
        made = plan(golden, self._recoveries(pool, golden), self.counts, self.seed, each=self.each)
        self.left_out, self.fewer, self.planned = made.left_out, made.fewer, len(made.points)
        return made.points

    def _noted(self, file: IO[str]) -> list[Point] | None:
        """Take what an earlier sitting has noted; returns the points that are left, None where nothing has begun."""
        file.seek(0)
        text = file.read()
        if text and not text.endswith("\n"):
            file.write("\n")  # its last line was torn
        lines = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        if not lines:
            return None
        head = lines[0]
        if head["seed"] != self.seed:
            raise SystemExit(f"{file.name} is of a run with seed {head['seed']}: give --seed {head['seed']}")
        self.left_out, self.fewer, self.planned = head["left_out"], head["fewer"], head["planned"]
        self.sittings = sum("sitting" in it for it in lines)
        results = [it for it in lines if "outcome" in it]
        self.seconds = max((it.pop("elapsed") for it in results), default=0.0)
        self.results = [Result.from_json(it) for it in results]
        left = Counter(head["points"]) - Counter(it.asked for it in self.results)
        return [parsed(it, self.seed) for it in left.elements()]

    def _note(self, file: IO[str] | None, what: dict[str, Any]) -> None:
        if file:
            file.write(json.dumps(what) + "\n")
            file.flush()

    def _take(self, result: Result, file: IO[str] | None) -> None:
        self.results.append(result)
        self._note(file, {**result.as_json(), "elapsed": round(self.seconds, 1)})
        if result.outcome in ("violation", "harness"):
            _tell(told(result))

    def _pool(self, place: Path) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.jobs, context, _begin_below, (place, self.package))

    def _recoveries(
        self, pool: ProcessPoolExecutor, golden: Mapping[str, Sequence[Call]]
    ) -> dict[tuple[str, int], int]:
        wanted = self.counts.get("double", 0)
        if not wanted:
            return {}
        sizes = {name: len(calls) for name, calls in golden.items()}
        many = divided("double", wanted, sizes, self.seed, each=self.each)
        asked = [(name, it) for name in many for it in firsts(name, golden[name], many[name], self.seed)]
        found = pool.map(look_at_recovery, *zip(*asked, strict=True))
        return {(name, number): count for name, number, count in found if count}


def _place_of(it: Point) -> tuple[str, str, str]:
    return it.mode, _filesystem(it), it.operation


def _batches(points: Sequence[Point], size: int = 12) -> list[list[Point]]:
    """Points of one operation on one filesystem stay together: its states are made once for each process."""
    made = []
    for _, group in itertools.groupby(sorted(points, key=_place_of), _place_of):
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
