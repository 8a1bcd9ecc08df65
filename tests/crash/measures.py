"""What tests/crash/load.py measures: what the dashboard's server holds, and how files grow."""

from __future__ import annotations

import contextlib
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from tests.site import Site

Json = dict[str, Any]
GROWS = {
    "shared/logs/update_history.json": 4000.0,
    "shared/logs/update.log": 4000.0,
    "shared/logs/errors.log": 1000.0,
    "shared/logs/web.log": 2000.0,
    ".updater/marks": 200.0,
}
"""What may grow, and by how many bytes a deployment at most: docs/format.md and docs/guide.md tell where each ends."""


@dataclass
class Sample:
    """What `updater serve` holds."""

    rss: int
    fds: int
    threads: int


@dataclass
class Measures:
    """Everything that was measured on one root."""

    site: Site
    samples: list[Sample] = field(default_factory=list)
    weighed: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    """The sizes of all files after a deployment, by its number."""

    def sample(self, pid: int) -> None:
        process = psutil.Process(pid)
        self.samples.append(Sample(process.memory_info().rss, process.num_fds(), process.num_threads()))

    def weigh(self, number: int) -> None:
        self.weighed.append((number, self._sizes()))

    def _sizes(self) -> dict[str, int]:
        """Bytes by name, where those that differ by a release or an id only count as one."""
        found: Counter[str] = Counter()
        for place in (self.site.layout.own, self.site.layout.logs):
            for path in place.rglob("*"):
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and not path.is_symlink():
                        name = str(path.relative_to(self.site.root))
                        name = re.sub(
                            r"\d{8}T\d{6}-[0-9a-f]{6}", "ID", re.sub(r"v1\.\d+\.0", "RELEASE", name)
                        )
                        name = re.sub(r"/[0-9a-f]{16,}", "/SUM", name)
                        found[name] += path.stat().st_size
                        found[f"{name} (files)"] += 1
        return found

    def not_steady(self) -> Iterator[str]:
        """What the server holds must not grow, once it has warmed up. With each record of the history, up to 1,000, reading all of
        it takes some more memory."""
        later = self.samples[self.warm_up :]
        if len(later) < 20:
            return
        quarter = len(later) // 4
        for name in ("fds", "threads"):
            held = [getattr(it, name) for it in later]
            first, last = statistics.median(held[:quarter]), statistics.median(held[-quarter:])
            if last > first + 3:
                yield f"`updater serve` has {last:g} {name}, after the warm-up {first:g}"
        if self.slope > 40_000 and len(later) > 100:
            yield f"`updater serve` grows by {self.slope / 1000:.1f} kB a deployment"

    @property
    def warm_up(self) -> int:
        return min(100, len(self.samples) // 3)

    @property
    def slope(self) -> float:
        """Bytes of resident memory for each deployment after the warm-up: the median of the slopes between any two (Theil and Sen)."""
        later = [it.rss for it in self.samples[self.warm_up :]]
        step = max(1, len(later) // 100)
        points = list(enumerate(later))[::step]
        slopes = [(b - a) / (y - x) for at, (x, a) in enumerate(points) for y, b in points[at + 1 :]]
        return statistics.median(slopes) if slopes else 0.0

    def growth(self, first: int = 0) -> dict[str, float]:
        """By how much each file has grown a deployment, between a look and the last one, in bytes."""
        (begun, before), (ended, last) = self.weighed[first], self.weighed[-1]
        many = max(1, ended - begun)
        return {name: round((last[name] - before.get(name, 0)) / many, 1) for name in last}

    def not_bounded(self) -> Iterator[str]:
        """History, logs and marks of bad releases grow with each deployment until they are put aside; nothing else does once
        as much of it is there as is kept. Of what differs by a release or an id the files are counted, else the bytes."""
        if len(self.samples) < 300:
            return
        for name, each in self.growth(len(self.weighed) // 2).items():
            allowed = next((most for known, most in GROWS.items() if name.startswith(known)), None)
            if name.endswith(" (files)"):
                if each > (allowed is not None) + 0.05:
                    yield f"of {name} there are {each:,} more after each deployment"
            elif not any(it in name for it in ("RELEASE", "ID", "SUM")) and each > (allowed or 20.0):
                yield f"{name} grows by {each:,} bytes a deployment"

    def report(self) -> Json:
        held = [asdict(it) for it in self.samples]
        if not held or not self.weighed:
            return {}
        return {
            "first": held[self.warm_up], "last": held[-1], "most": {name: max(it[name] for it in held) for name in held[0]},
            "rss_slope": round(self.slope), "warm_up": self.warm_up,
            "growth": {name: it for name, it in sorted(self.growth().items()) if it},
        }  # fmt: skip
