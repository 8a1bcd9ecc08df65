"""Identities, and children that are always ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updater import subprocesses
from updater.subprocesses import Identity


def gone(identity: Identity, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while identity.alive() and time.monotonic() < deadline:
        os.sched_yield()
    return not identity.alive()


def test_an_identity_is_alive_only_while_the_very_process_is() -> None:
    process = subprocess.Popen(["sleep", "300"])
    identity = Identity.of(process.pid)
    assert identity is not None and identity.alive()
    assert not Identity(identity.pid, identity.start, "another boot").alive()
    process.kill()
    assert gone(identity), "a zombie must count as dead"
    process.wait()
    assert not identity.signal(signal.SIGTERM)


def test_a_record_is_never_trusted() -> None:
    for fields in (
        {},
        {"pid": "x", "start": "1", "boot": "b"},
        {"pid": "1", "start": "1", "boot": "b"},
        {"pid": "5"},
    ):
        assert Identity.parse(fields) is None
    me = Identity.mine()
    assert Identity.parse(me.as_fields()) == me


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,10}", fullmatch=True), st.text(max_size=40)))
def test_fields_survive_a_file_on_one_line_each(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("fields") / "f"
    path.write_text(subprocesses.as_lines(fields), encoding="utf-8", newline="")
    found = subprocesses.read_fields(path)
    assert found.keys() == fields.keys()
    assert all("\n" not in value for value in found.values())


def test_output_and_status_of_a_child() -> None:
    lines: list[str] = []
    done = subprocesses.run(["sh", "-c", "echo one; echo two >&2; exit 3"], on_line=lines.append)
    assert done.status == 3
    assert lines == ["one", "two"]
    assert done.tail(1) == "two"


def test_a_child_that_hangs_is_ended_with_everything_below_it(tmp_path: Path) -> None:
    text = f"sleep 300 & echo $! > {tmp_path}/pid; wait"
    done = subprocesses.run(["sh", "-c", text], timeout=0.5)
    assert done.timed_out
    grandchild = Identity.of(int((tmp_path / "pid").read_text()))
    assert grandchild is None or gone(grandchild)


def test_a_grandchild_that_keeps_the_pipe_does_not_keep_us() -> None:
    begun = time.monotonic()
    done = subprocesses.run(["sh", "-c", "sleep 300 & exit 0"])
    assert done.status == 0
    assert time.monotonic() - begun < 60


def test_a_child_is_fed_and_its_output_kept_apart_from_what_it_says() -> None:
    pieces = [bytes([number]) * 70_001 for number in range(40)]
    output = bytearray()
    done = subprocesses.run(["sh", "-c", "echo begun >&2; cat"], feed=iter(pieces), on_output=output.extend)
    assert (done.status, done.output) == (0, "begun\n")
    assert bytes(output) == b"".join(pieces)
    assert done.taken == len(output)


@pytest.mark.parametrize(("script", "taken"), [("exit 0", 0), ("dd bs=1 count=3 2>/dev/null", 3)])
def test_what_a_child_leaves_unread_is_known(script: str, taken: int) -> None:
    """Also what still lies in the pipe; and it keeps nobody waiting."""
    for size in (1000, 1_000_000):
        done = subprocesses.run(["sh", "-c", script], feed=[bytes(size)], on_output=lambda _: None)
        assert (done.status, done.taken) == (0, taken)


def test_output_that_is_wanted_whole_is_waited_for() -> None:
    """What a grandchild still writes belongs to it; one that never ends is as good as a child that hangs."""
    output = bytearray()
    subprocesses.run(["sh", "-c", "(sleep 0.5; echo late) & exit 0"], on_output=output.extend)
    assert output == b"late\n"
    done = subprocesses.run(["sh", "-c", "sleep 300 & exit 0"], on_output=output.extend, timeout=0.3)
    assert done.timed_out


def test_cancelling_ends_the_child() -> None:
    class Stop(Exception):
        pass

    started: list[float] = []

    def check() -> None:
        started.append(0)
        if len(started) > 2:
            raise Stop

    with pytest.raises(Stop):
        subprocesses.run(["sleep", "300"], check=check)


def test_a_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    """Linux ties them by the kernel; elsewhere the record lets a recovery end it."""
    import sys

    code = (
        "from pathlib import Path; from updater import subprocesses;"
        f"subprocesses.run(['sleep', '300'], record=Path({str(tmp_path / 'child')!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 20
    child = None
    while child is None and time.monotonic() < deadline:
        child = Identity.parse(subprocesses.read_fields(tmp_path / "child"))
    assert child is not None
    parent.kill()
    parent.wait()
    if sys.platform == "linux":
        assert gone(child)
    else:
        assert child.signal(signal.SIGKILL)
