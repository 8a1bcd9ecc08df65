"""How fast does the command line start? Against `python -c "import click, json"`.

    python -m bench.start [--rounds 15]

And `updater activate` between two releases without processes, against an empty start of Python.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from bench.compare import Contender, race, table

UPDATER = Path(sys.executable).with_name("updater")


def make_root(place: Path) -> Path:
    """A root with two small releases, the second in service."""
    artifacts = place / "artifacts"
    artifacts.mkdir()
    for version in ("1.0.0", "1.1.0"):
        source = place / f"app-{version}"
        source.mkdir()
        (source / "app.py").write_text(f"print({version!r})\n")
        with tarfile.open(artifacts / f"app-{version}.tar.gz", "w:gz") as archive:
            archive.add(source, arcname=source.name)
    root = place / "root"
    updater(root, "init", str(root), "--directory", str(artifacts), "--name", "app")
    for version in ("1.0.0", "1.1.0"):
        updater(root, "deploy", version)
    return root


def updater(root: Path, *arguments: str) -> None:
    subprocess.run(
        [UPDATER, *arguments],
        check=True,
        env={**os.environ, "UPDATER_ROOT": str(root)} if arguments[0] != "init" else None,
    )


def activate(root: Path, rounds: int) -> None:
    """Seconds of `activate` above an empty start of Python, each round beside the other."""
    above = []
    for turn in range(rounds):
        begun = time.perf_counter()
        updater(root, "-q", "activate", ("1.0.0", "1.1.0")[turn % 2])
        middle = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        above.append((middle - begun) - (time.perf_counter() - middle))
    print(f"\n**`updater activate` without processes**, above an empty start of Python: median "
          f"{statistics.median(above):.3f} s [{min(above):.3f}-{max(above):.3f}], {rounds} rounds")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary directory)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as place:
        root = make_root(Path(place))
        peer = Contender('python -c "import click, json"', [sys.executable, "-c", "import click, json"])
        contenders = [
            peer,
            Contender("updater status", [UPDATER, "--root", root, "status"]),
            Contender("updater --json status", [UPDATER, "--root", root, "--json", "status"]),
            Contender("updater --help", [UPDATER, "--help"]),
            Contender("python -c pass", [sys.executable, "-c", "pass"]),
        ]
        race(contenders, rounds=given.rounds)
        table("Start of the command line", contenders, peer)
        activate(root, given.rounds)


if __name__ == "__main__":
    main()
