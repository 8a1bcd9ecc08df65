"""The top-up after the stop: the outage lasts as long as reading what has changed, and nothing that has changed is missed."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_backups import MEGABYTE, by_shell, make_database, make_root, restored, snapshot
from tests.site import Site
from updater import durable
from updater.backups import catalogue, create, reading
from updater.backups import sqlite as databases
from updater.backups.catalogue import Backup
from updater.backups.recent import Recent
from updater.config import Config
from updater.layout import Layout

TICK = 100 * 10**6
"""Nanoseconds; the clock of the filesystem under the tests is finer than the two seconds that are allowed for."""


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(databases, "RACY", TICK)
    return make_root(tmp_path / "a root")


def age(layout: Layout) -> None:
    """Wait until everything in ``shared/`` was left alone for a while."""
    newest = max(it.lstat().st_ctime_ns for it in layout.shared.rglob("*"))
    while time.time_ns() < newest + 2 * TICK:
        os.sched_yield()


def first(layout: Layout) -> Recent:
    age(layout)
    return create.remembered(layout, Config(layout.config), create.Making("before")).recent()


def top_up(layout: Layout, recent: Recent) -> Backup:
    """As a deployment does it: the new one takes the place of the first."""
    made = create.create(layout, Config(layout.config), create.Making("after", since=recent))
    catalogue.remove(layout, recent.manifest.id)
    reading.prove(made.directory)
    return made


def assert_whole(layout: Layout, made: Backup) -> None:
    """What comes out, by Python and by shell, is what is there."""
    before = snapshot(layout.shared, dates=False)
    for out in (restored(made, layout.root / "python"), by_shell(made, layout.root / "shell")):
        assert snapshot(out, dates=False) == before
        shutil.rmtree(out)


@contextlib.contextmanager
def reading_less_than(count: int) -> Iterator[None]:
    """Bytes that this process reads meanwhile; only Linux counts them."""

    def so_far() -> int:
        place = Path("/proc/self/io")
        return int(place.read_text().split()[1]) if place.exists() else 0

    before = so_far()
    yield
    assert so_far() - before < count


def test_what_is_still_as_it_was_is_not_read_again(layout: Layout) -> None:
    data = layout.shared / "data"
    for number in range(20):
        (data / f"{number}").write_bytes(os.urandom(MEGABYTE))
    make_database(data / "trades.db", 50_000)
    recent = first(layout)
    (data / "state.json").write_text("written before the stop")
    with reading_less_than(2 * MEGABYTE):
        made = create.create(layout, Config(layout.config), create.Making("after", since=recent))
    catalogue.remove(layout, recent.manifest.id)
    assert [(it.path, it.integrity) for it in made.manifest.databases] == [("data/trades.db", "ok")]
    out = restored(made, layout.root / "out")
    assert snapshot(out)["data/7"] == snapshot(layout.shared)["data/7"]
    assert (out / "data" / "state.json").read_text() == "written before the stop"


@pytest.mark.parametrize("seed", range(8))
def test_whatever_changes_in_between_is_in_the_top_up(layout: Layout, seed: int) -> None:
    """Upon a first backup that is whole, and upon one that is itself a delta."""
    chance = random.Random(seed)
    data = layout.shared / "data"
    for number in range(30):
        place = data / f"d{number % 4}" / f"{number}"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(chance.randbytes(chance.choice([0, 10, 5000, 200_000])))
    (data / "big").write_bytes(chance.randbytes(4 * MEGABYTE))
    if seed % 2:
        first(layout)
        change(data, chance)
    recent = first(layout)
    assert bool(recent.manifest.parts["data"].delta) == bool(seed % 2)
    change(data, chance)
    assert_whole(layout, top_up(layout, recent))


def change(data: Path, chance: random.Random) -> None:
    """What an application may do to its files."""
    files = sorted(it for it in data.rglob("*") if it.is_file() and it.name != "big")
    for place in chance.sample(files, 6):
        kept = place.stat()
        match chance.randrange(6):
            case 0:
                place.unlink()
            case 1:
                place.write_bytes(chance.randbytes(kept.st_size))
                os.utime(place, ns=(kept.st_atime_ns, kept.st_mtime_ns))
            case 2:
                with place.open("ab") as file:
                    file.write(b"more")
            case 3:
                place.rename(place.with_name(f"renamed {place.name}"))
            case 4:
                place.chmod(0o600)
            case 5:
                place.unlink()
                place.mkdir()
                (place / "inside").write_text("inside")
    with (data / "big").open("r+b") as file:
        for _ in range(chance.randrange(4)):
            file.seek(chance.randrange(4 * MEGABYTE))
            file.write(b"changed")
    if chance.randrange(2):
        shutil.rmtree(data / "d3", ignore_errors=True)


def test_what_was_written_shortly_before_it_was_read_is_read_again(layout: Layout) -> None:
    """Within a tick of the clock it may have been written to once more without a new date."""
    (layout.shared / "data" / "old").write_text("old")
    age(layout)
    (layout.shared / "data" / "young").write_text("young")
    recent = create.remembered(layout, Config(layout.config), create.Making("before")).recent()
    assert set(recent.files) == {"data/old"}


def test_what_is_written_through_a_map_is_seen(layout: Layout) -> None:
    """A page of a mapped file that is dirty already takes further writes without a new date, until it is on the disk."""
    place = layout.shared / "data" / "series.mmap"
    place.write_bytes(bytes(8192))
    with place.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:5] = b"first"
        recent = first(layout)
        mapped[:5] = b"last!"
    assert (
        restored(top_up(layout, recent), layout.root / "out")
        .joinpath("data", "series.mmap")
        .read_bytes()
        .startswith(b"last!")
    )


def test_files_are_looked_at_from_before_the_flush(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take seconds; what is written through a map meanwhile must not pass for left alone since."""
    flushed, real = [], durable.settle

    def settle(place: Path) -> None:
        flushed.append(time.time_ns())
        real(place)

    monkeypatch.setattr(durable, "settle", settle)
    (layout.shared / "data" / "series.mmap").write_bytes(bytes(8192))
    made = create.create(layout, Config(layout.config), create.Making("before"))
    begun, _ = reading.entries(made.directory, "data", made.manifest.parts["data"])
    assert begun <= flushed[0]


