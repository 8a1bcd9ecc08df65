"""Killed between the spawn of a launcher and its pid file: whoever comes next finds the process all the same."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.integration.test_ways_out import holder_pid
from tests.site import Site, eventually


def _launching(worker: int, version: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(
            f"launchers/{version}" in " ".join(it.cmdline()) for it in psutil.Process(worker).children()
        )
    return False


@pytest.fixture
def interrupted(site: Site) -> Iterator[Site]:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    assert site.updater("fetch", "v1.1.0").code == 0
    yield site


def test_a_launcher_without_its_pid_file_is_ended_by_the_recovery(interrupted: Site) -> None:
    site = interrupted
    for _ in range(4):
        running = site.start("activate", "v1.1.0")
        worker = eventually(
            lambda: site.layout.lock_owner.exists() and holder_pid(site), "the worker has the lock"
        )
        waiting = site.start("pin", "v1.0.0")
        eventually(
            lambda it=worker: _launching(it, "v1.1.0") or not psutil.pid_exists(it), "the launcher runs"
        )
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        running.communicate(timeout=60)
        out, err = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, out + err
        site.runs("v1.0.0")
        living = [it.pid for it in site.processes() if "serve.py" in it.cmdline()]
        assert len(living) == 1
