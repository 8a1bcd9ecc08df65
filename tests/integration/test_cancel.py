"""Ctrl-C, SIGTERM and `updater cancel`, in each phase that lasts: everything is put back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from examples.release_server import Fault
from tests.site import Site, eventually
from updater.deployment import journal

SLOW_BUILD = {
    "pyproject.toml": '[project]\nname = "app"\nversion = "1"\n[build-system]\nrequires = []\nbuild-backend = "slow"\nbackend-path = ["."]\n',
    "slow.py": "import time\ndef build_wheel(*_, **__):\n    time.sleep(300)\n",
}


def in_phase(site: Site, phase: str) -> bool:
    return any(
        (lines := journal.read(path).lines)
        and any(line.kind == "intent" and line.phase == phase for line in lines)
        for path in journal.unfinished(site.layout)
    )


PHASES: dict[str, dict[str, Any]] = {
    "fetch": {"behaviour": "good"},
    "build": {"behaviour": "good", "files": SLOW_BUILD},
    "stop": {"behaviour": "good"},
    "probe": {"behaviour": "mute"},
    "watch": {"behaviour": "good"},
}


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_puts_everything_back(site: Site, phase: str) -> None:
    if phase == "stop":
        site.publish("v1.0.0", "stubborn")
        assert site.updater("deploy").code == 0
        site.configure(stop_timeout=2)
    else:
        site.deployed("v1.0.0")
    site.publish("v1.1.0", **PHASES[phase])
    site.configure(timeout=60, watch=60)
    if phase == "fetch":
        site.server.faults.append(Fault("download", "stall", value=100, times=9))
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, phase), f"phase {phase}")
    site.configure(timeout=5, watch=0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, out + err
    assert "the deployment of v1.1.0 was cancelled; v1.0.0 is in service" in err
    site.runs("v1.0.0")
    site.is_clean()
    assert site.history()[-1]["outcome"] == "cancelled"
    assert "v1.1.0" not in {
        it["version"] for it in site.updater("--json", "releases").json if it["state"] == "bad"
    }


def test_cancel_from_another_shell_and_what_the_watcher_sees(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    seen = site.updater("--json", "progress").json
    assert (seen["phase"], seen["to"], seen["outcome"], seen["interrupted"]) == (
        "watch",
        "v1.1.0",
        None,
        False,
    )
    assert site.status()["deployment"]["phase"] == "watch"
    assert site.updater("cancel").code == 0
    running.communicate(timeout=60)
    assert running.returncode == 130
    site.runs("v1.0.0")
    assert site.updater("cancel").code == 2, "nothing is running any more"


def test_the_deployment_outlives_the_command_that_started_it(site: Site) -> None:
    """F08: the starter is killed; the deployment goes on, and anybody can see it."""
    site.configure(watch=2)
    site.publish("v1.0.0")
    running = site.start("deploy")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    running.kill()
    running.communicate()
    followed = site.updater("progress", "--follow")
    assert followed.code == 0 and "succeeded" in followed.out
    site.runs("v1.0.0")
    site.is_clean()


def test_an_interrupted_deployment_is_shown_and_recovered_by_the_next_command(site: Site) -> None:
    """F47."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    owner = dict(line.split("=", 1) for line in site.layout.lock_owner.read_text().splitlines())
    os.kill(int(owner["pid"]), signal.SIGKILL)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1 and "updater recover" in err
    found = site.status()
    assert found["deployment"]["interrupted"] and found["in_service"]["version"] == "v1.1.0"
    site.configure(watch=0.1)
    done = site.updater("recover")
    assert done.code == 0 and "rolled back; v1.0.0 is in service" in done.out, done.text
    site.runs("v1.0.0")
    last = site.history()[-1]
    assert "phase watch" in json.dumps(last) and "updater deploy v1.1.0" in last["error"]["advice"]
    assert "was interrupted and rolled back" in last["error"]["message"], "the release is not to blame"
    phases = {it["name"]: it["seconds"] for it in last["phases"]}
    assert phases["probe"] > 0 and phases["watch"] is None and last["outage_seconds"] > phases["probe"]