APPLICATION = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute(f'PRAGMA journal_mode={sys.argv[2]}')
c.execute('PRAGMA wal_autocheckpoint=0')
print('ready', flush=True)
for line in sys.stdin:
    c.execute('UPDATE trades SET note = ? WHERE id = 7', (line.strip(),))
    print('written', flush=True)
"""


@pytest.mark.parametrize("end", ["stopped", "killed"])
@pytest.mark.parametrize("journal_mode", ["WAL", "DELETE"])
def test_the_last_words_of_an_application_in_its_database(
    layout: Layout, journal_mode: str, end: str
) -> None:
    """Also when they leave the size as it was, and lie in the log only."""
    database = layout.shared / "data" / "trades.db"
    make_database(database, 100)
    application = subprocess.Popen(
        [sys.executable, "-c", APPLICATION, str(database), journal_mode],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert application.stdin is not None and application.stdout is not None
    assert application.stdout.readline() == "ready\n"

    def say(words: str) -> None:
        assert application.stdin is not None and application.stdout is not None
        application.stdin.write(f"{words}\n")
        assert application.stdout.readline() == "written\n"

    say("first")
    recent = first(layout)
    say("last!")
    if end == "killed":
        application.send_signal(signal.SIGKILL)
    application.stdin.close()
    application.wait(30)
    application.stdout.close()
    made = top_up(layout, recent)
    with contextlib.closing(
        sqlite3.connect(restored(made, layout.root / "out") / "data" / "trades.db")
    ) as it:
        assert it.execute("SELECT note FROM trades WHERE id = 7").fetchone() == ("last!",)


def test_a_database_in_a_delta_is_taken_over_from_there(layout: Layout) -> None:
    database = layout.shared / "data" / "trades.db"
    make_database(database, 50_000)
    first(layout)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE trades SET note = 'changed' WHERE id % 1000 = 7")
    recent = first(layout)
    assert recent.manifest.parts["data"].delta
    (layout.shared / "data" / "state.json").write_text("written before the stop")
    with reading_less_than(2 * MEGABYTE):
        made = create.create(layout, Config(layout.config), create.Making("after", since=recent))
    catalogue.remove(layout, recent.manifest.id)
    for out in (restored(made, layout.root / "python"), by_shell(made, layout.root / "shell")):
        with contextlib.closing(sqlite3.connect(out / "data" / "trades.db")) as copied:
            assert copied.execute("SELECT count(*) FROM trades WHERE note = 'changed'").fetchone() == (50,)
            assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert (out / "data" / "state.json").read_text() == "written before the stop"


def test_a_first_backup_that_is_not_any_more_as_it_was_read_back_is_not_built_upon(layout: Layout) -> None:
    (layout.shared / "data" / "big").write_bytes(os.urandom(3 * MEGABYTE))
    recent = first(layout)
    archive = recent.directory / "data.tar.zst"
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 1
    archive.write_bytes(bytes(raw))
    made = top_up(layout, recent)
    assert any("stored whole again" in it for it in made.manifest.warnings)
    assert_whole(layout, made)


def test_a_deployment_tells_once_what_is_in_no_backup(site: Site) -> None:
    site.deployed("v1.0.0")
    (site.layout.shared / "data" / "history").symlink_to("/etc")
    assert "shared/data/history is a link to /etc" in site.updater("backup", "create").text
    site.publish("v1.1.0")
    done = site.updater("deploy")
    assert done.code == 0, done.text
    told = [it for it in site.history()[-1]["warnings"] if "leads out of shared/" in it]
    assert len(told) == 1 and "shared/data/history is a link to /etc" in told[0]
    assert "shared/data/history is a link to /etc" in done.text
    site.runs("v1.1.0")
