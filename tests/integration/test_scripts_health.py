"""The two scripts that look: every trouble is named with what to type, without Python; and no secret is given away."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from examples.release_server import Release, ReleaseServer
from tests.emergency import SCRIPTS, SHELLS, call, run, toolbox
from tests.site import REPOSITORY, Site, eventually

HEALTH, READY = "health_check_enhanced.sh", "test_update_system.sh"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One root for all: what a test breaks, it mends."""
    releases: list[Release] = []
    with ReleaseServer(REPOSITORY, releases) as server:
        made = Site(tmp_path_factory.mktemp("health"), server, releases)
        made.deployed("v1.0.0", "v1.1.0")
        with contextlib.closing(sqlite3.connect(made.layout.shared / "data" / "trades #1?.db")) as connection:
            connection.execute("PRAGMA journal_mode=wal")
            connection.execute("CREATE TABLE trades (symbol TEXT)")
            connection.commit()
        yield made
        made.end()


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toolbox(tmp_path_factory.mktemp("tools") / "bin", "timeout")


class Found(NamedTuple):
    code: int
    checks: list[Any]
    verdict: Any

    def of(self, name: str, result: str) -> list[Any]:
        return [it for it in self.checks if it["name"] == name and it["result"] == result]

    @property
    def wrong(self) -> list[Any]:
        return [it for it in self.checks if it["result"] in ("failed", "warning")]


def look(tools: Path, root: Path, script: str = HEALTH, *arguments: str, shell: str = "sh") -> Found:
    done = run(tools, script, "--root", str(root), "--json", *arguments, shell=shell)
    assert done.err == "", done.err
    found = json.loads(done.out)
    assert done.code == found["exit_code"]
    assert all(it["remedy"] for it in found["checks"] if it["result"] in ("failed", "warning")), found
    return Found(done.code, found["checks"], found)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_well_is_called_so_in_every_shell(site: Site, tools: Path, shell: str) -> None:
    found = look(tools, site.root, shell=shell)
    assert (found.code, found.wrong) == (0, []), found.wrong
    assert found.verdict["in_service"] == "v1.1.0"
    said = "\n".join(f"{it['name']}: {it['summary']}" for it in found.checks)
    assert (
        "web: pid " in said and "of v1.1.0" in said and "databases: 1 whole" in said and "lock: free" in said
    )
    assert not list((site.layout.shared / "data").glob("*.db-*")), "a look leaves nothing beside a database"
    ready = look(tools, site.root, READY, shell=shell)
    assert ready.code == 0 and ready.verdict["update"] and ready.verdict["recover"], ready.wrong
    assert {it["name"] for it in ready.wrong} <= {"python"}, "there is no Python on this PATH"


def test_a_root_in_which_nothing_was_done_yet_is_healthy(
    server: ReleaseServer, tmp_path: Path, tools: Path
) -> None:
    empty = Site(tmp_path, server, [])
    found = look(tools, empty.root)
    assert found.code == 0 and {it["name"] for it in found.wrong} == {"current", "backup"}, found.wrong
    for it in SCRIPTS.glob("*.sh"):
        (empty.layout.scripts / it.name).unlink()
    [told] = look(tools, empty.root).of("scripts", "warning")
    assert [it.name for it in SCRIPTS.glob("*.sh") if f"{it.name} is not there" not in told["summary"]] == []


def test_it_is_said_to_people_as_well(site: Site, tools: Path) -> None:
    with aside(site.layout.history):
        site.layout.history.write_text("[\n{tor\n")
        done = run(tools, HEALTH, "--root", str(site.root), cwd=site.layout.scripts)
    assert (
        done.code == 0
        and "v1.1.0 is healthy: 0 failed, 1 warnings" in done.out
        and "Next: updater history" in done.out
    )
    assert "\x1b" not in done.out
    assert run(tools, HEALTH, "--nonsense").code == 2


