"""Deploying, activating and rolling back, through the real command line, with a real application."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.site import SERVE, Site, eventually, is_over
from updater import by_hand


def test_a_first_deployment_and_a_second(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    site.runs("v1.1.0")
    assert os.readlink(site.layout.current) == "releases/v1.1.0", "always relative"
    found = site.status()
    assert (found["good"], found["previous"]) == ("v1.1.0", "v1.0.0")
    assert [it["outcome"] for it in site.history()] == ["succeeded", "succeeded"]
    assert site.history()[1]["outage_seconds"] > 0
    site.is_clean()


def test_without_a_tag_the_newest_is_deployed_and_then_there_is_nothing_to_do(site: Site) -> None:
    site.publish("v1.0.0")
    site.publish("v1.10.0")
    site.publish("v1.9.0")
    site.publish("v2.0.0-rc.1", prerelease=True)
    site.publish("v3.0.0", draft=True)
    assert site.updater("deploy").code == 0
    site.runs("v1.10.0")
    asked = len(site.server.requests)
    again = site.updater("deploy")
    assert again.code == 0 and "nothing to do" in again.out
    assert [it.status for it in site.server.requests[asked:]] == [304] * (
        len(site.server.requests) - asked
    ), "costs no quota"


KILLED = """
[gate]
drain = ["sh", "-c", 'kill -9 $(sed -n s/^pid=//p "$UPDATER_ROOT/.updater/run/web.pid")']
resume = ["true"]
"""


@pytest.mark.parametrize(
    ("behaviour", "evidence", "meanwhile"),
    [
        ("crash", "KeyError: 'exchange'", ""),
        ("crash", "KeyError: 'exchange'", KILLED),
        ("dies", "web exited with 7", ""),
        ("sick", "answered 500", ""),
        ("mute", "nobody listens there", ""),
    ],
)
def test_a_release_that_does_not_work_is_rolled_back_with_its_reason(
    site: Site, behaviour: str, evidence: str, meanwhile: str
) -> None:
    """F29, F32, F49: crash at the start, death in the watch window, 500, silence; also if the old one dies before its stop."""
    site.configure(watch=1.5, timeout=1.5)
    site.deployed("v1.0.0")
    site.configure(extra=meanwhile)
    site.publish("v1.1.0", behaviour)
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4
    assert "v1.1.0 failed its health check and was rolled back; v1.0.0 is in service." in done.err
    assert evidence in done.err
    site.runs("v1.0.0")
    site.is_clean()
    last = site.history()[-1]
    assert last["outcome"] == "rolled-back" and evidence in json.dumps(last["error"])
    states = {it["version"]: it["state"] for it in site.updater("--json", "releases").json}
    assert states == {"v1.0.0": "good", "v1.1.0": "bad"}


def test_a_release_that_failed_is_not_taken_again_by_itself(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash")
    assert site.updater("deploy").code == 4
    skipped = site.updater("deploy")
    assert skipped.code == 0 and "v1.1.0 is newer but marked bad" in skipped.out
    refused = site.updater("deploy", "v1.1.0")
    assert refused.code == 3 and "marked bad" in refused.err and "--force" in refused.err
    site.runs("v1.0.0")


def test_a_first_release_that_fails_leaves_nothing_in_service(site: Site) -> None:
    site.publish("v1.0.0", "crash")
    done = site.updater("deploy")
    assert done.code == 4 and "no release is in service" in done.err
    assert not os.path.lexists(site.layout.current) and not os.path.lexists(site.layout.version)
    assert site.answer() is None
    site.is_clean()


def test_activate_and_roll_back_need_no_network(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    site.server.__exit__(None, None, None)
    assert site.updater("activate", "1.0.0").code == 0
    site.runs("v1.0.0")
    assert site.updater("activate", "v1.1.0").code == 0
    assert site.updater("rollback").code == 0
    site.runs("v1.0.0")
    assert site.updater("preflight", "--offline").code == 0


def test_rolling_back_goes_by_the_records_and_skips_bad_releases(site: Site) -> None:
    """F18: neither names nor time stamps decide."""
    site.deployed("v3.0.0", "v1.0.0", "v2.0.0")
    os.utime(site.layout.release("v3.0.0"))
    assert site.updater("mark-bad", "v1.0.0", "--reason", "loses orders").code == 0
    assert site.updater("rollback").code == 0
    site.runs("v3.0.0")


def test_a_rollback_that_fails_too_says_so_and_what_to_do(site: Site) -> None:
    """F07, F33: nothing is recorded that was not seen."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash")
    # The old release goes bad while the new one is tried: it cannot be started again.
    broken = site.layout.release("v1.0.0") / "behaviour"
    broken.unlink()
    broken.write_text("crash\n")
    script = site.layout.scripts / "emergency_rollback.sh"
    script.touch()
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 5
    assert f"or without Python: sh '{script}' v1.0.0" in done.err
    assert "so did the way back to v1.0.0" in done.err
    assert f"or by hand: {by_hand.flip(site.root, 'v1.0.0')} && updater restart" in done.err, (
        "it can be pasted"
    )
    assert site.current() == "v1.0.0"
    assert site.history()[-1]["outcome"] == "rollback-failed"
    site.is_clean()


