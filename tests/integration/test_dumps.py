"""Dumps of other databases: only a whole one gets into a backup, only a proved one goes back, and nobody learns a password.

The commands here are plain shell; test_databases.py has real servers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.site import Site, eventually
from updater.backups import create, dumping, dumps, reading
from updater.backups.catalogue import Backup
from updater.config import BackupConfig, Config, DumpConfig, SourceConfig
from updater.errors import BackupDamaged, BackupFailed, Cancelled, UsageError
from updater.layout import Layout
from updater.preflight import data, space
from updater.preflight.plan import Plan
from updater.subprocesses import Identity

MEGABYTE = 1024**2


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "a root")
    for directory in (layout.own, layout.shared / "data", layout.logs):
        directory.mkdir(parents=True)
    layout.config.write_text("")
    return layout


def sh(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


def one(dump: str = "echo rows", restore: str = "cat >fed", name: str = "db", **more: Any) -> DumpConfig:
    return DumpConfig(name, sh(dump), sh(restore), **more)


def config(layout: Layout, *dumps: DumpConfig) -> Config:
    return Config(layout.config, backup=BackupConfig(dumps={it.name: it for it in dumps}))


def backup(layout: Layout, *dumps: DumpConfig, check: Callable[[], None] | None = None) -> Backup:
    return create.create(layout, config(layout, *dumps), create.Making("by hand", check=check))


def load(
    layout: Layout, made: Backup, *how: DumpConfig, names: tuple[str, ...] = ("db",), **more: Any
) -> None:
    dumps.load(layout, config(layout, *how), made.directory, names, **more)


def leftovers(layout: Layout) -> list[str]:
    return sorted(it.name for it in layout.backups.iterdir() if it.name.startswith(".tmp-"))


def test_what_a_command_wrote_is_what_another_one_gets(layout: Layout) -> None:
    content = os.urandom(3 * MEGABYTE + 17)
    (layout.root / "db").write_bytes(content)
    how = one("cat db; echo 'skipped one view' >&2", env={"WHERE": "here"})
    made = backup(layout, how, one("echo other", name="Other-1"))
    reading.prove(made.directory)
    assert [it.name for it in made.manifest.dumps] == ["db", "Other-1"]
    assert made.manifest.dumps[0].size == len(content)
    assert made.manifest.dumps[0].sha256 == hashlib.sha256(content).hexdigest()
    assert made.manifest.warnings == ("the dump db: skipped one view",)

    told: list[tuple[int, int]] = []
    load(layout, made, how, on_progress=lambda done, total: told.append((done, total)))
    assert (layout.root / "fed").read_bytes() == content
    assert told[-1] == (len(content), len(content))
    assert leftovers(layout) == []


def test_the_command_line_keeps_shows_and_unpacks_dumps(site: Site) -> None:
    """They run in the release in service, with its Python; and what is unpacked is for its owner alone."""
    site.deployed("v1.0.0")
    site.configure(
        extra="""
