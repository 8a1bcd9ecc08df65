"""The emergency scripts, attacked: by data in odd states, odd files, and an environment that is not theirs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emergency import SCRIPTS, SHELLS, call, run, toolbox
from tests.integration.test_migration import MIGRATE, ask, columns, database, nothing_left, whats, with_trades
from tests.integration.test_ways_out import holder_pid
from tests.shells import script, tools
from tests.site import SERVE, Site, eventually
from updater import records
from updater.deployment import journal
from updater.layout import Layout
from updater.releases import marks

LOG = """
import os, signal, sqlite3, time
connection = sqlite3.connect("data/trades.db")
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("INSERT INTO trades (what) VALUES ('by the new release')")
connection.commit()
"""
"""Whoever is killed after this leaves a log beside a database that had none, with all that it has written."""

ALTER = """
import sqlite3
connection = sqlite3.connect("data/trades.db")
connection.execute("ALTER TABLE trades ADD COLUMN fee REAL")
connection.commit()
connection.close()
"""
REAL = "if not os.environ.get('UPDATER_REHEARSAL'): "


def without_a_log(site: Site) -> None:
    with_trades(site)
    with contextlib.closing(sqlite3.connect(database(site))) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    assert not list(database(site).parent.glob("trades.db-*"))


def as_before(site: Site) -> None:
    assert not list(database(site).parent.glob("trades.db-*")), "it would be read into the database"
    assert ask(database(site), "PRAGMA integrity_check") == [("ok",)]
    assert columns(database(site)) == ["id", "what"] and whats(database(site)) == ["first"]


def test_what_a_migration_that_was_killed_wrote_does_not_come_back_by_its_log(site: Site) -> None:
    """Out of memory, perhaps: SQLite reads a log into whatever database lies beside it."""
    without_a_log(site)
    site.configure(extra=MIGRATE)
    killed = LOG + REAL + "os.kill(os.getpid(), signal.SIGKILL)"
    site.publish("v1.1.0", files={"migrate.py": killed})
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and "exited with -9" in done.err, done.text
    as_before(site)
    nothing_left(site)


def test_nor_does_it_when_a_script_takes_it_back(site: Site, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    without_a_log(site)
    site.configure(extra=MIGRATE)
    waits = LOG + REAL + "open('data/now', 'w').close(); time.sleep(60)"
    site.publish("v1.1.0", files={"migrate.py": waits})
    running = site.start("deploy", "v1.1.0")
    eventually((site.layout.shared / "data" / "now").exists, "the migration has written")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    done = script(site, path, "emergency_rollback.sh", "--yes")
    assert done.code == 0, done.text
    as_before(site)
    assert not list(site.layout.shared.rglob(".updater-*")) and not site.layout.swap.exists()


def test_nor_does_what_the_new_release_wrote(site: Site, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", without=("sqlite3",))
    without_a_log(site)
    site.configure(extra=MIGRATE, watch=60)
    site.publish("v1.1.0", files={"migrate.py": ALTER, "serve.py": LOG + SERVE})
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: (site.answer() or "").startswith("1.1.0"), "the new release answers")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    done = script(site, path, "emergency_rollback.sh", "--yes")
    assert done.code == 0, done.text
    as_before(site)
    kept = next(site.layout.shared.glob(".updater-kept-*"))
    numbers = {line.split("  ")[1]: line.split("  ")[0] for line in (kept / "PATHS").read_text().splitlines()}
    for end in ("", "-wal"):  # side by side again they are what the new release had
        (kept / "new" / numbers[f"data/trades.db{end}"]).rename(kept / f"trades.db{end}")
    assert whats(kept / "trades.db") == ["first", "by the new release"]


@pytest.mark.parametrize("by", ["script", "updater"])
def test_nor_does_what_was_written_to_data_that_came_back_in_vain(
    site: Site, tmp_path: Path, by: str
) -> None:
    """With the data of a backup the application does not start: the present ones come back."""
    path = tools(tmp_path / "bin")
    without_a_log(site)
    (site.layout.shared / "data" / "state.json").write_text("bad")
    made = site.updater("--json", "backup", "create").json["id"]
    (site.layout.shared / "data" / "state.json").write_text("good")
    fussy = "if open('data/state.json').read() == 'bad':\n" + LOG.replace("\n", "\n    ") + "os._exit(1)\n"
    site.publish("v1.1.0", files={"serve.py": fussy + SERVE})
    assert site.updater("deploy", "v1.1.0").code == 0
    how = ("restore_backup.sh", made, "--yes")
    done = script(site, path, *how) if by == "script" else site.updater("backup", "restore", *how[1:])
    assert done.code == 4, done.text
    as_before(site)
    site.runs("v1.1.0")


# ---------------------------------------------------------------- what is on the disk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The bones of a root: v1 was good, v2 is in service."""
    place = tmp_path / "a root"
    for name in ("shared/logs", ".updater/journal/closed", ".updater/run", ".updater/marks", "shared/data"):
        (place / name).mkdir(parents=True)
    for version in ("v1", "v2"):
        (place / "releases" / version / ".release").mkdir(parents=True)
        (place / "releases" / version / ".release" / "release.json").write_text("{}")
    (place / "current").symlink_to("releases/v2")
    (place / ".updater" / "good").symlink_to("../releases/v1")
    return place