# ---------------------------------------------------------------- what is broken, and is mended afterwards


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path is somewhere else for a while; whatever took its place goes."""
    kept = path.with_name(f"{path.name} (aside)")
    path.rename(kept)
    try:
        yield kept
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        kept.rename(path)


@contextlib.contextmanager
def file(path: Path, content: str | bytes = "") -> Iterator[Path]:
    """A file is there for a while."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    with aside(path):
        path.write_bytes(content)
        yield


def interrupted(site: Site, lines: int = 20, damage: int | None = None, torn: bytes = b"") -> bytes:
    """The journal of the last deployment, as far as a kill let it come."""
    closed = (
        sorted((site.layout.journal / "closed").glob("*.jsonl"))[-1]
        .read_bytes()
        .splitlines(keepends=True)[:lines]
    )
    if damage is not None:
        closed[damage] = closed[damage].replace(b'"kind"', b'"kinD"')
    return b"".join(closed) + torn


@contextlib.contextmanager
def a_flipped_byte(site: Site) -> Iterator[None]:
    path = site.layout.release("v1.1.0") / "serve.py"
    with changed(path, path.read_bytes()[:-1] + b"#"):
        yield


@contextlib.contextmanager
def a_dangling_current(site: Site) -> Iterator[None]:
    with aside(site.layout.current):
        site.layout.current.symlink_to("releases/v9.9.9")
        yield


@contextlib.contextmanager
def a_directory_at_current(site: Site) -> Iterator[None]:
    with aside(site.layout.current):
        site.layout.current.mkdir()
        yield


@contextlib.contextmanager
def no_current(site: Site) -> Iterator[None]:
    with aside(site.layout.current):
        yield


@contextlib.contextmanager
def a_flip_by_hand(site: Site) -> Iterator[None]:
    with aside(site.layout.current), an_end_that_waits(site):
        site.layout.current.symlink_to("releases/v1.0.0")
        yield


@contextlib.contextmanager
def an_end_that_waits(site: Site) -> Iterator[None]:
    """A deployment that has ended, and whose record could not be written into the history."""
    with file(site.layout.journal / "20260101T000000-abcdef.jsonl", interrupted(site, lines=1000)):
        yield


@contextlib.contextmanager
def a_python_that_is_gone(site: Site) -> Iterator[None]:
    with aside(site.layout.release("v1.0.0") / ".venv" / "bin" / "python"):
        (site.layout.release("v1.0.0") / ".venv" / "bin" / "python").symlink_to("/nowhere/python")
        yield


@contextlib.contextmanager
def two_versions(site: Site) -> Iterator[None]:
    marks = {"UPDATER_ROOT": str(site.root), "UPDATER_PROCESS": "web", "UPDATER_RELEASE": "v1.0.0"}
    left = subprocess.Popen(["sleep", "600"], env={**os.environ, **marks}, cwd="/")
    try:
        yield
    finally:
        left.kill()
        left.wait()


@contextlib.contextmanager
def a_lost_pid_file(site: Site) -> Iterator[None]:
    with aside(site.layout.pid_file("web")):
        yield


@contextlib.contextmanager
def a_damaged_database(site: Site) -> Iterator[None]:
    path = site.layout.shared / "data" / "damaged.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE t AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 3000) SELECT i, hex(i) h FROM n"
        )
        connection.execute("CREATE INDEX x ON t (h)")
        connection.commit()
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xff" * 4096
    with file(path, bytes(content)):
        yield


@contextlib.contextmanager
def a_killed_updater(site: Site) -> Iterator[None]:
    owner = "pid=999999\nstart=1\nboot=none\noperation=deploy\nsince=2026-01-01T00:00:00Z\n"
    torn = b'0123456789abcdef {"at":"20'
    with (
        file(site.layout.lock_owner, owner),
        file(site.layout.journal / "20260101T000000-abcdef.jsonl", interrupted(site, torn=torn)),
    ):
        yield


@contextlib.contextmanager
def a_damaged_journal(site: Site) -> Iterator[None]:
    with file(site.layout.journal / "20260101T000000-abcdef.jsonl", interrupted(site, damage=7)):
        yield


