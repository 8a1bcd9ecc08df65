"""Roots that the tests of the emergency scripts are copied from, made by the real updater once in a session.

    good            v1.0.0 and v1.1.0 were deployed, both good; v1.1.0 is in service, nothing runs
    killed-PHASE    the same, and the deployment of v1.2.0 was killed there; what it left running has been ended as well

Nothing runs in a template. Records in it carry its own directory's mark, so in a copy nobody believes them; helpers.bash makes the
journal of a killed deployment the copy's own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import psutil

from tests.site import UPDATER, eventually

TOP = Path(__file__).resolve().parents[2]

KILLED = ("built", "stopped", "activated", "started", "committed")
"""Where a deployment is killed; tests/scripts/killed.py says what each means."""

BOT = """\
[ -e "$UPDATER_SHARED/data/stubborn" ] && trap '' TERM || trap 'exit 0' TERM
[ ! -e "$UPDATER_SHARED/data/sick-$(cat VERSION)" ] || { echo 'the exchange is down'; exit 1; }
while :; do
    date >"$UPDATER_SHARED/data/beat"
    sleep 1 &
    wait $!
done
"""

CONFIGURATION = """\
[app]
name = "app"
[source]
type = "directory"
path = "{artifacts}"
[releases]
min_free = 1000000
[shared]
"data" = "data"
[processes.bot]
command = ["sh", "bot.sh"]
stop_timeout = 1
[[processes.bot.probes]]
type = "file"
path = "data/beat"
max_age = 60
[processes.idle]
command = ["sleep", "3600"]
stop_signal = "INT"
stop_timeout = 1
[[processes.idle.probes]]
type = "command"
command = ["test", "!", "-e", "sick"]
[health]
successes = 1
interval = 0.05
timeout = 4
watch = 0
"""


def make(place: Path) -> None:
    """All templates, in this directory."""
    artifacts, first = place / "artifacts", place / "good"
    artifacts.mkdir(parents=True)
    for tag in ("v1.0.0", "v1.1.0", "v1.2.0"):
        _artifact(artifacts / f"{tag}.tar.gz", {"bot.sh": BOT, "VERSION": f"{tag[1:]}\n"})
    _updater(first, "init", str(first), "--directory", str(artifacts))
    (first / "updater.toml").write_text(CONFIGURATION.format(artifacts=artifacts))
    try:
        for tag in ("v1.0.0", "v1.1.0"):
            _updater(first, "deploy", tag)
        _updater(first, "stop")
        _updater(first, "fetch", "v1.2.0")
        for point in KILLED:
            _kill(first, place / f"killed-{point}", point)
        # only then: the deployments that were killed had nothing to build
        shutil.rmtree(first / "releases/v1.2.0")
    finally:
        _end(place)


def _kill(first: Path, root: Path, point: str) -> None:
    subprocess.run(["cp", "-a", str(first), str(root)], check=True)
    if point == "built":
        shutil.rmtree(root / "releases/v1.2.0")
    _updater(root, "start")
    reader, writer = os.pipe()
    request = json.dumps({"kind": "deploy", "wanted": "v1.2.0"})
    done = subprocess.run(
        [sys.executable, "-m", "tests.scripts.killed", point, str(root), str(writer), request],
        cwd=TOP, env=_environment(root), capture_output=True, text=True, pass_fds=(writer,), timeout=60, check=False,
    )  # fmt: skip
    os.close(reader)
    os.close(writer)
    assert done.returncode == -signal.SIGKILL, f"{point}: {done.stdout}{done.stderr}"
    _end(root)


def _artifact(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "UPDATER_ROOT": str(root)}


def _updater(root: Path, *arguments: str) -> None:
    env = {
        name: value
        for name, value in _environment(root).items()
        if arguments[0] != "init" or name != "UPDATER_ROOT"
    }
    done = subprocess.run(
        [str(UPDATER), *arguments], env=env, cwd=root.parent, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def _end(place: Path) -> None:
    """End every process that runs below a directory."""

    def below() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(place):
                    found.append(process)
        return found

    for process in below():
        with contextlib.suppress(psutil.Error):
            process.kill()
    eventually(lambda: not below(), "what ran in a template is gone")