HISTORIES = (
    '[{"id": "a", "text": "x [1] ]"}, {"id": "b", "phases": []}]',
    '[\n{"id": "a"},\n{"id": "b"}\n]\n\n \n',
    '[\n  {\n    "id": "a",\n    "phases": [\n      {}\n    ]\n  },\n  {\n    "id": "b"\n  }\n]\n\n',
    '[\r\n{"id": "a"},\r\n{"id": "b"}\r\n]\r\n',
    '[{"id": "a"},\n{"id": "b"}]',
    '[\n{"id": "a"},\n{"id": "b"},\n',
    '[\n{"id": "a"},\n{"id": "b"}\n',
)


@pytest.mark.parametrize("awk", ["mawk", "busybox"])
def test_the_history_in_any_layout_keeps_its_records(root: Path, tmp_path: Path, awk: str) -> None:
    tools_here = toolbox(tmp_path / "bin", without=("awk",) if awk == "busybox" else ())
    if awk == "busybox":
        (tools_here / "awk").symlink_to(tools_here / "busybox")
    place = root / "shared" / "logs" / "update_history.json"
    for text in (*HISTORIES, "[]", "[\n]\n", ""):
        place.write_bytes(text.encode())
        done = call(tools_here, root, 'add_to_history \'{"id": "c"}\' c; add_to_history \'{"id": "c"}\' c')
        assert done.code == 0 and not done.text, done.text
        wanted = ["a", "b", "c"] if "a" in text else ["c"]
        assert [it["id"] for it in json.loads(place.read_text())] == wanted, (text, place.read_text())
        assert records.parse_history(place.read_text())[1] == []


def ended_without_its_history(root: Path) -> str:
    """v1 and v2 are good; v3 failed and was rolled back to v2, which the history could not take."""
    layout = Layout(root)
    for seq, version in enumerate(("v1", "v2"), 1):
        marks.put(layout, version, "good", seq=seq)
    layout.good.unlink()
    layout.good.symlink_to("../releases/v2")
    book = journal.Journal.create(
        layout, {"before": {"good": "v2", "in_service": "v2", "running": []}, "request": {"kind": "deploy", "wanted": "v3"}}
    )  # fmt: skip
    book.record("intent", "resolve")
    book.record("done", "resolve", {"version": "v3"})
    book.record("intent", "stop")
    book.record("failed", None, {"message": "v3 is sick"})
    book.record("end", None, {**records.whole({"id": book.id}), "kind": "deploy", "outcome": "rolled-back"})
    book.record("note", None, {"told": True})
    layout.history.mkdir()
    return book.id


