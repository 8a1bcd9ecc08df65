"""The lock: the kernel decides, and it dies with its holder."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from updater import lock
from updater.errors import LockHeld, PreflightFailed
from updater.layout import Layout
from updater.subprocesses import Identity, run

HOLD = """
import sys, time
from pathlib import Path
from updater import lock, subprocesses
from updater.layout import Layout
layout = Layout(Path(sys.argv[1]))
layout.run.mkdir(parents=True, exist_ok=True)
with lock.hold(layout, "deploy v9") as held:
    print("held", flush=True)
    if sys.argv[2:] == ["child"]:
        subprocesses.run(["sleep", "300"], keep_fds=held.fds, record=lock.child_record(layout))
    time.sleep(300)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def holder(layout: Layout, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(layout.root), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_held_lock_names_its_holder(layout: Layout) -> None:
    process = holder(layout)
    try:
        with pytest.raises(LockHeld) as raised, lock.hold(layout, "prune"):
            pass
        assert "deploy v9" in raised.value.message
        assert str(process.pid) in raised.value.message
        assert raised.value.exit_code == 6
    finally:
        end(process)


def test_a_dead_holders_lock_is_free_at_once(layout: Layout) -> None:
    """F15, F16: nothing to break, nothing to wait for."""
    process = holder(layout)
    end(process)
    assert layout.lock_owner.exists(), "the dead holder could not tidy up"
    assert lock.owner(layout) is None
    with lock.hold(layout, "deploy"):
        owner = lock.owner(layout)
        assert owner is not None and owner.identity.pid == os.getpid()
    assert not layout.lock_owner.exists()


def test_a_recycled_pid_is_not_taken_for_the_owner(layout: Layout) -> None:
    layout.own.mkdir()
    me = Identity.mine()
    layout.lock_owner.write_text(f"pid={me.pid}\nstart=1\nboot={me.boot}\noperation=deploy\n")
    assert lock.owner(layout) is None


def test_a_child_that_outlived_its_updater_does_not_keep_the_lock(layout: Layout) -> None:
    process = holder(layout, "child")
    record = lock.child_record(layout)
    deadline = time.monotonic() + 20
    while not record.exists() and time.monotonic() < deadline:
        os.sched_yield()
    assert record.exists()
    os.kill(process.pid, signal.SIGKILL)
    end(process)
    with lock.hold(layout, "deploy", wait=5):
        pass


def test_waiting_for_a_lock_gets_it_when_it_is_free(layout: Layout) -> None:
    process = holder(layout)
    process.terminate()
    try:
        with lock.hold(layout, "deploy", wait=20):
            assert process.poll() is not None
    finally:
        end(process)


@pytest.mark.parametrize("removed", ["lock", "own"])
def test_who_removes_the_lock_file_does_not_get_the_lock_by_that(layout: Layout, removed: str) -> None:
    with lock.hold(layout, "deploy"):
        shutil.rmtree(layout.own) if removed == "own" else layout.lock.unlink()
        with pytest.raises(LockHeld), lock.hold(layout, "recover"):
            pass
    with lock.hold(layout, "recover"):
        owner = lock.owner(layout)
        assert owner is not None and owner.operation == "recover"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who holds a lock")
def test_a_stranger_that_holds_the_lock_is_named(layout: Layout) -> None:
    layout.own.mkdir()
    layout.lock.touch()
    with layout.lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockHeld) as raised, lock.hold(layout, "deploy"):
            pass
    assert f"pid {os.getpid()}:" in raised.value.as_text()


def test_a_root_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.own.write_text("a file where the directory should be")
    with pytest.raises(PreflightFailed), lock.hold(layout, "deploy"):
        pass


def test_a_child_gets_neither_input_nor_our_descriptors_unless_it_must(layout: Layout) -> None:
    with lock.hold(layout, "deploy") as held:
        text = f"test -e /dev/fd/{held.fds[0]} && echo kept || echo closed; cat"
        assert run(["sh", "-c", text]).output == "closed\n"
        assert run(["sh", "-c", text], keep_fds=held.fds).output == "kept\n"