@contextlib.contextmanager
def data_on_the_move(site: Site) -> Iterator[None]:
    with file(site.layout.swap, '{"id":"20260101T000000-abcdef","purpose":"restore","ready":false}'):
        yield


@contextlib.contextmanager
def marks_without_a_deployment(site: Site) -> Iterator[None]:
    with file(site.layout.trial), file(site.layout.drained, "{}"):
        yield


@contextlib.contextmanager
def names_left_by_a_kill(site: Site) -> Iterator[None]:
    with (
        file(site.layout.own / ".tmp-check.json-123-0123abcd"),
        file(site.layout.backups / ".tmp-backup-20260101T000000-abcdef"),
    ):
        yield


@contextlib.contextmanager
def no_records(site: Site) -> Iterator[None]:
    with aside(site.layout.own):
        yield


@contextlib.contextmanager
def a_damaged_history(site: Site) -> Iterator[None]:
    lines = site.layout.history.read_bytes().splitlines(keepends=True)
    with changed(site.layout.history, b"".join([lines[0], lines[1][:50] + b"\n", *lines[2:]])):
        yield


@contextlib.contextmanager
def a_backup_without_sums(site: Site) -> Iterator[None]:
    with aside(max(site.layout.backups.glob("backup_*")) / "SHA256SUMS"):
        yield


@contextlib.contextmanager
def a_pipe_for_a_log(site: Site) -> Iterator[None]:
    with aside(site.layout.errors_log) if site.layout.errors_log.exists() else contextlib.nullcontext():
        os.mkfifo(site.layout.errors_log)
        try:
            yield
        finally:
            site.layout.errors_log.unlink()