[backup.dumps.where]
dump = ["python", "-c", "import os, sys; print(os.getcwd(), sys.prefix, os.environ['UPDATER_SHARED'], os.environ.get('GITHUB_TOKEN'))"]
restore = ["cat"]
"""
    )
    site.environment["GITHUB_TOKEN"] = "updaters-alone"
    done = site.updater("--json", "backup", "create")
    assert done.code == 0, done.text
    assert [it["name"] for it in done.json["dumps"]] == ["where"]
    assert site.updater("backup", "verify").code == 0
    assert site.updater("backup", "restore", "latest", "--to", "out", "--only", "dumps").code == 0
    unpacked = site.place / "out" / "dumps" / "where"
    release = site.layout.release("v1.0.0")
    assert unpacked.read_text() == f"{release} {release / '.venv'} {site.layout.shared} None\n"
    assert stat.S_IMODE(unpacked.stat().st_mode) == 0o600

    by_hand = "zstd -dc dumps.tar.zst | tar xOf - dumps/where"
    seen = subprocess.run(
        ["sh", "-c", by_hand], cwd=done.json["path"], capture_output=True, text=True, check=True
    )
    assert seen.stdout == unpacked.read_text()

    del site.environment["GITHUB_TOKEN"]
    site.publish("v1.1.0")
    assert site.updater("deploy").code == 0
    assert site.updater("--json", "backup", "list").json[0]["dumps"][0]["name"] == "where"


def test_without_a_release_commands_run_in_the_root(layout: Layout) -> None:
    made = backup(layout, one("pwd", restore="pwd >fed; cat >>fed"))
    load(layout, made, one(restore="pwd >fed; cat >>fed"))
    assert (layout.root / "fed").read_text() == f"{layout.root}\n" * 2


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (one("echo rows; echo 'no such table' >&2; exit 3"), "could not be made: it exited with 3\n  no such table"),
        (one("echo rows; kill -9 $$"), "could not be made: it was ended by signal 9"),
        (one("echo 'nothing to do' >&2"), "could not be made: it wrote nothing\n  nothing to do"),
        (one("echo rows; sleep 300", timeout=0.5), "could not be made: it did not end within 0.5 s and was ended"),
        (one("echo rows; sleep 300 &", timeout=0.5), "could not be made: it did not end within 0.5 s"),
        (DumpConfig("db", ("no-such-tool",), ("cat",)), "could not be made: no-such-tool cannot be started: No such file"),
        (one(check=sh("cat; echo 'truncated' >&2; exit 1")), "refused by its check command: it exited with 1\n  rows\n  truncated"),
        (one(check=("true",)), "refused by its check command: it read nothing of the 5 bytes"),
        (one(check=("no-such-tool",)), "refused by its check command: no-such-tool cannot be started"),
    ],
    ids=lambda it: it[:40] if isinstance(it, str) else "",
)  # fmt: skip
def test_a_dump_that_is_not_whole_fails_the_backup(layout: Layout, how: DumpConfig, says: str) -> None:
    with pytest.raises(BackupFailed) as raised:
        backup(layout, one(name="good"), how)
    assert raised.value.exit_code == 4
    assert says in raised.value.as_text()
    assert "[backup.dumps.db]" in raised.value.as_text()
    assert list(layout.backups.iterdir()) == []


@pytest.mark.parametrize("how", ["timeout", "cancelled"])
def test_a_dump_that_is_given_up_is_ended_with_everything_below_it(layout: Layout, how: str) -> None:
    pid = layout.root / "pid"

    def check() -> None:
        if how == "cancelled" and pid.exists() and pid.read_text().endswith("\n"):
            raise Cancelled("stop")

    hanging = one("(trap '' TERM; sleep 300) & echo $! >pid; wait", timeout=1 if how == "timeout" else 60)
    with pytest.raises((BackupFailed, Cancelled)):
        backup(layout, hanging, check=check)
    below = Identity.of(int(pid.read_text()))
    eventually(lambda: below is None or not below.alive(), "what the command started is gone")
    assert list(layout.backups.iterdir()) == []


def test_a_dump_keeps_no_dead_updaters_lock(site: Site) -> None:
    site.configure(
        extra='[backup.dumps.db]\ndump = ["sh", "-c", "echo $$ >pid; sleep 300"]\nrestore = ["cat"]\n'
    )
    command = site.start("backup", "create")
    eventually(
        lambda: (site.root / "pid").exists() and (site.root / "pid").read_text().strip(), "the dump runs"
    )
    command.send_signal(signal.SIGKILL)
    command.communicate()
    site.configure(extra="")
    done = site.updater("backup", "create")
    assert done.code == 0, done.text
    site.is_clean()


def test_no_value_of_the_environment_is_in_a_message(layout: Layout) -> None:
    env = {"URL": "postgresql://bot:p%40ss-word@db.lan/bot", "TOKEN": "tok-1234", "N": "1"}
    said = 'echo "1: $URL $TOKEN, p@ss-word and mysql://bot:elsewhere@db" >&2'
    expected = "1: $URL $TOKEN, *** and mysql://bot:***@db"
    with pytest.raises(BackupFailed) as raised:
        backup(layout, one(f"{said}; exit 1", env=env))
    assert raised.value.details == [expected]
    made = backup(layout, one(f"{said}; echo rows", env=env))
    assert made.manifest.warnings == (f"the dump db: {expected}",)
    assert dumping.hide("", {}) == ""


def test_a_dump_is_never_whole_in_memory(layout: Layout) -> None:
    """300 MB on the way out and back, in less than 150 MB more than Python has at the start."""
    (layout.root / "run.py").write_text(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from updater.backups import create, dumps\n"
        "from updater.config import BackupConfig, Config, DumpConfig\n"
        "from updater.layout import Layout\n"
        "layout = Layout(Path(sys.argv[1]))\n"
        "how = DumpConfig('db', ('head', '-c', '300000000', '/dev/zero'), ('sh', '-c', 'wc -c >fed'))\n"
        "config = Config(layout.config, backup=BackupConfig(dumps={'db': how}))\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "made = create.create(layout, config, create.Making('by hand'))\n"
        "dumps.load(layout, config, made.directory, ['db'])\n"
        "print((peak() - before) * (1 if sys.platform == 'darwin' else 1024))\n"
    )
    done = subprocess.run(
        [sys.executable, "run.py", str(layout.root)],
        cwd=layout.root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int((layout.root / "fed").read_text()) == 300_000_000
    assert int(done.stdout) < 150 * MEGABYTE


def test_what_was_the_same_in_the_last_dump_is_stored_once(layout: Layout) -> None:
    content = bytearray(os.urandom(4 * MEGABYTE))
    place = layout.root / "db"
    place.write_bytes(content)
    first = backup(layout, one("cat db"))
    assert first.own > 4 * MEGABYTE
    assert backup(layout, one("cat db")).own < 100_000
    content[1_000_000:1_000_010] = b"0123456789"
    place.write_bytes(content)
    third = backup(layout, one("cat db"))
    assert third.own < 100_000
    load(layout, third, one())
    assert (layout.root / "fed").read_bytes() == content


def test_a_dump_that_is_configured_no_more_leaves_nothing_behind(layout: Layout) -> None:
    (layout.root / "db").write_bytes(os.urandom(3 * MEGABYTE))
    backup(layout, one("cat db"))
    made = backup(layout)
    assert made.manifest.dumps == ()
    assert not [it for it in made.directory.iterdir() if it.name.startswith("dumps")]
    reading.prove(made.directory)


def test_a_damaged_dump_is_fed_to_nobody(layout: Layout) -> None:
    (layout.root / "db").write_bytes(os.urandom(100_000))
    made = backup(layout, one("cat db"))
    archive = made.directory / "dumps.tar.zst"
    whole = archive.read_bytes()
    for at in range(20, len(whole), len(whole) // 7):
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BackupDamaged):
            load(layout, made, one())
    for content in (whole[: len(whole) // 2], b""):
        archive.write_bytes(content)
        with pytest.raises(BackupDamaged):
            load(layout, made, one())
    archive.unlink()
    with pytest.raises(BackupDamaged):
        load(layout, made, one())
    assert not (layout.root / "fed").exists()
    assert leftovers(layout) == []


def test_a_manifest_that_tells_of_another_dump_is_not_believed(layout: Layout) -> None:
    made = backup(layout, one())
    place = made.directory / "manifest.json"
    digest = made.manifest.dumps[0].sha256
    old = hashlib.sha256(place.read_bytes()).hexdigest()
    place.write_text(place.read_text().replace(digest, "0" * 64))
    sums = made.directory / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(place.read_bytes()).hexdigest()))
    with pytest.raises(BackupDamaged, match="the dump db is not what the manifest says"):
        load(layout, made, one())
    assert not (layout.root / "fed").exists()


def test_what_cannot_be_put_back_is_told_before_anything_is_begun(layout: Layout) -> None:
    made = backup(layout, one(), one(name="second"))
    for how, names, says in (
        ((one(),), ("db", "third"), "holds no dump 'third'"),
        ((one(),), ("db", "second"), "the dump second cannot be put back: there is no [backup.dumps.second]"),
        (
            (one(), DumpConfig("second", ("true",), ("no-such-tool",))),
            ("db", "second"),
            "`no-such-tool` is not found",
        ),
    ):
        with pytest.raises(UsageError, match=re.escape(says)) as raised:
            load(layout, made, *how, names=names)
        assert raised.value.state == "Nothing was changed."
    assert not (layout.root / "fed").exists()


@pytest.mark.parametrize(
    ("restore", "says"),
    [
        (
            "cat >/dev/null; echo 'syntax error' >&2; exit 3",
            "could not be put back: it exited with 3\n  syntax error",
        ),
        ("cat >/dev/null; kill -9 $$", "could not be put back: it was ended by signal 9"),
        ("cat >/dev/null; sleep 300", "could not be put back: it did not end within 2 s"),
        ("exec </dev/null; exit 0", "could not be put back: it exited with 0 but left 5 of 5 bytes unread"),
    ],
)
def test_a_restore_that_fails_says_what_state_things_are_in(layout: Layout, restore: str, says: str) -> None:
    three = [one(name=name) for name in ("first", "db", "last")]
    made = backup(layout, *three)
    three[1] = one(restore=restore, timeout=2)
    with pytest.raises(BackupFailed) as raised:
        load(layout, made, *three, names=("first", "db", "last"))
    assert says in raised.value.as_text()
    assert "Put back before it: first. Not begun: last." in str(raised.value.state)
    assert leftovers(layout) == []


def test_a_restore_is_a_child_that_changes_things(layout: Layout) -> None:
    """It keeps what it is told to keep (the lock), and can be found by a recovery."""
    made = backup(layout, one())
    record = layout.own / "child"
    with (layout.own / "lock").open("w") as lock:
        write = f"{sys.executable} -c 'import os; os.write({lock.fileno()}, b\"held\")'"
        kept = one(restore=f"cat >/dev/null; {write}; cat '{record}' >fed")
        load(layout, made, kept, keep_fds=(lock.fileno(),), record=record)
    assert (layout.own / "lock").read_text() == "held"
    assert (layout.root / "fed").read_text().startswith("pid=")
    assert not record.exists()


def test_preflight_misses_programs_and_counts_the_room_for_dumps(layout: Layout) -> None:
    plan = Plan(target=None, installed=False, artifact_size=None)
    assert data.dump_commands(layout, config(layout), plan).result == "ok"
    assert data.dump_commands(layout, config(layout, one(check=sh("cat"))), plan).result == "ok"
    without = DumpConfig("db", ("no-such-dump",), ("sh",), check=("no-such-check",))
    found = data.dump_commands(layout, config(layout, without), plan)
    assert found.result == "failed"
    assert found.summary == "not found: db: no-such-dump, for dump; db: no-such-check, for check"

    how = replace(config(layout, one("head -c 40000000 /dev/zero")), min_free=0)
    plan = replace(plan, installed=True)
    assert "69 MB needed" in space.Needs(layout, how, plan).bytes().summary
    create.create(layout, how, create.Making("by hand"))
    assert "119 MB needed" in space.Needs(layout, how, plan).bytes().summary


def test_a_backup_of_before_there_were_dumps_is_read(layout: Layout) -> None:
    made = backup(layout)
    place = made.directory / "manifest.json"
    told = json.loads(place.read_text())
    del told["dumps"]
    place.write_text(json.dumps(told))
    found = reading.manifest(made.directory)
    assert found is not None and found.dumps == ()


def test_the_token_of_the_source_is_not_for_dumps(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "updater's alone")
    how = one("echo ${MY_TOKEN-none}")
    ours = Config(
        layout.config, source=SourceConfig(token_env="MY_TOKEN"), backup=BackupConfig(dumps={"db": how})
    )
    made = create.create(layout, ours, create.Making("by hand"))
    load(layout, made, how)
    assert (layout.root / "fed").read_text() == "none\n"


def test_a_deployment_without_its_dump_stops_nothing(site: Site) -> None:
    site.deployed("v1.0.0")
    pids = [it["pid"] for it in site.status()["processes"]]
    site.publish("v1.1.0")
    site.configure(
        extra='[backup.dumps.db]\ndump = ["sh", "-c", "echo gone >&2; exit 1"]\nrestore = ["cat"]\n'
    )
    done = site.updater("deploy")
    assert done.code == 4, done.text
    assert "the dump db could not be made: it exited with 1" in done.err
    assert [it["pid"] for it in site.status()["processes"]] == pids
    site.runs("v1.0.0")

    site.configure(extra='[backup.dumps.db]\ndump = ["no-such-tool"]\nrestore = ["cat"]\n')
    done = site.updater("deploy")
    assert done.code == 3, done.text
    assert "not found: db: no-such-tool, for dump" in done.text