@pytest.mark.parametrize("shell", SHELLS)
def test_what_has_ended_and_waits_for_its_history_is_not_undone_again(
    root: Path, tmp_path: Path, shell: str
) -> None:
    """The way back leads on from there, not to where that deployment began."""
    path = toolbox(tmp_path / "bin")
    identifier = ended_without_its_history(root)
    waits = f"{identifier}, deploy of v3: it has ended, and waits for the history"
    for name in ("cleanup_failed_update.sh", "unlock_update.sh"):
        done = run(path, name, "--dry-run", "--root", str(root), shell=shell)
        assert done.code == 0 and waits in done.out and "updater recover writes it" in done.out, done.text
        assert "unfinished" not in done.out and "to be" not in done.out
    done = run(path, "emergency_rollback.sh", "--yes", "--root", str(root), shell=shell)
    assert done.code == 0 and "back to:    v1" in done.out, done.text
    assert waits in done.out and "interrupted" not in done.out
    assert os.readlink(root / "current") == "releases/v1"
    assert [it.stem for it in journal.unfinished(Layout(root))] == [identifier], (
        "the history cannot be written"
    )
    Layout(root).history.rmdir()
    done = run(path, "cleanup_failed_update.sh", "--yes", "--root", str(root), shell=shell)
    assert done.code == 0 and f"{identifier} is in the history now" in done.out, done.text
    assert "no deployment is unfinished" in done.out
    assert not journal.unfinished(Layout(root)) and os.readlink(root / "current") == "releases/v1"
    assert [it["outcome"] for it in records.history(Layout(root))] == ["rolled-back"]


def test_what_an_earlier_recovery_found_lost_stays_lost(root: Path, tmp_path: Path) -> None:
    """updater cuts a damaged journal off and notes that; if it is killed then, a shell must not take the rest for all."""
    layout = Layout(root)
    book = journal.Journal.create(
        layout, {"before": {"good": "v1", "in_service": "v1", "running": []}, "request": {"kind": "deploy"}}
    )
    book.record("intent", "resolve")
    book.record("lost")
    load = 'for it in "$own"/journal/*.jsonl; do journal_load "$it"; done; say "$j_lost $j_origin $j_target"'
    assert call(toolbox(tmp_path / "bin"), root, load).out == "1 v1 v2\n"
    book.path.write_bytes(
        journal.encode({"v": 1, "seq": 0, "kind": "lost", "phase": None, "at": "", "data": {}, "mono": 1.0})
    )
    assert call(tmp_path / "bin", root, load).out == "1 v1 v2\n", "of the first line the disk tells as well"


def test_a_note_behind_the_end_hides_no_success(root: Path, tmp_path: Path) -> None:
    layout = Layout(root)
    book = journal.Journal.create(layout, {})
    book.record("end", None, {"outcome": "succeeded"})
    book.record("note", None, {"told": True})
    book.close()
    layout.swap.write_text(f'{{"id":"{book.id}","purpose":"restore","ready":true,"keep":false}}\n')
    done = call(toolbox(tmp_path / "bin"), root, "settle_moves")
    assert done.code == 0 and not done.err, done.text
    assert not list(layout.own.glob("swap*")), "what lay there before may go, as updater has it"


def test_a_history_that_cannot_be_read_stays_as_it_is(root: Path, tmp_path: Path) -> None:
    """Another user's, or on a disk that fails: half of it must not take its place."""
    broken = toolbox(tmp_path / "bin", without=("awk",))
    (broken / "awk").write_text("#!/bin/sh\necho '['\nexit 2\n")
    (broken / "awk").chmod(0o755)
    place = root / "shared" / "logs" / "update_history.json"
    place.write_text(HISTORIES[1])
    done = call(broken, root, 'add_to_history \'{"id": "c"}\' c')
    assert place.read_text() == HISTORIES[1]
    assert "the history is as it was" in done.err and '{"id": "c"}' in done.err, done.text
    assert [it.name for it in place.parent.iterdir()] == [place.name]


