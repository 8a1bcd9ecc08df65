"""The swap beside readers: how many reads of `current` see nothing, or something that was never there?

    python -m bench.swap [--swaps 100000] [--reads 3000000] [--dir DIR]

Readers are processes that open `current/VERSION` in a loop while the product's own swap runs. The peer is the usual
`unlink` and `symlink`, which many scripts do. Use a journaled filesystem.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

from updater import durable


def read(root: str, count: int, go: Event, results: multiprocessing.Queue[tuple[int, int, int]]) -> None:
    path, missing, wrong = os.path.join(root, "current", "VERSION"), 0, 0
    go.wait()
    for _ in range(count):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            missing += 1
            continue
        if os.read(fd, 8) not in (b"v1\n", b"v2\n"):
            wrong += 1
        os.close(fd)
    results.put((count, missing, wrong))


def swap(link: Path, target: str) -> None:
    durable.swap_symlink(link, target)


def unlink_and_symlink(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


def race(
    root: Path, act: Callable[[Path, str], None], swaps: int, reads: int, readers: int
) -> tuple[int, int, int, int, float]:
    link = root / "current"
    durable.swap_symlink(link, "releases/v1")
    go = multiprocessing.Event()
    results: multiprocessing.Queue[tuple[int, int, int]] = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=read, args=(str(root), reads // readers, go, results))
        for _ in range(readers)
    ]
    for process in processes:
        process.start()
    go.set()
    begun, turn = time.perf_counter(), 0
    while turn < swaps or any(process.is_alive() for process in processes):
        act(link, f"releases/v{turn % 2 + 1}")
        turn += 1
        if turn >= swaps and results.qsize() >= readers:
            break
    seconds = time.perf_counter() - begun
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return turn, sum(it[0] for it in found), sum(it[1] for it in found), sum(it[2] for it in found), seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--swaps", type=int, default=100_000)
    parser.add_argument("--reads", type=int, default=3_000_000)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary directory)")
    given = parser.parse_args()
    print(f"{'method':<22} {'swaps':>9} {'reads':>10} {'missing':>9} {'wrong':>6} {'swaps/s':>9}")
    for name, act, share in (("updater", swap, 1), ("unlink + symlink", unlink_and_symlink, 10)):
        with tempfile.TemporaryDirectory(dir=given.dir) as place:
            root = Path(place)
            for version in ("v1", "v2"):
                (root / "releases" / version).mkdir(parents=True)
                (root / "releases" / version / "VERSION").write_text(f"{version}\n")
            swaps, reads, missing, wrong, seconds = race(
                root, act, given.swaps // share, given.reads // share, given.readers
            )
        print(
            f"{name:<22} {swaps:>9,} {reads:>10,} {missing:>9,} {wrong:>6,} {swaps / seconds:>9,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
