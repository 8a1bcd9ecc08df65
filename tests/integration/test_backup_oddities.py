"""Backups of odd things: holes larger than the disk, databases among the logs or locked, links that lead elsewhere, and what
changes under the reader's eyes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_backups import MEGABYTE, by_shell, make_database, make_root, restored
from updater.backups import catalogue, copying, create, gather, reading, sqlite
from updater.backups.catalogue import Backup
from updater.config import BackupConfig, Config
from updater.errors import BackupFailed, Cancelled
from updater.layout import Layout

GIGABYTE = 1024 * MEGABYTE


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "a root")


def backup(layout: Layout, making: create.Making | None = None, **config: Any) -> Backup:
    return create.create(
        layout, Config(layout.config, backup=BackupConfig(**config)), making or create.Making("by hand")
    )


def sparse(path: Path, size: int) -> None:
    """A file of nothing but a hole, with a few words in its middle."""
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"here")


def test_a_giant_of_holes_can_be_cancelled_at_any_time(layout: Layout) -> None:
    sparse(layout.shared / "data" / "giant", 1024 * GIGABYTE)
    begun = time.monotonic()
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > 50:
            raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        backup(layout, create.Making("by hand", check=check))
    assert time.monotonic() - begun < 30, "a terabyte takes far longer"
    assert list(layout.backups.iterdir()) == []


def test_holes_cost_neither_memory_nor_room(layout: Layout) -> None:
    sparse(layout.shared / "data" / "giant", 8 * GIGABYTE)
    code = (
        "import resource, sys; from pathlib import Path; from updater.layout import Layout; from updater.config import Config\n"
        "from updater.backups import create\n"
        "layout = Layout(Path(sys.argv[1])); create.create(layout, Config(layout.config), create.Making('by hand'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024))\n"
    )
    command = ["sh", "-c", '"$@"; :', "sh", sys.executable, "-c", code, str(layout.root)]
    # the shell between: a child's peak begins with the memory of the one that it was forked from
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 80 * MEGABYTE
    (made,) = catalogue.found(layout)
    assert made.stored < 4 * MEGABYTE


def test_a_file_of_holes_comes_out_again_by_python_and_by_shell_also_changed(layout: Layout) -> None:
    giant = layout.shared / "data" / "giant"
    (layout.shared / "data" / "more").write_bytes(os.urandom(4 * MEGABYTE))
    sparse(giant, 200 * MEGABYTE)
    for at in (None, 150 * MEGABYTE):
        if at is not None:
            with giant.open("r+b") as file:
                file.seek(at)
                file.write(b"there")
        made = backup(layout)
        for out in (restored(made, layout.root / "python"), by_shell(made, layout.root / "shell")):
            assert (out / "data" / "giant").read_bytes() == giant.read_bytes()
            shutil.rmtree(out)


def test_a_database_among_the_logs_is_never_cut(layout: Layout) -> None:
    database = layout.logs / "events.db"
    make_database(database)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("INSERT INTO trades (note) VALUES ('in the log file beside it')")
        made = backup(layout, max_log_size=100_000, databases=("logs/events.db",))
    assert [it.path for it in made.manifest.databases] == ["logs/events.db"]
    out = restored(made, layout.root / "out") / "logs"
    assert [it.name for it in out.iterdir()] == ["events.db"], "nothing beside it is needed"
    with contextlib.closing(sqlite3.connect(out / "events.db")) as copied:
        assert copied.execute("SELECT count(*) FROM trades").fetchone() == (20_001,)


@pytest.mark.parametrize("out_by", [{"logs": False}, {"exclude": ("logs/*.db",)}])
def test_a_named_database_that_is_left_out_all_the_same_is_a_contradiction(
    layout: Layout, out_by: dict[str, Any]
) -> None:
    make_database(layout.logs / "events.db", 10)
    with pytest.raises(BackupFailed, match=r"logs/events\.db is named .* but left out"):
        backup(layout, databases=("logs/events.db",), **out_by)


@contextlib.contextmanager
def locked(database: Path) -> Iterator[int]:
    """Another process holds the database exclusively; its pid."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode=DELETE'); c.execute('BEGIN EXCLUSIVE')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        yield holder.pid
    finally:
        holder.stdin.close()
        holder.wait(30)
        holder.stdout.close()


