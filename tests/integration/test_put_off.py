"""A way back that the disk keeps from its end: the old release does not run before its data are its own, and no row is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_backups import make_root
from tests.integration.test_cancel import in_phase
from tests.integration.test_migration import ALTER, WRITES, database, kept_in, nothing_left, whats
from tests.integration.test_ways_out import by_script
from tests.site import SERVE, Site, eventually
from updater import durable, lock
from updater.backups import catalogue, create, staging, swap
from updater.config import BackupConfig, Config, DumpConfig, MigrateConfig
from updater.deployment import engine, journal, recovery, worker
from updater.deployment.cancel import Cancellation
from updater.deployment.engine import Phase
from updater.deployment.journal import Journal
from updater.deployment.phases import data
from updater.deployment.phases.migrate import Migrate
from updater.deployment.phases.restore import Load, Restore
from updater.deployment.transaction import Request, Transaction
from updater.errors import HealthFailed, RollbackFailed
from updater.layout import Layout
from updater.operations import open_root

BY_THE_OLD = """
import sqlite3
connection = sqlite3.connect("data/trades.db")
connection.execute("CREATE TABLE IF NOT EXISTS trades (id INTEGER PRIMARY KEY, what TEXT)")
connection.execute("INSERT INTO trades (what) VALUES ('by the old release')")
connection.commit()
connection.close()
with open(STARTS, "a") as file:
    file.write("started\\n")