@contextlib.contextmanager
def a_script_that_is_cut_off(site: Site) -> Iterator[None]:
    path = site.layout.scripts / "unlock_update.sh"
    with changed(path, path.read_bytes()[: path.stat().st_size // 2] + b"\nif"):
        yield


@contextlib.contextmanager
def many_at_once(site: Site) -> Iterator[None]:
    """What does not hide each other: one look for all."""
    with contextlib.ExitStack() as stack:
        for breaks in (
            a_flipped_byte, a_python_that_is_gone, a_damaged_database, marks_without_a_deployment, names_left_by_a_kill, a_damaged_history,
            a_backup_without_sums, a_pipe_for_a_log, a_script_that_is_cut_off,
        ):  # fmt: skip
            stack.enter_context(breaks(site))
        yield


Breaks = Callable[[Site], contextlib.AbstractContextManager[None]]

TROUBLES: list[tuple[Breaks, int, str, str, str, str]] = [
    (many_at_once, 3, "releases", "failed", "v1.1.0 was changed since it was installed: serve.py", "updater verify v1.1.0"),
    (a_dangling_current, 4, "current", "failed", "leads to v9.9.9, which is not there", "emergency_rollback.sh' v1.1.0"),
    (a_directory_at_current, 4, "current", "failed", "not a symlink but a real directory", "mv current current.aside"),
    (no_current, 4, "current", "failed", "nothing is in service", "emergency_rollback.sh' v1.1.0"),
    (a_flip_by_hand, 4, "current", "warning", "v1.0.0 is in service, put there by hand", "emergency_rollback.sh' v1.1.0"),
    (a_flip_by_hand, 4, "processes", "failed", "of v1.1.0, since", "updater restart"),
    (a_flip_by_hand, 4, "deployment", "warning", "has ended, and is not in the history", "updater recover"),
    (many_at_once, 3, "releases", "failed", "v1.0.0: .venv/bin/python is not there", "updater fetch --rebuild v1.0.0"),
    (two_versions, 4, "processes", "failed", "2 releases run at once: v1.1.0 v1.0.0", "force_stop.sh"),
    (two_versions, 4, "processes", "warning", "of web (v1.0.0) was left behind", "updater restart"),
    (a_lost_pid_file, 4, "processes", "warning", "of web (v1.1.0) runs, but its pid file is lost", "force_stop.sh"),
    (many_at_once, 3, "databases", "failed", "shared/data/damaged.db is damaged", "restore_backup.sh"),
    (a_killed_updater, 3, "deployment", "failed", "deploy to v1.1.0, from v1.0.0) was interrupted in phase", "cleanup_failed_update.sh"),
    (a_killed_updater, 3, "deployment", "note", "the last line of the journal of 20260101T000000-abcdef is torn", ""),
    (a_killed_updater, 3, "lock", "note", "free; the owner on record is dead: deploy, pid 999999", ""),
    (a_damaged_journal, 3, "deployment", "failed", "is damaged from line 8 of 20 on", "updater recover"),
    (data_on_the_move, 3, "data", "failed", "restore of 20260101T000000-abcdef", "cleanup_failed_update.sh"),
    (many_at_once, 3, "drained", "warning", "told to take on nothing new", "updater recover"),
    (many_at_once, 3, "trial", "warning", "as on trial", "updater recover"),
    (many_at_once, 3, "leftovers", "warning", "2 temporary names left by a kill", "cleanup_failed_update.sh"),
    (no_records, 3, "root", "failed", ".updater is not there", "updater init"),
    (many_at_once, 3, "history", "warning", "1 lines of update_history.json are damaged", "nothing"),
    (many_at_once, 3, "history", "ok", "last: deploy v1.0.0 to v1.1.0: succeeded", ""),
    (many_at_once, 3, "backup", "failed", "SHA256SUMS missing", "updater backup create"),
    (many_at_once, 3, "logs", "warning", "shared/logs/errors.log is no file", "errors.log.aside"),
    (many_at_once, 3, "scripts", "warning", "unlock_update.sh is damaged", "updater init"),
]  # fmt: skip


@pytest.mark.parametrize("breaks", dict.fromkeys(it[0] for it in TROUBLES), ids=lambda it: it.__name__)
def test_every_trouble_is_named_with_what_to_type(site: Site, tools: Path, breaks: Breaks) -> None:
    with breaks(site):
        found = look(tools, site.root)
    for _, code, name, result, said, remedy in (it for it in TROUBLES if it[0] is breaks):
        told = [it for it in found.of(name, result) if said in it["summary"]]
        assert told, (said, found.checks)
        assert remedy in (told[0]["remedy"] or ""), told
        assert found.code == code, found.wrong


def test_a_process_that_died_is_told_with_how_to_start_it(site: Site, tools: Path) -> None:
    pid = int(site.layout.pid_file("web").read_text().partition("\n")[0].removeprefix("pid="))
    psutil.Process(pid).send_signal(signal.SIGKILL)
    eventually(lambda: site.answer() is None, "it is dead")
    try:
        found = look(tools, site.root)
        (told,) = found.of("processes", "failed")
        assert found.code == 4 and f"web does not run: pid {pid} of v1.1.0" in told["summary"]
        assert "updater start" in told["remedy"] and "emergency_rollback.sh' v1.1.0" in told["remedy"]
        assert not found.of("probes", "failed"), "what does not run is not asked"
    finally:
        assert site.updater("start").code == 0


def test_a_locked_database_is_no_alarm(site: Site, tools: Path) -> None:
    path = site.layout.shared / "data" / "busy.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("INSERT INTO t VALUES (1)")
        found = look(tools, site.root)
    path.unlink()
    assert found.code == 0 and "busy.db is in use just now" in found.of("databases", "note")[0]["summary"]


def test_a_deployment_at_work_is_no_alarm_until_it_gets_nowhere(site: Site, tools: Path) -> None:
    me = psutil.Process()
    start = (
        Path(f"/proc/{me.pid}/stat").read_text().rpartition(")")[2].split()[19]
        if Path("/proc/self/stat").exists()
        else ""
    )
    if not start:
        pytest.skip("needs /proc")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    owner = f"pid={me.pid}\nstart={start}\nboot={boot}\noperation=deploy\nsince=2026-01-01T00:00:00Z\n"
    with (
        file(site.layout.lock_owner, owner) as path,
        file(site.layout.journal / "20260101T000000-abcdef.jsonl", interrupted(site)) as journal,
    ):
        found = look(tools, site.root)
        assert found.code == 0 and "is in phase" in found.of("deployment", "ok")[0]["summary"], found.wrong
        for it in (path, journal, site.layout.progress):
            os.utime(it, (1.6e9, 1.6e9))
        (told,) = look(tools, site.root).of("lock", "warning")
        assert "without progress for 30 minutes" in told["summary"] and "unlock_update.sh" in told["remedy"]
        assert look(tools, site.root, READY).of("lock", "warning")


def test_a_hold_and_a_pid_file_that_names_nothing_are_told(site: Site, tools: Path) -> None:
    hold = '{"reason": "open trades", "by": "ann", "at": "2026-01-02T00:00:00Z"}'
    with (
        file(site.layout.hold, hold),
        file(site.layout.pid_file("old"), "pid=999999\nstart=1\nboot=x\nrelease=v1.0.0\n"),
    ):
        found = look(tools, site.root)
    assert (
        found.code == 0
        and "held by ann since 2026-01-02T00:00:00Z: open trades" in found.of("hold", "note")[0]["summary"]
    )
    assert "old: its pid file names nothing" in found.of("processes", "note")[0]["summary"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: it becomes another user")
def test_another_user_is_told_what_cannot_be_seen_and_no_false_alarm(site: Site, tools: Path) -> None:
    def nobody() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    for above in (site.place, site.place.parent, tools, tools.parent):  # pytest closes its directories
        above.chmod(0o755)
    with contextlib.ExitStack() as stack:
        for above in site.place.parent.parents[:2]:
            stack.callback(above.chmod, stat.S_IMODE(above.stat().st_mode))
            above.chmod(0o755)
        done = subprocess.run(
            ["/bin/sh", site.layout.scripts / HEALTH, "--json"], env={"PATH": str(tools)}, cwd="/", preexec_fn=nobody,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    found = json.loads(done.stdout)
    assert [it["summary"] for it in found["checks"] if it["result"] == "failed"] == [], done.stderr
    (told,) = [it for it in found["checks"] if it["result"] == "warning"]
    assert "some of it cannot be seen" in told["summary"] and "sudo -u root" in told["remedy"]


def small_root(place: Path) -> Path:
    root = place / "small root"
    for below in ("releases", ".updater/run", "shared/logs", "shared/backups", "scripts"):
        (root / below).mkdir(parents=True)
    (root / "updater.toml").write_text(
        '[app]\nname = "app"\n[source]\ntype = "directory"\npath = "releases"\n'
    )
    return root


@pytest.mark.parametrize(
    "shell", [it for it in SHELLS if it == "mksh"] or ["sh"]
)  # it makes files for here-documents
def test_it_works_on_a_full_disk_and_on_one_that_cannot_be_written(
    tools: Path, mount: Callable[..., Path], shell: str
) -> None:
    place = mount("small")
    root = small_root(place)
    subprocess.run(["mount", "-o", "remount,size=1m", place], check=True)
    with contextlib.suppress(OSError), (place / "big").open("wb", buffering=0) as big:
        while True:
            big.write(bytes(65536))
    env = {"TMPDIR": str(place), "TMPPREFIX": str(place / "zsh")}
    done = run(tools, HEALTH, "--root", str(root), shell=shell, cwd=place, **env)
    assert done.code == 3 and done.err == "", done.text
    assert f"full: {place}" in done.out and "updater prune" in done.out
    done = run(
        tools, HEALTH, "--root", str(root), "--report", str(place / "report"), shell=shell, cwd=place, **env
    )
    assert done.code == 2 and "could not be written whole" in done.err and "--report -" in done.err
    done = run(tools, HEALTH, "--root", str(root), "--report", "-", shell=shell, cwd=place, **env)
    assert "# >>> end of the report" in done.out
    done = run(tools, READY, "--root", str(root), shell=shell, cwd=place, **env)
    assert done.code == 3 and "NOT ready to update" in done.out and done.err == "", done.text
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    done = run(tools, HEALTH, "--root", str(root), shell=shell, cwd=place, **env)
    assert done.code == 3 and "cannot be written, not even by root" in done.out and done.err == "", done.text
    done = run(tools, READY, "--root", str(root), shell=shell, cwd=place, **env)
    assert "cannot be replaced in one step" in done.out and done.err == "", done.text


# ---------------------------------------------------------------- the report


def test_the_report_holds_what_a_maintainer_asks_for_and_no_secret(site: Site, tools: Path) -> None:
    planted = {
        "toml": 'exchange "secret" of TOML', "env": "pa55 word of a process", "yaml": "yaml-secret-4711", "words": "correct horse battery",
        "list": "second of a list", "dotenv": "dotenv$ecret%20x", "log": "only-in-a-log", "url": "pass/w@rd", "github": "ghp_0123456789abcdefghij",
        "bearer": "abcd.efgh-1234", "hex": "0123456789abcdef0123456789abcdef", "base64": "aGVsbG8/d29ybGQvdGhpcyBpcyBhIHNlY3JldA==",
        "service": "tgram://12345/some-chat-token", "variable": "from-the-environment", "journal": "told-as-a-reason",
    }  # fmt: skip
    config, data = site.layout.shared / "config", site.layout.config
    text = data.read_text().replace("env = {", f'env = {{ API_PASSWORD = "{planted["env"]}",')
    said = "".join(
        f"connecting with {it!r}, {json.dumps(it)}, {it} at once\n"
        for name, it in planted.items()
        if name not in ("log", "bearer", "url", "journal")
    )
    said += f"password={planted['log']} Bearer {planted['bearer']} x\nAuthorization: {planted['bearer']}\nhttps://bot:{planted['url']}@x.example/ws\n"
    journal = interrupted(site).replace(b'"reason":""', f'"reason":"api_key={planted["journal"]}"'.encode())
    with (
        changed(data, f'{text}\n[notify]\nurls = [\n  "{planted["service"]}",\n]\n'.encode()),
        file(config / "a.toml", f"secret = {json.dumps(planted['toml'])}\n"),
        file(
            config / "b.yml",
            f"exchange:\n  api_key: {planted['yaml']}\n  mnemonic: >-\n    {planted['words']}\n  keys:\n  - first\n  - {planted['list']}\n",
        ),
        file(site.layout.shared / ".env", f"TELEGRAM_TOKEN={planted['dotenv']}\n"),
        changed(site.layout.process_log("web"), f"--- started now\n{said}".encode()),
        file(site.layout.journal / "20260101T000000-abcdef.jsonl", journal),
    ):
        place = site.place / "report.txt"
        done = run(
            tools, HEALTH, "--root", str(site.root), "--report", str(place), SOME_TOKEN=planted["variable"]
        )
        again = run(tools, HEALTH, "--root", str(site.root), "--report", str(place))
    assert done.code == 3 and done.err == "" and f"The report is {place}" in done.out
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert again.code == 2 and "is there already" in again.err
    report = place.read_text()
    place.unlink()
    for name, secret in planted.items():
        for form in (secret, json.dumps(secret)[1:-1], secret.rpartition("//")[2]):
            assert form not in report, (name, [it for it in report.splitlines() if form in it])
    assert "24428" not in report and f"PORT={site.port}" not in report, "the values of env are in none of it"
    for wanted in ("Linux" if Path("/proc").exists() else "Darwin", "# >>> toml updater.toml", 'command = ["python", "serve.py"]', "was interrupted",
                   '"kind":"intent"', '"outcome": "succeeded"', "connecting with", "zstd", "v1.1.0", str(site.root)):  # fmt: skip
        assert wanted in report, wanted
    assert report.endswith("# >>> end of the report\n")


WORD = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 $%&/()=?*+~#,;:.!|<>@^[]{}'\"\\`é",
    min_size=6,
    max_size=30,
).filter(lambda it: it == it.strip() and len(set(it)) > 3)
NAMES = ["password", "api_key", "SECRET_TOKEN", "wallet.mnemonic", "private-key", "db_passphrase", "webhook"]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(secrets=[("password", "0001 #")])
@given(secrets=st.lists(st.tuples(st.sampled_from(NAMES), WORD), min_size=8, max_size=24))
def test_no_planted_secret_is_left(tools: Path, tmp_path: Path, secrets: list[tuple[str, str]]) -> None:
    """In every form in which settings and logs hold one."""
    root = tmp_path / "root"
    (root / "shared" / "config").mkdir(parents=True, exist_ok=True)
    forms: list[Callable[[str, str], str]] = [
        lambda name, it: f"{json.dumps(name)} = {json.dumps(it, ensure_ascii=False)}",
        lambda name, it: f"{{{json.dumps(name)}: {json.dumps(it, ensure_ascii=False)}, \"port\": 1}}",
        lambda name, it: f"{name}={it}",
        lambda name, it: f"{name}: {it}",
        lambda name, it: f"  - {name}:\n      {it}",
        lambda name, it: f"2026-01-01T00:00:00Z INFO {name} = {it}",
    ]  # fmt: skip
    lines = [forms[number % len(forms)](name, it) for number, (name, it) in enumerate(secrets)]
    # every second one is in the settings as well, and then is known wherever else it appears
    (root / "shared" / "config" / "app.txt").write_text(
        "".join(f"{name} = {json.dumps(it, ensure_ascii=False)}\n" for name, it in secrets[::2])
    )
    lines += [
        f"the line says {it} and {json.dumps(it, ensure_ascii=False)} and goes on" for _, it in secrets[::2]
    ]
    text = "".join(f"{line}\nplain {number}\n" for number, line in enumerate(lines))
    program = f'cd "{SCRIPTS}"; scripts=.; . ./lib.sh; . ./lib_checks.sh; . ./lib_redact.sh; root=$1 own=$1/.updater; redact'
    done = subprocess.run(
        ["/bin/sh", "-c", program, "sh", str(root)], input=text.encode(), env={"PATH": str(tools)}, capture_output=True, check=True, timeout=60
    )  # fmt: skip
    shown = done.stdout.decode("utf-8", "replace")
    left = [(name, it) for name, it in secrets if it in shown and it not in "plain the line says and goes on"]
    assert left == [], (left, shown)
    assert "plain 0" in shown and done.stderr == b""


# ---------------------------------------------------------------- is the machine ready?


def test_a_dry_run_writes_nothing(site: Site, tools: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {
            str(it): (it.lstat().st_mtime_ns, it.lstat().st_ino)
            for it in site.root.rglob("*")
            if "logs" not in it.parts
        }

    before = state()
    found = look(tools, site.root, READY, "--dry-run")
    assert found.code == 0 and found.of("swap", "note") and state() == before
    look(tools, site.root, READY)
    site.is_clean()


def test_what_is_missing_is_told_with_its_package(site: Site, tmp_path: Path) -> None:
    found = look(toolbox(tmp_path / "bin", without=("zstd", "flock", "perl", "curl")), site.root, READY)
    assert found.code == 3 and not found.verdict["recover"] and found.verdict["update"], found.wrong
    told = {it["summary"].partition(":")[0]: it["remedy"] for it in found.wrong}
    assert "zstd" in told["no zstd"] and "util-linux" in told["neither flock nor perl"]
    assert "zstd or tar is missing" in found.of("backup", "failed")[0]["summary"]


def test_a_network_that_is_down_keeps_nobody_from_recovering(site: Site, tools: Path) -> None:
    text = site.layout.config.read_text().replace(site.server.api_url, "http://127.0.0.1:1")
    with changed(site.layout.config, text.encode()), an_end_that_waits(site):
        found = look(tools, site.root, READY)
    assert found.code == 3 and found.verdict["recover"] and not found.verdict["update"]
    (told,) = found.of("lock", "warning")
    assert "a deployment has ended, and is not in the history" in told["summary"]
    assert "does not answer" in found.of("source", "failed")[0]["summary"]


def test_a_way_back_that_would_not_work_is_told(site: Site, tools: Path) -> None:
    archive = max(site.layout.backups.glob("backup_*")) / "data.tar.zst"
    content = archive.read_bytes()
    with (
        a_python_that_is_gone(site),
        changed(archive, content[:-9] + b"damaged!!"),
        aside(site.layout.launchers / "v1.1.0"),
    ):
        found = look(tools, site.root, READY)
    said = "\n".join(it["summary"] for it in found.checks if it["result"] == "failed")
    assert found.code == 3 and not found.verdict["recover"] and found.verdict["update"]
    assert "v1.0.0 (the last good one before): .venv/bin/python is not there" in said
    assert "there are no launchers" in said and "is damaged: data.tar.zst" in said
    sums = archive.parent / "SHA256SUMS"
    others = [it for it in sums.read_text().splitlines(keepends=True) if not it.endswith(" data.tar.zst\n")]
    with changed(archive, content[:20]), changed(sums, "".join(others).encode()):
        assert (
            "cannot be unpacked with the tools here: data.tar.zst"
            in look(tools, site.root, READY).of("backup", "failed")[0]["summary"]
        )


# ---------------------------------------------------------------- probes


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_judges_probes_as_updater_does(server: ReleaseServer, tmp_path: Path, shell: str) -> None:
    tools = toolbox(tmp_path / "bin", without=("timeout",))
    (tools / "nc").write_text("#!/bin/sh\necho 'Usage: nc [-l] [IPADDR PORT]' >&2\nexit 1\n")  # without -z
    (tools / "nc").chmod(0o755)
    (tmp_path / "releases" / "v1").mkdir(parents=True)
    (tmp_path / ".updater" / "run").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    pid_file = tmp_path / ".updater" / "run" / "web.pid"
    pid_file.write_text("")
    url = f"{server.api_url}/repos/{REPOSITORY}/releases"
    for name, age in (("fresh", 0), ("stale", 60), ("before", 5)):
        (tmp_path / "shared" / name).write_text("")
        at = time.time() - age
        os.utime(tmp_path / "shared" / name, (at, at))
    at = time.time() - (3 if shell == "dash" else 90)
    os.utime(pid_file, (at, at))
    asked = {
        f"http 2 {url}": 0,
        f"http 2 {url} 404": 1,
        f"http 2 {url} 2xx '[]'": 0,
        f"http 2 {url} 2xx 'all is well'": 1,
        f"http 2 {url.replace('//', '//me:hunter22@')}?key=hunter22 500": 1,
        f"tcp 2 127.0.0.1 {server.api_url.rpartition(':')[2].partition('/')[0]}": 0,
        "tcp 2 127.0.0.1 1": 1,
        "file 2 shared/fresh 10": 0,
        "file 2 shared/stale 10": 1,
        "file 2 shared/before 10": 1 if shell == "dash" else 0,
        "command 1 sleep 60": 1,
    }
    lines = "\n".join(
        f'why=; probe v1 {shlex.quote(words)}; say $? {shlex.quote(words)} "$why"' for words in asked
    )
    began = time.monotonic()
    told = call(tools, tmp_path, f"name=web\n{lines}", shell=shell)
    assert time.monotonic() - began < 20, "a command that hangs is not ended"
    found = told.out.splitlines()
    assert [it[:2].strip() for it in found] == [str(it) for it in asked.values()], told.text
    assert "answers 200 without what it must hold" in told.out
    assert all(it.count("hunter22") == 2 for it in found if "hunter22" in it), (
        "its reason gives a password away"
    )