def test_a_link_that_names_a_release_in_another_way_counts(root: Path, tmp_path: Path) -> None:
    """As for updater itself: cleanup would take the release in service for another one."""
    tools_here, by = toolbox(tmp_path / "bin"), tmp_path / "by another name"
    by.symlink_to(root)
    for target in ("./releases/v2", f"{by}/releases/v2", f"../{root.name}/releases/v2/", "releases//v2"):
        (root / "current").unlink()
        (root / "current").symlink_to(target)
        assert call(tools_here, root, "in_service").out == "v2", target
    for target in (
        "releases",
        "releases/v2/.release",
        "elsewhere/v2",
        "releases/..",
        str(tmp_path / "v2"),
        "/",
    ):
        (root / "current").unlink()
        (root / "current").symlink_to(target)
        assert call(tools_here, root, "in_service").out == "", target


def line(seq: int, kind: str, phase: str | None, data: dict[str, object]) -> bytes:
    return journal.encode(
        {"v": 1, "seq": seq, "kind": kind, "phase": phase, "at": "2026-01-01T00:00:00Z", "mono": 1.0, "boot": "", "data": data}
    )  # fmt: skip


@pytest.mark.parametrize("lost", [0, 3])
def test_what_lost_lines_would_have_told_is_taken_from_the_disk(
    root: Path, tmp_path: Path, lost: int
) -> None:
    """The new release may have written: that is kept, and is not in service any more."""
    begin = {
        "before": {"good": "v1", "in_service": "v1", "running": []},
        "pid": 1,
        "request": {"kind": "deploy"},
    }
    lines = [
        line(0, "begin", None, begin),
        line(1, "intent", "resolve", {}),
        line(2, "done", "resolve", {"version": "v2"}),
    ]
    lines += [line(3 + n, "intent", it, {}) for n, it in enumerate(["stop", "migrate", "activate", "start"])]
    lines[lost] = b"0" * 60 + b"\n"
    name = "20260101T000000-abcdef"
    (root / ".updater" / "journal" / f"{name}.jsonl").write_bytes(b"".join(lines))
    aside = root / "shared" / f".updater-{name}"
    (aside / "old").mkdir(parents=True)
    (aside / "new").mkdir()
    (aside / "old" / "1").write_text("old")
    (root / "shared" / "data" / "file").write_text("by v2")
    (root / ".updater" / "swap.json").write_text(f'{{"id":"{name}","purpose":"migrate","ready":true}}\n')
    (root / ".updater" / "swap.steps").write_text(
        f"id={name} purpose=migrate keep=0\nS 1 1 1 1 .\tdata/file\n"
    )
    done = call(toolbox(tmp_path / "bin"), root, "take_lock test; end_interrupted test.sh 1")
    assert done.code == 0, done.text
    assert os.readlink(root / "current") == "releases/v1"
    assert (root / "shared" / "data" / "file").read_text() == "old"
    assert (root / "shared" / f".updater-kept-{name}" / "new" / "1").read_text() == "by v2"
    [record] = json.loads((root / "shared" / "logs" / "update_history.json").read_text())
    assert (record["outcome"], record["to"]) == ("rolled-back", "v2")


