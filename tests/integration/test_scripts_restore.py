"""Data come back by a shell alone: `restore_backup.sh`, and the moves that it shares with updater itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.emergency import SHELLS, call, run, toolbox
from tests.integration.test_backups import backup, make_root, snapshot
from tests.integration.test_restore import TREES, Killed, plant, replant, staged, state
from tests.site import Site
from updater.backups import swap
from updater.config import BackupConfig

pytestmark = pytest.mark.skipif(not shutil.which("zstd"), reason="NOT TESTED: no zstd")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toolbox(tmp_path_factory.mktemp("tools") / "bin")


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(first=TREES, second=TREES, data=st.data())
def test_what_updater_was_killed_in_moving_a_shell_takes_back(
    tmp_path_factory: pytest.TempPathFactory,
    tools: Path,
    first: dict[str, Any],
    second: dict[str, Any],
    data: st.DataObject,
) -> None:
    layout = make_root(tmp_path_factory.mktemp("a root"))
    place = layout.shared / "data"
    plant(place, first)
    made = backup(layout)
    replant(place, second)
    before = state(layout)
    moving = staged(layout, made, BackupConfig())
    dies_at, keep = data.draw(st.integers(0, 12)), data.draw(st.booleans())
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
    undone = call(
        tools,
        layout.root,
        f"swap_undo {'keep' if keep else 'drop'}",
        shell=data.draw(st.sampled_from(SHELLS)),
    )
    assert (undone.code, undone.err) == (0, "")
    kept = [Path(it) for it in undone.out.splitlines()]
    assert keep or not kept
    for it in kept:
        assert (it / "PATHS").is_file()
        shutil.rmtree(it)
    assert state(layout) == before
    assert (
        not list(layout.shared.rglob(".updater-*"))
        and not layout.swap.exists()
        and not layout.swap_steps.exists()
    )
    assert swap.pending(layout) is None
    assert call(tools, layout.root, "swap_undo keep").code == 0


RUN = "restore_backup.sh"


def fill(site: Site, rows: int, word: str) -> None:
    data = site.layout.shared / "data"
    with contextlib.closing(sqlite3.connect(data / "trades.db")) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS trades (what)")
        connection.executemany("INSERT INTO trades VALUES (?)", [(word,)] * rows)
    (data / "deep").mkdir(exist_ok=True)
    for name in ("note", "sp ace", "new\nline", ".hidden", "deep/er", "back\\slash*", "ünï"):
        (data / name).write_text(word)
    (site.layout.shared / "config" / "app.toml").write_text(f"word = '{word}'\n")


def words(site: Site) -> list[str]:
    with contextlib.closing(sqlite3.connect(site.layout.shared / "data" / "trades.db")) as connection:
        return [row[0] for row in connection.execute("SELECT DISTINCT what FROM trades")]


def make_backup(site: Site) -> str:
    done = site.updater("--json", "backup", "create")
    assert done.code == 0, done.text
    return str(done.json["id"])


@pytest.fixture
def filled(site: Site) -> tuple[Site, str, dict[str, Any]]:
    """A running release, a backup of its data, and other data since."""
    site.deployed("v1")
    fill(site, 50, "first")
    made = make_backup(site)
    before = content(site)
    fill(site, 20, "second")
    (site.layout.shared / "data" / "later").write_text("later")
    (site.layout.shared / "data" / "note").unlink()
    return site, made, before


def content(site: Site) -> dict[str, Any]:
    found = snapshot(site.layout.shared, dates=False)
    return {
        path: it
        for path, it in found.items()
        if path.split("/")[0] in ("config", "data") and not path.endswith(("-wal", "-shm"))
    }


def test_a_backup_is_back_and_everything_since_is_kept(
    filled: tuple[Site, str, dict[str, Any]], tools: Path
) -> None:
    site, made, before = filled
    listed = run(tools, RUN, "--list", "--root", str(site.root))
    assert listed.code == 0 and made in listed.out and "whole" in listed.out, listed.text
    assert run(tools, RUN, made, "--check", "--root", str(site.root)).code == 0
    done = run(tools, RUN, "latest", "--yes", "--root", str(site.root))
    print(done.text)
    assert done.code == 0, done.text
    assert words(site) == ["first"] and content(site) == before
    site.runs("v1")
    [kept] = site.layout.shared.glob(".updater-kept-*")
    assert str(kept) in done.out
    assert "second" in {it.read_text(errors="ignore") for it in (kept / "old").iterdir() if it.is_file()}
    assert site.history()[-1]["kind"] == "restore" and site.history()[-1]["outcome"] == "succeeded"
    site.is_clean()
    assert not list(site.layout.shared.glob(".updater-[0-9]*")) and not site.layout.swap.exists()
    assert not site.layout.swap_steps.exists()
    assert site.updater("recover").code == 0 and site.updater("backup", "create").code == 0
    assert content(site) == before
