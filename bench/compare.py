"""Times whole commands side by side: alternating order, medians of the ratios of each round, peak memory."""

from __future__ import annotations

import compileall
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import updater

# Nobody runs a program uncompiled; it would distort every start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
compileall.compile_dir(Path(updater.__file__).parent, quiet=1)

Prepare = Callable[[], None]


@dataclass
class Contender:
    """One way to do the work: a command, and what makes each round equal (not timed)."""

    name: str
    command: Sequence[str | os.PathLike[str]]
    before: Prepare | None = None
    cwd: Path | None = None
    env: Mapping[str, str] | None = None
    seconds: list[float] = field(default_factory=list)
    peak: int = 0
    """Largest resident set of a run, in bytes."""


def run(contender: Contender) -> float:
    """Run it once; seconds of wall time. A command that fails ends the benchmark."""
    if contender.before:
        contender.before()
    command = [os.fspath(word) for word in contender.command]
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=contender.cwd, env=None if contender.env is None else dict(contender.env),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(
            f"{contender.name} failed ({process.returncode}): {errors.decode(errors='replace')[-2000:]}"
        )
    contender.peak = max(contender.peak, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    return seconds


def race(contenders: Sequence[Contender], *, rounds: int = 5, warmup: int = 1) -> None:
    """Run all of them ``rounds`` times, the order reversed every round."""
    for _ in range(warmup):
        for contender in contenders:
            run(contender)
    for turn in range(rounds):
        for contender in contenders if turn % 2 == 0 else reversed(contenders):
            contender.seconds.append(run(contender))


def ratios(contender: Contender, peer: Contender) -> tuple[float, float, float]:
    """Median, least and greatest ratio of the rounds."""
    found = [mine / theirs for mine, theirs in zip(contender.seconds, peer.seconds, strict=True)]
    return statistics.median(found), min(found), max(found)


def table(title: str, contenders: Sequence[Contender], peer: Contender) -> None:
    """Print the results as a Markdown table."""
    print(f"\n**{title}** (medians of {len(peer.seconds)} rounds, ratio to {peer.name})\n")
    print("| | seconds | ratio | peak memory |\n| --- | ---: | ---: | ---: |")
    for it in contenders:
        middle, low, high = ratios(it, peer)
        ratio = "1" if it is peer else f"{middle:.3g} [{low:.3g}-{high:.3g}]"
        print(
            f"| {it.name} | {statistics.median(it.seconds):.3f} | {ratio} | {it.peak / 1e6:.0f} MB |",
            flush=True,
        )