"""

IN_THE_WAY = """
import os
own = os.path.join(os.environ["UPDATER_SHARED"], "..", ".updater", "journal")
name = next(it for it in os.listdir(own) if it.endswith(".jsonl")).removesuffix(".jsonl")
open(os.path.join(os.environ["UPDATER_SHARED"], ".updater-" + name), "w").close()
"""
"""Where the data from before are unpacked, a file: that fails, once."""


def starts(site: Site) -> int:
    return len((site.place / "starts").read_text().split())


def test_the_old_release_does_not_run_before_its_data_are_back(site: Site, tmp_path: Path) -> None:
    old = BY_THE_OLD.replace("STARTS", repr(str(site.place / "starts")))
    site.publish("v1.0.0", files={"serve.py": old + SERVE})
    assert site.updater("deploy", "v1.0.0").code == 0
    site.publish("v1.1.0", files={"serve.py": ALTER + WRITES + IN_THE_WAY + SERVE})
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    site.configure(watch=0.1)
    cancelled = site.updater("cancel")
    assert cancelled.code == 130 and "v1.0.0 is in service again" in cancelled.err, cancelled.text
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, out + err
    log = site.layout.update_log.read_text()
    assert "web not started: the data are not all back" in log, "what it wrote then would be lost"
    assert log.index("web not started") < log.rindex("cancelled")
    site.runs("v1.0.0")
    assert starts(site) == 2 and whats(database(site)) == ["by the old release"] * 2
    kept = kept_in(site, site.history()[-1]["data"]["kept"], tmp_path / "look")
    assert whats(kept) == ["by the old release", "by the new release"]
    nothing_left(site)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path)


def run(place: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(place)) as connection, connection:
        for it in statements:
            connection.execute(it)


@contextlib.contextmanager
def started(layout: Layout, config: Config, phase: Phase) -> Iterator[Transaction]:
    """The deployment of v2, which has put data into their place in that phase, and has started."""
    with lock.hold(layout, "deploy") as held:
        tx = worker.begin(layout, config, held, Request("deploy", "v2"), Cancellation())
        made = create.create(layout, config, create.Making("before v2", deployment=tx.journal.id))
        found: dict[str, Any] = {
            "resolve": {"version": "v2"},
            "choose": {"backup": made.id, "parts": ["dumps"]},
            "stop": {"backup": made.id},
            phase.name: {"before": data.schemas(layout, ["data/trades.db"])},
            "start": {},
        }
        for name, it in found.items():
            tx.journal.record("intent", name)
            tx.journal.record("done", name, it)
            tx.facts[name] = it
        yield tx


def recovered(layout: Layout, config: Config) -> list[engine.Outcome]:
    with lock.hold(layout, "recover") as held:
        return recovery.recover(layout, config, held)


@pytest.mark.parametrize("fails", ["the tidying", "the record"])
def test_data_that_are_back_are_not_put_back_again_over_what_was_written_since(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    place, config = layout.shared / "data" / "trades.db", Config(layout.config)
    run(
        place,
        "CREATE TABLE trades (id INTEGER PRIMARY KEY, what TEXT)",
        "INSERT INTO trades (what) VALUES ('first')",
    )
    remove, record, error = durable.remove_tree, Journal.record, OSError(errno.EIO, "Input/output error")
    failed = []

    def removing(tree: Path) -> None:
        if fails == "the tidying" and tree.name.startswith(".updater-") and not failed:
            failed.append(tree)
            raise error
        remove(tree)

    def recording(book: Journal, kind: str, phase: str | None = None, *rest: Any, **more: Any) -> None:
        if fails == "the record" and kind == "note" and "back" in rest[0] and not failed:
            failed.append(phase)
            raise error
        record(book, kind, phase, *rest, **more)

    monkeypatch.setattr(durable, "remove_tree", removing)
    monkeypatch.setattr(Journal, "record", recording)
    with started(layout, config, Migrate()) as tx:
        run(
            place,
            "ALTER TABLE trades ADD COLUMN fee REAL",
            "INSERT INTO trades (what) VALUES ('by the new release')",
        )
        first = engine.roll_back(engine.Run(tx, done=[Migrate()]), HealthFailed("v2 is sick"))
        assert failed and data.are_not_back(tx) == (fails == "the record"), "then nothing is started"
    if fails == "the tidying":
        assert first.result == "rolled-back" and "clean-up" in first.record["warnings"][0]
        run(place, "INSERT INTO trades (what) VALUES ('by the old release')")
    outcomes = recovered(layout, config)
    assert [it.result for it in outcomes] == (["rolled-back"] if fails == "the record" else [])
    assert whats(place) == (["first"] if fails == "the record" else ["first", "by the old release"])
    assert (
        sorted(it.name for it in layout.shared.rglob("*") if "updater-" in it.name or "kept" in it.name) == []
    )
    assert not layout.swapped.exists() and journal.unfinished(layout) == []


@pytest.mark.parametrize("phase", [Load(), Migrate()], ids=["restored", "migrated"])
def test_a_dump_that_is_back_is_not_loaded_again_over_what_was_written_since(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    """On a disk that keeps the last lines from the journal the way back comes to its end, and the next command repeats it."""
    server = layout.root / "server"
    server.write_text("first")
    how = DumpConfig("server", ("cat", str(server)), ("sh", "-c", 'cat >"$0"', str(server)))
    migrate = MigrateConfig(("true",))
    config = Config(layout.config, backup=BackupConfig(dumps={"server": how}), migrate=migrate)
    record = Journal.record

    def recording(book: Journal, kind: str, *rest: Any, **more: Any) -> None:
        if kind in ("undone", "end"):
            raise OSError(errno.ENOSPC, "No space left on device")
        record(book, kind, *rest, **more)

    with started(layout, config, phase) as tx, monkeypatch.context() as patched:
        server.write_text("by the new release")
        patched.setattr(Journal, "record", recording)
        layout.history.mkdir()
        engine.roll_back(engine.Run(tx, done=[phase]), HealthFailed("v2 is sick"))
        assert server.read_text() == "first" and not data.are_not_back(tx)
    layout.history.rmdir()
    server.write_text("by the old release")
    assert [it.result for it in recovered(layout, config)] == ["rolled-back"]
    assert server.read_text() == "by the old release"


def test_nothing_is_started_while_a_dump_is_not_back(layout: Layout) -> None:
    (server := layout.root / "server").write_text("first")
    (broken := layout.root / "broken").write_text("")
    how = DumpConfig(
        "server", ("cat", str(server)), ("sh", "-c", f'test ! -e "{broken}" && cat >"$0"', str(server))
    )
    config = Config(layout.config, backup=BackupConfig(dumps={"server": how}))
    with started(layout, config, Load()) as tx:
        server.write_text("by the new release")
        assert engine.undo(tx, [Load()]) and data.are_not_back(tx)
    with pytest.raises(RollbackFailed):
        recovered(layout, config)
    broken.unlink()
    assert [it.result for it in recovered(layout, config)] == ["rolled-back"]
    assert server.read_text() == "first"


BREAKS = """
import os
data = os.path.join(os.environ["UPDATER_SHARED"], "data")
if os.path.exists(os.path.join(data, "restored")):
    os.rename(data, data + ".aside")
    open(data, "w").close()
    raise SystemExit(1)
