"""What a process leaves behind, whose it is, and what is never taken for it: two versions at once cost money."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from examples.release_server import Release
from tests.site import SERVE, UPDATER, Done, Site, eventually, is_over, tree
from updater import lock
from updater.layout import Layout
from updater.subprocesses import Identity

WORKER = """
import os, subprocess, sys, time
if os.environ.get("ROLE") == "worker":
    time.sleep(3600)
subprocess.Popen([sys.executable, __file__], env={**os.environ, "ROLE": "worker"})
"""
CRASHES = WORKER + "sys.exit(1)\n"
DIES_LATER = WORKER + "import threading\nthreading.Timer(1.0, lambda: os._exit(7)).start()\n" + SERVE
DAEMON = (
    """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(3600)
    os._exit(0)
os.wait()
"""
    + SERVE
)
SLOW_TO_END = (
    """
import os, signal, threading
asked = []
def end(*_):
    asked.append(1)
    with open(os.environ["UPDATER_SHARED"] + "/data/asked", "a") as file:
        file.write("asked\\n")
    threading.Timer(2, lambda: os._exit(0)).start()
signal.signal(signal.SIGTERM, end)
"""
    + SERVE
)


def publish(site: Site, tag: str, program: str) -> None:
    files = {**tree(tag), "serve.py": (program.encode(), "100644")}
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=len(site.releases))
    site.releases.append(Release(tag, files, published=when))


def family(site: Site) -> list[tuple[int, str]]:
    """Every living process that a launcher of this root started, with its release."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            env = process.environ()
            if env.get("UPDATER_ROOT") == str(site.root) and "UPDATER_PROCESS" in env:
                found.append((process.pid, env["UPDATER_RELEASE"]))
    return found


def releases(site: Site) -> set[str]:
    return {release for _, release in family(site)}


def in_phase(site: Site, phase: str) -> bool:
    return any(f'"phase":"{phase}"' in path.read_text() for path in site.layout.journal.glob("*.jsonl"))


def asked(site: Site) -> int:
    with contextlib.suppress(FileNotFoundError):
        return len((site.layout.shared / "data" / "asked").read_text().splitlines())
    return 0


def test_a_worker_of_a_release_that_crashed_does_not_outlive_the_way_back(site: Site) -> None:
    site.deployed("v1.0.0")
    publish(site, "v1.1.0", CRASHES)
    assert site.updater("deploy", "v1.1.0").code == 4
    site.runs("v1.0.0")
    assert releases(site) == {"v1.0.0"}


@pytest.mark.parametrize("command", [["stop"], ["force-stop", "--yes"], ["restart"]])
def test_what_a_dead_process_left_behind_is_told_and_ended(site: Site, command: list[str]) -> None:
    site.configure(watch=0.1)
    publish(site, "v1.0.0", DIES_LATER)
    assert site.updater("deploy").code == 0
    eventually(lambda: site.status()["processes"][0]["state"] == "died", "its leader died")
    ((worker, _),) = family(site)
    found = site.status()
    assert found["leftovers"] == [{"name": "web", "pid": worker, "release": "v1.0.0"}]
    assert any(f"pid {worker} of web" in line and "updater stop" in line for line in found["advice"])
    done = site.updater(*command)
    assert done.code == 0 and "web" in done.out, done.text
    assert not any(pid == worker for pid, _ in family(site))
    assert command == ["restart"] or family(site) == []


@pytest.mark.parametrize("command", [["stop"], ["force-stop", "--yes"], ["deploy", "v1.1.0"]])
def test_a_daemon_that_left_session_and_parent_is_stopped_with_its_process(
    site: Site, command: list[str]
) -> None:
    """Its command line is that of the process: before, it was taken for it, and no deployment came through."""
    publish(site, "v1.0.0", DAEMON)
    site.publish("v1.1.0")
    assert site.updater("deploy", "v1.0.0").code == 0
    assert len(family(site)) == 2 and site.status()["leftovers"] == [], "it belongs to what runs"
    done = site.updater(*command)
    assert done.code == 0, done.text
    assert releases(site) == ({"v1.1.0"} if command[0] == "deploy" else set())


def test_a_worker_without_its_marks_is_found_by_its_session(site: Site) -> None:
    publish(
        site, "v1.0.0", DIES_LATER.replace('env={**os.environ, "ROLE": "worker"}', 'env={"ROLE": "worker"}')
    )
    site.configure(watch=0.1)
    assert site.updater("deploy").code == 0
    eventually(lambda: site.status()["processes"][0]["state"] == "died", "its leader died")
    (worker,) = site.running("serve.py")
    assert site.updater("stop").code == 0
    assert is_over(worker)


def test_a_wrapper_is_found_again_when_everything_of_updaters_is_lost(site: Site) -> None:
    text = site.layout.config.read_text()
    site.layout.config.write_text(
        text.replace('["python", "serve.py"]', '["sh", "-c", "exec python serve.py"]')
    )
    site.deployed("v1.0.0")
    ((pid, _),) = family(site)
    shutil.rmtree(site.layout.own)
    assert site.updater("start").code == 0
    assert family(site) == [(pid, "v1.0.0")]
    site.runs("v1.0.0")