def test_what_was_stopped_counts_as_down_until_a_recovery_has_started_it(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "mute")
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "probe"), "phase probe")
    owner = dict(line.split("=", 1) for line in site.layout.lock_owner.read_text().splitlines())
    begun = time.monotonic()
    os.kill(int(owner["pid"]), signal.SIGKILL)
    running.communicate(timeout=60)
    eventually(lambda: time.monotonic() > begun + 1, "some time goes by")
    assert site.updater("recover").code == 0
    assert site.history()[-1]["outage_seconds"] > 1


@pytest.mark.parametrize("line", [0, 1, 2, -3, "cut"])
def test_a_damaged_journal_still_ends_on_the_old_release(site: Site, line: int | str) -> None:
    """F54: what its lost lines said is found on the disk."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    owner = dict(line.split("=", 1) for line in site.layout.lock_owner.read_text().splitlines())
    os.kill(int(owner["pid"]), signal.SIGKILL)
    running.communicate(timeout=60)
    (path,) = journal.unfinished(site.layout)
    lines = path.read_bytes().splitlines(keepends=True)
    if isinstance(line, int):
        lines[line] = lines[line].replace(b":", b";")
    path.write_bytes(b"".join(lines) if isinstance(line, int) else b"")
    site.configure(watch=0.1)
    done = site.updater("recover")
    assert done.code == 0 and "damaged" in done.text, done.text
    site.runs("v1.0.0")
    site.is_clean()
    assert site.updater("recover").out.startswith("nothing to recover")
    site.deployed("v1.2.0")
    site.runs("v1.2.0")


def test_unlock_ends_a_holder_that_does_not_get_on(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    owner = dict(line.split("=", 1) for line in site.layout.lock_owner.read_text().splitlines())
    assert site.updater("unlock").code == 2, "nobody is there to be asked"
    os.kill(int(owner["pid"]), signal.SIGSTOP)
    site.configure(watch=0.1)
    assert site.updater("unlock", "--yes").code == 0
    running.communicate(timeout=60)
    assert running.returncode == 130, "it could still undo what it did"
    site.runs("v1.0.0")


def test_a_full_disk_in_the_middle_ends_on_the_old_release(site: Site, tmp_path: Path) -> None:
    """F25: a real full disk; the way back needs no room."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=450m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        full = Site(small, site.server, site.releases)
        try:
            full.deployed("v1.0.0")
            full.publish("v1.1.0")
            full.configure(watch=60)
            running = full.start("deploy", "v1.1.0")
            eventually(lambda: in_phase(full, "watch"), "phase watch")
            _fill(full.root / "filler")
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
            assert running.returncode == 130, out + err
            full.runs("v1.0.0")
            full.is_clean()
            full.publish("v1.2.0")
            refused = full.updater("deploy", "v1.2.0")
            assert refused.code == 3 and "needed on the filesystem" in refused.err
            full.configure(watch=0.1)
            for command in (["deploy", "v1.1.0"], ["rollback"], ["restart"], ["recover"], ["prune", "--yes"]):
                done = full.updater(*command)
                assert done.code == 0, done.text
            full.runs("v1.0.0")
            (full.root / "filler").unlink()
            assert full.updater("deploy", "v1.2.0").code == 0
            full.runs("v1.2.0")
            _fill(full.root / "filler")
            refused = full.updater("deploy", "v1.1.0")
            assert refused.code == 3 and "the disk is full" in refused.err and full.layout.ballast.exists()
            done = full.updater("restart")
            assert done.code == 0, done.text
        finally:
            full.end()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def _fill(path: Path) -> None:
    """Write until not one byte more goes onto the disk."""
    with path.open("wb", buffering=0) as file:
        for size in (10**7, 10**5, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