"""
"""What the backup holds makes the application put a file in the place of its data: nothing can be moved back to there."""


def test_data_that_cannot_be_moved_back_are_named_and_nothing_runs_without_them(site: Site) -> None:
    site.publish("v1.0.0", files={"serve.py": BREAKS + SERVE})
    assert site.updater("deploy", "v1.0.0").code == 0
    run(database(site), "CREATE TABLE trades (id INTEGER PRIMARY KEY, what TEXT)")
    restored = site.layout.shared / "data" / "restored"
    restored.touch()
    assert site.updater("backup", "create").code == 0
    restored.unlink()
    run(database(site), "INSERT INTO trades (what) VALUES ('later')")
    done = site.updater("backup", "restore", "latest", "--yes")
    assert done.code == 5 and "web not started" in done.err and "tried 2 times more" in done.err, done.text
    tried = by_script(site, "cleanup_failed_update.sh", "--yes")
    assert tried.code == 5 and "nothing is started before the data are back" in tried.text, tried.text
    assert site.answer() is None and len(journal.unfinished(site.layout)) == 1
    with (
        pytest.raises(RollbackFailed, match="so did the way back") as raised,
        open_root(site.root).changing("pin"),
    ):
        pass
    assert "once more" in str(raised.value.state)
    assert raised.value.advice == "look at the reasons above; then `updater recover`"
    (identifier,) = (path.stem for path in journal.unfinished(site.layout))
    moved = site.layout.shared / f".updater-{identifier}"
    done = site.updater("start")
    assert done.code == 5 and "will not try again by itself" in done.err, done.text
    assert site.answer() is None and journal.unfinished(site.layout) == []
    told = site.history()[-1]["error"]
    assert f"data that were moved are kept in {moved}" in told["details"] and all(
        it in done.err for it in told["details"]
    )
    (place,) = (
        it.split(": it is ")[1]
        for it in told["details"]
        if it.startswith("shared/data/trades.db is not in its")
    )
    assert whats(Path(place)) == ["later"]
    assert "updater recover" not in done.err and "updater restart" not in done.err
    assert site.updater("recover").out == "nothing to recover\n"
    for words in (("start",), ("restart",), ("activate", "v1.0.0")):
        refused = site.updater(*words)
        assert refused.code == 3 and f"is not in its place: it is {place}" in refused.text, refused.text
        assert "updater backup restore" in refused.text and site.answer() is None
    (site.layout.shared / "data").unlink()
    (site.layout.shared / "data").mkdir()
    way = re.search(r"put the data back: `(updater backup restore \S+)`", done.err)
    assert way is not None, done.err
    back = site.updater(*way[1].split()[1:], "--yes")
    assert back.code == 0, back.text
    assert site.updater("activate", "v1.0.0").code == 0
    site.runs("v1.0.0")
    assert whats(database(site)) == ["later"]


def test_what_is_kept_aside_on_another_filesystem_is_named(
    tmp_path: Path, mount: Callable[[str, Path | None], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, config = make_root(tmp_path / "root"), Config(tmp_path / "root" / "updater.toml")
    big = mount("root/shared/data/big", None)
    (big / "file").write_text("before")
    with started(layout, config, Restore()) as tx:
        found = catalogue.found(layout)[-1]
        (big / "file").write_text("later")
        moving = staging.Staging(layout, config.backup, found.directory, ("data",), tx.journal.id, "restore")
        moving.stage()
        moving.put()
        (big / "file").write_text("by the new release")
        layout.backups.rename(tmp_path / "backups")
        layout.backups.touch()  # nothing can be kept as a backup
        outcome = engine.roll_back(engine.Run(tx, done=[Restore()]), HealthFailed("it is sick"))
    assert (big / "file").read_text() == "later"
    (aside,) = outcome.record["data"]["aside"]
    assert Path(aside).parent == big and aside in str(outcome.error and outcome.error.state)
    assert "by the new release" in [it.read_text() for it in Path(aside).glob("new/*")]


def test_data_of_a_way_back_that_was_given_up_bar_no_later_move(layout: Layout) -> None:
    """Its end is on record, but not in the history: the journal waits for that."""
    config, history, descriptors = Config(layout.config), layout.history, len(os.listdir("/dev/fd"))
    (layout.shared / "data" / "file").write_text("before")
    history.mkdir()
    with started(layout, config, Restore()) as tx:
        found = catalogue.found(layout)[-1]
        (layout.shared / "data" / "file").write_text("later")
        moving = staging.Staging(layout, config.backup, found.directory, ("data",), tx.journal.id, "restore")
        moving.stage()
        moving.put()
        engine.finish(engine.Run(tx), "rollback-failed", error=RollbackFailed("it is stuck"))
    assert layout.swap.exists() and len(journal.unfinished(layout)) == 1
    assert [it.result for it in recovered(layout, config)] == ["rollback-failed"]
    assert not layout.swap.exists() and len(journal.unfinished(layout)) == 1
    swap.begin(layout, "20261128T153000-ab12cd", "restore", [""])
    assert len(os.listdir("/dev/fd")) == descriptors, "the journal that stays is not held open"
