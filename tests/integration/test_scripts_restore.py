"""Data come back by a shell alone: `restore_backup.sh`, and the moves that it shares with updater itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.emergency import SCRIPTS, SHELLS, call, command, run, toolbox
from tests.integration.test_backups import backup, make_root, snapshot
from tests.integration.test_restore import TREES, Killed, plant, replant, staged, state
from tests.site import SERVE, UPDATER, Done, Site
from updater import durable, records
from updater.backups import swap
from updater.backups.catalogue import Backup
from updater.config import BackupConfig
from updater.deployment import journal
from updater.layout import Layout

pytestmark = pytest.mark.skipif(not shutil.which("zstd"), reason="NOT TESTED: no zstd")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toolbox(tmp_path_factory.mktemp("tools") / "bin")


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
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


# ---------------------------------------------------------------- without an application: the data alone


@pytest.fixture
def plain_root(tmp_path: Path) -> tuple[Layout, Backup, dict[str, Any]]:
    """A root in which nothing runs, a backup, and what is there since."""
    layout = make_root(tmp_path / "a root")
    layout.releases.mkdir()
    layout.config.write_text('[source]\nrepository = "owner/app"\n')
    data = layout.shared / "data"
    (layout.shared / "config" / "app.toml").write_text("first")
    (data / "deep").mkdir()
    (data / "closed").mkdir()
    for name in (
        "note",
        "sp ace",
        " spaces ",
        ".tmp-a-b-c",
        "new\nline",
        ".hidden",
        "deep/er",
        "closed/in",
        "ü*\\",
        "gone",
    ):
        (data / name).write_text("first")
    (data / "link").symlink_to("nowhere")
    (layout.shared / "uploads").mkdir()
    (layout.shared / "uploads" / "picture").write_text("first")
    (data / "closed").chmod(0o555)
    made = backup(layout)
    wanted = state(layout)
    (layout.shared / "config" / "app.toml").write_text("second")
    for name in ("note", " spaces ", ".tmp-a-b-c", "deep/er", "later", "-dash"):
        (data / name).write_text("second")
    (data / "gone").unlink()
    shutil.rmtree(layout.shared / "uploads")
    (layout.shared / "incoming").mkdir()
    (layout.shared / "incoming" / "file").write_text("second")
    return layout, made, wanted


def restore(tools: Path, layout: Layout, *arguments: str, shell: str = "sh", **env: str) -> Done:
    return run(tools, RUN, *arguments, "--yes", "--root", str(layout.root), shell=shell, **env)


@pytest.mark.parametrize("shell", SHELLS)
def test_in_every_shell(plain_root: tuple[Layout, Backup, dict[str, Any]], tools: Path, shell: str) -> None:
    layout, made, wanted = plain_root
    before = state(layout)
    done = restore(tools, layout, made.id, shell=shell)
    assert (done.code, done.err) == (0, ""), done.text
    [kept] = layout.shared.glob(".updater-kept-*")
    assert {it.name for it in kept.iterdir()} == {"PATHS", "new", "old"} and not list(
        (kept / "new").iterdir()
    )
    shutil.move(kept, layout.root / "kept")
    assert state(layout) == wanted
    # and back, by what it says to type; what SQLite has meanwhile left beside a file is none of the other one's
    shutil.move(layout.root / "kept", kept)
    (layout.shared / "data" / "note-wal").write_text("of the restored one")
    lines = done.out.splitlines()
    first = next(number for number, it in enumerate(lines) if it.startswith("    s="))
    typed = "\n".join(lines[first : first + 3])
    found = shutil.which(shell.split()[0])
    assert found is not None
    by_hand = subprocess.run(
        [found, *shell.split()[1:], "-c", typed], cwd=kept, env={"PATH": str(tools)}, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert by_hand.stderr == ""
    shutil.move(kept, layout.root / "kept")
    left = {
        path: it
        for path, it in state(layout).items()
        if "\n" not in path and "new\\nline" not in path and ".restored-" not in path
    }
    assert left == {path: it for path, it in before.items() if "\n" not in path}


KILLER = """#!/bin/sh
if [ -n "${{COUNT-}}" ]; then
    read n <"$COUNT" || n=0
    echo $((n + 1)) >"$COUNT"
    [ $((n + 1)) -ne "$KILL_AT" ] || kill -9 0
