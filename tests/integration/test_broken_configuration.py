"""No typing error in `updater.toml`, nor its loss, bars the way back: what a release last ran with is kept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable

import pytest

from tests.integration.test_gate import HOOKS, hooks
from tests.integration.test_ways_out import holder_pid, in_phase
from tests.site import Site, eventually
from updater import operations


def misspelt(site: Site) -> None:
    text = site.layout.config.read_text()
    site.layout.config.write_text(text.replace("watch =", "wach ="))


def of_the_wrong_type(site: Site) -> None:
    text = site.layout.config.read_text()
    site.layout.config.write_text(text.replace("keep = 5", 'keep = "five"'))


def torn(site: Site) -> None:
    site.layout.config.write_text(site.layout.config.read_text() + "\n[health\n")


def no_text(site: Site) -> None:
    site.layout.config.write_bytes(b"\xff\xfe")


def gone(site: Site) -> None:
    site.layout.config.unlink()


def a_directory(site: Site) -> None:
    site.layout.config.unlink()
    site.layout.config.mkdir()


BREAKAGES = [misspelt, of_the_wrong_type, torn, no_text, gone, a_directory]
SAYS = {
    "misspelt": "wach: unknown key; did you mean 'watch'?", "of_the_wrong_type": "releases.keep: must be a whole number",
    "torn": "line", "no_text": "not UTF-8", "gone": "No such file", "a_directory": "Is a directory",
}  # fmt: skip


@pytest.mark.parametrize("breaks", BREAKAGES)
def test_the_way_back_and_every_start_stay_open(site: Site, breaks: Callable[[Site], None]) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    breaks(site)
    says = SAYS[breaks.__name__]
    everything = (
        (["restart"], "v1.1.0"),
        (["stop"], None),
        (["start"], "v1.1.0"),
        (["health"], "v1.1.0"),
        (["rollback"], "v1.0.0"),
        (["activate", "v1.1.0"], "v1.1.0"),
        (["backup", "create"], "v1.1.0"),
        (["force-stop", "--yes"], None),
        (["rollback", "--to", "v1.0.0"], "v1.0.0"),
    )
    for words, after in everything if breaks in (misspelt, gone) else everything[4:5]:
        done = site.updater(*words)
        assert done.code == 0 and says in done.err and ".updater/configurations/" in done.err, (
            words,
            done.text,
        )
        if after:
            site.runs(after)
    assert any(says in it for it in site.history()[-1]["warnings"]), "the history tells it too"
    for words in (["deploy", "v1.1.0"], ["fetch", "v1.1.0"], ["check"], ["prune"], ["backup", "prune"]):
        done = site.updater(*words)
        assert done.code == 2 and says in done.err, (words, done.text)
    site.runs("v1.0.0")
    site.is_clean()


@pytest.mark.parametrize("breaks", BREAKAGES)
def test_status_tells_the_mistake_and_what_still_works(site: Site, breaks: Callable[[Site], None]) -> None:
    site.deployed("v1.0.0")
    assert site.status()["configuration"] is None
    breaks(site)
    found = site.status()
    assert (
        SAYS[breaks.__name__] in found["configuration"] and str(site.layout.config) in found["configuration"]
    )
    assert (found["name"], [(it["name"], it["state"]) for it in found["processes"]]) == (
        "app",
        [("web", "running")],
    )
    (advice,) = [it for it in found["advice"] if found["configuration"] in it]
    assert "no other command works" not in advice and "everything else goes by what v1.0.0" in advice
    if breaks is misspelt:
        line = site.layout.config.read_text().splitlines().index("wach = 0.3") + 1
        assert f"updater.toml:{line}: health.wach" in found["configuration"]


def test_a_mistake_that_was_there_from_the_beginning_is_told_as_well(site: Site) -> None:
    """Nothing was ever started: nothing is kept, and nothing is pretended."""
    misspelt(site)
    found = site.status()
    assert "wach" in found["configuration"] and "nothing can be started" in found["advice"][0]
    site.layout.config.write_text(site.layout.config.read_text().replace("wach =", "watch ="))
    site.publish("v1.0.0")
    assert site.updater("fetch", "v1.0.0").code == 0
    misspelt(site)
    done = site.updater("activate", "v1.0.0")
    assert done.code == 2 and "wach" in done.err, done.text
    assert site.current() is None
    site.layout.current.symlink_to("releases/v1.0.0")
    for command in ("start", "restart", "health"):
        done = site.updater(command)
        assert done.code == 2 and "wach" in done.err, done.text


def test_a_release_is_started_as_it_last_ran_and_not_as_another_did(site: Site) -> None:
    """F51: its processes by their old names, its shared paths, its gate and its backups as they were."""
    site.configure(extra='\n[gate]\nfile = "data/busy"\n[backup]\nexclude = ["data/cache"]\n')
    site.deployed("v1.0.0")
    text = site.layout.config.read_text()
    assert '"data" = "data"' in text
    other = text.replace("processes.web", "processes.dashboard").replace(
        '"data" = "data"', '"store" = "store"'
    )
    site.layout.config.write_text(other.split("[gate]")[0])
    site.publish("v1.1.0")
    assert site.updater("deploy", "v1.1.0").code == 0
    torn(site)
    busy = site.layout.shared / "data" / "busy"
    busy.touch()
    done = site.updater("rollback")
    assert done.code == 0, "v1.1.0 has no gate: " + done.text
    site.runs("v1.0.0")
    release = site.layout.release("v1.0.0")
    assert (release / "data").is_symlink() and not (release / "store").is_symlink()
    done = site.updater("activate", "v1.1.0")
    assert done.code == 9 and "data/busy is there" in done.err, "v1.0.0 has one: " + done.text
    busy.unlink()
    assert site.updater("activate", "v1.1.0").code == 0
    assert [it["name"] for it in site.status()["processes"] if it["state"] == "running"] == ["dashboard"]


def test_a_release_that_never_ran_goes_by_what_is_in_service(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    assert site.updater("fetch", "v1.1.0").code == 0
    torn(site)
    done = site.updater("activate", "v1.1.0")
    assert done.code == 0 and "what v1.0.0 was last started with" in done.text
    site.runs("v1.1.0")


def test_a_release_that_fails_ends_on_the_one_before_all_the_same(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash")
    assert site.updater("fetch", "v1.1.0").code == 0
    gone(site)
    done = site.updater("activate", "v1.1.0")
    assert done.code == 4 and "v1.0.0 is in service again" in done.err, done.text
    site.runs("v1.0.0")
    site.is_clean()


def test_a_way_back_that_is_killed_is_recovered_without_a_configuration(site: Site) -> None:
    site.deployed("v1.0.0")
    site.configure(watch=60)
    site.updater("restart")
    site.publish("v1.1.0")
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    gone(site)
    done = site.updater("start")
    assert done.code == 0, done.text
    site.runs("v1.0.0")
    site.is_clean()


@pytest.mark.slow  # the watch window is the default one
def test_the_launchers_are_enough(site: Site) -> None:
    """What an older updater has started: nothing but its launchers tells how."""
    site.configure(keep=2)
    site.deployed("v1.0.0", "v1.1.0", "v1.2.0")
    shutil.rmtree(site.layout.configurations)
    gone(site)
    running = site.start("rollback")
    eventually(lambda: in_phase(site, "watch"), "v1.1.0 is watched, by the default for a minute")
    site.runs("v1.1.0")
    assert (site.layout.release("v1.1.0") / "data").is_symlink()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "the launchers of v1.1.0" in out and "gate" in out, out + err
    site.runs("v1.2.0")
    shutil.rmtree(site.layout.launchers)
    done = site.updater("rollback", "--to", "v1.1.0")
    assert done.code == 2 and "No such file" in done.err, done.text
    site.runs("v1.2.0")


def test_nobody_s_number_of_releases_prunes_nothing(site: Site) -> None:
    """The default is 5: of seven that somebody keeps, none may go for a typing error."""
    site.configure(keep=9)
    tags = [f"v1.{number}.0" for number in range(7)]
    site.deployed(*tags)
    torn(site)
    for tag in ("v1.5.0", "v1.6.0"):
        assert site.updater("activate", tag).code == 0
    assert {path.name for path in site.layout.releases.iterdir()} == set(tags)
    assert operations.open_root(site.root, tolerant=True).config.keep == 9
    for lost in (site.layout.configurations, site.layout.launchers):
        shutil.rmtree(lost)
        config = operations.open_root(site.root, tolerant=True).config
        assert config.keep > 1000 and config.backup.keep > 1000


def test_what_is_kept_can_be_put_back_and_goes_with_its_release(site: Site) -> None:
    site.configure(keep=2)
    site.layout.config.chmod(0o600)
    right = site.layout.config.read_text()
    site.deployed("v1.0.0", "v1.1.0", "v1.2.0")
    kept = sorted(path.name for path in site.layout.configurations.iterdir())
    assert kept == ["v1.1.0.toml", "v1.2.0.toml"]
    place = site.layout.configuration("v1.2.0")
    assert place.read_text().endswith(right) and place.stat().st_mode & 0o777 == 0o600
    gone(site)
    shutil.copy(place, site.layout.config)
    assert site.status()["configuration"] is None and site.updater("restart").code == 0


def test_a_backup_without_a_configuration_leaves_out_what_was_left_out(site: Site) -> None:
    site.configure(extra='\n[backup]\nexclude = ["data/cache"]\n')
    (site.layout.shared / "data" / "cache").mkdir()
    (site.layout.shared / "data" / "cache" / "big").write_text("x")
    with (
        contextlib.closing(sqlite3.connect(site.layout.shared / "data" / "trades.db")) as connection,
        connection,
    ):
        connection.execute("CREATE TABLE trades (id INTEGER)")
    site.deployed("v1.0.0")
    torn(site)
    made = site.updater("backup", "create", "--label", "by hand")
    assert made.code == 0, made.text
    out = site.place / "out"
    assert site.updater("backup", "restore", "latest", "--to", str(out)).code == 0
    assert (out / "data" / "trades.db").exists() and not (out / "data" / "cache").exists()


@pytest.mark.parametrize("breaks", [misspelt, gone])
def test_data_come_back_whatever_became_of_the_configuration(
    site: Site, breaks: Callable[[Site], None]
) -> None:
    site.deployed("v1.0.0")
    settings = site.layout.shared / "data" / "settings"
    settings.write_text("as it was")
    assert site.updater("backup", "create").code == 0
    settings.write_text("spoilt")
    breaks(site)
    done = site.updater("backup", "restore", "latest", "--yes")
    assert done.code == 0, done.text
    assert SAYS[breaks.__name__] in done.err and settings.read_text() == "as it was"
    site.runs("v1.0.0")
    assert site.history()[-1]["kind"] == "restore"


def test_a_root_without_its_file_is_found_from_inside_and_a_stranger_s_directory_is_none(site: Site) -> None:
    site.deployed("v1.0.0")
    gone(site)
    site.environment = {"UPDATER_ROOT": ""}
    inside = site.place
    site.place = site.layout.release("v1.0.0")
    assert site.updater("status").code == 0
    site.place = inside
    (inside / ".updater").mkdir()
    done = site.updater("status")
    assert done.code == 2 and "no updater.toml" in done.err
    site.environment = {}


DRAINED = HOOKS.format(wait=600)


@pytest.mark.parametrize(
    "breaks", ["removed", "torn", "gone", "gone with all that is kept", "another", "an old mark"]
)
def test_whoever_was_drained_is_told_to_go_on_whatever_became_of_the_configuration(
    site: Site, breaks: str
) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(extra=DRAINED)
    busy = site.layout.shared / "data" / "busy"
    busy.touch()
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "gate") and hooks(site), "it waits")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    mark = json.loads(site.layout.drained.read_text())
    assert mark["deployment"] and mark["resume"][0] == "python"
    if breaks == "an old mark":
        site.layout.drained.write_text(f"{mark['deployment']}\n")
    elif breaks == "torn":
        torn(site)
    elif breaks.startswith("gone"):
        gone(site)
        if breaks != "gone":
            shutil.rmtree(site.layout.configurations)
    elif breaks == "another":
        site.configure(extra='\n[gate]\ndrain = ["true"]\nresume = ["false"]\n')
    else:
        site.configure(extra="")
    done = site.updater("recover")
    assert done.code == 0, done.text
    assert hooks(site) == ["drain v1.0.0", "resume v1.0.0"]
    assert not site.layout.drained.exists()
    site.runs("v1.0.0")


def test_a_mark_that_tells_nothing_is_told(site: Site) -> None:
    site.deployed("v1.0.0")
    site.layout.drained.write_text('{"resume": [7]}')
    site.publish("v1.1.0")
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 0 and "nothing tells the command that takes it back" in done.text
    assert not site.layout.drained.exists()
    site.layout.drained.write_text('{"resume": ["no-such-program"]}')
    done = site.updater("rollback")
    assert done.code == 0 and "run it by hand: no-such-program" in done.text
