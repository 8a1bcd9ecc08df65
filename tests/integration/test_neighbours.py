"""What lies close to a root's processes: those of other users, of other roots, and the root itself by another path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.release_server import ReleaseServer
from tests.integration.test_families import family, in_phase, other, publish
from tests.site import SERVE, UPDATER, Site, eventually, is_over
from updater.subprocesses import Identity

Mount = Callable[..., Path]

SUDO = (
    """
import os, subprocess
other = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, user=65534, group=65534, extra_groups=[])
with open(os.environ["UPDATER_SHARED"] + "/data/other", "w") as file:
    file.write(str(other.pid))
"""
    + SERVE
)
POWERLESS = """
import ctypes, os, sys
for capability in (5, 19):  # CAP_KILL, CAP_SYS_PTRACE; PR_CAPBSET_DROP
    assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


class Powerless(Site):
    """One whose updater, and whatever that starts, may neither signal the processes of other users nor look into them."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", POWERLESS, *super().command(*arguments)]


@pytest.fixture
def powerless(tmp_path: Path, server: ReleaseServer) -> Iterator[Powerless]:
    if os.getuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("needs root on Linux: it starts processes as another user")
    assert isinstance(server.releases, list)
    made = Powerless(tmp_path, server, server.releases)
    yield made
    made.end()


def started_by_sudo(site: Site, *command: str) -> psutil.Process:
    """Deploy a release whose process starts one as another user; that one."""
    site.deployed("v1.0.0")
    publish(site, "v1.1.0", SUDO.replace("COMMAND", repr(list(command))))
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 0, done.text
    found = psutil.Process(int((site.layout.shared / "data" / "other").read_text()))
    eventually(lambda: found.cmdline() == list(command), "it runs")
    assert found.username() == "nobody"
    return found


@pytest.mark.parametrize(
    ("command", "after"),
    [
        (["stop"], None),
        (["force-stop", "--yes"], None),
        (["restart"], "v1.1.0"),
        (["rollback"], "v1.0.0"),
        (["deploy", "v1.2.0"], "v1.2.0"),
    ],
)
def test_a_child_under_another_user_bars_no_way_and_is_named(
    powerless: Powerless, command: list[str], after: str | None
) -> None:
    site = powerless
    child = started_by_sudo(site, "sleep", "3600")
    site.publish("v1.2.0")
    done = site.updater(*command)
    assert done.code == 0, done.text
    assert f"web: pid {child.pid} (sleep 3600) runs as nobody" in done.text
    assert f"sudo kill {child.pid}" in (site.layout.logs / "update.log").read_text()
    assert not is_over(child)
    if after:
        site.runs(after)
    else:
        assert site.answer() is None and site.status()["processes"][0]["state"] == "stopped"


def test_a_child_under_another_user_that_ends_with_its_parent_is_no_news(powerless: Powerless) -> None:
    child = started_by_sudo(powerless, "cat")
    found = powerless.updater("--json", "stop")
    assert found.json == {"stopped": ["web"], "warnings": []}
    assert is_over(child)


OVERSEER = (
    """
import os, subprocess
subprocess.Popen(ACTION, start_new_session=SESSION)
"""
    + SERVE
)


def overseer(place: Path, site: Site, action: list[Any], *, session: bool) -> Site:
    """Another root, whose application does something to the first one."""
    place.mkdir()
    made = Site(place, site.server, site.releases)
    text = OVERSEER.replace("ACTION", repr([str(word) for word in action])).replace("SESSION", str(session))
    publish(made, "v3.0.0", text)
    done = made.updater("deploy", "v3.0.0")
    assert done.code == 0, done.text
    return made


@pytest.mark.parametrize("stop", [["stop"], ["force-stop", "--yes"]])
def test_the_deployment_of_another_root_outlives_the_dashboard_that_started_it(
    site: Site, tmp_path: Path, stop: list[str]
) -> None:
    """F08: the worker descends from the dashboard, but is none of its root's processes."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=4)
    one = overseer(tmp_path / "one", site, [UPDATER, "--root", site.root, "deploy", "v1.1.0"], session=False)
    try:
        eventually(lambda: in_phase(site, "watch"), "phase watch")
        done = one.updater(*stop)
        assert done.code == 0 and one.answer() is None, done.text
        eventually(lambda: site.history()[-1]["to"] == "v1.1.0", "the deployment came to its end")
        site.runs("v1.1.0")
    finally:
        one.end()