fi
case "$*" in *"${{KILL_ON-no such name}}"*) kill -9 0 ;; esac
exec {mv} "$@"
"""


@pytest.fixture(scope="module")
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tools whose `mv` kills the script with kill -9 instead of renaming for the KILL_AT-th time, or what is named KILL_ON."""
    made = toolbox(tmp_path_factory.mktemp("deadly") / "bin", without=("mv",))
    (made / "mv").write_text(KILLER.format(mv=shutil.which("mv")))
    (made / "mv").chmod(0o755)
    return made


def renames(place: Path) -> int:
    return int(place.read_text()) if place.exists() else 0


def test_killed_anywhere(
    plain_root: tuple[Layout, Backup, dict[str, Any]], tools: Path, deadly: Path, tmp_path: Path
) -> None:
    """The same script again finishes it; `updater recover` takes it back, or finishes what already counts."""
    layout, made, wanted = plain_root
    count = tmp_path / "count"
    original = tmp_path / "original"
    shutil.copytree(layout.root, original, symlinks=True)
    before = state(layout)
    assert restore(deadly, layout, made.id, COUNT=str(count), KILL_AT="0").code == 0
    every = renames(count)
    assert every > 20
    for at, again in ((every // 2, "script"), (every - 7, "recover"), (every - 1, "recover")):
        durable.remove_tree(layout.root)
        shutil.copytree(original, layout.root, symlinks=True)
        count.unlink()
        killed = subprocess.run(
            command(RUN, made.id, "--yes", "--root", str(layout.root)), cwd="/", capture_output=True, check=False,
            env={"PATH": str(deadly), "COUNT": str(count), "KILL_AT": str(at)}, start_new_session=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert killed.returncode == -9, (at, killed)
        if again == "script":
            done = restore(tools, layout, made.id)
            assert done.code == 0, (at, done.text)
        else:
            env = {**os.environ, "UPDATER_ROOT": str(layout.root)}
            recovered = subprocess.run(
                [UPDATER, "recover"], env=env, capture_output=True, text=True, check=False
            )
            assert recovered.returncode == 0, (at, recovered)
        for kept in layout.shared.glob(".updater-kept-*"):
            durable.remove_tree(kept)
        assert state(layout) in ([wanted] if again == "script" else [before, wanted]), at
        assert not list(layout.shared.glob(".updater-*")) and not list(layout.journal.glob("*.jsonl"))
        assert not layout.swap.exists() and not layout.swap_steps.exists() and not layout.swapped.exists()


@pytest.mark.parametrize(("shell", "torn"), [("dash", b'0123456789abcdef {"at":"2026'), ("busybox sh", b"")])
def test_undone_by_a_script_that_is_killed_before_the_record_it_is_not_told_as_done(
    plain_root: tuple[Layout, Backup, dict[str, Any]], tools: Path, deadly: Path, shell: str, torn: bytes
) -> None:
    """Killed at the last moment before it counts: what the script has taken back shows in nothing but the journal."""
    if shell not in SHELLS:
        pytest.skip(f"NOT TESTED: no {shell} here")
    layout, made, _ = plain_root
    before = state(layout)

    def killed(*words: str, on: str) -> None:
        done = subprocess.run(
            command(*words, "--yes", "--root", str(layout.root), shell=shell), cwd="/", capture_output=True, check=False,
            env={"PATH": str(deadly), "KILL_ON": on}, start_new_session=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == -9, done

    killed(RUN, made.id, on="/swapped.json")
    [path] = journal.unfinished(layout)
    with path.open("ab") as end:
        end.write(torn)
    killed("cleanup_failed_update.sh", on="/update_history.json")
    assert state(layout) == before and not layout.swap.exists()
    env = {**os.environ, "UPDATER_ROOT": str(layout.root)}
    recovered = subprocess.run([UPDATER, "recover"], env=env, capture_output=True, text=True, check=False)
    assert recovered.returncode == 0 and "was interrupted and was undone" in recovered.stdout, recovered
    [record] = records.history(layout)
    assert record["outcome"] == "rolled-back"
    assert record["error"]["code"] == "deployment-interrupted"
    assert "was killed, or the machine stopped, in phase commit" in str(record["error"]["details"])
    assert f"updater backup restore {made.id}" in record["error"]["advice"]
    assert state(layout) == before and not journal.unfinished(layout)


def test_a_damaged_backup_is_refused_and_the_next_best_named(
    plain_root: tuple[Layout, Backup, dict[str, Any]], tools: Path
) -> None:
    layout, made, _ = plain_root
    other = backup(layout)
    before = state(layout)
    archive = made.directory / "data.tar.zst"
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 1
    archive.chmod(0o644)
    archive.write_bytes(raw)
    for words in ((), ("--check",)):
        done = restore(tools, layout, made.id, *words)
        assert done.code == 7 and "data.tar.zst is damaged" in done.err, done.text
    assert other.id in restore(tools, layout, made.id).err
    (other.directory / "manifest.json").write_text("{")
    done = restore(tools, layout, "latest")
    assert done.code == 2 and "is newer" in done.err
    assert state(layout) == before


def test_other_ways_to_read_zstandard(
    plain_root: tuple[Layout, Backup, dict[str, Any]], tmp_path: Path
) -> None:
    layout, made, wanted = plain_root
    none = toolbox(tmp_path / "none", without=("zstd",))
    done = restore(none, layout, made.id)
    assert done.code == 3 and "apt-get install zstd" in done.err, done.text
    into = tmp_path / "a look"
    if shutil.which("bsdtar"):
        by_tar = toolbox(tmp_path / "tar", "bsdtar", without=("zstd",))
        assert restore(by_tar, layout, made.id, "--to", str(into), "--only", "data").code == 0
        assert (into / "data" / "new\nline").read_text() == "first"
    python = layout.releases / "v1" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = restore(none, layout, made.id)
    assert done.code == 0, done.text
    assert {path: it for path, it in state(layout).items() if not path.startswith(".updater-")} == wanted


def test_of_another_root_excluded_and_asked_for_in_part(
    plain_root: tuple[Layout, Backup, dict[str, Any]], tools: Path, tmp_path: Path
) -> None:
    layout, made, _ = plain_root
    (layout.own / "id").write_text("0" * 32)
    manifest = json.loads((made.directory / "manifest.json").read_text())
    manifest["dumps"] = [{"name": "orders.sql", "size": 1, "sha256": "0" * 64}]
    (made.directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    listed = (made.directory / "SHA256SUMS").read_text()
    now = hashlib.sha256((made.directory / "manifest.json").read_bytes()).hexdigest()
    (made.directory / "SHA256SUMS").write_text(re.sub(r"\w+(?=  manifest.json)", now, listed))
    done = restore(tools, layout, made.id)
    assert done.code == 2 and "another root" in done.err
    shutil.rmtree(layout.own)
    (layout.root / "current").symlink_to("releases/nowhere")
    layout.config.write_text('[backup]\nexclude = ["data/later", "data/deep/*.tmp"]\n')
    (layout.shared / "data" / "deep" / "x.tmp").write_text("stays")
    elsewhere = tmp_path / "another disk"
    (layout.shared / "data").rename(elsewhere)
    (layout.shared / "data").symlink_to(elsewhere)
    done = restore(tools, layout, made.id)
    assert done.code == 0, done.text
    assert "dumps of orders.sql" in done.err and f"updater backup restore {made.id} --only dumps" in done.err
    assert (elsewhere / "later").read_text() == "second" and (
        elsewhere / "deep" / "x.tmp"
    ).read_text() == "stays"
    assert (elsewhere / "note").read_text() == (elsewhere / "deep" / "er").read_text() == "first"
    assert (layout.own / "id").read_text().strip() == made.manifest.root["id"]


def test_nothing_is_put_back_by_whoever_wanted_a_look(
    plain_root: tuple[Layout, Backup, dict[str, Any]], tools: Path
) -> None:
    layout, made, _ = plain_root
    before = state(layout)
    for words in (("--to", ""), ("--to=",), ("--only", ""), ("--only=",)):
        assert restore(tools, layout, made.id, *words).code == 2
    assert state(layout) == before


@pytest.mark.parametrize("entry", ["removed", "blocks"])
@pytest.mark.parametrize("path", ["../victim", "link/victim", "/{}/victim", "there"])
def test_a_backup_that_lies_changes_nothing_elsewhere(
    tmp_path: Path, tools: Path, entry: str, path: str
) -> None:
    victim, tree, made = tmp_path / "victim", tmp_path / "tree", tmp_path / "backup"
    victim.write_text("ours")
    tree.mkdir()
    made.mkdir()
    base, delta = tmp_path / "base", tmp_path / "delta"
    base.mkdir()
    (base / "link").symlink_to("..")
    if entry == "blocks":
        (base / "there").symlink_to("../victim")
    changed = delta / ".updater-delta" / entry
    changed.mkdir(parents=True)
    if entry == "removed":
        (changed / "1").write_text(path.format(tmp_path))
    else:
        (changed / "1").mkdir()
        for name, content in {
            "path": path.format(tmp_path),
            "size": "4",
            "ranges": "0 1\n",
            "data": "evil",
        }.items():
            (changed / "1" / name).write_text(content)
    for name, place in (("data", base), ("data.delta", delta)):
        subprocess.run(["tar", "cf", made / f"{name}.tar", "-C", place, *os.listdir(place)], check=True)
        subprocess.run(["zstd", "-q", "--rm", made / f"{name}.tar"], check=True)
    done = call(
        tools, tmp_path, f'. "{SCRIPTS}/lib_backup.sh"; cd "$root/backup"; unpack data "$root/tree"; say $?'
    )
    assert victim.read_text() == "ours", done.text
    assert done.out == ("0\n" if entry == "removed" and path in ("there", "/{}/victim") else "1\n"), done.text


def test_its_unpack_is_the_one_that_is_documented() -> None:
    document = (SCRIPTS.parent / "docs" / "format.md").read_text()
    found = re.search(r"```sh\n(unpack\(\) \{.*?)```", document, re.S)
    assert found is not None and found[1] in (SCRIPTS / "lib_backup.sh").read_text()


# ---------------------------------------------------------------- with an application


BY_DATA = SERVE.replace('told("behaviour")', 'told("data/behaviour")')
"""How the application behaves lies in its data."""


def test_data_that_make_the_application_sick_are_taken_back_and_a_kill_is_recovered_from(
    site: Site, tools: Path, deadly: Path, tmp_path: Path
) -> None:
    behaviour = site.layout.shared / "data" / "behaviour"
    behaviour.write_text("crash")
    made = make_backup(site)
    behaviour.write_text("good")
    site.publish("v1", files={"serve.py": BY_DATA})
    assert site.updater("deploy", "v1").code == 0
    done = run(tools, RUN, made, "--yes", "--root", str(site.root))
    assert done.code == 4 and "as they were before" in done.err, done.text
    site.runs("v1")
    assert behaviour.read_text() == "good" and site.history()[-1]["outcome"] == "rolled-back"
    site.is_clean()
    # killed in the middle of the exchange: the application is down, its data are gone and not yet back
    killed = subprocess.run(
        command(RUN, made, "--yes", "--root", str(site.root)), cwd="/", capture_output=True, check=False,
        env={"PATH": str(deadly), "KILL_ON": "/new/1 "}, start_new_session=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert killed.returncode == -9 and site.answer() is None and not behaviour.exists()
    assert site.updater("recover").code == 0
    site.runs("v1")
    assert behaviour.read_text() == "good"
    site.is_clean()


def test_the_rollback_script_has_it_put_the_data_back_under_its_own_lock(site: Site, tools: Path) -> None:
    site.deployed("v1")
    fill(site, 5, "of v1")
    site.deployed("v2")
    fill(site, 5, "of v2")
    done = run(tools, "emergency_rollback.sh", "--restore-data", "--yes", "--root", str(site.root))
    assert done.code == 0, done.text
    site.runs("v1")
    assert words(site) == ["of v1"]
    assert [it["kind"] for it in site.history()[-2:]] == ["restore", "rollback"]
    assert not (site.layout.own / "lock.owner").exists()
    site.is_clean()
