"""Somebody has swapped `current` with `ln`: it is told, taken as the truth, and everything goes by it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.test_cancel import in_phase
from tests.integration.test_ways_out import holder_pid
from tests.site import Done, Site, eventually
from updater import by_hand


def typed(command: str, cwd: Path) -> None:
    subprocess.run(["sh", "-c", command], cwd=cwd, check=True)


def status(site: Site) -> str:
    done = site.updater("status")
    assert done.code == 0, done.text
    return done.out


def well(done: Done) -> None:
    assert done.code == 0, done.text


def test_a_flip_to_the_older_release_while_the_newer_runs(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    typed("ln -sfn releases/v1.0.0 current", site.root)
    told = status(site)
    assert (
        "`current` was changed outside of updater: by the records v1.1.0 was in service, now v1.0.0 is"
        in told
    )
    assert "It is taken as the truth; `updater activate v1.0.0` checks it and puts it on record" in told
    assert "web runs from v1.1.0 while v1.0.0 is in service: updater restart" in told
    found = site.status()
    assert found["by_hand"] and found["in_service"]["version"] == "v1.0.0" and found["good"] == "v1.1.0"
    sick = site.updater("health")
    assert sick.code == 4 and "it runs from v1.1.0" in sick.out and "v1.0.0 is not healthy" in sick.out
    assert site.updater("recover").out == "nothing to recover\n"
    assert site.current() == "v1.0.0", "nothing fights it"
    well(site.updater("restart"))
    assert "web runs from" not in status(site) and site.answer().startswith("1.0.0 ")
    well(site.updater("health"))
    well(site.updater("activate", "v1.0.0"))
    site.runs("v1.0.0")
    assert "changed" not in status(site) and not site.status()["by_hand"]


def test_a_flip_while_nothing_runs_by_an_absolute_link(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    well(site.updater("stop"))
    typed(f"ln -sfn '{site.root}/releases/v1.0.0' '{site.root}/current'", Path("/"))
    told = status(site)
    assert "now v1.0.0 is" in told and "not running: web: updater start" in told
    well(site.updater("start"))
    assert site.answer().startswith("1.0.0 ")
    site.publish("v1.2.0", "crash")
    failed = site.updater("deploy", "v1.2.0")
    assert failed.code == 4 and "v1.0.0 is in service again" in failed.err, failed.text
    assert site.status()["in_service"]["version"] == "v1.0.0" and site.answer().startswith("1.0.0 ")
    assert os.readlink(site.layout.current) == "releases/v1.0.0", "relative from the first swap on"
    well(site.updater("rollback"))
    site.runs("v1.1.0")


def test_a_flip_to_a_release_that_was_never_good_and_to_a_bad_one(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    well(site.updater("fetch", "v1.1.0"))
    typed("ln -sfn releases/v1.1.0 current", site.root)
    assert "now v1.1.0 is, which was never good here. It is taken as the truth" in status(site)
    well(site.updater("mark-bad", "v1.1.0", "--reason", "it eats money"))
    assert "now v1.1.0 is, which is marked bad (it eats money)" in status(site)
    well(site.updater("rollback"))
    site.runs("v1.0.0")


def test_a_link_that_was_written_from_another_directory_is_told_with_what_to_type(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    typed("ln -sfn 'the root/releases/v1.0.0' 'the root/current'", site.place)
    told = status(site)
    assert "`current` leads to the root/releases/v1.0.0, which is not a release below releases/" in told
    command = by_hand.flip(site.root, "v1.0.0")
    assert f"if v1.0.0 is meant: {command}" in told
    refused = site.updater("rollback")
    assert refused.code == 3 and "is not a release below releases/" in refused.err, refused.text
    typed(command, Path("/"))
    well(site.updater("restart"))
    assert site.answer().startswith("1.0.0 ")


def test_a_link_to_what_is_no_release_or_gone(site: Site) -> None:
    site.deployed("v1.0.0")
    (site.layout.releases / "v9").mkdir()
    typed("ln -sfn releases/v9 current", site.root)
    assert "now v9 is, and that is no whole release: updater activate v1.0.0" in status(site)
    well(site.updater("activate", "v1.0.0"))
    site.runs("v1.0.0")
    site.layout.current.unlink()
    assert "`current` is gone; by the records v1.0.0 was in service: updater activate v1.0.0" in status(site)
    well(site.updater("activate", "v1.0.0"))
    site.runs("v1.0.0")


def test_a_flip_amid_a_deployment_that_is_killed_is_what_recovery_comes_back_to(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    site.publish("v1.2.0")
    site.configure(watch=600)
    running = site.start("deploy", "v1.2.0")
    eventually(lambda: in_phase(site, "watch"), "it watches")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    typed("ln -sfn releases/v1.0.0 current", site.root)
    done = site.updater("recover")
    assert done.code == 0, done.text
    assert site.current() == "v1.0.0" and site.answer().startswith("1.0.0 ")
    assert any("was pointed at v1.0.0 by hand" in it for it in site.history()[-1]["warnings"])
    assert "now v1.0.0 is" in status(site)


def test_a_trial_whose_journal_somebody_removed_is_over_when_a_good_release_is_back(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=600)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "it watches")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    typed("rm .updater/journal/*.jsonl", site.root)
    assert site.updater("recover").out == "nothing to recover\n"
    assert site.answer().startswith("1.1.0 1 "), "nobody has judged it: it is on trial still"
    typed("ln -sfn releases/v1.0.0 current", site.root)
    well(site.updater("restart"))
    assert site.answer().startswith("1.0.0 no "), "it is good"
    assert not site.layout.trial.exists()


@pytest.mark.parametrize("shell", ["sh", "bash", "mksh", "zsh"])
def test_what_is_offered_to_be_typed_never_puts_a_link_into_a_directory(tmp_path: Path, shell: str) -> None:
    root = tmp_path / "it's a root"
    (root / "releases" / "v1").mkdir(parents=True)
    command = [shell, "-c", by_hand.flip(root, "v1")]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        pytest.skip(f"there is no {shell}")
    assert os.readlink(root / "current") == "releases/v1"
    subprocess.run(["ln", "-sfn", "releases/gone", root / "current"], check=True)
    subprocess.run(command, check=True)
    assert os.readlink(root / "current") == "releases/v1"
    (root / "current").unlink()
    (root / "current").mkdir()
    assert subprocess.run(command, check=False).returncode != 0
    assert not list((root / "current").iterdir())
