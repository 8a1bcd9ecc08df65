"""Killed between the spawn of a launcher and its pid file: whoever comes next finds the process all the same."""

from __future__ import annotations

import os
import shutil
import signal

from tests.integration.test_ways_out import holder_pid
from tests.site import Site, eventually
from updater.subprocesses import Identity

SLOW = """#!/bin/sh
# A launcher asks for the date right before it writes its pid file.
case $PWD in
    */releases/v1.1.0) : >"{reached}"; exec sleep 3600 ;;
esac
exec {date} "$@"
"""


def test_a_launcher_without_its_pid_file_is_ended_by_the_recovery(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    assert site.updater("fetch", "v1.1.0").code == 0
    tools, reached = site.place / "tools", site.place / "reached"
    tools.mkdir()
    (tools / "date").write_text(SLOW.format(reached=reached, date=shutil.which("date")))
    (tools / "date").chmod(0o755)
    site.environment["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    running = site.start("activate", "v1.1.0")
    eventually(reached.exists, "the launcher is before its pid file")
    assert not site.layout.pid_file("web").exists()
    (left,) = site.running("launchers/v1.1.0")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    done = site.updater("pin", "v1.0.0")
    assert done.code == 0, done.text
    site.runs("v1.0.0")
    assert Identity.of(left.pid) is None
    assert len(site.running("serve.py")) == 1