@pytest.mark.parametrize("session", [True, False])
def test_the_application_of_another_root_outlives_the_dashboard_that_started_it(
    site: Site, tmp_path: Path, session: bool
) -> None:
    site.deployed("v1.0.0")
    assert site.updater("stop").code == 0
    launcher = site.layout.launcher("v1.0.0", "web")
    one = overseer(tmp_path / "one", site, ["sh", launcher], session=session)
    try:
        eventually(site.answer, "it runs")
        assert one.updater("stop").out == "stopped web\n"
        site.runs("v1.0.0")
    finally:
        one.end()


def test_no_process_of_the_application_carries_the_mark_of_a_deployment(site: Site) -> None:
    """It would be spared for ever."""
    site.environment["UPDATER_WORKER"] = "1"
    site.deployed("v1.0.0")
    assert "UPDATER_WORKER" not in psutil.Process(site.status()["processes"][0]["pid"]).environ()
    launcher = site.layout.launcher("v1.0.0", "web")
    assert site.updater("stop").code == 0
    with subprocess.Popen(["sh", launcher], env=site.env(), start_new_session=True) as started:
        eventually(site.answer, "it runs")
        assert "UPDATER_WORKER" not in psutil.Process(started.pid).environ()
        assert site.updater("stop").code == 0


@pytest.mark.parametrize("command", [["stop"], ["force-stop", "--yes"], ["deploy", "v1.0.0"]])
def test_a_copy_with_the_same_inode_on_another_device_is_a_copy(
    server: ReleaseServer, mount: Mount, command: list[str]
) -> None:
    """A root that is a mount point or a subvolume has the inode of every other one."""
    assert isinstance(server.releases, list)
    original = mount("the root")
    site = Site(original.parent, server, server.releases)
    try:
        site.deployed("v1.0.0")
        copy = mount("staging")
        subprocess.run(["cp", "-a", f"{site.root}/.", copy], check=True)
        assert site.root.stat().st_ino == copy.stat().st_ino
        launcher = copy / ".updater/launchers/v1.0.0/web"
        started = subprocess.run(["sh", launcher], capture_output=True, text=True, check=False)
        assert "is running already" not in started.stderr, "the launcher knows as well"
        (copy / ".updater/run/web.pid").write_bytes(site.layout.pid_file("web").read_bytes())
        assert other(copy, site, "--json", "status").json["processes"][0]["state"] == "stopped"
        other(copy, site, *command)
        site.runs("v1.0.0")
    finally:
        site.end()


def test_a_root_by_another_path_starts_nothing_twice(site: Site, mount: Mount) -> None:
    """A bind mount, or a disk that was mounted elsewhere before: the directory is the same, its path is not."""
    site.deployed("v1.0.0", "v1.1.0")
    pid = site.status()["processes"][0]["pid"]
    bound = mount("bound", site.root)
    site.layout.pid_file("web").unlink()
    assert other(bound, site, "--json", "status").json["processes"][0]["pid"] == pid
    done = other(bound, site, "start")
    assert done.code == 0 and f"pid {pid}" in done.out, done.text
    site.layout.pid_file("web").unlink()
    done = other(bound, site, "rollback")
    assert done.code == 0, done.text
    site.runs("v1.0.0")


BUTTON = (
    """
import os, pathlib, subprocess, sys, time
if os.environ.get("ROLE") == "worker":
    pressed = pathlib.Path(os.environ["UPDATER_SHARED"], "data", "pressed")
    while not pressed.exists():
        time.sleep(0.05)
    pressed.unlink()
    subprocess.run(ACTION)
    time.sleep(3600)
subprocess.Popen([sys.executable, __file__], env={**os.environ, "ROLE": "worker"})
"""
    + SERVE
)


def test_a_dashboard_that_names_its_root_by_another_path_is_stopped_whole(site: Site, mount: Mount) -> None:
    """What started updater is spared, unless it is the application itself: here the worker that runs the command."""
    bound = mount("bound", site.root)
    publish(site, "v1.0.0", BUTTON.replace("ACTION", repr([str(UPDATER), "--root", str(bound), "restart"])))
    assert site.updater("deploy").code == 0
    first = {pid for pid, _ in family(site)}
    assert len(first) == 2
    (site.layout.shared / "data" / "pressed").touch()
    eventually(
        lambda: (it := site.status()["processes"][0])["state"] == "running" and it["pid"] not in first,
        "it was restarted",
    )
    assert [pid for pid in first if Identity.of(pid)] == []