def test_waiting_for_a_locked_database_can_be_cancelled(layout: Layout) -> None:
    make_database(layout.shared / "data" / "trades.db", 10)
    begun = time.monotonic()

    def check() -> None:
        if time.monotonic() > begun + 0.5:
            raise Cancelled("cancelled")

    with locked(layout.shared / "data" / "trades.db"), pytest.raises(Cancelled):
        backup(layout, create.Making("by hand", check=check))
    assert time.monotonic() - begun < 10, "it does not wait for the lock's end"


def test_a_database_that_stays_locked_is_named_and_so_is_who_holds_it(layout: Layout) -> None:
    """All locked databases together take the time that one may."""
    for name in ("one.db", "two.db", "three.db"):
        make_database(layout.shared / "data" / name, 10)
    with contextlib.ExitStack() as stack:
        holders = {
            name: stack.enter_context(locked(layout.shared / "data" / name)) for name in ("one.db", "two.db")
        }
        begun = time.monotonic()
        with pytest.raises(BackupFailed, match="locked") as failure:
            backup(layout, create.Making("by hand", patience=1.0))
        assert time.monotonic() - begun < 10
    text = failure.value.as_text()
    assert "one.db" in text
    if sys.platform == "linux":
        assert f"pid {holders['one.db']}" in text
    assert list(layout.backups.iterdir()) == []


def test_a_lock_that_goes_away_in_time_is_waited_for(layout: Layout) -> None:
    database = layout.shared / "data" / "trades.db"
    make_database(database, 10)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(database))
        asked = iter(range(1000))
        made = backup(
            layout, create.Making("by hand", check=lambda: stack.close() if next(asked) == 3 else None)
        )
    assert [it.path for it in made.manifest.databases] == ["data/trades.db"]


def test_looking_at_a_database_ends_no_lock_of_another_thread(layout: Layout) -> None:
    """A process has one set of locks for each file, and closing it anywhere ends all of them."""
    database = layout.shared / "data" / "trades.db"
    make_database(database, 10)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    write = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('DELETE FROM trades').connection.commit()"
    with sqlite.reading(database) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM trades").fetchone()
        assert sqlite.is_database(database) and sqlite.state(database)
        gather.gather(layout, BackupConfig())
        done = subprocess.run(
            [sys.executable, "-c", write, str(database)], capture_output=True, text=True, check=False
        )
        assert "database is locked" in done.stderr
    assert subprocess.run([sys.executable, "-c", write, str(database)], check=False).returncode == 0


