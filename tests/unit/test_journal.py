"""The journal's format under attack: torn tails, flipped bytes, rubbish."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.site import eventually
from updater import lock, operations
from updater.config import Config
from updater.deployment import journal
from updater.deployment.journal import Journal
from updater.layout import Layout
from updater.operations import deploying, looking

DATA = st.dictionaries(
    st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(max_size=20), max_size=3
)
LINES = st.lists(
    st.tuples(st.sampled_from(["intent", "done", "undo", "undone"]), st.sampled_from(["stop", "start"]), DATA)
)


def raw(lines: list[tuple[str, str, dict[str, object]]]) -> bytes:
    return b"".join(
        journal.encode({"v": 1, "seq": seq, "kind": kind, "phase": phase, "at": "now", "data": data})
        for seq, (kind, phase, data) in enumerate(lines)
    )


@given(LINES)
def test_what_is_written_is_read_back(lines: list[tuple[str, str, dict[str, object]]]) -> None:
    log = journal.parse("x", raw(lines))
    assert [(line.kind, line.phase, dict(line.data)) for line in log.lines] == lines
    assert not log.damaged


@given(LINES, st.integers(min_value=0))
def test_a_torn_tail_loses_the_torn_line_only(
    lines: list[tuple[str, str, dict[str, object]]], cut: int
) -> None:
    whole = raw(lines)
    torn = whole[: cut % (len(whole) + 1)]
    log = journal.parse("x", torn)
    assert [(line.kind, line.phase, dict(line.data)) for line in log.lines] == lines[: torn.count(b"\n")]
    assert log.damaged == (not torn.endswith(b"\n") and torn != b"")


@given(LINES.filter(bool), st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_is_never_believed(
    lines: list[tuple[str, str, dict[str, object]]], place: int, flip: int
) -> None:
    whole = bytearray(raw(lines))
    place %= len(whole)
    whole[place] ^= flip
    log = journal.parse("x", bytes(whole))
    found = [(line.kind, line.phase, dict(line.data)) for line in log.lines]
    assert found == lines[: len(found)], "nothing that was not written"
    assert log.damaged


@given(st.binary(max_size=300))
def test_rubbish_is_an_empty_journal(rubbish: bytes) -> None:
    assert journal.parse("x", rubbish).lines == []


def test_a_deployment_exists_from_its_first_line_on_and_is_put_away_at_its_end(tmp_path: Path) -> None:
    """F09: when `create` returns, the deployment is on the disk."""
    layout = Layout(tmp_path)
    book = Journal.create(layout, {"before": {"in_service": "v1"}})
    assert journal.unfinished(layout) == [book.path]
    assert book.read().begin["before"]["in_service"] == "v1"
    book.record("intent", "stop")
    book.record("end", None, {"outcome": "succeeded"})
    book.close()
    assert journal.unfinished(layout) == []
    path = journal.find(layout, book.id)
    assert path is not None and (journal.read(path).end or {})["outcome"] == "succeeded"


def test_going_on_after_a_torn_line_keeps_what_was_whole_and_the_evidence(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    book = Journal.create(layout, {"a": 1})
    book.record("intent", "stop")
    with book.path.open("ab") as file:
        file.write(b"0123456789abcdef {half a li")
    again = Journal.reopen(layout, book.path)
    again.record("recover")
    log = again.read()
    assert [line.kind for line in log.lines] == ["begin", "intent", "recover"]
    assert [line.seq for line in log.lines] == [0, 1, 2]
    assert not log.damaged
    assert b"half a li" in (book.path.parent / f"{book.path.name}.damaged").read_bytes()


def test_a_full_disk_leaves_no_half_line_behind(tmp_path: Path) -> None:
    code = f"""
import resource, signal, sys
from pathlib import Path
from updater.deployment.journal import Journal
from updater.layout import Layout
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
book = Journal.create(Layout(Path({str(tmp_path)!r})), {{}})
size = book.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, resource.RLIM_INFINITY))
try:
    book.record("intent", "stop", {{"text": "x" * 500}})
except OSError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    book.record("failed", None, {{}})
    print([line.kind for line in book.read().lines], book.read().damaged)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "['begin', 'failed'] False\n", done.stderr


def test_a_line_that_nothing_follows_yet_is_flushed_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush costs as much as the rest of a phase; what it takes to the disk is the file, with every line before."""
    book, flushed = Journal.create(Layout(tmp_path), {}), []
    fsync = os.fsync

    def watched(fd: int) -> None:
        fsync(fd)
        flushed.append([line.kind for line in book.read().lines])

    monkeypatch.setattr(os, "fsync", watched)
    book.record("intent", "stop")
    book.record("done", "stop", {"stopped": ["app"]}, flush=False)
    book.record("intent", "activate")
    assert flushed == [["begin", "intent"], ["begin", "intent", "done", "intent"]]


def test_a_deployment_that_ends_while_it_is_looked_at_is_never_called_interrupted(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    over = threading.Event()

    def deploy() -> None:
        while not over.is_set():
            with lock.hold(layout, "deploy"):
                book = Journal.create(layout, {"request": {"kind": "deploy"}})
                book.record("end", None, {"outcome": "succeeded"})
                book.close()

    layout.own.mkdir()
    deploying, switch = threading.Thread(target=deploy), sys.getswitchinterval()
    deploying.start()
    try:
        sys.setswitchinterval(1e-6)
        found = eventually(lambda: seen(layout, 400), "deployments were looked at")
    finally:
        sys.setswitchinterval(switch)
        over.set()
        deploying.join()
    assert [it for it in found if it["interrupted"]] == []


def seen(layout: Layout, times: int) -> list[dict[str, Any]]:
    return [it for _ in range(times) if (it := looking.progress(layout))]


BEFORE = {"in_service": "v1", "good": "v1", "running": []}


@pytest.mark.parametrize(
    "lines",
    [
        [("begin", "", {"request": "deploy", "before": [1]})],
        [("begin", "", {"request": {"kind": "explode", "wanted": 5, "parts": 7}, "before": {"in_service": 5, "running": "web"}}),
         ("intent", "stop", {}), ("intent", "activate", {})],
        [("begin", "", {"request": {"kind": "deploy"}, "before": BEFORE}), ("intent", "teleport", {}), ("done", "teleport", {"to": []})],
        [("begin", "", {"request": {"kind": "deploy"}, "before": BEFORE}), ("failed", "", {"details": 5})],
        [("begin", "", {"request": {"kind": "deploy"}, "before": BEFORE}), ("end", "", {})],
        None,
    ],
    ids=["other forms", "other types", "another phase", "an odd failure", "an odd end", "far too large"],
)  # fmt: skip
def test_a_journal_of_another_form_is_told_and_bars_no_command(
    tmp_path: Path, lines: list[tuple[str, str, dict[str, object]]] | None
) -> None:
    """As a newer updater may leave it."""
    layout = Layout(tmp_path)
    book = Journal.create(layout, {})
    book.path.write_bytes(raw(lines or []))
    if lines is None:
        os.truncate(book.path, 20 * 1024**2)
    root = operations.Root(layout, Config(layout.config))
    told = looking.describe(layout, book.path)
    assert told["interrupted"] or told["outcome"] == "unknown"
    (found,) = deploying.recover(root)
    assert found["id"] == book.id and found["outcome"] in ("failed", "rolled-back", "unknown")
    assert journal.unfinished(layout) == [] and looking.history(root) == [found]
    assert looking.progress(layout) is not None