@pytest.mark.parametrize("schema", ["the same", "another", "another on a mounted disk"])
def test_what_a_log_holds_counts_for_the_data_rule(root: Path, tmp_path: Path, schema: str) -> None:
    """Where the schema is the same, the rows of the release that failed stay in service."""
    name = "20260101T000000-abcdef"
    holder = "data" if "mounted" in schema else "."
    aside = root / "shared" / holder / f".updater-{name}"
    (aside / "old").mkdir(parents=True)
    (aside / "new").mkdir()
    here = root / "shared" / "data" / "trades.db"
    steps = f"id={name} purpose=migrate keep=0\nS 1 7 1 1 {holder}\tdata/trades.db\n"
    if "mounted" in schema:  # and beside it one that is as it was
        other = root / "shared" / f".updater-{name}"
        (other / "old").mkdir(parents=True)
        (other / "new").mkdir()
        for place in (other / "old" / "8", root / "shared" / "data" / "other.db"):
            with contextlib.closing(sqlite3.connect(place)) as connection, connection:
                connection.execute("CREATE TABLE other (what TEXT)")
        steps += "S 1 8 1 1 .\tdata/other.db\n"
    (root / ".updater" / "swap.steps").write_text(steps)
    (root / ".updater" / "swap.json").write_text(f'{{"id":"{name}","purpose":"migrate","ready":true}}\n')
    with contextlib.closing(sqlite3.connect(aside / "old" / "7")) as connection, connection:
        connection.execute("CREATE TABLE trades (id INTEGER PRIMARY KEY, what TEXT)")
    here.write_bytes((aside / "old" / "7").read_bytes())
    with contextlib.closing(sqlite3.connect(here)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("INSERT INTO trades (what) VALUES ('by the new release')")
        if schema != "the same":
            connection.execute("ALTER TABLE trades ADD COLUMN fee REAL")
        connection.commit()
        for end in ("", "-wal"):  # as a kill leaves it
            (root / "shared" / f"copy{end}").write_bytes(here.with_name(f"trades.db{end}").read_bytes())
    for end in ("", "-wal"):
        (root / "shared" / f"copy{end}").rename(here.with_name(f"trades.db{end}"))
    text = f"""j_id={name} j_kind=deploy j_lines='{{"kind":"intent","mono":1,"phase":"start","seq":3,"v":1}}'; data_undo"""
    done = call(toolbox(tmp_path / "bin"), root, text)
    assert done.code == 0, done.text
    if schema == "the same":
        assert whats(here) == ["by the new release"] and (root / ".updater" / "swapped.json").exists()
    else:
        assert columns(here) == ["id", "what"] or "mounted" in schema, done.text
        assert "what was written meanwhile is kept in" in done.out and not (aside / "old").exists(), done.text


def test_settings_whose_set_from_before_is_damaged_are_not_removed(root: Path, tmp_path: Path) -> None:
    sets = root / ".updater" / "config" / ".sets"
    for name, text in (("id", "before"), ("id.written", "written")):
        (sets / name / "config").mkdir(parents=True)
        (sets / name / "config" / "app.toml").write_text(text)
        sums = subprocess.run(
            ["sha256sum", "config/app.toml"], cwd=sets / name, capture_output=True, check=True
        ).stdout
        (sets / name / "SHA256SUMS").write_bytes(sums)
    (sets / "id" / "config" / "app.toml").unlink()
    present = root / "shared" / "config" / "app.toml"
    present.parent.mkdir()
    present.write_text("written")
    done = call(toolbox(tmp_path / "bin"), root, "settings_undo id")
    assert present.read_text() == "written" and "damaged" in done.err, done.text


def test_only_the_release_that_is_stopped_is_killed(root: Path, tmp_path: Path) -> None:
    running = {}
    for version in ("v1", "v2"):
        env = {"UPDATER_ROOT": str(root), "UPDATER_PROCESS": "bot", "UPDATER_RELEASE": version}
        running[version] = subprocess.Popen(["sleep", "600"], env=env, cwd=root / "releases" / version)
    try:
        done = call(toolbox(tmp_path / "bin"), root, "stop_processes v2")
        assert done.code == 0, done.text
        assert running["v2"].wait(10) < 0 and running["v1"].poll() is None
    finally:
        for it in running.values():
            it.kill()
            it.wait()


def test_a_resume_hook_that_hangs_bars_no_way_back(root: Path, tmp_path: Path) -> None:
    hook = root / ".updater" / "resume"
    hook.write_text("#!/bin/sh\ntrap '' TERM\nexec sleep 600\n")
    hook.chmod(0o755)
    (root / ".updater" / "drained").write_text("{}")
    done = call(toolbox(tmp_path / "bin"), root, "hook_patience=1; resume_application")
    assert done.code == 0 and "the resume hook of [gate] failed" in done.err, done.text
    assert not (root / ".updater" / "drained").exists()


# ---------------------------------------------------------------- what surrounds them

TELLS = """#!/bin/sh
{ umask; echo "${LC_ALL-none} ${TMPDIR-none} ${TMPPREFIX-none}"; } >"$TOLD.part"
sed -n 's/^SigIgn:[^0-9a-f]*//p' /proc/self/status >"$TOLD.ignored"
mv "$TOLD.part" "$TOLD"
"""


@pytest.mark.parametrize("without", ["", "perl", "perl setsid"])
@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, "0027\nnone none none\n"),
        ({"LC_ALL": "C.UTF-8", "TMPDIR": "/var/tmp"}, "0027\nC.UTF-8 /var/tmp none\n"),
    ],
)
def test_what_a_script_starts_has_the_environment_of_who_started_it(
    root: Path, tmp_path: Path, without: str, env: dict[str, str], wanted: str
) -> None:
    """Not the scripts' own locale, mask of modes and place for temporary files."""
    launcher, told = tmp_path / "launcher", tmp_path / "told"
    launcher.write_text(TELLS)
    text = f'scripts="{SCRIPTS}"; . "{SCRIPTS}/lib.sh"; root=$1 own=$1/.updater; room_for_shell; trap "" HUP; detach /bin/sh "$2"'
    subprocess.run(
        ["sh", "-c", text, "sh", root, launcher],
        env={"PATH": str(toolbox(tmp_path / "bin", without=tuple(without.split()))), "TOLD": str(told), **env},
        umask=0o027, check=True, timeout=30,
    )  # fmt: skip
    eventually(told.exists, "it was started")
    assert told.read_text() == wanted
    if without != "perl setsid" and sys.platform == "linux":
        assert int((tmp_path / "told.ignored").read_text(), 16) & 1 == 0, "it hears a SIGHUP"


