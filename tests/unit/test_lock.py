"""The lock: the kernel decides, and it dies with its holder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.site import eventually, is_over
from updater import lock
from updater.errors import LockHeld, PreflightFailed
from updater.layout import Layout
from updater.processes import orphans
from updater.subprocesses import Identity, read_fields, run

HOLD = """
import sys, time
from pathlib import Path
from updater import lock, subprocesses
from updater.layout import Layout
layout = Layout(Path(sys.argv[1]))
layout.run.mkdir(parents=True, exist_ok=True)
with lock.hold(layout, "deploy v9") as held:
    print("held", flush=True)
    if sys.argv[2:]:
        subprocesses.run(sys.argv[2:], keep_fds=held.fds, record=lock.child_record(layout), cwd=layout.root)
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


WRAPPER = ["sh", "-c", "sleep 300; true"]
"""What it starts has the lock, and does not die with it."""
CAREFUL = [sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '300'])"]
"""What it starts has no descriptor of ours, and does not die with it either."""


@pytest.mark.parametrize("child", [["sleep", "300"], WRAPPER, CAREFUL], ids=["plain", "wrapper", "careful"])
def test_what_outlived_its_updater_keeps_no_lock_and_changes_nothing_more(
    layout: Layout, child: list[str]
) -> None:
    process = holder(layout, *child)
    sleeper = eventually(lambda: asleep(layout), "the child is at work")
    recorded = Identity.parse(read_fields(lock.child_record(layout)))
    process.kill()
    end(process)
    if sys.platform == "linux":  # elsewhere nothing ties it to its parent
        eventually(lambda: recorded and not recorded.alive(), "the child died with its parent")
    with lock.hold(layout, "deploy", wait=5):
        orphans.end(layout)
        assert is_over(sleeper)
    assert not lock.child_record(layout).exists()


def asleep(layout: Layout) -> psutil.Process | None:
    """The ``sleep`` in the session of the recorded child."""
    recorded = Identity.parse(read_fields(lock.child_record(layout)))
    for pid in psutil.pids() if recorded else ():
        with contextlib.suppress(psutil.Error, OSError):
            if recorded and os.getsid(pid) == recorded.pid and psutil.Process(pid).name() == "sleep":
                return psutil.Process(pid)
    return None


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


only_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells who holds a lock"
)


@only_linux
def test_a_stranger_that_holds_the_lock_is_named(layout: Layout) -> None:
    layout.own.mkdir()
    layout.lock.touch()
    child = subprocess.Popen(["flock", layout.lock, "sleep", "300"], start_new_session=True)
    try:
        text = refused(layout, child.pid)
        assert f"pid {child.pid}: flock {layout.lock} sleep 300 (locks {layout.lock})" in text
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@only_linux
@pytest.mark.parametrize("how", ["--exclusive", "--shared"])
def test_a_stranger_that_locks_the_root_itself_is_named_with_all_that_keep_its_lock(
    layout: Layout, how: str
) -> None:
    """``flock ROOT command``: the command has the lock as well, and keeps it when only flock is ended."""
    child = subprocess.Popen(["flock", how, layout.root, "sleep", "300"], start_new_session=True)
    try:
        text = refused(layout, child.pid)
        (command,) = psutil.Process(child.pid).children()
        assert f"pid {child.pid}: flock {how} {layout.root} sleep 300" in text
        assert f"pid {command.pid}: sleep 300 (locks {layout.root})" in text
        assert f"end it: kill {' '.join(map(str, sorted((child.pid, command.pid))))}." in text
        assert "`updater unlock` does not" in text
        child.kill()
        child.wait()
        text = refused(layout, command.pid)
        assert f"end it: kill {command.pid}." in text and f"pid {child.pid}" not in text
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    with lock.hold(layout, "deploy", wait=10):
        pass


@only_linux
def test_a_command_that_is_run_under_its_own_lock_says_so(layout: Layout) -> None:
    done = subprocess.run(
        ["flock", layout.root, sys.executable, "-c", TRY, layout.root],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "this very command was started under that lock" in done.stdout


TRY = """
import sys
from pathlib import Path
from updater import lock
from updater.errors import LockHeld
from updater.layout import Layout
try:
    with lock.hold(Layout(Path(sys.argv[1])), "deploy"):
        pass
except LockHeld as failure:
    print(failure.as_text())
"""


def refused(layout: Layout, pid: int) -> str:
    """What is said once a process has its lock and has started its command."""
    deadline = time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline, "it never had the lock"
        try:
            with lock.hold(layout, "deploy"):
                pass
        except LockHeld as failure:
            if not psutil.pid_exists(pid) or not psutil.Process(pid).cmdline()[0].startswith("flock"):
                return failure.as_text()
            children = psutil.Process(pid).children()
            if children and f"pid {children[0].pid}: sleep" in failure.as_text():
                return failure.as_text()
        os.sched_yield()


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
