"""Backups: what was there comes out again, whoever writes meanwhile and whatever the names; what is damaged is told."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.site import UPDATER, Site
from updater import durable
from updater.backups import catalogue, create, reading, unpacking
from updater.backups.catalogue import Backup
from updater.config import BackupConfig, Config
from updater.errors import BackupDamaged, BackupFailed, Cancelled
from updater.layout import Layout
from updater.preflight import data as checks
from updater.preflight.plan import Plan

PARTS = ("config", "data", "logs")
MEGABYTE = 1024**2


def make_root(place: Path) -> Layout:
    layout = Layout(place)
    for directory in (layout.own, layout.shared / "config", layout.shared / "data", layout.logs):
        directory.mkdir(parents=True)
    layout.config.write_text("")
    return layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "a root")


def backup(layout: Layout, **config: Any) -> Backup:
    return create.create(
        layout, Config(layout.config, backup=BackupConfig(**config)), create.Making("by hand")
    )


def snapshot(tree: Path, *, dates: bool = True) -> dict[str, Any]:
    """Everything that a backup must bring back: kinds, modes, contents, targets, dates of files."""
    found: dict[str, Any] = {}
    for directory, names, files in os.walk(tree):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, tree)
            if relative.split(os.sep)[0] == "backups":
                continue
            if stat.S_ISLNK(status.st_mode):
                found[relative] = ("link", os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                found[relative] = ("directory", stat.S_IMODE(status.st_mode))
            else:
                date = status.st_mtime_ns if dates else None
                found[relative] = ("file", stat.S_IMODE(status.st_mode), date, Path(path).read_bytes())
    return found


def restored(made: Backup, into: Path) -> Path:
    reading.prove(made.directory)
    shutil.rmtree(into, ignore_errors=True)
    unpacking.unpack(made.directory, into, PARTS)
    return into


def by_shell(made: Backup, into: Path, *prefix: str) -> Path:
    """The commands of docs/format.md, literally."""
    document = Path(__file__).parents[2] / "docs" / "format.md"
    found = re.search(r"```sh\n(unpack\(\) \{.*?)```", document.read_text(), re.S)
    assert found is not None
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    text = found[1] + "".join(f'\nunpack {part} "$1"' for part in PARTS)
    subprocess.run([*prefix, "sh", "-eu", "-c", text, "sh", str(into)], cwd=made.directory, check=True)
    return into


NAMES = st.sampled_from(
    ["a", "b", "new\nline", "ünï", "sp ace", "-dash", "back\\slash", "not utf8 \udcff", "x" * 150, "'q\""]
)
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.integers(1, 40).map(lambda count: bytes([count]) * (count * 10_007)),
)


TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(tuple), CONTENTS, max_size=6)


def write_tree(layout: Layout, tree: dict[tuple[str, ...], bytes]) -> None:
    data = layout.shared / "data"
    for entry in list(data.iterdir()):
        if entry.name != "big":
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for path, content in tree.items():
        place = data.joinpath(*path)
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(TREES, st.sets(st.integers(0, 767), max_size=5), st.integers(-9000, 9000)),
        min_size=1,
        max_size=4,
    )
)
def test_what_was_there_comes_out_again_by_python_and_by_shell(
    steps: list[tuple[dict[tuple[str, ...], bytes], set[int], int]],
) -> None:
    """Whole or as a delta, whatever changed in between; and dropping a backup never harms another."""
    with tempfile.TemporaryDirectory() as place:
        layout = make_root(Path(place) / "root")
        big = layout.shared / "data" / "big"
        big.write_bytes(os.urandom(3 * MEGABYTE))
        kept: list[tuple[Backup, dict[str, Any]]] = []
        for tree, blocks, growth in steps:
            write_tree(layout, tree)
            with big.open("r+b") as file:
                for number in blocks:
                    file.seek(number * 4096)
                    file.write(os.urandom(100))
                file.truncate(big.stat().st_size + growth)
            kept.append((backup(layout), snapshot(layout.shared)))
        while kept:
            for made, before in kept[:1] + kept[-1:]:
                assert snapshot(restored(made, Path(place) / "python")) == before
            made, before = kept.pop(0)
            seen = snapshot(by_shell(made, Path(place) / "shell"), dates=False)
            assert seen == {
                name: (*it[:2], None, *it[3:]) if it[0] == "file" else it for name, it in before.items()
            }
            catalogue.remove(layout, made.id)


def without_privileges() -> list[str]:
    """What to put before a command to have it bound by modes, as it is for everybody but root."""
    if os.geteuid() != 0:
        return []
    if not (found := shutil.which("setpriv")):
        pytest.skip("NOT TESTED: root without setpriv")
    return [found, "--bounding-set=-dac_override"]


def test_what_is_only_to_be_read_comes_out_again_for_an_ordinary_user(layout: Layout) -> None:
    """A file and a directory that nobody may write to, changed since the whole archive was written."""
    data = layout.shared / "data"
    (data / "big").write_bytes(os.urandom(3 * MEGABYTE))
    (data / "models").mkdir()
    for number in range(2):
        data.chmod(0o755)
        (data / "models").chmod(0o755)
        (data / "models" / str(number)).write_text("new")
        for place, mode in ((data / "key", 0o400), (data / "models" / "weights", 0o444)):
            place.touch()
            place.chmod(0o600)
            place.write_bytes(bytes([number]) + b"as it was" * 20_000)
            place.chmod(mode)
        (data / "models").chmod(0o555)
        data.chmod(0o555)
        made = backup(layout)
    assert made.manifest.parts["data"].delta
    out, prefix, before = layout.root / "out", without_privileges(), snapshot(data)
    layout.config.write_text('[source]\nrepository = "owner/app"\n')
    command = [str(UPDATER), "--root", str(layout.root), "backup", "restore", made.id]
    subprocess.run([*prefix, *command, "--to", str(out)], check=True)
    assert snapshot(out / "data") == before
    durable.remove_tree(data / "models" if os.geteuid() == 0 else data)
    subprocess.run([*prefix, *command, "--yes"], check=True)
    assert snapshot(data) == before, "in its place as well"
    seen = snapshot(by_shell(made, layout.root / "shell", *prefix) / "data", dates=False)
    assert {**seen, "models": before["models"]} == {
        name: (*it[:2], None, *it[3:]) if it[0] == "file" else it for name, it in before.items()
    }


def make_database(path: Path, rows: int = 20_000) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE trades (id INTEGER PRIMARY KEY, note TEXT)")
        connection.executemany(
            "INSERT INTO trades (note) VALUES (?)", ((f"trade {n} " * 10,) for n in range(rows))
        )


def test_the_second_backup_of_a_big_database_costs_what_has_changed(layout: Layout) -> None:
    database = layout.shared / "data" / "trades.db"
    make_database(database, 100_000)
    first = backup(layout)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE trades SET note = 'changed' WHERE id % 2000 = 7")
    second = backup(layout)
    assert first.own < 100_000, "what both hold is stored once"
    assert second.own < first.stored / 10
    out = restored(second, layout.root / "out") / "data" / "trades.db"
    with contextlib.closing(sqlite3.connect(out)) as connection:
        assert connection.execute("SELECT count(*) FROM trades WHERE note = 'changed'").fetchone() == (50,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    catalogue.remove(layout, first.id)
    restored(second, layout.root / "out")


@contextlib.contextmanager
def writing(database: Path, journal_mode: str) -> Iterator[Callable[[], int]]:
    """A writer that never pauses and notes, outside the database, the last row that was committed."""
    committed = [0]
    stop = threading.Event()

    def run() -> None:
        with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA journal_mode={journal_mode}")
            connection.execute("CREATE TABLE IF NOT EXISTS ticks (id INTEGER PRIMARY KEY, twice INTEGER)")
            connection.execute("PRAGMA synchronous=OFF")
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO ticks VALUES (?, ?)", (number, 2 * number))
                connection.execute("COMMIT")
                committed[0] = number

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: committed[0]
    finally:
        stop.set()
        thread.join(60)


@pytest.mark.parametrize("journal_mode", ["WAL", "DELETE"])
def test_a_database_that_is_written_to_all_the_time_is_copied_as_it_was_at_one_moment(
    layout: Layout, journal_mode: str
) -> None:
    database = layout.shared / "data" / "trades.db"
    make_database(database)
    with writing(database, journal_mode) as committed:
        deadline = time.monotonic() + 30
        while committed() < 50 and time.monotonic() < deadline:
            os.sched_yield()
        for _ in range(5):
            before = committed()
            made = backup(layout)
            after = committed()
            out = restored(made, layout.root / "out") / "data"
            assert sorted(it.name for it in out.iterdir()) == ["trades.db"], "nothing beside it is needed"
            with contextlib.closing(sqlite3.connect(out / "trades.db")) as connection:
                rows = connection.execute("SELECT id, twice FROM ticks ORDER BY id").fetchall()
            assert rows == [(n, 2 * n) for n in range(1, len(rows) + 1)]
            assert before <= len(rows) <= after + 1
        assert committed() > after or committed() > before, "the writer went on"


def test_what_is_not_committed_is_not_in_it(layout: Layout) -> None:
    database = layout.shared / "data" / "trades.db"
    make_database(database, 10)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("DELETE FROM trades")
        made = backup(layout)
        connection.execute("ROLLBACK")
    out = restored(made, layout.root / "out") / "data" / "trades.db"
    with contextlib.closing(sqlite3.connect(out)) as copied:
        assert copied.execute("SELECT count(*) FROM trades").fetchone() == (10,)


def test_a_corrupt_database_is_refused_and_kept_as_it_is_only_when_asked(layout: Layout) -> None:
    database = layout.shared / "data" / "trades.db"
    make_database(database)
    with database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096 * 4))
    with pytest.raises(BackupFailed, match=r"corrupt|malformed"):
        backup(layout)
    assert catalogue.found(layout) == [] and list(layout.backups.iterdir()) == []
    made = create.create(layout, Config(layout.config), create.Making("by hand", accept_damaged=True))
    assert (
        any("corrupt" in it for it in made.manifest.warnings) or made.manifest.databases[0].integrity != "ok"
    )
    assert (restored(made, layout.root / "out") / "data" / "trades.db").exists()


def test_a_database_whose_header_is_gone_is_missed(layout: Layout) -> None:
    (layout.shared / "data" / "trades.db").write_bytes(b"\0" * 8192)
    with pytest.raises(BackupFailed, match=r"data/trades\.db is named"):
        backup(layout, databases=("data/trades.db",))
    (layout.shared / "data" / "trades.db").unlink()
    assert "is not there" in backup(layout, databases=("data/trades.db",)).manifest.warnings[0]


def test_a_database_that_nobody_named_is_missed_when_its_header_is_gone(layout: Layout) -> None:
    """It is known from the backup before; as a plain file it would take the place of the sound ones, backup by backup."""
    database = layout.shared / "data" / "trades.db"
    make_database(database, 10)
    backup(layout)
    database.write_bytes(b"\0" * 100 + database.read_bytes()[100:])
    with pytest.raises(BackupFailed, match=r"data/trades\.db was a SQLite database in the last backup"):
        backup(layout)
    finding = checks.databases(layout, Config(layout.config), Plan("v1.0.0", True, None))
    assert finding.result == "failed" and "data/trades.db" in finding.summary
    kept = create.create(layout, Config(layout.config), create.Making("by hand", accept_damaged=True))
    assert "kept as it is" in kept.manifest.warnings[0]
    assert backup(layout).manifest.warnings == (), "from now on it is a file like any other"


def test_odd_things_in_shared_are_kept_or_told(layout: Layout, tmp_path: Path) -> None:
    data = layout.shared / "data"
    elsewhere = tmp_path / "another disk"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    (layout.shared / "big").symlink_to(elsewhere)
    (data / "outside").symlink_to("/etc/hostname")
    os.mkfifo(data / "pipe")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        here = os.getcwd()
        os.chdir(data)
        listening.bind("socket")
        os.chdir(here)
        with (data / "sparse").open("wb") as file:
            file.truncate(200 * MEGABYTE)
            file.seek(100 * MEGABYTE)
            file.write(b"here")
        made = backup(layout)
    assert len([it for it in made.manifest.warnings if "is a socket, pipe or device" in it]) == 2
    out = restored(made, layout.root / "out")
    assert (out / "big" / "kept").read_text() == "kept" and os.readlink(
        out / "data" / "outside"
    ) == "/etc/hostname"
    sparse = out / "data" / "sparse"
    assert sparse.read_bytes() == (data / "sparse").read_bytes()
    assert sparse.stat().st_blocks * 512 < 20 * MEGABYTE
    assert made.stored < MEGABYTE


def test_of_a_long_log_only_the_end_is_kept(layout: Layout) -> None:
    log = layout.logs / "bot.log"
    log.write_bytes(b"".join(b"%09d\n" % n for n in range(100_000)))
    made = backup(layout, max_log_size=100_000)
    kept = (restored(made, layout.root / "out") / "logs" / "bot.log").read_bytes()
    assert log.read_bytes().endswith(kept) and 100_000 < len(kept) < 220_000
    assert "logs" not in os.listdir(restored(backup(layout, logs=False), layout.root / "out"))


def files_of(made: Backup) -> list[Path]:
    return sorted(it for it in made.directory.iterdir() if it.stat().st_size)


def test_every_flipped_byte_and_every_missing_file_is_found(layout: Layout, tmp_path: Path) -> None:
    (layout.shared / "data" / "big").write_bytes(os.urandom(3 * MEGABYTE))
    backup(layout)
    with (layout.shared / "data" / "big").open("r+b") as file:
        file.write(b"changed")
    made = backup(layout)
    assert made.manifest.parts["data"].delta
    for file in files_of(made):
        for damage in ("flip", "cut", "remove"):
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(made.directory, copy)
            raw = bytearray((copy / file.name).read_bytes())
            if damage == "remove":
                (copy / file.name).unlink()
            else:
                raw[len(raw) // 2] ^= 1
                (copy / file.name).write_bytes(
                    bytes(raw) if damage == "flip" else bytes(raw[: len(raw) // 2])
                )
            with pytest.raises(BackupDamaged):
                reading.prove(copy)


def test_a_shared_archive_that_has_gone_bad_is_not_built_upon(layout: Layout) -> None:
    """The data are still there: they are stored whole again, and it is said."""
    (layout.shared / "data" / "big").write_bytes(os.urandom(3 * MEGABYTE))
    first = backup(layout)
    raw = bytearray((first.directory / "data.tar.zst").read_bytes())
    raw[len(raw) // 2] ^= 1
    (first.directory / "data.tar.zst").write_bytes(bytes(raw))
    second = backup(layout)
    assert any("stored whole again" in it for it in second.manifest.warnings)
    reading.prove(second.directory)
    assert snapshot(restored(second, layout.root / "out"))["data/big"] == snapshot(layout.shared)["data/big"]


def test_a_full_disk_leaves_nothing_half_made(layout: Layout, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        layout.backups.symlink_to(small)
        (layout.shared / "data" / "big").write_bytes(os.urandom(8 * MEGABYTE))
        with pytest.raises(BackupFailed, match="No space left"):
            backup(layout)
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_backup_is_only_named_when_it_is_whole(layout: Layout) -> None:
    """Killed at any moment, there is the old state or a whole new backup; the next command sweeps the rest."""
    (layout.shared / "data" / "big").write_bytes(os.urandom(20 * MEGABYTE))
    code = (
        "import sys; from pathlib import Path; from updater.layout import Layout; from updater.config import Config\n"
        "from updater.backups import create\n"
        "layout = Layout(Path(sys.argv[1])); print('go', flush=True)\n"
        "while True: create.create(layout, Config(layout.config), create.Making('by hand'))\n"
    )
    for delay in range(6):
        process = subprocess.Popen([sys.executable, "-c", code, str(layout.root)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"go\n"
        count = len(catalogue.found(layout)) + delay % 3
        deadline = time.monotonic() + 30
        while len(catalogue.found(layout)) < count and time.monotonic() < deadline:
            os.sched_yield()
        process.kill()
        process.wait()
        process.stdout.close()
        for made in catalogue.found(layout):
            reading.prove(made.directory)
        assert catalogue.damaged(layout) == []


def test_the_command_line_makes_lists_verifies_unpacks_and_prunes(site: Site) -> None:
    site.deployed("v1.0.0")
    make_database(site.layout.shared / "data" / "trades.db", 10)
    made = site.updater("--json", "backup", "create", "--label", "before taxes").json
    assert made["release"] == "v1.0.0" and made["databases"][0]["integrity"] == "ok"
    ids = [site.updater("--json", "backup", "create").json["id"] for _ in range(3)]
    assert len({made["id"], *ids}) == 4
    listed = site.updater("--json", "backup", "list").json
    assert [it["id"] for it in listed[:4]] == [*reversed(ids), made["id"]]
    assert [it["reason"] for it in listed[4:]] == ["before deploy v1.0.0"]
    assert site.updater("backup", "verify", "--all").out.count("sound") == 5
    out = site.place / "out"
    assert site.updater("backup", "restore", made["id"], "--to", str(out)).code == 0
    assert (out / "data" / "trades.db").is_file()
    again = site.updater("backup", "restore", made["id"], "--to", str(out))
    assert again.code == 2 and "is there already" in again.err
    pruned = site.updater("--json", "backup", "prune", "--keep", "1", "--yes").json
    assert pruned["removed"] == [listed[4]["id"], *ids[:2]], "the newest stays, and what has a label"
    (site.layout.backups / ids[2] / "SHA256SUMS").write_text("rubbish")
    assert site.updater("backup", "verify", ids[2]).code == 7
    shutil.copy(
        site.layout.backups / made["id"] / "manifest.json", site.layout.backups / ids[2] / "manifest.json"
    )
    assert "damaged" in site.updater("backup", "list").out
    assert site.updater("backup", "verify", ids[2]).code == 7
    assert site.updater("backup", "verify", "nothing").code == 2
    site.runs("v1.0.0")


def test_when_more_has_changed_than_a_delta_is_worth_the_part_is_stored_whole(layout: Layout) -> None:
    big = layout.shared / "data" / "big"
    for _ in range(3):
        big.write_bytes(os.urandom(6 * MEGABYTE))
        made = backup(layout)
        assert made.manifest.parts["data"].delta is None
        assert (restored(made, layout.root / "out") / "data" / "big").read_bytes() == big.read_bytes()


def test_a_backup_that_is_cancelled_while_it_looks_for_changes_says_so_and_leaves_nothing(
    layout: Layout,
) -> None:
    big = layout.shared / "data" / "big"
    big.write_bytes(os.urandom(20 * MEGABYTE))
    first = backup(layout)
    big.write_bytes(big.read_bytes()[:-1] + b"x")
    asked = iter(range(1000))

    def check() -> None:
        if next(asked) > 10:
            raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        create.create(layout, Config(layout.config), create.Making("by hand", check=check))
    assert [it.name for it in layout.backups.iterdir()] == [first.id]


def test_files_that_come_and_go_meanwhile_do_not_matter(layout: Layout) -> None:
    """An application that writes beside and renames."""
    stop = threading.Event()

    def churn(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            beside = layout.shared / "data" / f"state.json.{name}{number % 50}"
            beside.write_text("x" * 100)
            beside.replace(layout.shared / "data" / "state.json")

    threads = [threading.Thread(target=churn, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            made = backup(layout)
            assert (restored(made, layout.root / "out") / "data" / "state.json").read_text() == "x" * 100
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_file_with_its_old_date_and_size_put_back_is_seen_as_another(layout: Layout) -> None:
    big, small = layout.shared / "data" / "big", layout.shared / "data" / "small"
    big.write_bytes(os.urandom(3 * MEGABYTE))
    small.write_text("1111")
    for path in (big, small):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    backup(layout)
    for path in (big, small):
        other = path.with_name("other")
        other.write_bytes(b"2222" + path.read_bytes()[4:])
        os.utime(other, (1_700_000_000, 1_700_000_000))
        other.replace(path)
    out = restored(backup(layout), layout.root / "out") / "data"
    assert (out / "small").read_text() == "2222" and (out / "big").read_bytes() == big.read_bytes()


def test_a_named_database_that_is_a_link_is_not_taken_for_kept(layout: Layout, tmp_path: Path) -> None:
    make_database(tmp_path / "elsewhere.db", 10)
    (layout.shared / "data" / "trades.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(BackupFailed, match="is a symlink"):
        backup(layout, databases=("data/trades.db",))


def test_long_records_of_updaters_own_keep_no_second_backup_from_being_made(layout: Layout) -> None:
    """The part `state` is never built upon, however large it is."""
    layout.history.write_bytes(os.urandom(3 * MEGABYTE))
    backup(layout)
    made = backup(layout)
    assert made.manifest.parts["state"].delta is None
    reading.prove(made.directory)


def test_a_look_that_a_prune_or_the_end_of_a_deployment_overtakes_still_tells(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was listed a moment ago may be gone, or elsewhere, when it is read."""
    from updater import operations
    from updater.backups import catalogue
    from updater.deployment import journal
    from updater.operations import backing, looking

    site.deployed("v1.0.0")
    for _ in range(2):
        assert site.updater("backup", "create").code == 0
    root = operations.open_root(site.root)
    seen = catalogue.found(root.layout)
    shutil.rmtree(seen[0].directory)
    with monkeypatch.context() as patched:
        patched.setattr(catalogue, "found", lambda _layout: seen)
        assert [it["id"] for it in backing.listing(root)] == [seen[2].id, seen[1].id]
    assert {it["state"] for it in backing.listing(root)} == {"ok"}

    (path,) = journal.closed(site.layout)
    places = iter([site.layout.journal / path.name, path])  # found there, and put away before it was read
    monkeypatch.setattr(journal, "find", lambda _layout, _id: next(places))
    assert looking.steps(site.layout, path.stem)[-1]["state"] == "done"
