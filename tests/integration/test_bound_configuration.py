"""Configuration that is changed together with a release does not destroy the way back (F51)."""

from __future__ import annotations

import os
import signal

from tests.site import Site, eventually
from updater import lock


def edit(site: Site, old: str, new: str) -> None:
    text = site.layout.config.read_text()
    assert old in text
    site.layout.config.write_text(text.replace(old, new))


def ran(site: Site) -> list[tuple[str, str]]:
    return [(it["name"], it["release"]) for it in site.status()["processes"] if it["state"] == "running"]


def test_a_process_that_was_renamed_for_a_bad_release_runs_again_by_its_old_name(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash")
    edit(site, "processes.web", "processes.dashboard")
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and "v1.0.0 is in service again" in done.err and "as before" not in done.err
    assert ran(site) == [("web", "v1.0.0")]
    assert (site.answer() or "").startswith("1.0.0 ")


def test_the_old_command_is_started_again_although_another_is_configured_now(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash", files={"serve2.py": "raise SystemExit('sick')\n"})
    edit(site, "serve.py", "serve2.py")
    launcher = site.layout.launcher("v1.0.0", "web")
    before = launcher.stat().st_ino
    assert site.updater("deploy", "v1.1.0").code == 4
    site.runs("v1.0.0")
    assert launcher.stat().st_ino == before, "by the very launcher"


def test_the_old_probes_judge_the_old_release_also_in_a_recovery(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    edit(site, 'type = "http"\n', 'type = "http"\ncontains = "1.1.0"\n')
    edit(site, "watch = 0.3", "watch = 60")
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: (site.answer() or "").startswith("1.1.0"), "the new release answers")
    owner = lock.owner(site.layout)
    assert owner is not None
    os.kill(owner.identity.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    done = site.updater("recover")
    assert done.code == 0 and "v1.0.0 is in service" in done.out, done.text
    site.runs("v1.0.0")


def test_a_launcher_that_does_not_tell_is_as_if_nothing_were_kept(site: Site) -> None:
    """One of an older version, or one that somebody has damaged."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash")
    launcher = site.layout.launcher("v1.0.0", "web")
    launcher.write_text(launcher.read_text().replace('"probes": [', '"probes": [17, '))
    assert site.updater("deploy", "v1.1.0").code == 4
    site.runs("v1.0.0")


def test_restarting_a_name_that_is_not_configured_changes_nothing(site: Site) -> None:
    site.deployed("v1.0.0")
    pid = site.status()["processes"][0]["pid"]
    edit(site, "processes.web", "processes.dashboard")
    for command in ("restart", "start"):
        done = site.updater(command, "web")
        assert (
            done.code == 2 and "does not name it any more" in done.err and "Nothing was changed" in done.err
        )
    assert [it["pid"] for it in site.status()["processes"] if it["name"] == "web"] == [pid]
    assert site.updater("restart").code == 0, "all: by the new name"
    assert ran(site) == [("dashboard", "v1.0.0")]
