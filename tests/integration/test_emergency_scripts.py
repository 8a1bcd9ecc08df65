"""The emergency scripts get into every root, are kept up to date, and cost nobody a file of theirs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import updater
from examples.release_server import ReleaseServer
from tests.site import Site
from updater import emergency
from updater.layout import Layout

HERE = Path(__file__).resolve().parents[2]


class Installation:
    """updater as a wheel puts it on a disk: the package with its scripts in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        shutil.copytree(
            Path(updater.__file__).parent, place / "updater", ignore=shutil.ignore_patterns("scripts")
        )
        shutil.copy(HERE / "VERSION", place / "updater")
        self.scripts = place / "updater" / "scripts"
        self.scripts.mkdir()
        self.brings(lib="one", force_stop="one")

    def brings(self, **contents: str) -> None:
        for name, text in contents.items():
            (self.scripts / f"{name}.sh").write_text(f"#!/bin/sh\necho {text}\n")


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "installed")


@pytest.fixture
def site(tmp_path: Path, server: ReleaseServer, installed: Installation) -> Iterator[Site]:
    """A root made by that installation."""
    assert isinstance(server.releases, list)
    made = Site(tmp_path, server, server.releases, environment={"PYTHONPATH": str(installed.place)})
    shutil.rmtree(made.layout.scripts)  # those of this checkout
    made.layout.script_sums.unlink()
    assert made.updater("init", str(made.root)).code == 0
    yield made
    made.end()


def deploy(site: Site, tag: str) -> None:
    """By that installation's own command."""
    site.publish(tag)
    done = site.updater("deploy", tag)
    assert done.code == 0, done.text


def contents(site: Site) -> dict[str, str]:
    return {
        it.name: it.read_text().split()[-1] for it in sorted(site.layout.scripts.iterdir()) if it.is_file()
    }


def test_a_new_root_has_them_and_each_deployment_refreshes_them(site: Site, installed: Installation) -> None:
    assert contents(site) == {"lib.sh": "one", "force_stop.sh": "one"}
    assert {it.stat().st_mode & 0o777 for it in site.layout.scripts.iterdir()} == {0o755}
    before = (site.layout.scripts / "force_stop.sh").stat().st_ino
    (site.layout.scripts / "mine.sh").write_text("#!/bin/sh\necho mine\n")
    installed.brings(lib="two", restore_backup="two")
    deploy(site, "v1.0.0")
    assert contents(site) == {
        "lib.sh": "two",
        "force_stop.sh": "one",
        "restore_backup.sh": "two",
        "mine.sh": "mine",
    }
    assert (site.layout.scripts / "force_stop.sh").stat().st_ino == before, "what is equal is left alone"
    assert site.history()[-1]["warnings"] == ["emergency: missing in scripts/: restore_backup.sh"]
    tool = ["sha256sum"] if shutil.which("sha256sum") else ["shasum", "-a", "256"]
    done = subprocess.run([*tool, "-c", ".updater/scripts.sums"], cwd=site.root, check=False)
    assert done.returncode == 0


def test_init_makes_them_whole_again_and_says_so(site: Site, installed: Installation) -> None:
    (site.layout.scripts / "lib.sh").unlink()
    installed.brings(force_stop="two")
    done = site.updater("init", str(site.root))
    assert (
        done.code == 0 and "made scripts/lib.sh" in done.out and "refreshed scripts/force_stop.sh" in done.out
    )
    again = site.updater("init", str(site.root))
    assert "everything was there already" in again.out, again.text
    (site.layout.scripts / "lib.sh").chmod(0o644)
    assert "refreshed scripts/lib.sh" in site.updater("init", str(site.root)).out


def test_what_stands_in_their_place_is_not_followed_and_an_edited_one_is_kept(
    site: Site, installed: Installation
) -> None:
    theirs = site.place / "theirs"
    theirs.write_text("precious\n")
    lib, stop = site.layout.scripts / "lib.sh", site.layout.scripts / "force_stop.sh"
    lib.unlink()
    lib.symlink_to(theirs)
    stop.write_text("#!/bin/sh\necho edited\n")
    installed.brings(lib="two", force_stop="two", unlock_update="two")
    (site.layout.scripts / "unlock_update.sh").mkdir()
    deploy(site, "v1.0.0")
    told = "\n".join(site.history()[-1]["warnings"])
    assert "scripts/lib.sh is a symlink; it is left alone" in told
    assert "scripts/unlock_update.sh is a directory" in told
    assert "scripts/force_stop.sh was not as updater had written it" in told
    assert theirs.read_text() == "precious\n" and lib.is_symlink()
    (kept,) = site.layout.scripts.glob("force_stop.sh.kept-*")
    assert kept.read_text() == "#!/bin/sh\necho edited\n" and stop.read_text() == "#!/bin/sh\necho two\n"
    shutil.rmtree(site.layout.scripts)
    site.layout.scripts.symlink_to(site.place)
    done = site.updater("init", str(site.root))
    assert "scripts/ is not a directory of this root" in done.err and not (site.place / "lib.sh").exists()


def test_preflight_tells_of_scripts_that_are_not_there_or_old(site: Site, installed: Installation) -> None:
    def looked() -> Any:
        found = site.updater("--json", "preflight", "--offline").json["checks"]
        return next(it for it in found if it["name"] == "emergency")

    assert looked()["result"] == "ok"
    installed.brings(force_stop="two", restore_backup="two")
    (site.layout.scripts / "lib.sh").unlink()
    found = looked()
    assert found["result"] == "warning"
    assert "missing in scripts/: lib.sh, restore_backup.sh" in found["summary"]
    assert "not as they come with this updater: scripts/force_stop.sh" in found["summary"]
    assert found["remedy"] == f"bring them up to date: updater init '{site.root}'"
    subprocess.run([*site.command("init", str(site.root))], env=site.env(), check=True)
    assert looked()["result"] == "ok"


def test_a_disk_that_refuses_them_is_a_warning_of_a_deployment_that_is_good(
    site: Site, installed: Installation
) -> None:
    installed.brings(lib="two")
    shutil.rmtree(site.layout.scripts)
    site.layout.scripts.write_text("a file")
    deploy(site, "v1.0.0")
    site.runs("v1.0.0")
    assert "scripts/ is not a directory" in site.history()[-1]["warnings"][-1]


def test_the_repository_itself_is_a_root_whose_scripts_are_the_source() -> None:
    place = emergency.source()
    assert place == HERE / "scripts", "a checkout"
    before = {it: it.stat().st_mtime_ns for it in place.iterdir()}
    assert emergency.install(Layout(HERE)) == emergency.Installed()
    assert {it: it.stat().st_mtime_ns for it in place.iterdir()} == before
    assert emergency.lacking(Layout(HERE)) == []


def test_what_others_include_is_replaced_first() -> None:
    names = list(emergency.ours())
    included = [it for it in names if it.startswith("lib")]
    assert included and names[: len(included)] == included


def test_a_checkout_puts_its_scripts_into_a_root(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.own.mkdir()
    emergency.install(layout)
    assert {it.name: it.read_bytes() for it in layout.scripts.glob("*.sh")} == emergency.ours()
    assert emergency.lacking(layout) == []


def test_a_wheel_holds_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(made) as wheel:
        names = set(wheel.namelist())
        assert "updater/VERSION" in names and any(it.startswith("updater/scripts/") for it in names)
        for script in (HERE / "scripts").glob("*.sh"):
            assert wheel.read(f"updater/scripts/{script.name}") == script.read_bytes()
