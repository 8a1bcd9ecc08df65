"""Restore in place: afterwards everything is as the backup has it, or as it was before; nothing in between, and nothing lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.test_backups import backup, make_root, snapshot
from tests.integration.test_cancel import in_phase
from tests.site import SERVE, Site, eventually
from updater import durable
from updater.backups import copying, create, index, parts, reading, sqlite, staging, swap
from updater.backups.catalogue import Backup
from updater.config import BackupConfig, Config
from updater.deployment.cancel import Cancellation
from updater.deployment.phases import data as data_phases
from updater.deployment.phases import migrate
from updater.deployment.transaction import Request
from updater.errors import BackupDamaged, Busy
from updater.layout import Layout

NAMES = st.sampled_from(["a", "b", "c", "é", "\udcff", "new\nline"])
CONTENT = st.one_of(
    st.binary(max_size=40).filter(lambda it: not it.startswith(sqlite.MAGIC)).map(lambda it: ("file", it)),
    NAMES.map(lambda it: ("link", it)),
    st.sampled_from([("directory", b""), ("closed", b"")]),
)
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), CONTENT, max_size=8)


def plant(top: Path, tree: dict[str, Any]) -> None:
    """Make a tree; what is in the way of an earlier name is left out."""
    for path, (kind, content) in tree.items():
        place = top / path
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                continue
            if kind == "file":
                place.write_bytes(content)
            elif kind == "link":
                place.symlink_to(content)
            else:
                place.mkdir(mode=0o555 if kind == "closed" else 0o755)


def replant(top: Path, tree: dict[str, Any]) -> None:
    for entry in os.scandir(top):
        if entry.is_dir(follow_symlinks=False):
            durable.remove_tree(Path(entry.path))
        else:
            os.unlink(entry.path)
    plant(top, tree)


def staged(
    layout: Layout, made: Backup, config: BackupConfig, parts: tuple[str, ...] = ("config", "data")
) -> staging.Staging:
    moving = staging.Staging(layout, config, made.directory, parts, "test", "restore")
    moving.stage()
    return moving


class Killed(Exception):
    pass


def state(layout: Layout) -> dict[str, Any]:
    return {
        path: it for path, it in snapshot(layout.shared, dates=False).items() if path.split("/")[0] != "logs"
    }


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=TREES, second=TREES, data=st.data())
def test_any_state_takes_the_place_of_any_other_and_can_be_taken_back_from_every_rename(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, Any],
    second: dict[str, Any],
    data: st.DataObject,
) -> None:
    layout = make_root(tmp_path_factory.mktemp("root"))
    place = layout.shared / "data"
    plant(place, first)
    made = backup(layout)
    wanted = state(layout)
    replant(place, second)
    before = state(layout)
    moving = staged(layout, made, BackupConfig())
    dies_at = data.draw(st.integers(0, 12))
    done = [0]
    real = os.rename

    def rename(source: Any, target: Any, **more: Any) -> None:
        done[0] += 1
        if done[0] == dies_at:
            raise Killed
        real(source, target, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rename", rename)
        with contextlib.suppress(Killed):
            moving.put()
    if data.draw(st.booleans()) or 0 < dies_at <= done[0]:
        swap.undo(layout)
        assert state(layout) == before
        swap.undo(layout)
    else:
        swap.accept(layout)
        assert state(layout) == wanted
        swap.accept(layout)
    assert not list(layout.shared.rglob(".updater-*")) and not layout.swap.exists()


def test_what_is_left_out_of_backups_stays_where_it_is(layout: Layout) -> None:
    config = BackupConfig(exclude=("data/cache", "data/deep/*.tmp"))
    place = layout.shared / "data"
    plant(place, {"state.json": ("file", b"1"), "deep/kept": ("file", b"k")})
    made = backup(layout, exclude=config.exclude)
    plant(place, {"cache/big": ("file", b"cached"), "deep/x.tmp": ("file", b"t"), "later": ("file", b"l")})
    (place / "state.json").write_bytes(b"2")
    shutil.rmtree(place / "deep" / "kept", ignore_errors=True)
    staged(layout, made, config).put()
    swap.accept(layout)
    assert (place / "state.json").read_bytes() == b"1"
    assert (place / "cache/big").read_bytes() == b"cached" and (place / "deep/x.tmp").read_bytes() == b"t"
    assert not (place / "later").exists()


def test_a_directory_with_what_no_backup_holds_is_not_swept_away_for_a_file(layout: Layout) -> None:
    place = layout.shared / "data"
    (place / "x").write_bytes(b"once a file")
    made = backup(layout)
    (place / "x").unlink()
    plant(place, {"x/cache/big": ("file", b"cached")})
    moving = staged(layout, made, BackupConfig(exclude=("data/x/cache",)))
    with pytest.raises(Exception, match="something is left that no backup holds"):
        moving.put()
    swap.undo(layout)
    assert (place / "x/cache/big").read_bytes() == b"cached"


def test_a_directory_that_is_a_link_to_another_disk_stays_one(layout: Layout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another disk"
    (layout.shared / "data").rename(elsewhere)
    (layout.shared / "data").symlink_to(elsewhere)
    (elsewhere / "a").write_bytes(b"1")
    made = backup(layout)
    (elsewhere / "a").write_bytes(b"22")
    staged(layout, made, BackupConfig()).put()
    swap.accept(layout)
    assert (layout.shared / "data").is_symlink() and (elsewhere / "a").read_bytes() == b"1"


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_somebody_writes_between_the_copy_and_the_move_is_missed_and_comes_back(
    layout: Layout, mode: str
) -> None:
    """A cron job, say, that came and went while the application was stopped: its row is in no backup."""
    place, config = layout.shared / "data" / "trades.db", Config(layout.config)
    with contextlib.closing(sqlite3.connect(place)) as cron:
        cron.execute(f"PRAGMA journal_mode={mode}")
        cron.execute("CREATE TABLE trades (what)")
        cron.commit()
        first = create.remembered(layout, config, create.Making("by hand"))
        moving = staged(layout, first.backup, config.backup)
        moved = moving.put()
        assert swap.written_to(layout, moved, first.states) == []
        swap.undo(layout)

        second = create.remembered(layout, config, create.Making("top-up", since=first.recent()))
        moving = staged(layout, first.backup, config.backup)
        cron.execute("INSERT INTO trades VALUES ('of the cron job')")
        cron.commit()
        moved = moving.put()
        assert swap.written_to(layout, moved, second.states) == ["data/trades.db"]
    swap.undo(layout)
    with contextlib.closing(sqlite3.connect(place)) as connection:
        assert connection.execute("SELECT * FROM trades").fetchall() == [("of the cron job",)]


def test_a_migration_is_not_run_on_a_copy_that_lacks_a_row(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, real = layout.shared / "data" / "trades.db", copying.copy
    with contextlib.closing(sqlite3.connect(place)) as cron, cron:
        cron.execute("CREATE TABLE trades (what)")

    def copy(*words: Any, **more: Any) -> Any:
        facts = real(*words, **more)
        with contextlib.closing(sqlite3.connect(place)) as cron, cron:
            cron.execute("INSERT INTO trades VALUES ('of the cron job')")
        return facts

    monkeypatch.setattr(copying, "copy", copy)
    tx: Any = SimpleNamespace(
        layout=layout, journal=SimpleNamespace(id="test"), cancel=Cancellation(),
        request=Request("deploy", "v2"),
    )  # fmt: skip
    with pytest.raises(Busy, match=r"data/trades\.db: changed while the application was stopped"):
        migrate._put_copies(tx, data_phases.databases(layout, BackupConfig()))
    swap.undo(layout)
    with contextlib.closing(sqlite3.connect(place)) as connection:
        assert connection.execute("SELECT * FROM trades").fetchall() == [("of the cron job",)]


def test_a_log_that_has_grown_is_not_cut_back_and_the_history_stays(layout: Layout) -> None:
    (layout.logs / "web.log").write_text("one\n")
    layout.history.write_text("[]")
    made = backup(layout)
    (layout.logs / "web.log").write_text("one\ntwo\n")
    layout.history.write_text('[{"id": "later"}]')
    (layout.logs / "bot.log").write_text("younger\n")
    staged(layout, made, BackupConfig(), ("logs",)).put()
    swap.accept(layout)
    assert (layout.logs / "web.log").read_text() == "one\ntwo\n"
    assert "later" in layout.history.read_text() and (layout.logs / "bot.log").exists()


def test_what_a_backup_has_below_a_link_of_its_own_is_put_nowhere(layout: Layout, tmp_path: Path) -> None:
    """A backup is input: ``x -> /elsewhere`` and ``x/file`` would write out of the root."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    plant(layout.shared / "x", {"file": ("file", b"theirs")})
    made = backup(layout)
    name, part = "data", made.manifest.parts["data"]
    begun, found = reading.entries(made.directory, name, part)
    found["x"] = replace(found["x"], kind="symlink", link=str(elsewhere))
    place = made.directory / parts.names(name)[1]
    place.unlink()
    place.write_bytes(index.encode(begun, found.values()))
    with pytest.raises(BackupDamaged, match="lies below what is no directory"):
        staged(layout, made, BackupConfig())
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("record", ["rubbish", '{"id": "x"}', '{"id":"x","purpose":"restore","holders":["../.."],"steps":[],"folders":[],"emptied":[],"ready":true}'])  # fmt: skip
def test_a_record_that_is_rubbish_moves_nothing_and_is_told(layout: Layout, record: str) -> None:
    layout.swap.write_text(record)
    with pytest.raises(Exception, match="cannot be read: it is damaged"):
        swap.undo(layout)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "a root")


