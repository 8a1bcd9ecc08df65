"""The bundled example: every version is packed, unpacked and really run, with its dependencies, without updater and with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.site import UPDATER, eventually, free_port

CLONE = Path(__file__).resolve().parents[2]
TRADEBOT = CLONE / "examples" / "tradebot"
VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0")
GOOD = ("1.0.0", "1.1.0", "1.4.0")
TICK = 0.02
"""Seconds between two prices in these tests."""


def pack(*arguments: str | Path, tradebot: Path = TRADEBOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tradebot / "pack.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every version, packed now."""
    out = tmp_path_factory.mktemp("packed")
    done = pack("--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtualenv with what the example asks for, by its hashes, and pytest for its own tests."""
    place, uv = tmp_path_factory.mktemp("environment") / ".venv", Path(sys.executable).with_name("uv")
    python = place / "bin" / "python"
    into: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
    commands: list[list[str | Path]] = [
        [uv, "venv", "--quiet", "--python", sys.executable, place],
        [*into, "--require-hashes", "-r", TRADEBOT / "app" / "requirements.txt"],
        [*into, "pytest"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
        assert done.returncode == 0, done.stderr
    return python


@dataclass
class Release:
    """An unpacked version and what runs from it."""

    place: Path
    python: Path
    port: int = field(default_factory=free_port)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def env(self, **more: str) -> dict[str, str]:
        ours = ("UPDATER_", "TRADEBOT_", "PYTEST_", "PYTHONPATH", "PORT")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**clean, "PORT": str(self.port), "PYTHONDONTWRITEBYTECODE": "1", **more}

    def start(self, module: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [self.python, "-m", module], cwd=self.place, env=self.env(**env), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.running.append(process)
        return process

    def rows(self, query: str) -> list[Any]:
        database = self.place / "data" / "trades.db"
        if not database.exists():
            return []
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError as failure:  # the bot is just making the tables
                assert "no such table" in str(failure) or "locked" in str(failure), failure
                return []

    def heartbeat(self) -> str:
        file = self.place / "data" / "heartbeat"
        return file.read_text() if file.exists() else ""

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of the dashboard's answer; status 0 if nobody listens."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as failure:
            with failure:
                return failure.code, failure.read().decode()
        except OSError:
            return 0, ""

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=10)


@pytest.fixture
def unpack(tmp_path: Path, packed: Path, python: Path) -> Iterator[Callable[[str], Release]]:
    """Unpacks a version, in a directory whose name means something in a URI, with a market in a hurry."""
    releases: list[Release] = []

    def make(version: str) -> Release:
        place = tmp_path / "a #1 place"
        with tarfile.open(packed / f"tradebot-{version}.tar.gz") as archive:
            # our own archive; interpreters before 3.11.4 have no filter
            archive.extractall(place, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        release = Release(place / f"tradebot-{version}", python)
        settings = release.place / "config" / "settings.toml"
        text = settings.read_text()
        assert "tick = 0.2 " in text
        settings.write_text(text.replace("tick = 0.2 ", f"tick = {TICK} "))
        releases.append(release)
        return release

    yield make
    for release in releases:
        release.end()


def stopped(process: subprocess.Popen[str]) -> str:
    """SIGTERM, and what it had to say; it must end with 0."""
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0, said
    return said


# packing


def test_what_is_packed_in_the_clone_is_up_to_date() -> None:
    done = pack("--check")
    assert done.returncode == 0, done.stderr


def test_packing_twice_makes_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    assert pack("--out", tmp_path).returncode == 0
    names = sorted(path.name for path in packed.iterdir())
    ours = sorted(f"tradebot-{version}.{end}" for version in VERSIONS for end in ("tar.gz", "md"))
    assert names == ["SHA256SUMS", *ours]
    assert [name for name in names if (packed / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_what_tools_leave_behind_is_not_packed(packed: Path, tmp_path: Path) -> None:
    tradebot = tmp_path / ".hidden" / "tradebot"
    shutil.copytree(TRADEBOT, tradebot, ignore=shutil.ignore_patterns("dist"))
    for litter in (
        "app/.DS_Store",
        "app/.ruff_cache/x",
        "app/bot/__pycache__/x.pyc",
        "versions/1.1.0/.coverage",
    ):
        (tradebot / litter).parent.mkdir(parents=True, exist_ok=True)
        (tradebot / litter).write_text("litter")
    done = pack("--out", tmp_path / "out", tradebot=tradebot)
    assert done.returncode == 0, done.stderr
    assert [
        it.name for it in packed.iterdir() if (tmp_path / "out" / it.name).read_bytes() != it.read_bytes()
    ] == []


def test_the_gzip_header_names_neither_time_nor_file_nor_system(packed: Path) -> None:
    """RFC 1952, 2.3: flags, time, extra flags (2: level 9), system (255: unknown)."""
    heads = {path.read_bytes()[:10] for path in packed.glob("*.tar.gz")}
    assert heads == {b"\x1f\x8b\x08" + b"\0" + b"\0\0\0\0" + b"\x02\xff"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_packed_version_is_one_tidy_directory(packed: Path, version: str) -> None:
    with tarfile.open(packed / f"tradebot-{version}.tar.gz") as archive:
        members = archive.getmembers()
        said = archive.extractfile(f"tradebot-{version}/VERSION")
        assert said is not None and said.read().decode() == f"{version}\n"
    names = [it.name for it in members]
    assert names == sorted(set(names)) and all(name.startswith(f"tradebot-{version}/") for name in names)
    assert {(it.isreg(), it.uid, it.gid, it.uname, it.gname, it.mode, it.mtime) for it in members} == {
        (True, 0, 0, "", "", 0o644, 0)
    }
    assert not [name for name in names if "/." in name or "__pycache__" in name]


def test_check_looks_only_and_names_what_is_not_up_to_date(packed: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert pack("--check", "--out", nowhere).returncode == 1
    assert not nowhere.exists()
    out = tmp_path / "out"
    out.mkdir()
    for path in packed.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    assert pack("--check", "--out", out).returncode == 0
    (out / "tradebot-1.0.0.md").unlink()
    (out / "tradebot-1.1.0.md").write_text("other words\n")
    (out / "tradebot-1.2.0.tar.gz").write_bytes((packed / "tradebot-1.2.0.tar.gz").read_bytes()[:-400])
    (out / "tradebot-1.3.0.tar.gz").write_bytes((packed / "tradebot-1.4.0.tar.gz").read_bytes())
    (out / "tradebot-9.9.9.tar.gz").write_bytes(b"of no version")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    done = pack("--check", "--out", out)
    assert done.returncode == 1
    assert re.findall(r"tradebot-[\d.]+(?:tar\.gz|md)", done.stderr) == [
        "tradebot-1.0.0.md", "tradebot-1.1.0.md", "tradebot-1.2.0.tar.gz", "tradebot-1.3.0.tar.gz", "tradebot-9.9.9.tar.gz",
    ]  # fmt: skip
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_requirements_are_pinned_with_hashes_and_name_no_registry() -> None:
    text = (TRADEBOT / "app" / "requirements.txt").read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    wanted = [
        line
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    assert wanted
    for line in wanted:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+(\s+;[^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line


def test_the_settings_of_the_clone_are_those_of_the_example() -> None:
    ours = tomllib.loads((CLONE / "shared" / "config" / "settings.toml").read_text())
    assert ours == tomllib.loads((TRADEBOT / "app" / "config" / "settings.toml").read_text())


# running


@pytest.mark.parametrize("version", GOOD)
def test_a_good_version_passes_its_own_tests(unpack: Callable[[str], Release], version: str) -> None:
    release = unpack(version)
    (release.place / "config" / "settings.toml").write_bytes(
        (TRADEBOT / "app" / "config" / "settings.toml").read_bytes()
    )
    done = subprocess.run(
        [release.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], cwd=release.place, env=release.env(),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed", done.stdout, re.M), done.stdout


@pytest.mark.parametrize("version", GOOD)
def test_a_good_version_trades_shows_and_stops(unpack: Callable[[str], Release], version: str) -> None:
    release = unpack(version)
    dashboard = release.start("dashboard")
    eventually(lambda: release.get("/health")[0] == 503, "the dashboard says that there is no bot yet")
    bot = release.start("bot", UPDATER_RELEASE="ignored by the bot")
    eventually(
        lambda: release.rows("SELECT 1 FROM trades WHERE status = 'closed'"), "a trade was opened and closed"
    )
    status, text = eventually(lambda: (found := release.get("/health"))[0] == 200 and found, "health is good")
    body = json.loads(text)
    assert {"status": "ok", "version": version, "database": "ok", "trial": False}.items() <= body.items()
    assert 0 <= body["heartbeat_age"] < 5
    status, page = release.get("/")
    assert (
        status == 200
        and f"<small>{version}</small>" in page
        and "BTC/EUR" in page
        and "<td>closed</td>" in page
    )
    assert ("Profit of the trades" in page) == (version != "1.0.0")
    assert "on trial" not in page
    assert "every trade is on the disk" in stopped(bot)
    stopped(dashboard)
    assert release.rows("PRAGMA integrity_check") == [("ok",)]
    assert release.rows("SELECT value FROM meta WHERE key = 'schema'") == [("1",)]


def test_on_trial_it_beats_and_places_no_orders(unpack: Callable[[str], Release], tmp_path: Path) -> None:
    release = unpack("1.0.0")
    counting = (
        "from bot.market import Market; from bot.strategy import Crossover; m, s = Market(42), Crossover(3, 8)\n"
        "print(next(tick for tick in range(1, 1000) if s.decide(m.next_price()) == 'buy'))"
    )
    done = subprocess.run(
        [release.python, "-c", counting],
        cwd=release.place,
        env=release.env(),
        capture_output=True,
        text=True,
        check=True,
    )
    first_order = int(done.stdout)
    trial = tmp_path / "trial"
    trial.touch()
    env = {"UPDATER_TRIAL": "1", "UPDATER_TRIAL_FILE": str(trial)}
    bot, _ = release.start("bot", **env), release.start("dashboard", **env)
    seen: set[str] = set()

    def ticks() -> int:
        """Every price seen was a tick of its own."""
        seen.add(release.heartbeat())
        return len(seen - {""})

    eventually(lambda: ticks() > first_order + 20, "ticks enough for an order")
    assert release.rows("SELECT count(*) FROM trades") == [(0,)]
    assert "on trial" in eventually(lambda: release.get("/")[1], "the page answers")
    trial.unlink()
    eventually(lambda: release.rows("SELECT 1 FROM trades"), "orders are placed once the trial is over")
    assert bot.poll() is None and "on trial" not in release.get("/")[1]


def test_the_trades_of_a_killed_bot_are_there_for_the_next_version(unpack: Callable[[str], Release]) -> None:
    old, new = unpack("1.0.0"), unpack("1.1.0")
    bot = old.start("bot")
    eventually(
        lambda: old.rows("SELECT 1 FROM trades WHERE status = 'closed'"), "a trade was opened and closed"
    )
    bot.kill()
    bot.wait(timeout=10)
    before = old.rows("SELECT id, opened_at FROM trades ORDER BY id")
    (new.place / "data").symlink_to(old.place / "data")
    bot = new.start("bot")
    eventually(
        lambda: len(new.rows("SELECT 1 FROM trades")) > len(before), "the next version goes on trading"
    )
    stopped(bot)
    assert new.rows("SELECT id, opened_at FROM trades ORDER BY id")[: len(before)] == before


def test_1_2_0_crashes_at_its_start(unpack: Callable[[str], Release]) -> None:
    dashboard = unpack("1.2.0").start("dashboard")
    said, _ = dashboard.communicate(timeout=30)
    assert dashboard.returncode == 1 and "KeyError: 'exchange'" in said


def test_1_3_0_is_healthy_and_dies_after_the_time(unpack: Callable[[str], Release]) -> None:
    release = unpack("1.3.0")
    begun = time.monotonic()
    bot, _ = release.start("bot", TRADEBOT_DIES_AFTER="3"), release.start("dashboard")
    eventually(lambda: release.get("/health")[0] == 200, "health is good")
    assert bot.poll() is None
    said, _ = bot.communicate(timeout=30)
    assert bot.returncode == 1 and "MemoryError" in said
    assert time.monotonic() - begun >= 3


# with updater


@pytest.mark.slow
def test_updater_puts_the_newest_into_service_with_the_configuration_of_the_clone(tmp_path: Path) -> None:
    """Without a tag the newest is taken: it has to be one that works."""
    root, port = tmp_path / "root", free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("UPDATER_")}

    def updater(*arguments: str) -> str:
        done = subprocess.run(
            [UPDATER, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    updater("init", str(root), "--repo", "example/tradebot")
    text = (CLONE / "updater.toml").read_text()
    for old, new in (
        ("8080", str(port)),
        ("examples/tradebot/dist", str(TRADEBOT / "dist")),
        ("watch = 10", "watch = 2"),
    ):
        assert old in text
        text = text.replace(old, new)
    (root / "updater.toml").write_text(text)
    settings = (CLONE / "shared" / "config" / "settings.toml").read_text()
    (root / "shared" / "config" / "settings.toml").write_text(settings.replace("8080", str(port)))
    try:
        updater("--root", str(root), "deploy")
        found = json.loads(updater("--root", str(root), "--json", "status"))
        assert found["in_service"]["version"] == found["good"] == VERSIONS[-1]
        states = {it["name"]: (it["state"], it["release"]) for it in found["processes"]}
        assert states == dict.fromkeys(("bot", "dashboard"), ("running", VERSIONS[-1]))
        status, body = Release(root, Path(sys.executable), port).get("/health")
        assert status == 200 and json.loads(body)["release"] == VERSIONS[-1]
    finally:
        updater("--root", str(root), "force-stop", "--yes")
