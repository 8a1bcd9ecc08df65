"""Build a release's environment, against `python -m venv` and `pip install`. Warm caches, bytecode compiled by both.

    python -m bench.environment [--rounds 5] [--dir DIR]

Some 40 packages, pinned when the benchmark starts. `nothing changed`: the release before has the same requirements.
`one package changed`: one of them has another version. `first start`: the application's first start after its build against a
later one. Each is a process of its own, the start of Python included.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.compare import Contender, race, table

WANTED = [
    "datasette==0.65.1",
    "httpx",
    "flask",
    "requests",
    "rich",
    "sqlalchemy",
    "beautifulsoup4",
    "pydantic",
    "fastapi",
    "pytest",
]
CHANGED = ("certifi", "2024.8.30")


def build(release: Path, donors: list[Path]) -> None:
    """The measured work: what the deployment's phase `build` does."""
    from updater import environments
    from updater.config import EnvironmentConfig

    record = environments.build(release, EnvironmentConfig(python=sys.executable), donors=donors)
    (release / ".release").mkdir(exist_ok=True)
    (release / ".release" / "release.json").write_text(json.dumps({"environment": record.as_json()}))


def uv() -> str:
    from updater.environments import tools

    found = tools.find_uv()
    assert found is not None
    return found


def pinned(place: Path) -> str:
    """The requirements, all of them, with exact versions."""
    (place / "wanted.in").write_text("\n".join(WANTED) + "\n")
    command = [
        uv(),
        "pip",
        "compile",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--python",
        sys.executable,
        place / "wanted.in",
    ]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def changed(text: str) -> str:
    name, version = CHANGED
    lines = [f"{name}=={version}" if line.startswith(f"{name}==") else line for line in text.splitlines()]
    assert lines != text.splitlines()
    return "\n".join(lines) + "\n"


def make_release(place: Path, requirements: str) -> Path:
    place.mkdir(parents=True)
    (place / "requirements.txt").write_text(requirements)
    return place


def run(place: Path, rounds: int) -> None:
    same, other = pinned(place), changed(pinned(place))
    base = make_release(place / "base", same)
    build(base, [])
    build(make_release(place / "warm", other), [])  # the other version is in the cache as well
    number = iter(range(10**6))
    me = [sys.executable, "-m", "bench.environment", "--work"]

    def updater(name: str, requirements: str, donors: list[Path]) -> Contender:
        it = Contender(name, [])

        def before() -> None:
            release = make_release(place / f"release-{next(number)}", requirements)
            it.command = [*me, str(release), *map(str, donors)]

        it.before = before
        return it

    peer = Contender("python -m venv + pip install", [])

    def fresh() -> None:
        target = place / f"pip-{next(number)}"
        script = f'"{sys.executable}" -m venv "{target}" && "{target}/bin/pip" install -q -r "{base}/requirements.txt"'
        peer.command = ["sh", "-c", script]

    peer.before = fresh
    contenders = [
        peer,
        updater("updater, fresh", same, []),
        updater("updater, one package changed", other, [base]),
        updater("updater, nothing changed", same, [base]),
    ]
    race(contenders, rounds=rounds)
    table(f"Environment of {len(same.splitlines())} packages", contenders, peer)
    within(place, same, base, peer, rounds)
    first_start(place, same, base, rounds)


def within(place: Path, requirements: str, donor: Path, peer: Contender, rounds: int) -> None:
    """The same inside a process that runs already, as a deployment's worker does."""
    found = []
    for turn in range(rounds):
        release = make_release(place / f"within-{turn}", requirements)
        begun = time.perf_counter()
        build(release, [donor])
        found.append((time.perf_counter() - begun) / statistics.median(peer.seconds))
    print(
        f"\nNothing changed, without the start of Python: {statistics.median(found):.4f} [{min(found):.4f}-{max(found):.4f}]"
    )


def first_start(place: Path, requirements: str, donor: Path, rounds: int) -> None:
    found = []
    for turn in range(rounds):
        release = make_release(place / f"start-{turn}", requirements)
        (release / "app.py").write_text("import fastapi, flask, httpx, pytest, rich.console, sqlalchemy\n")
        build(release, [donor] if turn % 2 else [])
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run([release / ".venv" / "bin" / "python", "app.py"], check=True, cwd=release)
            times.append(time.perf_counter() - begun)
        found.append(times[0] / statistics.median(times[1:]))
    print(
        f"\n**First start of the application** against a later one: {statistics.median(found):.2f} [{min(found):.2f}-{max(found):.2f}]"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary directory)")
    parser.add_argument("--work", nargs="+", type=Path, metavar="RELEASE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        build(given.work[0], given.work[1:])
        return
    place = Path(tempfile.mkdtemp(dir=given.dir))
    try:
        run(place, given.rounds)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