def test_looking_at_what_lies_beside_a_database_ends_no_lock_either(layout: Layout) -> None:
    """In WAL mode the locks that keep pages from being overwritten are those of the `-shm` file."""
    database = layout.shared / "data" / "trades.db"
    make_database(database, 10)
    with contextlib.closing(sqlite3.connect(database)) as writing:
        writing.execute("PRAGMA journal_mode=WAL")
        writing.execute("INSERT INTO trades (note) VALUES ('in the log')").connection.commit()
        checkpoint = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0); c.execute(\"INSERT INTO trades (note) VALUES ('x')\");"
            "c.commit(); print(c.execute('PRAGMA wal_checkpoint(RESTART)').fetchone()[0])"
        )
        with sqlite.reading(database) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM trades").fetchone()
            for _ in range(2):
                gather.gather(layout, BackupConfig())
                assert not sqlite.is_database(database.with_name("trades.db-shm"))
                assert not sqlite.is_database(database.with_name("trades.db-wal"))
            done = subprocess.run(
                [sys.executable, "-c", checkpoint, str(database)], capture_output=True, text=True, check=True
            )
            assert done.stdout.strip() == "1", "the log is not begun anew while it is read"
        done = subprocess.run(
            [sys.executable, "-c", checkpoint, str(database)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "0"


@pytest.mark.parametrize("journal_mode", ["WAL", "DELETE"])
def test_a_database_that_nobody_uses_is_copied_as_one_file(layout: Layout, journal_mode: str) -> None:
    """Meanwhile nobody can write to that file; in WAL mode others go on, and their words are not in it."""
    database = layout.shared / "data" / "trades.db"
    make_database(database)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
    write = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('DELETE FROM trades').connection.commit()"
    said = []

    def check() -> None:
        done = subprocess.run(
            [sys.executable, "-c", write, str(database)], capture_output=True, text=True, check=False
        )
        said.append("locked" if "locked" in done.stderr else "written")

    copying.copy(database, layout.root / "copy", patience=copying.Patience(), check=check)
    assert said[0] == {"WAL": "written", "DELETE": "locked"}[journal_mode]
    with contextlib.closing(sqlite3.connect(layout.root / "copy")) as copied:
        assert copied.execute("SELECT count(*) FROM trades").fetchone() == (20_000,)
        assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_log_that_begins_anew_while_it_is_copied_is_copied_again(layout: Layout) -> None:
    """All of the log is in the file already, so a reader does not keep it from beginning anew: parts of two would be neither."""
    database = layout.shared / "data" / "trades.db"
    make_database(database, 100)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as writer:

        def write(words: str) -> None:
            writer.execute("UPDATE trades SET note = ?", (words,))
            writer.execute("PRAGMA wal_checkpoint(PASSIVE)")

        write("first")
        write("second")
        header = database.with_name("trades.db-wal").read_bytes()[:32]
        asked = iter(range(100))
        copying.copy(
            database,
            layout.root / "copy",
            patience=copying.Patience(),
            check=lambda: write("third") if next(asked) == 0 else None,
        )
        assert database.with_name("trades.db-wal").read_bytes()[:32] != header and next(asked) > 2
    with contextlib.closing(sqlite3.connect(layout.root / "copy")) as copied:
        assert copied.execute("SELECT DISTINCT note FROM trades").fetchall() == [("third",)]
        assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [it.name for it in layout.root.iterdir() if it.name.startswith("copy")] == ["copy"]


def test_links_that_lead_out_of_shared_are_told(layout: Layout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another disk"
    (elsewhere / "inner").mkdir(parents=True)
    (elsewhere / "models").mkdir()
    (layout.shared / "big").symlink_to(elsewhere)
    (elsewhere / "within").symlink_to("inner")
    (elsewhere / "out again").symlink_to("/etc")
    data = layout.shared / "data"
    (data / "beside").symlink_to("../config")
    (data / "history").symlink_to(tmp_path / "history of\nyears")
    (layout.shared / "config" / "settings.toml").symlink_to("/etc/hostname")
    (data / "loop").symlink_to("loop")
    warnings = backup(layout).manifest.warnings
    told = [it for it in warnings if "leads out of shared/" in it]
    assert len(told) == len(warnings) == 3, warnings
    for name in ("shared/big/out again", "shared/data/history", "shared/config/settings.toml"):
        assert any(it.startswith(f"{name} is a link to ") for it in told), warnings
    assert all("not in the backup" in it and "\n" not in it for it in told)


def test_a_thousand_links_that_lead_out_are_told_in_a_few_lines(layout: Layout) -> None:
    for number in range(1000):
        (layout.shared / "data" / f"link{number:03}").symlink_to("/etc/hostname")
    warnings = backup(layout).manifest.warnings
    assert len(warnings) < 15 and "990 more" in warnings[-1]


def when_first_asked(act: Callable[[], object]) -> Callable[[], None]:
    """A check for cancellation that does something the first time: a world that changes under the reader's eyes."""
    asked = iter(range(10**9))

    def check() -> None:
        if next(asked) == 0:
            act()

    return check


@pytest.fixture
def changing(layout: Layout) -> Callable[[Callable[[], object]], Backup]:
    """A backup during which something happens: after ``shared/`` was looked through, before most of it is read."""
    (layout.shared / "config" / "first").write_bytes(b"x" * 100)

    def run(act: Callable[[], object]) -> Backup:
        made = backup(layout, create.Making("by hand", check=when_first_asked(act)))
        reading.prove(made.directory)
        return made

    return run


def test_a_database_that_vanishes_before_it_is_copied_is_left_out(layout: Layout) -> None:
    database = layout.shared / "data" / "trades.db"
    make_database(database, 10)
    gathered = gather.gather(layout, BackupConfig())
    database.unlink()
    with pytest.raises(copying.Gone):
        copying.copy(gathered.databases[0].place, layout.root / "copy", patience=copying.Patience(1.0))
    assert not (layout.root / "copy").exists()


def test_databases_that_come_and_go_do_not_matter(layout: Layout) -> None:
    """An application that makes a database anew, puts it in place and takes it away."""
    place = layout.shared / "data" / "trades.db"
    ready = [layout.root / f"{number}.db" for number in range(5)]
    for database in ready:
        make_database(database, 10)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for database in ready:
                database.replace(place)
                place.replace(database)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(15):
            reading.prove(backup(layout).directory)
    finally:
        stop.set()
        thread.join()


def test_files_that_vanish_grow_or_shrink_meanwhile(
    layout: Layout, changing: Callable[[Callable[[], object]], Backup]
) -> None:
    data = layout.shared / "data"
    for name in ("grows", "shrinks", "vanishes"):
        (data / name).write_bytes(b"a" * 3 * MEGABYTE)

    def act() -> None:
        with (data / "grows").open("ab") as file:
            file.write(b"b" * MEGABYTE)
        os.truncate(data / "shrinks", 10)
        (data / "vanishes").unlink()

    made = changing(act)
    out = restored(made, layout.root / "out") / "data"
    assert (out / "grows").read_bytes() == b"a" * 3 * MEGABYTE, "as long as it was when the backup began"
    assert (out / "shrinks").read_bytes().rstrip(b"\0") == b"a" * 10
    assert not (out / "vanishes").exists()
    told = [it for it in made.manifest.warnings if "was written to while it was read" in it]
    assert len(told) == 2, made.manifest.warnings


@pytest.mark.parametrize("becomes", ["a directory", "a link", "a pipe", "a file where a directory was"])
def test_what_becomes_something_else_meanwhile_is_looked_at_again(
    layout: Layout, changing: Callable[[Callable[[], object]], Backup], becomes: str
) -> None:
    place = layout.shared / "data" / "thing"
    if becomes == "a file where a directory was":
        place.mkdir()
        (place / "inside").write_text("inside")
    else:
        place.write_text("a file")

    def act() -> None:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        if becomes == "a directory":
            place.mkdir()
            (place / "inside").write_text("inside")
        elif becomes == "a link":
            place.symlink_to("other")
        elif becomes == "a pipe":
            os.mkfifo(place)
        else:
            place.write_text("a file")

    out = restored(changing(act), layout.root / "out") / "data" / "thing"
    if becomes == "a directory":
        assert (out / "inside").read_text() == "inside"
    elif becomes == "a link":
        assert os.readlink(out) == "other"
    elif becomes == "a file where a directory was":
        assert out.is_dir() or out.read_text() == "a file"
    else:
        assert not out.exists()


def test_what_never_keeps_still_is_an_error_that_names_it(layout: Layout) -> None:
    numbers = iter(range(10**6))
    data = layout.shared / "data"
    (data / "thing").write_text("a file")

    def check() -> None:
        """What was a file is a pipe, and there is another file."""
        (it,) = (it for it in data.iterdir() if it.is_file())
        it.unlink()
        os.mkfifo(it)
        (data / f"thing {next(numbers)}").write_text("a file")

    with pytest.raises(BackupFailed, match=r"shared/data/thing .*became something else"):
        backup(layout, create.Making("by hand", check=check))
    assert list(layout.backups.iterdir()) == []
