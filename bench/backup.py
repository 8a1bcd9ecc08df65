"""Backups of a live `shared/`: a SQLite database of 500 MB that somebody writes to, and 200 MB of logs.

    python -m bench.backup [--dir DIR] [--rounds N]

The first backup against `tar | zstd -3 -T2` of the same files, the second, after one per cent of the database's pages were
rewritten and the log has grown, and the restore, against restic and borg (Debian: apt-get install restic borgbackup zstd).
updater's time holds more than theirs: a consistent copy, an integrity check of the database, and reading everything back.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from bench.compare import Contender, race, table
from bench.disk import used

PAGE = 4096


def make_database(path: Path, size: int) -> None:
    """Rows of text and of bytes that do not compress, written once."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnop", k=7)) for _ in range(3000)]
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE trades (id INTEGER PRIMARY KEY, note TEXT, raw BLOB)")
        while path.stat().st_size < size:
            rows = [(" ".join(chance.choices(words, k=20)), chance.randbytes(200)) for _ in range(20_000)]
            connection.executemany("INSERT INTO trades (note, raw) VALUES (?, ?)", rows)
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def make_log(path: Path, size: int) -> None:
    chance = random.Random(2)
    with path.open("w") as file:
        while file.tell() < size:
            file.writelines(
                f"2026-11-25T10:{n % 60:02} INFO order {chance.random()} filled at {chance.randint(1, 10**6)}\n"
                for n in range(10_000)
            )


def rewrite(shared: Path) -> None:
    """One per cent of the pages, anywhere, and one megabyte more of log."""
    chance = random.Random(3)
    database = shared / "data" / "trades.db"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        highest = connection.execute("SELECT max(id) FROM trades").fetchone()[0]
        rows = [
            (chance.randbytes(200), chance.randint(1, highest))
            for _ in range(database.stat().st_size // PAGE // 100)
        ]
        connection.executemany("UPDATE trades SET raw = ? WHERE id = ?", rows)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (shared / "logs" / "bot.log").open("a") as file:
        file.write("one more line of log\n" * 50_000)


@contextlib.contextmanager
def writer(database: Path) -> Iterator[None]:
    """Somebody who commits a row every some milliseconds."""
    stop = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS ticks (id INTEGER PRIMARY KEY)")
            while not stop.wait(0.01):
                connection.execute("INSERT INTO ticks DEFAULT VALUES")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


UPDATER = Path(sys.executable).with_name("updater")
CONFIGURATION = '[source]\ntype = "directory"\npath = "."\n[backup]\nmax_log_size = 1000000000\n'


def updater(root: Path, *words: str) -> list[str]:
    return [str(UPDATER), "--root", str(root), "backup", *words]


class Bench:
    """One root; the repositories of the others lie beside it."""

    def __init__(self, place: Path, megabytes: int) -> None:
        self.place, self.root = place, place / "root"
        subprocess.run([UPDATER, "init", self.root, "--directory", place], check=True, capture_output=True)
        (self.root / "updater.toml").write_text(CONFIGURATION)
        self.shared = self.root / "shared"
        make_database(self.shared / "data" / "trades.db", megabytes * 10**6)
        make_log(self.shared / "logs" / "bot.log", megabytes * 4 * 10**5)
        self.env = {
            **os.environ, "RESTIC_PASSWORD": "x", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "RESTIC_CACHE_DIR": str(place / "restic-cache"), "BORG_BASE_DIR": str(place / "borg-base"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }  # fmt: skip

    def repository(self, name: str) -> Path:
        return self.root / "shared" / "backups" if name == "updater" else self.place / name

    def empty(self, name: str) -> None:
        place = self.repository(name)
        shutil.rmtree(place, ignore_errors=True)
        make = {
            "restic": ["restic", "init", "-q", "-r", place],
            "borg": ["borg", "init", "-e", "none", place],
        }.get(name)
        if make:
            subprocess.run(make, check=True, env=self.env, capture_output=True)
        else:
            place.mkdir()

    def put_back(self, name: str) -> None:
        """The repository as it was after the first backup."""
        shutil.rmtree(self.repository(name), ignore_errors=True)
        subprocess.run(["cp", "-a", f"{self.place}/first-{name}", self.repository(name)], check=True)
        if name == "borg":  # its cache must not know more than its repository
            shutil.rmtree(self.place / "borg-base", ignore_errors=True)
            shutil.copytree(self.place / "first-borg-base", self.place / "borg-base")
        os.sync()

    def command(self, name: str, number: int) -> list[str]:
        data = ["data", "logs", "config"]
        repository = str(self.repository(name))
        return {
            "updater": updater(self.root, "create"),
            "restic": ["restic", "-q", "-r", repository, "backup", *data],
            # 1 is borg's way to say that a file was written to meanwhile
            "borg": ["sh", "-c", f"borg create '{repository}::n{number}' {' '.join(data)} || [ $? = 1 ]"],
            "tar": [
                "sh",
                "-c",
                f"tar cf - data logs config | zstd -3 -T2 -q -f -o '{self.place}/all.tar.zst'",
            ],
        }[name]

    def contender(self, name: str, number: int, *, again: bool) -> Contender:
        def before() -> None:
            if name != "tar":
                (self.put_back if again else self.empty)(name)
            os.sync()

        return Contender(name, self.command(name, number), before, cwd=self.shared, env=self.env)

    def out(self, name: str) -> Path:
        return self.place / f"out-{name}"

    def restoring(self, name: str) -> Contender:
        def before() -> None:
            shutil.rmtree(self.out(name), ignore_errors=True)
            if name == "borg":
                self.out(name).mkdir()
            os.sync()

        command = {
            "updater": updater(self.root, "restore", "latest", "--to", str(self.out(name))),
            "restic": [
                "restic",
                "-q",
                "-r",
                str(self.place / "restic"),
                "restore",
                "latest",
                "--target",
                str(self.out(name)),
            ],
            "borg": ["borg", "extract", f"{self.place}/borg::n2"],
        }[name]
        return Contender(
            name, command, before, cwd=self.out(name) if name == "borg" else self.shared, env=self.env
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary directory)")
    parser.add_argument("--megabytes", type=int, default=500, help="size of the database")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as place:
        bench = Bench(Path(place), given.megabytes)
        peers = [name for name in ("restic", "borg") if shutil.which(name)]
        with writer(bench.shared / "data" / "trades.db"):
            first = [bench.contender(name, 1, again=False) for name in ("tar", "updater", *peers)]
            race(first, rounds=given.rounds)
        table("First backup", first, first[0])
        for name in ("updater", *peers):
            bench.repository(name).rename(bench.place / f"first-{name}")
        if "borg" in peers:
            shutil.copytree(bench.place / "borg-base", bench.place / "first-borg-base")
        rewrite(bench.shared)
        with writer(bench.shared / "data" / "trades.db"):
            second = [bench.contender(name, 2, again=True) for name in ("updater", *peers)]
            race(second, rounds=given.rounds)
        table("Second backup, one per cent of the pages rewritten", second, second[-1])
        for name in ("updater", *peers):
            grown = used([bench.repository(name)]) - used([bench.place / f"first-{name}"])
            print(f"{name}: {grown / 1e6:.1f} MB more after the second", flush=True)
        restores = [bench.restoring(name) for name in ("updater", *peers)]
        race(restores, rounds=given.rounds)
        table("Restore of the second", restores, restores[-1])


if __name__ == "__main__":
    main()