DIES_ONCE = """
import os, sys
once = os.path.join(os.environ["UPDATER_SHARED"], "data", "die-once")
if os.path.exists(once):
    os.remove(once)
    sys.exit(7)
"""


def test_what_dies_once_on_the_way_back_is_started_once_more(site: Site) -> None:
    """Also where it is a process by then, and only a probe finds it gone."""
    site.publish("v1.0.0", files={"serve.py": DIES_ONCE + SERVE})
    assert site.updater("deploy").code == 0
    site.publish("v1.1.0", "crash")
    once = site.layout.shared / "data" / "die-once"
    once.write_text("")
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and not once.exists(), done.text
    site.runs("v1.0.0")
    record = site.history()[-1]
    assert record["outcome"] == "rolled-back"
    assert "started once more on the way back: web exited with 7" in record["warnings"]
    site.is_clean()


def test_processes_run_from_the_resolved_path_and_never_through_the_link(site: Site) -> None:
    """F20: and a process keeps its own release's path after the link has moved."""
    site.deployed("v1.0.0")
    process = psutil.Process(site.status()["processes"][0]["pid"])
    assert process.cwd() == str(site.layout.release("v1.0.0"))
    assert process.cmdline()[0].startswith(str(site.layout.release("v1.0.0")))


def test_the_trial_ends_with_the_commit(site: Site) -> None:
    site.configure(watch=2)
    site.publish("v1.0.0")
    running = site.start("deploy")
    eventually(lambda: site.answer(), "the application answers")
    assert (site.answer() or "").split()[1] == "1" and site.layout.trial.exists()
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 0, out
    assert not site.layout.trial.exists()


def test_stop_ends_the_whole_family_and_a_stubborn_process(site: Site) -> None:
    site.configure(stop_timeout=0.5)
    site.publish("v1.0.0", "family")
    assert site.updater("deploy").code == 0
    family = psutil.Process(site.status()["processes"][0]["pid"]).children(recursive=True)
    assert len(family) == 2
    site.publish("v1.1.0", "stubborn")
    assert site.updater("deploy").code == 0
    site.runs("v1.1.0")
    assert not any(not is_over(child) for child in family)
    assert site.updater("stop").code == 0
    assert site.answer() is None