def test_variables_of_the_same_names_do_not_count(root: Path, tmp_path: Path) -> None:
    names = "only spared ended backup give_up members leads yes dry_run force root id went s_id stopped j_lost answer IFS ENV CDPATH"
    env = dict.fromkeys(names.split(), "1")
    (tmp_path / "again").mkdir()
    for extra in ({}, env):
        done = subprocess.run(
            ["sh", str(SCRIPTS / "emergency_rollback.sh"), "--root", str(root), "v1", "--no-start"],
            env={"PATH": str(toolbox(tmp_path / ("again/bin" if extra else "bin"))), **extra}, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2 and "run it again with --yes" in done.stderr, done.stdout + done.stderr
        assert os.readlink(root / "current") == "releases/v2"


def test_a_note_that_was_overtaken_leads_nowhere(root: Path, tmp_path: Path) -> None:
    """A way back that was interrupted is gone on with, unless somebody has put another release into service since."""
    for version, seq in (("v1", 1), ("v2", 2)):
        (root / ".updater" / "marks" / f"{version}.good").write_text(f"seq={seq}\n")
    (root / "releases" / "v0" / ".release").mkdir(parents=True)
    (root / "releases" / "v0" / ".release" / "release.json").write_text("{}")
    tools_here, note = toolbox(tmp_path / "bin"), root / ".updater" / "emergency"
    for came, wanted in (("v2", "v0"), ("v9", "v1")):
        note.write_text(f"id=20260101T000000-abcdef\nfrom={came}\nto=v0\n")
        done = emergency(root, tools_here, "--dry-run")
        assert f"back to:    {wanted}\n" in done.stdout, done.stdout + done.stderr


def emergency(root: Path, bin_: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPTS / "emergency_rollback.sh"), "--root", str(root), *arguments], env={"PATH": str(bin_)},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=60,
    )  # fmt: skip