def rows(site: Site) -> list[Any]:
    with contextlib.closing(sqlite3.connect(site.layout.shared / "data" / "trades.db")) as connection:
        return connection.execute("SELECT * FROM trades ORDER BY 1").fetchall()


def write(site: Site, *statements: str) -> None:
    with (
        contextlib.closing(sqlite3.connect(site.layout.shared / "data" / "trades.db")) as connection,
        connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in statements:
            connection.execute(statement)


def with_trades(site: Site) -> None:
    site.deployed("v1.0.0")
    write(
        site,
        "CREATE TABLE trades (id INTEGER PRIMARY KEY, what TEXT)",
        "INSERT INTO trades (what) VALUES ('first')",
    )
    (site.layout.shared / "config").mkdir(exist_ok=True)
    (site.layout.shared / "config" / "settings.toml").write_text("mode = 'paper'\n")


def test_restore_puts_the_data_back_keeps_the_present_ones_and_restarts_the_application(site: Site) -> None:
    with_trades(site)
    made = site.updater("--json", "backup", "create").json["id"]
    write(site, "INSERT INTO trades (what) VALUES ('second')")
    (site.layout.shared / "config" / "settings.toml").write_text("mode = 'live'\n")
    pid = site.status()["processes"][0]["pid"]
    assert site.updater("backup", "restore", made).code == 2, "it asks, and nobody is there to answer"
    done = site.updater("backup", "restore", made, "--yes")
    assert done.code == 0, done.text
    assert rows(site) == [(1, "first")]
    assert (site.layout.shared / "config" / "settings.toml").read_text() == "mode = 'paper'\n"
    site.runs("v1.0.0")
    assert site.status()["processes"][0]["pid"] != pid
    record = site.history()[-1]
    assert record["kind"] == "restore" and record["restored"] == made and record["outcome"] == "succeeded"
    kept = record["backup"]
    assert kept in done.out
    assert made in site.updater("history").out and f"restore {made}: succeeded" in site.updater("status").out
    back = site.updater("backup", "restore", kept, "--only", "data", "--yes")
    assert back.code == 0, back.text
    assert rows(site) == [(1, "first"), (2, "second")], "the way back from a restore is a restore"
    assert (site.layout.shared / "config" / "settings.toml").read_text() == "mode = 'paper'\n"
    site.is_clean()
    assert not list(site.layout.shared.rglob(".updater-*"))


def test_a_restore_after_which_the_application_does_not_answer_ends_where_it_began(site: Site) -> None:
    needs = "import sqlite3\nsqlite3.connect('data/trades.db').execute('SELECT what FROM trades')\n"
    site.publish("v1.0.0", files={"serve.py": needs + SERVE})
    write_empty = site.layout.shared / "data"
    write_empty.mkdir(parents=True, exist_ok=True)
    write(site, "CREATE TABLE other (id INTEGER)")
    made = site.updater("--json", "backup", "create").json["id"]
    write(
        site,
        "CREATE TABLE trades (id INTEGER PRIMARY KEY, what TEXT)",
        "INSERT INTO trades (what) VALUES ('mine')",
    )
    done = site.updater("deploy", "v1.0.0")
    assert done.code == 0, done.text
    failed = site.updater("backup", "restore", made, "--yes")
    assert failed.code == 4, failed.text
    assert (
        "the restore of" in failed.err
        and "was undone" in failed.err
        and "The data are as they were before" in failed.err
    )
    assert rows(site) == [(1, "mine")]
    site.runs("v1.0.0")
    assert "bad" not in str(site.updater("--json", "releases").json[0].get("state")), (
        "the release is not at fault"
    )
    assert not list(site.layout.shared.rglob(".updater-*")) and not site.layout.swap.exists()


def test_a_backup_of_another_root_is_refused_and_comes_by_force(site: Site, tmp_path: Path) -> None:
    with_trades(site)
    other = make_root(tmp_path / "other")
    (other.shared / "data" / "theirs").write_text("theirs")
    made = backup(other)
    while (site.layout.backups / made.id).exists():  # a name tells the second only
        made = backup(other)
    shutil.copytree(made.directory, site.layout.backups / made.id)
    done = site.updater("backup", "restore", made.id, "--yes")
    assert done.code == 2 and "is of another root" in done.err, done.text
    assert rows(site) == [(1, "first")]
    forced = site.updater("backup", "restore", made.id, "--yes", "--force")
    assert forced.code == 0, forced.text
    assert (site.layout.shared / "data" / "theirs").exists() and not (
        site.layout.shared / "data" / "trades.db"
    ).exists()


def test_data_come_back_where_no_release_is_in_service_even_if_it_is_killed(site: Site) -> None:
    """A move to a new machine: first the data, then the application."""
    site.layout.config.write_text('[app]\nname = "app"\n[source]\nrepository = "owner/app"\n')
    place = site.layout.shared / "data" / "state.json"
    place.write_text("old")
    made = site.updater("--json", "backup", "create").json["id"]
    place.write_text("new")
    done = site.updater("backup", "restore", made, "--yes")
    assert done.code == 0 and "warning" not in done.text and place.read_text() == "old", done.text
    assert site.layout.ballast.exists(), "what follows the commit was done"
    (closed,) = (site.layout.journal / "closed").glob("*.jsonl")
    lines = closed.read_bytes().splitlines(keepends=True)
    before = [it for it in lines if b'"kind":"end"' not in it and not (b'"done"' in it and b'"commit"' in it)]
    (site.layout.journal / closed.name).write_bytes(b"".join(before))
    closed.unlink()
    recovered = site.updater("recover")
    assert recovered.code == 0 and site.history()[-1]["outcome"] == "succeeded", recovered.text


def test_a_damaged_backup_is_refused_before_anything_stops(site: Site) -> None:
    with_trades(site)
    made = site.updater("--json", "backup", "create").json["id"]
    write(site, "INSERT INTO trades (what) VALUES ('second')")
    archive = site.layout.backups / made / "data.tar.zst"
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 1
    archive.chmod(0o600)
    archive.write_bytes(raw)
    pid = site.status()["processes"][0]["pid"]
    done = site.updater("backup", "restore", made, "--to", str(site.place / "out"))
    assert done.code == 7 and "it is not whole" in done.err, done.text
    assert sorted(it.name for it in site.place.glob("*out*")) == ["out"], "for who has nothing better"
    done = site.updater("backup", "restore", made, "--yes")
    assert done.code == 7 and made in done.err, done.text
    assert site.status()["processes"][0]["pid"] == pid and len(rows(site)) == 2
    assert not list(site.layout.shared.rglob(".updater-*")) and not site.layout.swap.exists()


def test_a_database_that_a_strange_process_uses_is_not_pulled_away_from_it(site: Site) -> None:
    with_trades(site)
    made = site.updater("--json", "backup", "create").json["id"]
    place = site.layout.shared / "data" / "trades.db"
    script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM trades'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stranger:
        try:
            assert stranger.stdout is not None and stranger.stdout.readline()
            done = site.updater("backup", "restore", made, "--yes")
            assert done.code == 9 and f"pid {stranger.pid}" in done.err, done.text
            site.runs("v1.0.0")
        finally:
            stranger.kill()


def test_rollback_with_its_data_brings_back_what_the_older_release_had(site: Site) -> None:
    with_trades(site)
    site.publish("v1.1.0")
    assert site.updater("deploy", "v1.1.0").code == 0
    write(site, "INSERT INTO trades (what) VALUES ('by v1.1.0')")
    done = site.updater("rollback", "--restore-data")
    assert done.code == 0, done.text
    assert rows(site) == [(1, "first")]
    site.runs("v1.0.0")
    record = site.history()[-1]
    again = site.updater("backup", "restore", record["backup"], "--yes")
    assert again.code == 0, again.text
    assert len(rows(site)) == 2, "what was written meanwhile is in the backup that the rollback made"


def test_a_restore_while_a_deployment_runs_is_refused_and_says_who_is_at_work(site: Site) -> None:
    with_trades(site)
    made = site.updater("--json", "backup", "create").json["id"]
    site.publish("v1.1.0", "mute")
    site.configure(timeout=60)
    with site.start("deploy", "v1.1.0") as deploying:
        eventually(lambda: in_phase(site, "probe"), "the deployment probes")
        done = site.updater("backup", "restore", made, "--yes")
        assert done.code == 6 and "deploy" in done.err, done.text
        deploying.send_signal(signal.SIGINT)
        deploying.communicate(timeout=60)
    site.runs("v1.0.0")
    assert rows(site) == [(1, "first")]


def test_a_dump_that_cannot_be_put_back_is_told_before_anything_stops(site: Site) -> None:
    with_trades(site)
    site.configure(extra='[backup.dumps.other]\ndump = ["echo", "rows"]\nrestore = ["cat"]\n')
    made = site.updater("--json", "backup", "create").json["id"]
    site.configure(extra="")
    pid = site.status()["processes"][0]["pid"]
    done = site.updater("backup", "restore", made, "--yes")
    assert done.code == 2 and "[backup.dumps.other]" in done.err, done.text
    assert site.status()["processes"][0]["pid"] == pid
    assert site.updater("backup", "restore", made, "--only", "data", "--yes").code == 0

    gone = '[backup.dumps.other]\ndump = ["sh", "-c", "echo gone >&2; exit 1"]\nrestore = ["cat"]\n'
    site.configure(extra=gone)
    done = site.updater("backup", "restore", made, "--yes")
    assert done.code == 4 and f"{made} --to DIR --only dumps" in done.err, done.text
    done = site.updater("backup", "restore", made, "--only", "data", "--yes")
    assert done.code == 0, f"a server that is down bars nothing that it has no part in: {done.text}"
    assert "it is not in the backup: the dump other could not be made: it exited with 1" in done.text


def test_a_dump_comes_back_and_a_restore_that_fails_afterwards_brings_back_the_one_from_before(
    site: Site,
) -> None:
    with_trades(site)
    other = site.place / "another database"
    other.write_text("old rows")
    fails = site.place / "fails"
    commands = f"""[backup.dumps.other]
dump = ["cat", "{other}"]
restore = ["sh", "-c", "cat >'{other}'; if test -e '{fails}'; then rm '{fails}'; exit 3; fi"]
"""
    site.configure(extra=commands)
    made = site.updater("--json", "backup", "create").json["id"]
    other.write_text("new rows")
    done = site.updater("backup", "restore", made, "--yes")
    assert done.code == 0 and other.read_text() == "old rows", done.text
    other.write_text("newest rows")
    fails.touch()
    failed = site.updater("backup", "restore", made, "--yes")
    assert failed.code == 4 and "was undone" in failed.err, failed.text
    assert other.read_text() == "newest rows"
    site.runs("v1.0.0")


def test_a_backup_of_a_newer_updater_is_told_as_such_and_stays(site: Site) -> None:
    site.deployed("v1.0.0")
    made = site.updater("--json", "backup", "create").json["id"]
    place = site.layout.backups / made / "manifest.json"
    told = json.loads(place.read_text()) | {"format": 2, "updater": "9.0.0"}
    place.write_text(json.dumps(told))
    for words in (
        ["restore", made, "--yes"],
        ["restore", made, "--to", str(site.place / "out")],
        ["verify", made],
        ["restore", "latest", "--yes"],
        ["verify"],
    ):
        done = site.updater("backup", *words)
        assert done.code == 7, done.text
        assert "made by a newer updater 9.0.0 in format 2; this one reads format 1" in done.err
        assert "update updater" in done.err and "the newest that can be read is backup_" in done.err
    assert "made by a newer updater 9.0.0" in site.updater("backup", "list").out
    every = site.updater("backup", "verify", "--all")
    assert every.code == 7 and "newer updater" in every.text
    assert site.updater("backup", "prune", "--keep", "1", "--yes").code == 0 and place.exists(), (
        "it is not ours to remove"
    )