def test_a_hand_made_swap_is_taken_as_the_truth(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    subprocess.run(["ln", "-sfn", "releases/v1.0.0", "current"], cwd=site.root, check=True)
    said = site.updater("status").out
    assert "changed outside of updater" in said and "updater restart" in said
    assert site.updater("restart").code == 0
    site.runs("v1.0.0")
    site.deployed("v1.2.0")
    site.runs("v1.2.0")
    assert site.history()[-1]["from"] == "v1.0.0"


def test_a_restart_tells_whether_the_release_answers(site: Site) -> None:
    """F11: that a start was ordered is no success."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "sick")
    assert site.updater("fetch", "v1.1.0").code == 0
    subprocess.run(["ln", "-sfn", "releases/v1.1.0", "current"], cwd=site.root, check=True)
    done = site.updater("restart")
    assert done.code == 4 and "answered 500" in done.text and "left running" in done.text, done.text
    assert site.updater("start", "--no-wait").code == 0
    assert site.updater("rollback").code == 0
    site.runs("v1.0.0")


@pytest.mark.parametrize(
    "command", [["start"], ["restart"], ["stop"], ["force-stop", "--yes"], ["deploy", "v1.1.0"]]
)
def test_a_lost_pid_file_never_makes_a_second_process(site: Site, command: list[str]) -> None:
    """Two bots that trade on one account: the pid file is gone, or names somebody else, the first process lives."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    pid = site.status()["processes"][0]["pid"]
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        text = site.layout.pid_file("web").read_text()
        if command[0] == "start":
            site.layout.pid_file("web").unlink()
        else:
            site.layout.pid_file("web").write_text(text.replace(f"pid={pid}\n", f"pid={bystander.pid}\n"))
        seen = site.status()
        assert seen["processes"][0]["pid"] == pid and "pid file is lost" in seen["advice"][0]
        done = site.updater(*command)
        assert done.code == 0, done.text
        living = [it.pid for it in site.running("serve.py")]
        if command[0] in ("stop", "force-stop"):
            assert living == []
        else:
            assert len(living) == 1 and (living == [pid]) == (command == ["start"])
            site.runs("v1.1.0" if command[0] == "deploy" else "v1.0.0")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_damaged_release_and_a_damaged_history_are_told(site: Site) -> None:
    """F36, F54."""
    site.deployed("v1.0.0", "v1.1.0")
    (site.layout.release("v1.0.0") / ".release" / "release.json").write_text("[]")
    site.layout.history.write_text("[\nrubbish\n]\n")
    assert "damaged" in site.updater("releases").out
    assert "1 damaged record" in site.updater("history").err
    for command in (("activate", "v1.0.0"), ("fetch", "v1.0.0"), ("verify", "v1.0.0")):
        done = site.updater(*command)
        assert done.code == 7 and "v1.0.0 is damaged" in done.text, done.text
    done = site.updater("verify", "--all")
    assert done.code == 7 and "v1.1.0: sound" in done.out and "unreadable: .release/release.json" in done.out
    site.runs("v1.1.0")
    advice = re.findall(r"\((mv \S+ \S+)\) and install it anew: (updater fetch \S+);", done.out)
    assert subprocess.run(advice[0][0].split(), cwd=site.root, check=False).returncode == 0
    assert site.updater(*advice[0][1].split()[1:]).code == 0
    assert site.updater("verify", "--all").code == 0


def test_a_release_that_was_edited_is_not_said_to_be_installed(site: Site) -> None:
    site.deployed("v1.0.0")
    assert site.updater("fetch", "v1.0.0").code == 0
    edited = site.layout.release("v1.0.0") / "behaviour"
    edited.chmod(0o644)
    edited.write_text("edited\n")
    done = site.updater("fetch", "v1.0.0")
    assert done.code == 7 and "changed: behaviour" in done.err, done.text
    assert "updater rollback" in done.err, "the release in service is not to be removed"


@pytest.mark.parametrize(
    "place", [".updater/run/web.pid", ".updater/lock.owner", ".updater/marks/v1.0.0.good"]
)
def test_a_record_that_is_a_link_or_a_pipe_does_not_hang(site: Site, place: str) -> None:
    site.deployed("v1.0.0")
    record = site.root / place
    for make in (lambda: record.symlink_to("/dev/zero"), lambda: os.mkfifo(record)):
        record.unlink(missing_ok=True)
        make()
        assert site.updater("status", timeout=20).code == 0
    record.unlink()
    site.deployed("v1.1.0")
    site.runs("v1.1.0")


@pytest.mark.parametrize("kind", ["directory", "file", "dangling", "absolute", "foreign"])
def test_what_stands_at_current_is_looked_at_first(site: Site, kind: str, tmp_path: Path) -> None:
    """F23, F24."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    current = site.layout.current
    current.unlink()
    outside = tmp_path / "outside"
    outside.mkdir()
    if kind == "directory":
        current.mkdir()
        (current / "precious").write_text("data")
    elif kind == "file":
        current.write_text("data")
    elif kind == "dangling":
        current.symlink_to("releases/gone")
    elif kind == "absolute":
        current.symlink_to(site.layout.release("v1.0.0"))
    else:
        current.symlink_to(outside)
    done = site.updater("deploy", "v1.1.0")
    if kind in ("dangling", "absolute"):
        assert done.code == 0, done.text
        site.runs("v1.1.0")
        return
    assert done.code == 3, done.text
    assert "mv current current.aside" in done.err
    assert (site.answer() or "").startswith("1.0.0"), "the old release still answers"
    assert kind != "directory" or (current / "precious").read_text() == "data"
    assert kind != "foreign" or os.readlink(current) == str(outside)


def test_two_deployments_at_once_do_not_meet(site: Site) -> None:
    site.configure(watch=3)
    site.publish("v1.0.0")
    first = site.start("deploy")
    eventually(lambda: site.layout.lock_owner.exists(), "the lock is held")
    second = site.updater("deploy")
    assert second.code == 6 and "deploy" in second.err and "pid" in second.err
    assert site.updater("status").code == 0 and site.updater("rollback", "--help").code == 0, (
        "looking never locks (F53)"
    )
    first.communicate(timeout=60)
    assert first.returncode == 0
    site.runs("v1.0.0")


def test_roots_do_not_know_of_each_other(another_site: Callable[[str], Site]) -> None:
    """F44."""
    one, two = another_site("one"), another_site("two")
    one.deployed("v1.0.0")
    two.publish("v1.1.0")
    assert two.updater("deploy", "v1.1.0").code == 0
    one.runs("v1.0.0")
    two.runs("v1.1.0")


def test_the_same_tag_with_other_content_is_an_alarm(site: Site) -> None:
    site.deployed("v1.0.0")
    site.releases[0] = type(site.releases[0])(
        "v1.0.0", {**site.releases[0].tree, "evil.py": (b"print()", "100644")}
    )
    done = site.updater("deploy", "v1.0.0")
    assert done.code == 7 and "other content" in done.err and "--replace" in done.err
    site.runs("v1.0.0")
    assert site.updater("deploy", "v1.0.0", "--replace").code == 0
    assert (site.current() or "").startswith("v1.0.0+")
    assert (site.layout.release("v1.0.0") / "serve.py").exists()


def test_a_changed_file_is_named_and_refused_before_the_swap(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    edited = site.layout.release("v1.0.0") / "serve.py"
    edited.chmod(0o644)
    edited.write_text(edited.read_text() + "\n# edited\n")
    assert site.updater("verify", "v1.0.0").code == 7
    done = site.updater("activate", "v1.0.0")
    assert done.code == 7 and "changed: serve.py" in done.err
    site.runs("v1.1.0")
    assert site.updater("activate", "v1.0.0", "--force").code == 0
    site.runs("v1.0.0")
    assert site.history()[-1]["forced"] is True


def test_an_edited_release_does_not_spread_into_the_next(site: Site) -> None:
    """Files that are equal are shared by hard links; an edit shows in one release and in no other."""
    site.deployed("v1.0.0")
    inode = (site.layout.release("v1.0.0") / "serve.py").stat().st_ino
    site.deployed("v1.1.0")
    assert (site.layout.release("v1.1.0") / "serve.py").stat().st_ino == inode, "stored once"
    victim = site.layout.release("v1.1.0") / "serve.py"
    victim.chmod(0o644)
    with victim.open("a") as file:
        file.write("# edited through the shared link\n")
    site.deployed("v1.2.0")
    assert (site.layout.release("v1.2.0") / "serve.py").read_bytes() == site.releases[0].tree["serve.py"][0]
    assert site.updater("verify", "v1.2.0").code == 0


def test_pruning_keeps_what_must_stay(site: Site) -> None:
    """F19."""
    site.configure(keep=2)
    site.deployed("v1.0.0", "v1.1.0")
    assert site.updater("pin", "v1.0.0", "--reason", "the last with the old fee model").code == 0
    site.deployed("v1.2.0", "v1.3.0", "v1.4.0")
    (site.layout.releases / "by-hand").mkdir()
    versions = {it["version"] for it in site.updater("--json", "releases").json}
    assert versions == {"v1.0.0", "v1.3.0", "v1.4.0"}
    assert (site.layout.releases / "by-hand").is_dir(), "what updater does not know it leaves alone"
    assert site.updater("unpin", "v1.0.0").code == 0
    assert site.updater("prune", "--yes").code == 0
    assert not site.layout.release("v1.0.0").exists()


def test_a_dry_run_leaves_the_tree_byte_for_byte(site: Site) -> None:
    """F52. A database that nobody uses gets no files beside it either."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    with contextlib.closing(sqlite3.connect(site.layout.shared / "data" / "a.db")) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE trades (id INTEGER)")
    site.configure(
        extra='\n[gate]\nsqlite = { path = "data/a.db", busy_if = "SELECT count(*) FROM trades" }\n'
    )
    before = _snapshot(site.root)
    done = site.updater("deploy", "--dry-run")
    assert (
        done.code == 0
        and "v1.1.0 would be put into service" in done.out
        and "Nothing was written" in done.out
    )
    assert site.updater("preflight").code == 0
    assert _snapshot(site.root) == before