def test_a_way_back_that_was_killed_after_the_swap_brings_its_settings(root: Path, tmp_path: Path) -> None:
    """Also if the release is named the second time (F51)."""
    kept = root / ".updater" / "config" / ".sets" / "one" / "config" / "app.toml"
    kept.parent.mkdir(parents=True)
    kept.write_text("of v1")
    sums = subprocess.run(
        ["sha256sum", "config/app.toml"], cwd=kept.parents[1], capture_output=True, check=True
    )
    (kept.parents[1] / "SHA256SUMS").write_bytes(sums.stdout)
    (root / ".updater" / "config" / "v1").symlink_to(".sets/one")
    (root / "shared" / "config").mkdir()
    (root / "shared" / "config" / "app.toml").write_text("of v2")
    (root / "current").unlink()
    (root / "current").symlink_to("releases/v1")
    (root / ".updater" / "emergency").write_text("id=20260101T000000-abcdef\nfrom=v2\nto=v1\n")
    done = emergency(root, toolbox(tmp_path / "bin"), "v1", "--no-start", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "shared" / "config" / "app.toml").read_text() == "of v1"
    [record] = json.loads((root / "shared" / "logs" / "update_history.json").read_text())
    assert (record["id"], record["from"], record["to"]) == ("20260101T000000-abcdef", "v2", "v1")
    assert not (root / ".updater" / "emergency").exists()


@pytest.mark.parametrize("tool", ["flock", "perl"])
def test_a_directory_that_cannot_be_locked_is_no_lock_of_somebody_else(
    root: Path, tmp_path: Path, tool: str
) -> None:
    """As on NFS, where only what is open for writing can be locked."""
    tools_here = toolbox(tmp_path / "bin", without=("flock",) if tool == "perl" else ())
    real = (tools_here / tool).resolve()
    (tools_here / tool).unlink()
    seen = (
        '[ "$2" != 8 ] || exit 65'
        if tool == "flock"
        else "case $2 in *', 8)'*) exec \"$real\" -e 'use Errno; $! = Errno::EBADF; exit($!{EWOULDBLOCK} ? 1 : 3)' ;; esac"
    )
    (tools_here / tool).write_text(f'#!/bin/sh\nreal=\'{real}\'\n{seen}\nexec "$real" "$@"\n')
    (tools_here / tool).chmod(0o755)
    assert call(tools_here, root, "take_lock first; echo taken").out == "taken\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has this choice")
def test_root_is_told_whose_the_application_is(root: Path, tmp_path: Path) -> None:
    os.chown(root, 65534, 65534)
    done = emergency(root, toolbox(tmp_path / "bin"), "v1", "--no-start", "--yes")
    assert done.returncode == 0 and "will run as root" in done.stderr, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="its sessions are seen in /proc")
def test_a_terminal_that_goes_away_ends_nothing_half_way(site: Site, tmp_path: Path) -> None:
    """It may have been the application's own: then it goes when that is stopped."""
    site.deployed("v1.0.0", "v1.1.0")
    path = tools(tmp_path / "bin")
    refused = script(site, path, "emergency_rollback.sh", "--restore-data", "--yes", "v1.1.0")
    assert refused.code == 3 and "no backup with the data of v1.1.0" in refused.err, refused.text
    site.runs("v1.1.0")
    running = subprocess.Popen(
        ["sh", str(site.layout.scripts / "emergency_rollback.sh"), "--yes"], env={"PATH": str(path)}, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    while "Stopping the application" not in running.stdout.readline():
        assert running.poll() is None
    for _ in range(5):  # everybody in its group gets it, the tools that it runs as well
        os.killpg(running.pid, signal.SIGHUP)
    running.stdout.close()
    assert running.wait(60) == 0
    site.runs("v1.0.0")
    assert site.history()[-1]["outcome"] == "succeeded"
