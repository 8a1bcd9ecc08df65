"""kill -9 at any call that changes the disk, then any command: a working release, the lock free, the truth in the history."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash.killed import CALLS
from tests.crash.model import Forks
from tests.site import Done, Site

REPOSITORY_TOP = Path(__file__).resolve().parents[2]
POINTS = int(os.environ.get("CRASH_POINTS", "2"))
"""Points for each kind of call and each operation; 0: every one."""


def run(site: Site, call: str, number: int, request: dict[str, Any] | None) -> tuple[int, str]:
    """Run a worker (or a recovery) that dies at a point. Returns its exit status and output."""
    reader, writer = os.pipe()
    rest = (
        ["recover", str(site.root)]
        if request is None
        else ["worker", str(site.root), str(writer), json.dumps(request)]
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.killed", call, str(number), *rest],
        cwd=REPOSITORY_TOP, env=site.env(), capture_output=True, text=True, pass_fds=(writer,), timeout=120, check=False,
    )  # fmt: skip
    os.close(reader)
    os.close(writer)
    return done.returncode, done.stdout + done.stderr


def count(site: Site, call: str, request: dict[str, Any] | None) -> int:
    status, said = run(site, call, 0, request)
    assert "calls " in said, f"{status}: {said}"
    return int(said.rpartition("calls ")[2])


def chosen(total: int) -> list[int]:
    """Points spread evenly up to the last one; near the first nothing has been done yet."""
    if not POINTS or total <= POINTS:
        return list(range(1, total + 1))
    return sorted({max(1, round((index + 1) * total / POINTS)) for index in range(POINTS)})


def came(status: int, said: str, number: int) -> bool:
    """Whether the kill came. Rounds differ by a few calls; one that had fewer must have run through to its own end."""
    if status == -signal.SIGKILL:
        return True
    assert status in (0, 4) and int(said.rpartition("calls ")[2]) < number, f"{number}: {said}"
    return False


def oracle(site: Site, old: str, new: str, commands: list[str]) -> str:
    """After a crash: any command, and everything is one of the two releases, whole. Returns which. One record of each deployment
    decides what became of it (F10), and the recovery comes before what is asked for (F47)."""
    assert site.updater("status").code == 0
    done = site.updater(*commands)
    assert done.code in (0, 4), done.text
    version = site.current()
    assert version in (old, new)
    site.runs(str(version))
    site.is_clean()
    assert site.updater("verify").code == 0
    found = [it["id"] for it in site.history()]
    assert len(found) == len(set(found)), "each deployment is recorded once"
    assert site.updater("recover").out == "nothing to recover\n"
    return str(version)


@pytest.mark.parametrize("call", CALLS)
def test_killed_while_it_deploys(site: Site, call: str) -> None:
    """Nothing is removed before the commit (F02), what is not sealed is not installed (F05, F12, F35), and a phase that was
    half done is undone like a whole one (F46)."""
    site.configure(watch=0.1)
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    request = {"kind": "deploy", "wanted": "v1.1.0"}
    total, kills = count(site, call, request), 0
    site.runs("v1.1.0")
    for number in chosen(total):
        _back_to(site, "v1.0.0", without="v1.1.0")
        status, said = run(site, call, number, request)
        if call in ("mkdir", "link") and status == 4:
            # It came to the process that writes the files: the deployment itself lives on, and undoes what it did.
            assert "the process that writes the files died" in json.dumps(site.history()[-1]["error"])
            kills += 1
        else:
            kills += came(status, said, number)
        version = oracle(site, "v1.0.0", "v1.1.0", ["prune", "--yes"] if number % 2 else ["recover"])
        last = site.history()[-1]
        if last["recovered"]:
            assert (last["outcome"] == "succeeded") == (version == "v1.1.0"), (
                f"{call} {number}: a false report"
            )
        assert site.updater("deploy", "v1.1.0").code == 0, (
            f"{call} {number}: the next deployment must succeed"
        )
        site.runs("v1.1.0")
    assert kills >= len(chosen(total)) - 1


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_while_it_rolls_back_a_bad_release(site: Site, call: str) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash")
    request = {"kind": "deploy", "wanted": "v1.1.0", "force": True}
    total, kills = count(site, call, request), 0
    site.runs("v1.0.0")
    points = chosen(total)[len(chosen(total)) // 2 :]
    for number in points:
        _back_to(site, "v1.0.0", without="v1.1.0")
        status, said = run(site, call, number, request)
        kills += came(status, said, number)
        assert oracle(site, "v1.0.0", "v1.0.0", ["recover"]) == "v1.0.0"
    assert kills >= len(points) - 1


@pytest.mark.parametrize("call", ["fsync", "replace", "symlink", "unlink"])
def test_recovery_killed_as_well(site: Site, call: str) -> None:
    """A double fault: the recovery dies at its own points, and the next one still comes through."""
    site.configure(watch=0.1)
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    request = {"kind": "deploy", "wanted": "v1.1.0"}
    fsyncs, kills = count(site, "fsync", request), 0
    points = chosen(fsyncs)
    for first in points:
        _back_to(site, "v1.0.0", without="v1.1.0")
        kills += came(*run(site, "fsync", first, request), first)
        for number in (1, 4):  # a third death would make it hold still, as it should
            run(site, call, number, None)
        oracle(site, "v1.0.0", "v1.1.0", ["recover"])
    assert kills >= len(points) - 1


@pytest.mark.parametrize("call", ["fsync", "replace", "symlink"])
def test_killed_while_it_activates(site: Site, call: str) -> None:
    site.configure(watch=0)
    site.deployed("v1.0.0", "v1.1.0")
    total, kills = count(site, call, {"kind": "rollback"}), 0
    site.runs("v1.0.0")
    for number in chosen(total):
        _back_to(site, "v1.0.0")
        status, said = run(site, call, number, {"kind": "activate", "wanted": "v1.1.0"})
        kills += came(status, said, number)
        oracle(site, "v1.0.0", "v1.1.0", ["recover"])
    assert kills >= len(chosen(total)) - 1


@pytest.mark.skipif(sys.platform != "linux", reason="forks of a process that has loaded everything")
def test_killed_while_it_prunes(site: Site) -> None:
    """A release that has gone has left nothing: installed again it is not good before it has run, and no secret of it stays."""
    site.configure(watch=0)
    site.deployed("v1.0.0", "v1.1.0", "v1.2.0")
    layout, gone = site.layout, "v1.0.0"
    forks = Forks()

    def run(*words: str, number: int = 0) -> Done:
        return forks.start(words, cwd=site.place, env=site.env(), call="unlink", number=number).wait()

    try:
        for number in range(1, 100):
            killed = run("prune", "--yes", "--keep", "1", number=number)
            assert run("recover").out == "nothing to recover\n"
            site.is_clean()
            if killed.code == 0 or not layout.release(gone).exists():
                break
    finally:
        forks.end()
    assert killed.code in (0, -signal.SIGKILL), killed.text
    left = {it.parent.name for it in layout.own.rglob(f"{gone}*") if "journal" not in it.parts}
    assert left == set(), f"killed at unlink {number}: {killed.text}"

    site.runs("v1.2.0")


def _back_to(site: Site, version: str, *, without: str | None = None) -> None:
    """The world as it was before: that release in service, the other one not installed."""
    if site.current() != version:
        assert site.updater("activate", version).code == 0
    if without and site.layout.release(without).exists():
        site.layout.previous.unlink(missing_ok=True)
        (site.layout.marks / f"{without}.good").unlink(missing_ok=True)
        (site.layout.marks / f"{without}.bad").unlink(missing_ok=True)
        subprocess.run(["rm", "-rf", str(site.layout.release(without))], check=True)
    site.runs(version)