def _snapshot(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if name.startswith("shared/logs/web.log"):
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = (path.read_bytes(), path.stat().st_mtime_ns)
    return found


def test_fetch_installs_and_does_not_touch_what_runs(site: Site) -> None:
    site.deployed("v1.0.0")
    pid = site.status()["processes"][0]["pid"]
    site.publish("v1.1.0")
    assert site.updater("fetch", "v1.1.0").code == 0
    assert site.status()["processes"][0]["pid"] == pid
    again = site.updater("fetch", "v1.1.0")
    assert again.code == 0 and "installed already" in again.out
    site.server.__exit__(None, None, None)
    assert site.updater("activate", "v1.1.0").code == 0
    site.runs("v1.1.0")


def test_an_environment_whose_python_has_gone_is_found_and_rebuilt(site: Site) -> None:
    """F42: detected before the rollback is needed."""
    site.deployed("v1.0.0", "v1.1.0")
    python = site.layout.release("v1.0.0") / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python3.11")
    verified = site.updater("verify", "--all")
    assert verified.code == 7 and "its Python is gone" in verified.out and "--rebuild" in verified.out
    refused = site.updater("activate", "v1.0.0")
    assert refused.code == 3 and "updater fetch --rebuild v1.0.0" in refused.err
    assert site.updater("fetch", "--rebuild", "v1.0.0").code == 0
    assert site.updater("activate", "v1.0.0").code == 0
    site.runs("v1.0.0")
    assert (site.layout.release("v1.1.0") / ".venv" / "bin" / "python").exists()


def test_a_shared_file_is_asked_for_and_never_invented(site: Site) -> None:
    """F26."""
    site.configure(extra="")
    text = site.layout.config.read_text().replace(
        '"data" = "data"', '"data" = "data"\n"settings.toml" = "config/settings.toml"'
    )
    site.layout.config.write_text(text)
    site.publish("v1.0.0", files={"settings.toml": "key = 1\n"})
    done = site.updater("deploy")
    assert done.code == 3 and "shared/config/settings.toml is missing" in done.err and "cp " in done.err
    assert not (site.layout.shared / "config" / "settings.toml").exists()
    site.is_clean()
    (site.layout.shared / "config" / "settings.toml").write_text("key = 2\n")
    assert site.updater("deploy").code == 0
    release = site.layout.release("v1.0.0")
    assert (release / "settings.toml").read_text() == "key = 2\n"
    assert (release / ".release" / "shadowed" / "settings.toml").read_text() == "key = 1\n"
    assert site.updater("verify").code == 0
    tool = shutil.which("sha256sum") or shutil.which("shasum")
    assert tool is not None
    options = ["-a", "256"] if tool.endswith("shasum") else []
    subprocess.run(
        [tool, *options, "-c", ".release/SHA256SUMS"], cwd=release, check=True, capture_output=True
    )


def test_a_release_that_disagrees_with_its_tag_is_refused(site: Site) -> None:
    """F01."""
    site.publish("v1.0.0", files={"VERSION": "2.0.0\n"})
    done = site.updater("deploy")
    assert done.code == 7 and "'2.0.0'" in done.err
    del site.releases[:]
    release = site.publish("v1.1.0")
    release.tree = {name: it for name, it in release.tree.items() if name != "VERSION"}
    assert site.updater("deploy").code in (0, 4)
    assert (site.layout.release("v1.1.0") / "VERSION").read_text() == "v1.1.0\n", "written from the tag"
    assert site.updater("verify", "v1.1.0").code == 0


def test_a_build_that_fails_shows_the_installers_own_words(site: Site) -> None:
    """F38, F04: and the environment in service was not touched."""
    site.deployed("v1.0.0")
    site.publish(
        "v1.1.0", files={"requirements.txt": "no-such-package-anywhere==1.0\n", "wheels/README": "offline"}
    )
    done = site.updater("deploy")
    assert done.code == 4 and "no-such-package-anywhere" in done.err and "could not be built" in done.err
    site.runs("v1.0.0")
    site.is_clean()
    assert not site.layout.release("v1.1.0").exists()


def test_a_root_that_cannot_be_written_is_told_and_nothing_changes(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    log = site.layout.own / "worker.log"
    log.unlink()
    log.mkdir()  # even root cannot write to this, as nobody can to a read-only filesystem
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 3 and "the root cannot be written" in done.err
    site.runs("v1.0.0")
    log.rmdir()
    assert site.updater("deploy", "v1.1.0").code == 0


def test_the_updater_is_not_what_a_release_brings(site: Site) -> None:
    """F34: a release that has a package of the same name, and commands that are given inside of it, change nothing about it."""
    mine = {
        f"{name}.py": "raise SystemExit('not this one')\n"
        for name in ("updater", "click", "requests", "json")
    }
    site.publish("v1.0.0", files=mine)
    assert site.updater("deploy").code == 0
    site.publish("v1.1.0", files=mine)
    outside, site.place = site.place, site.layout.release("v1.0.0")
    try:
        for words in (
            ["deploy", "v1.1.0"],
            ["status"],
            ["rollback"],
            ["backup", "create"],
            ["verify", "--all"],
        ):
            done = site.updater(*words)
            assert done.code == 0 and "not this one" not in done.text, done.text
    finally:
        site.place = outside
    site.runs("v1.0.0")


def test_the_history_tells_all_of_one_deployment(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash")
    site.environment |= {"UPDATER_ORIGIN": "schedule", "SUDO_USER": "alice"}
    assert site.updater("deploy", "--reason", "nightly").code == 4
    record = site.history()[-1]
    assert (record["origin"], record["reason"], record["outcome"]) == ("schedule", "nightly", "rolled-back")
    for name in ("latest", record["id"], record["id"][:-2]):
        done = site.updater("history", name)
        assert done.code == 0, done.text
        for fact in (
            "schedule",
            "nightly",
            record["digest"],
            record["backup"],
            "KeyError: 'exchange'",
            "probe ",
        ):
            assert fact in done.out, fact
        assert f"outage   {record['outage_seconds']:.1f} s" in done.out
    if os.getuid() == 0:
        assert record["user"] == "root (sudo by alice)"
    assert site.updater("--json", "history", "latest").json == record
    several, none = site.updater("history", "2"), site.updater("history", "no-such")
    assert (several.code, none.code) == (2, 2) and "may be any of" in several.err
