"""However somebody got there, there is a way out, and what is said is so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import emergency
from tests.integration.test_cancel import in_phase
from tests.phone import Phone
from tests.site import Done, Site, eventually
from updater.deployment import journal


def holder_pid(site: Site) -> int:
    fields = dict(line.split("=", 1) for line in site.layout.lock_owner.read_text().splitlines())
    return int(fields["pid"])


def interrupted(site: Site) -> None:
    """v1.0.0 is good, and the deployment of v1.1.0 was killed while it watched."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    site.configure(watch=0.1)


def test_ctrl_c_before_the_deployment_is_accepted_ends_as_the_deployment_ends(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    for _ in range(3):
        running = site.start("activate", "v1.0.0")
        eventually(lambda it=running: _worker_of(it.pid), "the worker was started")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
        assert running.returncode == 130, out + err
        site.runs("v1.1.0")
    site.is_clean()


def _worker_of(pid: int) -> bool:
    listing = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return "updater.deployment.worker" in listing.stdout


def test_a_recovery_is_not_broken_off_by_ctrl_c(site: Site) -> None:
    interrupted(site)
    running = site.start("recover")
    eventually(
        lambda: (
            any(journal.read(path).recoveries for path in journal.unfinished(site.layout))
            or running.poll() is not None
        ),
        "the recovery has begun",
    )
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    site.runs("v1.0.0")
    site.is_clean()
    assert running.returncode in (0, 130), out + err
    assert site.updater("recover").out.startswith("nothing to recover")


def test_cancel_leaves_alone_who_recovers(site: Site) -> None:
    interrupted(site)
    running = site.start("pin", "v1.0.0")
    eventually(
        lambda: (
            (site.layout.lock_owner.exists() and "pin" in site.layout.lock_owner.read_text())
            or running.poll() is not None
        ),
        "pin is at work",
    )
    site.updater("cancel")
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, out + err
    site.runs("v1.0.0")


def test_a_recovery_that_fails_for_good_says_so_by_its_exit_code(site: Site) -> None:
    interrupted(site)
    shutil.rmtree(site.layout.release("v1.0.0"))
    codes = [site.updater("recover").code for _ in range(4)]
    assert 5 in codes and codes[-1] == 0, codes
    assert [
        it for it in site.status()["processes"] if it["release"] == "v1.1.0" and it["state"] == "running"
    ] == []


def test_it_is_said_how_often_a_way_back_is_tried_again(site: Site) -> None:
    interrupted(site)
    python = site.layout.release("v1.0.0") / ".venv" / "bin" / "python"
    there = os.readlink(python)
    python.unlink()
    for command, said in (
        ("pin", "tried 2 times more, by the next command"),
        ("recover", "tried once more, by the next command"),
    ):
        done = site.updater(*([command, "v1.0.0"] if command == "pin" else [command]))
        assert done.code == 5 and said in done.err and "holds still now" not in done.err, done.err
        assert "then `updater recover`" in done.err
    done = site.updater("--json", "recover")
    assert done.code == 5 and "holds still now and will not try again" in done.out, done.text
    python.symlink_to(there)
    assert site.updater("recover").out == "nothing to recover\n"
    assert site.updater("activate", "v1.0.0").code == 0
    site.runs("v1.0.0")


def test_a_dangling_link_is_mended_by_the_next_deployment_even_if_that_fails(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    site.layout.current.unlink()
    site.layout.current.symlink_to("releases/v9")
    assert site.updater("check").out.startswith("v1.1.0 is available")
    site.publish("v1.2.0", "sick")
    done = site.updater("deploy", "v1.2.0")
    assert done.code == 4 and "v1.1.0 is in service again" in done.text, done.text
    site.runs("v1.1.0")


def test_nothing_to_do_is_only_said_when_the_release_runs(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    assert site.updater("stop").code == 0
    idle = site.updater("deploy")
    assert idle.code == 0 and "not running from it: web" in idle.out
    assert site.updater("activate", "v1.1.0").code == 0
    site.runs("v1.1.0")
    assert "nothing to do" in site.updater("activate", "v1.1.0").out
    site.layout.current.unlink()
    site.layout.current.symlink_to("releases/v1.0.0")
    assert any("runs from v1.1.0 while v1.0.0 is in service" in it for it in site.status()["advice"])


@pytest.mark.parametrize("removed", [".updater", ".updater/journal", ".updater/run"])
def test_updaters_own_directory_removed_during_a_deployment(site: Site, removed: str) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=3)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    shutil.rmtree(site.root / removed)
    second = site.updater("activate", "v1.0.0")
    assert second.code == 6, second.text
    out, err = running.communicate(timeout=60)
    assert running.returncode in (0, 4), out + err
    site.configure(watch=0.1)
    assert site.updater("recover").code == 0
    site.runs("v1.1.0" if running.returncode == 0 else "v1.0.0")


def test_a_link_that_is_swapped_by_hand_during_a_deployment_is_not_called_a_success(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    site.publish("v1.2.0")
    site.configure(watch=2)
    running = site.start("deploy", "v1.2.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    subprocess.run(["ln", "-sfn", "releases/v1.0.0", "current"], cwd=site.root, check=True)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 4 and "somebody changed it" in err, out + err
    assert "v1.0.0 is in service again" in err
    site.runs("v1.0.0")


def test_a_directory_in_the_place_of_updaters_link_is_found_before_the_outage(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.layout.good.unlink()
    site.layout.good.mkdir()
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 3 and ".updater/good.aside" in done.text, done.text
    site.runs("v1.0.0")


def test_a_clock_that_went_back_does_not_mix_up_deployments(site: Site) -> None:
    site.deployed("v1.0.0")
    (old,) = journal.closed(site.layout)
    for number in range(60):
        shutil.copy(old, old.with_name(f"20991231T2359{number:02}-{number:06x}.jsonl"))
    site.deployed("v1.1.0")
    progress = site.updater("--json", "progress").json
    assert (progress["to"], progress["outcome"]) == ("v1.1.0", "succeeded")


def test_a_typing_error_in_the_configuration_bars_no_way_out(site: Site) -> None:
    interrupted(site)
    right = site.layout.config.read_text()
    site.layout.config.write_text(right + "\n[helth]\n")
    for command in (
        ["releases"],
        ["history"],
        ["verify", "v1.0.0"],
        ["progress"],
        ["recover"],
        ["stop"],
        ["force-stop", "--yes"],
        ["unlock", "--yes"],
    ):
        done = site.updater(*command)
        assert done.code == 0 and "helth" in done.err, (command, done.text)
    assert site.updater("--json", "releases").json
    assert site.updater("start").code == 0
    site.runs("v1.0.0")
    site.layout.config.write_text(right)
    assert site.updater("restart").code == 0
    site.runs("v1.0.0")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who holds a lock")
@pytest.mark.parametrize("place", ["root", "lock"])
def test_the_lock_of_a_stranger_is_told_with_what_ends_it(site: Site, place: str) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    running = subprocess.Popen(["flock", getattr(site.layout, place), "sleep", "300"], start_new_session=True)
    try:
        eventually(lambda: psutil.Process(running.pid).children(), "it has the lock")
        for command in (["rollback"], ["unlock", "--yes"], ["stop"]):
            done = site.updater(*command)
            assert done.code == 6 and f"pid {running.pid}: flock" in done.text, done.text
            assert "end it: kill" in done.text and "`updater unlock` does not" in done.text
        found = {it["name"]: it for it in site.updater("--json", "preflight").json["checks"]}
        assert f"pid {running.pid}: flock" in found["lock"]["summary"]
        assert "end it: kill" in found["lock"]["remedy"]
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert site.updater("rollback").code == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who holds a lock")
@pytest.mark.parametrize("command", ["rollback", "stop"])
def test_a_command_that_a_cron_job_locks_out_of_its_own_root_says_so(site: Site, command: str) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    done = subprocess.run(
        ["flock", site.root, *site.command(command)], env=site.env(), cwd=site.place, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 6 and "this very command was started under that lock" in done.stderr


def test_a_python_that_has_gone_from_under_the_release_in_service_bars_no_way_out(site: Site) -> None:
    """F42: what repairs it, and what leads away from it, must not be refused for it."""
    site.deployed("v1.0.0", "v1.1.0")
    python = site.layout.release("v1.1.0") / ".venv" / "bin" / "python"

    def gone() -> None:
        python.unlink()
        python.symlink_to("/nonexistent/python3.11")

    gone()
    site.publish("v1.2.0")
    refused = site.updater("deploy", "v1.2.0")
    assert refused.code == 3 and "updater fetch --rebuild v1.1.0" in refused.text
    assert site.updater("fetch", "--rebuild", "v1.1.0").code == 0
    assert site.updater("restart").code == 0
    site.runs("v1.1.0")
    gone()
    assert site.updater("rollback").code == 0
    site.runs("v1.0.0")


def test_a_word_that_is_no_text_ends_one_deployment_and_no_more(site: Site) -> None:
    site.deployed("v1.0.0")
    odd = subprocess.run(
        [*map(os.fsencode, site.command("deploy")), b"v1.1\xff"],
        env=site.env(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert odd.returncode in (2, 8), odd.stderr
    site.deployed("v1.1.0")
    site.runs("v1.1.0")


def test_a_reader_that_has_seen_enough_is_no_failure(site: Site) -> None:
    site.deployed("v1.0.0")
    text = f"'{site.command()[0]}' status | true; '{site.command()[0]}' history | head -c 1 >/dev/null"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", text], env=site.env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    site.publish("v1.1.0", "crash")
    failing = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"'{site.command()[0]}' deploy | true"],
        env=site.env(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert failing.returncode == 4 and "was rolled back" in failing.stderr, failing
    site.runs("v1.0.0")


def test_output_that_cannot_be_written_is_a_failure_without_a_traceback(site: Site, tmp_path: Path) -> None:
    site.deployed("v1.0.0")
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            site.command("--json", "status"),
            env=site.env(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode != 0 and "Traceback" not in done.stderr


def by_script(site: Site, name: str, *words: str) -> Done:
    """An emergency script of the root, with no Python on its PATH."""
    tools = site.place / "tools"
    if not tools.exists():
        emergency.toolbox(tools)
    done = subprocess.run(
        ["sh", site.layout.scripts / name, *words], env={"PATH": str(tools)}, cwd="/", capture_output=True, text=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def no_history(site: Site) -> Path:
    """Something is in the way of the history. Returns where the history is."""
    aside = site.layout.history.with_name("aside")
    site.layout.history.rename(aside)
    site.layout.history.mkdir()
    return aside


def test_what_has_ended_and_could_not_be_written_into_the_history_is_over_and_told_once(
    site: Site, phone: Phone
) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash")
    site.configure(extra=f'\n[notify]\nurls = ["{phone.url()}"]\n')
    aside = no_history(site)
    assert site.updater("deploy", "v1.1.0").code == 4
    phone.wait(1)
    (path,) = journal.unfinished(site.layout)
    assert site.status()["deployment"] is None, "nothing is at work, and nothing was interrupted"
    told = site.updater("status").out
    assert "not in the history yet, which could not be written: deploy v1.0.0 → v1.1.0: rolled-back" in told
    assert "(rolling back)" not in told and "interrupted" not in told
    looked = by_script(site, "health_check_enhanced.sh")
    assert "has ended, and is not in the history" in looked.text and "was interrupted" not in looked.text
    assert site.updater("pin", "v1.0.0").code == 0
    assert journal.unfinished(site.layout) == [path], "it stays as long as there is no history"
    site.layout.history.rmdir()
    aside.rename(site.layout.history)
    assert site.updater("pin", "v1.0.0").code == 0
    assert site.history()[-1]["id"] == path.name.removesuffix(journal.SUFFIX)
    assert len(phone.messages) == 1, [it["title"] for it in phone.messages]
    site.is_clean()


def test_a_way_back_that_the_disk_has_hindered_is_not_called_interrupted(site: Site) -> None:
    interrupted(site)
    (path,) = journal.unfinished(site.layout)
    book = journal.Journal.reopen(site.layout, path)
    book.record("failed", None, {"message": "the disk is full"})
    wanted = "failed, and its way back has not come to its end"
    told = site.updater("status").out
    assert wanted in told and "interrupted" not in told, told
    assert wanted in site.updater("progress").out
    assert wanted in by_script(site, "health_check_enhanced.sh").text
    assert site.updater("recover").code == 0
    site.is_clean()


def test_a_script_that_cannot_write_the_history_leaves_the_journal_for_who_can(site: Site) -> None:
    interrupted(site)
    (path,) = journal.unfinished(site.layout)
    aside = no_history(site)
    for _ in range(2):
        assert by_script(site, "cleanup_failed_update.sh", "--yes").code == 0
        assert journal.unfinished(site.layout) == [path]
    site.runs("v1.0.0")
    site.layout.history.rmdir()
    aside.rename(site.layout.history)
    assert by_script(site, "cleanup_failed_update.sh", "--yes").code == 0
    found = [it["id"] for it in site.history()]
    assert found.count(path.name.removesuffix(journal.SUFFIX)) == 1
    site.runs("v1.0.0")
    site.is_clean()