def test_pid_files_that_vanish_during_a_deployment_are_written_again(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=2)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    site.layout.run.rename(
        site.place / "taken away"
    )  # at once: who removes file by file meets those that are being written
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, out + err
    site.runs("v1.1.0")
    assert releases(site) == {"v1.1.0"}


def test_pid_files_that_vanish_do_not_keep_the_way_back_from_stopping(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    os.kill(int(read_owner(site.layout)), signal.SIGKILL)
    running.communicate(timeout=60)
    shutil.rmtree(site.layout.run)
    assert site.updater("recover").code == 0
    site.runs("v1.0.0")
    assert releases(site) == {"v1.0.0"}


def read_owner(layout: Layout) -> int:
    owner = lock.owner(layout)
    assert owner is not None
    return owner.identity.pid


DASHBOARD = (
    """
import os, subprocess, threading
def press():
    with open(os.environ["UPDATER_SHARED"] + "/data/said", "w") as said:
        subprocess.run([os.environ["UPDATER"], *os.environ["COMMAND"].split()], stdout=said, stderr=said)
if not os.path.exists(os.environ["UPDATER_SHARED"] + "/data/said"):
    threading.Timer(1.0, press).start()
"""
    + SERVE
)


@pytest.mark.parametrize("command", ["deploy v1.1.0", "restart"])
def test_the_applications_own_button_is_never_stopped_with_it(site: Site, command: str) -> None:
    """F08: updater was started by the application, carries its marks, and descends from it."""
    site.configure(watch=0.1)
    text = site.layout.config.read_text()
    given = f'PORT = "{site.port}", UPDATER = "{UPDATER}", COMMAND = "{command}"'
    site.layout.config.write_text(text.replace(f'PORT = "{site.port}"', given))
    publish(site, "v1.0.0", DASHBOARD)
    site.publish("v1.1.0")
    assert site.updater("deploy", "v1.0.0").code == 0
    first = site.status()["processes"][0]["pid"]
    wanted = "v1.1.0" if "deploy" in command else "v1.0.0"
    eventually(
        lambda: (
            (it := site.status())["processes"][0]["state"] == "running"
            and it["processes"][0]["pid"] != first
            and it["processes"][0]["release"] == wanted
            and lock.owner(site.layout) is None
        ),
        "the button's command came to its end",
    )
    site.runs(wanted)
    assert len(family(site)) == 1


def other(root: Path, site: Site, *arguments: str) -> Done:
    env = {name: value for name, value in site.env().items() if name != "UPDATER_ROOT"}
    done = subprocess.run(
        [UPDATER, "--root", root, *arguments], capture_output=True, text=True, check=False, env=env
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("command", [["stop"], ["force-stop", "--yes"]])
def test_a_copy_of_a_root_does_not_touch_the_originals_processes(site: Site, command: list[str]) -> None:
    site.deployed("v1.0.0")
    copy = site.place / "staging"
    subprocess.run(["cp", "-a", site.root, copy], check=True)
    seen = other(copy, site, "--json", "status").json
    assert seen["processes"][0]["state"] == "stopped" and seen["leftovers"] == []
    done = other(copy, site, *command)
    assert done.code == 0 and "nothing was running" in done.out
    site.runs("v1.0.0")
    launcher = copy / ".updater/launchers/v1.0.0/web"
    started = subprocess.run(["sh", launcher], capture_output=True, text=True, check=False)
    assert "is running already" not in started.stderr, "the launcher knows as well"


def test_recovering_a_copy_neither_stops_nor_starts_anything(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=3)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    copy = site.place / "staging"
    subprocess.run(["cp", "-a", site.root, copy], check=True)
    done = other(copy, site, "recover")
    assert done.code == 0, done.text
    assert "this root is a copy" in (copy / "shared/logs/update.log").read_text()
    assert other(copy, site, "--json", "status").json["processes"][0]["state"] == "stopped"
    running.communicate(timeout=60)
    assert running.returncode == 0
    site.runs("v1.1.0")


def test_a_root_is_moved_with_its_processes_running(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    pid = site.status()["processes"][0]["pid"]
    moved = site.place / "moved"
    site.root.rename(moved)
    site.root, site.layout = moved, Layout(moved)
    assert site.status()["processes"][0]["pid"] == pid and site.status()["leftovers"] == []
    site.layout.pid_file("web").unlink()
    assert site.status()["processes"][0]["pid"] == pid, "found by where it runs"
    assert site.updater("rollback").code == 0
    site.runs("v1.0.0")
    assert Identity.of(pid) is None


def test_a_process_that_has_its_signal_is_not_called_back_in_service(site: Site) -> None:
    """The worker is killed while the old process ends: the way back waits for that end, and starts anew."""
    publish(site, "v1.0.0", SLOW_TO_END)
    site.publish("v1.1.0")
    assert site.updater("deploy", "v1.0.0").code == 0
    pid = site.status()["processes"][0]["pid"]
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: asked(site), "it has its signal")
    os.kill(read_owner(site.layout), signal.SIGKILL)
    running.communicate(timeout=60)
    assert site.status()["processes"][0]["state"] == "stopping"
    done = site.updater("recover")
    assert done.code == 0 and "v1.0.0 is in service" in done.out
    found = site.status()["processes"][0]
    assert found["state"] == "running" and found["pid"] != pid and Identity.of(pid) is None
    assert asked(site) == 1, "and was asked once only"


def test_an_interrupted_restart_says_what_runs_and_the_next_start_finishes_it(site: Site) -> None:
    publish(site, "v1.0.0", SLOW_TO_END)
    assert site.updater("deploy", "v1.0.0").code == 0
    running = site.start("restart")
    eventually(lambda: asked(site), "it has its signal")
    running.send_signal(signal.SIGHUP)  # a closed terminal ends nothing
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "web is being stopped" in err and "updater start" in err
    stopped_by_force_when_the_clock_was_wrong(site)
    assert site.updater("start").code == 0
    site.runs("v1.0.0")


def stopped_by_force_when_the_clock_was_wrong(site: Site) -> None:
    """A note from the future: it must not end every start until then."""
    (site.layout.own / "force-stop").write_text("at=9999999999.0\ndeployment=\n")


def test_a_deployment_waits_for_a_restart_that_is_still_asking_for_health(site: Site) -> None:
    """Before, it came in between, and restart then said of another release that it was in service."""
    site.deployed("v1.0.0", "v1.1.0")
    site.configure(timeout=30)
    site.layout.config.write_text(
        site.layout.config.read_text().replace('\nurl = "http', '\nstatus = 404\nurl = "http')
    )
    running = site.start("restart")
    eventually(
        lambda: (
            (owner := lock.owner(site.layout)) is not None
            and owner.operation == "restart"
            and site.status()["processes"][0]["state"] == "running"
            and site.answer()
        ),
        "it waits for health",
    )
    refused = site.updater("rollback")
    assert refused.code == 6 and "restart" in refused.text, refused.text
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "Now: web runs" in err


NOBODY = """
import os, sys
from pathlib import Path
from updater.errors import PreflightFailed
from updater.layout import Layout
from updater.processes import control
from updater.subprocesses import Identity
Identity.mine()
os.setuid(65534)
try:
    control.force_stop(Layout(Path(sys.argv[1])))
except PreflightFailed as refused:
    print(refused.as_text())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_a_forced_stop_by_another_user_is_refused_in_words(site: Site) -> None:
    site.deployed("v1.0.0")
    opened = [place for place in site.root.parents if place.stat().st_mode & 0o005 != 0o005]
    for place in opened:
        place.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, site.root], capture_output=True, text=True, check=False
    )
    assert "belongs to another user" in done.stdout and "Nothing was stopped" in done.stdout, done.stderr
    site.runs("v1.0.0")


def test_a_forced_stop_cancels_a_deployment_and_nothing_starts_again(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    assert site.updater("force-stop", "--yes").code == 0
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "force-stop" in err and "not started again" in err, err
    assert family(site) == [] and site.current() == "v1.0.0"
    states = {it["version"]: it["state"] for it in site.updater("--json", "releases").json}
    assert states["v1.1.0"] == "installed", "it has not failed"
    assert site.updater("start").code == 0
    site.runs("v1.0.0")


def test_a_forced_stop_of_an_interrupted_deployment_holds_for_its_recovery(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    os.kill(read_owner(site.layout), signal.SIGKILL)
    running.communicate(timeout=60)
    assert site.updater("force-stop", "--yes").code == 0
    assert site.updater("recover").code == 0
    assert family(site) == [] and site.current() == "v1.0.0"


def test_a_forced_stop_ends_a_start_that_waits(site: Site) -> None:
    site.deployed("v1.0.0")
    site.configure(timeout=60)
    site.layout.config.write_text(
        site.layout.config.read_text().replace('\nurl = "http', '\nstatus = 404\nurl = "http')
    )
    assert site.updater("stop").code == 0
    running = site.start("start")
    eventually(site.answer, "it runs")
    assert site.updater("force-stop", "--yes").code == 0
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130 and "force-stop" in err, err
    assert family(site) == []


def test_roots_inside_roots_are_told_apart(another_site: Callable[[str], Site]) -> None:
    """A process belongs to the root that it runs in, not to one further up."""
    outer = another_site("outer")
    outer.deployed("v1.0.0")
    inner_place = outer.root / "shared" / "inner"
    inner_place.mkdir()
    inner = Site(inner_place, outer.server, outer.releases)
    try:
        assert inner.updater("deploy", "v1.0.0").code == 0
        assert outer.updater("stop").code == 0
        inner.runs("v1.0.0")
        assert outer.status()["leftovers"] == []
    finally:
        inner.end()


def test_status_stays_cheap(site: Site) -> None:
    """It looks at every process of the machine, and imports nothing for that where it can do without."""
    if sys.platform != "linux":
        pytest.skip("elsewhere psutil is the way")
    site.deployed("v1.0.0")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", UPDATER, "status"], env=site.env(), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "running" in done.stdout and "psutil" not in done.stderr
