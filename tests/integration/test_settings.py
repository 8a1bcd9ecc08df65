"""The application's settings across versions: new keys come, what was edited stays, and each release gets its own back (F51)."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_cancel import _fill as fill
from tests.site import SERVE, Site, eventually
from updater import lock

OLD = """# How the bot trades.
[trading]
symbol = "BTC/EUR"
tick = 0.2      # seconds
"""
NEW = """# How the bot trades.
[trading]
symbol = "BTC/EUR"
tick_s = 0.2    # seconds

# where it trades
[exchange]
name = "paper"
"""
MINE = """# my own
[trading]
symbol = "ETH/EUR"   # not BTC
tick = 0.5
"""
MERGED = f"""{MINE}tick_s = 0.2    # seconds

# where it trades
[exchange]
name = "paper"
"""
READS = f"""import tomllib
from pathlib import Path
settings = tomllib.loads(Path("config/settings.toml").read_text())
assert settings["exchange"]["name"], "needs an exchange"
{SERVE}"""
"""An application that does not start without the new key."""


def share(site: Site, *paths: str) -> None:
    site.configure(watch=0.1)
    lines = "\n".join(f'"{path}" = "{path}"' for path in ("data", *paths))
    text = site.layout.config.read_text()
    site.layout.config.write_text(text.replace('"data" = "data"', lines))


@pytest.fixture
def app(site: Site) -> Site:
    """v1.0.0 in service with settings of the user's; v1.1.0 published, with new ones."""
    share(site, "config/settings.toml")
    site.publish("v1.0.0", files={"config/settings.toml": OLD})
    site.publish("v1.1.0", files={"config/settings.example.toml": NEW, "serve.py": READS})
    mine(site).write_text(MINE)
    mine(site).chmod(0o640)
    assert site.updater("deploy", "v1.0.0").code == 0
    assert mine(site).read_text() == MINE
    return site


def mine(site: Site, name: str = "config/settings.toml") -> Path:
    return site.layout.shared / name


def kept(site: Site) -> list[Path]:
    return sorted(mine(site).parent.glob("*.kept-*"))


def configuration(site: Site) -> Any:
    return site.history()[-1]["configuration"]


def key(name: str) -> dict[str, str]:
    return {"file": "shared/config/settings.toml", "key": name}


def test_a_release_brings_its_new_keys_and_everything_else_stays(app: Site) -> None:
    done = app.updater("deploy", "v1.1.0")
    assert done.code == 0, done.text
    app.runs("v1.1.0")
    assert mine(app).read_text() == MERGED
    assert stat.S_IMODE(mine(app).stat().st_mode) == 0o640
    assert "shared/config/settings.toml: added: trading.tick_s, exchange.name" in done.out
    assert "trading.tick looks renamed to trading.tick_s; your value is not carried over" in done.out
    found = configuration(app)
    assert found["added"] == [key("trading.tick_s"), key("exchange.name")]
    assert found["renamed"] == [
        {"file": "shared/config/settings.toml", "from": "trading.tick", "to": "trading.tick_s"}
    ]
    assert found["removed"] == found["kept"] == []
    app.is_clean()


def test_a_migration_and_its_rehearsal_find_the_new_keys(app: Site) -> None:
    text = app.layout.config.read_text()
    app.layout.config.write_text(f'{text}\n[migrate]\ncommand = ["python", "migrate.py"]\n')
    app.publish(
        "v1.2.0", files={"config/settings.example.toml": NEW, "migrate.py": READS.removesuffix(SERVE)}
    )
    done = app.updater("deploy", "v1.2.0")
    assert done.code == 0, done.text
    assert "rehearsing the migration" in done.out and mine(app).read_text() == MERGED


def test_going_back_with_the_data_brings_the_settings_back_too(app: Site) -> None:
    state = app.layout.shared / "data" / "state.json"
    state.write_text("of v1.0.0")
    assert app.updater("deploy", "v1.1.0").code == 0
    state.write_text("of v1.1.0")
    done = app.updater("rollback", "--restore-data")
    assert done.code == 0, done.text
    assert (mine(app).read_text(), state.read_text()) == (MINE, "of v1.0.0")
    assert app.updater("activate", "v1.1.0").code == 0
    assert mine(app).read_text() == MERGED, "what the release that was left ran with is bound to that"


def test_what_would_change_is_shown_before(app: Site) -> None:
    assert app.updater("fetch", "v1.1.0").code == 0
    for command in (["preflight", "v1.1.0"], ["deploy", "--dry-run", "v1.1.0"]):
        done = app.updater(*command)
        assert done.code == 0, done.text
        assert "shared/config/settings.toml: would be added: trading.tick_s, exchange.name" in done.out
        assert "trading.tick looks renamed to trading.tick_s" in done.out
        found = app.updater("--json", *command).json["configuration"]
        assert found["added"] == [key("trading.tick_s"), key("exchange.name")]
    assert mine(app).read_text() == MINE


def test_a_rollback_brings_back_what_the_release_ran_with(app: Site) -> None:
    assert app.updater("deploy", "v1.1.0").code == 0
    done = app.updater("rollback")
    assert done.code == 0 and "settings.toml: is back as this release last ran with it" in done.out, done.text
    app.runs("v1.0.0")
    assert mine(app).read_text() == MINE and kept(app) == []
    assert configuration(app)["restored"] == ["shared/config/settings.toml"]

    assert app.updater("activate", "v1.1.0").code == 0
    assert mine(app).read_text() == MERGED and kept(app) == []


def test_edits_made_since_are_kept_aside_and_told(app: Site) -> None:
    assert app.updater("deploy", "v1.1.0").code == 0
    edited = MERGED.replace("paper", "kraken")
    mine(app).write_text(edited)
    done = app.updater("rollback")
    assert done.code == 0, done.text
    assert mine(app).read_text() == MINE
    (aside,) = kept(app)
    assert aside.read_text() == edited and stat.S_IMODE(aside.stat().st_mode) == 0o640
    assert f"your edits since are in shared/config/{aside.name}" in done.out
    assert configuration(app)["kept"] == [
        {"file": "shared/config/settings.toml", "as": f"shared/config/{aside.name}"}
    ]
    assert app.updater("activate", "v1.1.0").code == 0
    assert mine(app).read_text() == edited, "it is what v1.1.0 last ran with"
    assert len(kept(app)) == 1


def test_edits_made_before_an_update_belong_to_the_release_that_ran_with_them(app: Site) -> None:
    mine(app).write_text(MINE.replace("ETH", "XRP"))
    assert app.updater("deploy", "v1.1.0").code == 0
    assert mine(app).read_text() == MERGED.replace("ETH", "XRP")
    assert app.updater("rollback").code == 0
    assert mine(app).read_text() == MINE.replace("ETH", "XRP") and kept(app) == []


def test_the_settings_can_stay_as_they_are(app: Site) -> None:
    assert app.updater("deploy", "v1.1.0").code == 0
    mine(app).write_text(edited := MERGED.replace("paper", "kraken"))
    assert app.updater("rollback", "--keep-config").code == 0
    assert mine(app).read_text() == edited and kept(app) == []


def test_a_release_that_fails_leaves_the_settings_as_they_were(app: Site) -> None:
    app.publish("v1.2.0", "crash", files={"config/settings.example.toml": NEW})
    done = app.updater("deploy", "v1.2.0")
    assert done.code == 4, done.text
    app.runs("v1.0.0")
    assert mine(app).read_text() == MINE and kept(app) == []
    assert stat.S_IMODE(mine(app).stat().st_mode) == 0o640
    assert configuration(app) == {"kept": []}
    app.is_clean()


def test_an_edit_during_a_deployment_that_fails_is_kept(app: Site) -> None:
    app.configure(watch=60)
    share(app, "config/settings.toml")
    text = app.layout.config.read_text()
    app.layout.config.write_text(text.replace("watch = 0.1", "watch = 60"))
    running = app.start("deploy", "v1.1.0")
    eventually(lambda: (app.answer() or "").startswith("1.1.0"), "the new release answers")
    mine(app).write_text(edited := MERGED.replace("paper", "kraken"))
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    app.runs("v1.0.0")
    assert mine(app).read_text() == MINE
    assert [it.read_text() for it in kept(app)] == [edited]
    assert configuration(app)["kept"] == [
        {"file": "shared/config/settings.toml", "as": f"shared/config/{kept(app)[0].name}"}
    ]
    app.is_clean()


def test_killed_in_the_watch_window_the_settings_come_back(app: Site) -> None:
    text = app.layout.config.read_text()
    app.layout.config.write_text(text.replace("watch = 0.1", "watch = 60"))
    running = app.start("deploy", "v1.1.0")
    eventually(lambda: (app.answer() or "").startswith("1.1.0"), "the new release answers")
    assert mine(app).read_text() == MERGED
    owner = lock.owner(app.layout)
    assert owner is not None
    os.kill(owner.identity.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    assert app.updater("recover").code == 0
    app.runs("v1.0.0")
    assert mine(app).read_text() == MINE
    app.is_clean()


def test_new_keys_may_be_shown_only(app: Site) -> None:
    app.publish("v1.2.0", files={"config/settings.example.toml": NEW})
    app.layout.config.write_text(app.layout.config.read_text() + '[config]\nnew_keys = "show"\n')
    done = app.updater("deploy", "v1.2.0")
    assert done.code == 0, done.text
    assert mine(app).read_text() == MINE
    assert "in the release's defaults: trading.tick_s, exchange.name" in done.out
    assert configuration(app)["offered"] == [key("trading.tick_s"), key("exchange.name")]


def test_what_the_user_took_out_stays_out(app: Site) -> None:
    assert app.updater("deploy", "v1.1.0").code == 0
    without = MERGED.replace("tick = 0.5\n", "").replace("tick_s = 0.2    # seconds\n", "")
    mine(app).write_text(without)
    app.publish("v1.2.0", files={"config/settings.example.toml": NEW + "fee = 0.1\n", "serve.py": READS})
    assert app.updater("deploy", "v1.2.0").code == 0
    assert mine(app).read_text() == without + "fee = 0.1\n"


def test_a_file_that_cannot_be_read_is_left_alone_and_named(app: Site) -> None:
    app.publish("v1.2.0", files={"config/settings.example.toml": NEW})
    assert app.updater("fetch", "v1.2.0").code == 0
    mine(app).write_text(broken := '[trading]\nsymbol = "BTC\n')
    found = {it["name"]: it for it in app.updater("--json", "preflight", "v1.2.0").json["checks"]}
    assert found["settings"]["result"] == "warning"
    assert "shared/config/settings.toml:2: " in found["settings"]["summary"]
    done = app.updater("deploy", "v1.2.0")
    assert done.code == 0 and "shared/config/settings.toml:2: " in done.out
    assert mine(app).read_text() == broken


def test_a_file_that_is_missing_is_asked_for_before_anything_stops(site: Site) -> None:
    """F26: never invented."""
    share(site, "config/settings.toml", ".env")
    site.publish("v1.0.0", files={"config.defaults/settings.toml": OLD, ".env.example": "TOKEN=\n"})
    done = site.updater("fetch", "v1.0.0")
    assert done.code == 0, done.text
    found = {it["name"]: it for it in site.updater("--json", "preflight", "v1.0.0").json["checks"]}
    assert found["settings"]["result"] == "warning"
    remedy = found["settings"]["remedy"]
    assert "cp releases/v1.0.0/config.defaults/settings.toml shared/config/settings.toml" in remedy
    assert "cp releases/v1.0.0/.env.example shared/.env" in remedy
    assert not mine(site).exists() and not mine(site, ".env").exists(), "not even as an empty directory"


def test_a_missing_file_that_the_release_has_itself_bars_the_way(app: Site) -> None:
    assert app.updater("deploy", "v1.1.0").code == 0
    mine(app).rename(mine(app, "config/aside"))
    sets = app.layout.bound_settings
    (sets / "v1.0.0").unlink()
    done = app.updater("activate", "v1.0.0")
    assert done.code == 3 and "settings.toml missing" in done.err and "cp " in done.err, done.text
    app.runs("v1.1.0")


def test_a_directory_of_settings_in_every_format(site: Site) -> None:
    share(site, "config", ".env")
    old = {"config/bot.yaml": "bot:\n  x: 1\n", "config/web.json": '{"port": 1}\n', ".env.example": "A=1\n"}
    new = {
        "config/bot.yaml": "bot:\n  x: 1\n  # why\n  y: [2]\nnew: {a: 1}\n",
        "config/web.json": '{"port": 1, "tls": false}\n',
        ".env.example": "A=1\n# the token\nTOKEN=change-me\n",
        "config.defaults/extra.toml": "b = 1\n",
    }
    site.publish("v1.0.0", files=old)
    site.publish("v1.1.0", files=new)
    mine(site, "config/bot.yaml").write_text("bot:\n    x: 7   # mine\n")
    mine(site, "config/web.json").write_text('{\n  "port": 2\n}\n')
    mine(site, "config/extra.toml").write_text("a = 1\n")
    mine(site, ".env").write_text("A=9")
    mine(site, ".env").chmod(0o600)
    for tag in ("v1.0.0", "v1.1.0"):
        done = site.updater("deploy", tag)
        assert done.code == 0, done.text
    assert (
        mine(site, "config/bot.yaml").read_text()
        == "bot:\n    x: 7   # mine\n    # why\n    y: [2]\nnew: {a: 1}\n"
    )
    assert mine(site, "config/web.json").read_text() == '{\n  "tls": false,\n  "port": 2\n}\n'
    assert mine(site, "config/extra.toml").read_text() == "a = 1\nb = 1\n"
    assert mine(site, ".env").read_text() == "A=9\n# the token\nTOKEN=change-me\n"
    assert stat.S_IMODE(mine(site, ".env").stat().st_mode) == 0o600
    assert site.updater("rollback").code == 0
    assert mine(site, ".env").read_text() == "A=9"


def test_links_are_followed_within_shared_and_not_out_of_it(app: Site) -> None:
    """F24: what lies elsewhere is not ours to change."""
    real = mine(app, "data/settings.toml")
    mine(app).rename(real)
    mine(app).symlink_to("../data/settings.toml")
    app.publish("v1.2.0", files={"config/settings.example.toml": NEW})
    assert app.updater("deploy", "v1.2.0").code == 0
    assert mine(app).is_symlink() and real.read_text() == MERGED
    outside = app.place / "settings.toml"
    real.rename(outside)
    mine(app).unlink()
    mine(app).symlink_to(outside)
    outside.write_text(MERGED)
    done = app.updater("rollback")
    assert done.code == 0 and "leads out of shared/" in done.out, done.text
    assert outside.read_text() == MERGED


def test_what_was_bound_can_be_found_by_hand_and_goes_with_its_release(app: Site) -> None:
    assert app.updater("deploy", "v1.1.0").code == 0
    bound = app.layout.bound_settings
    assert (bound / "v1.0.0" / "config" / "settings.toml").read_text() == MINE
    assert (bound / "v1.1.0" / "config" / "settings.toml").read_text() == MERGED
    assert stat.S_IMODE(bound.stat().st_mode) == 0o700
    for tag in ("v1.2.0", "v1.3.0"):
        app.publish(tag, files={"config/settings.example.toml": NEW})
        assert app.updater("deploy", tag).code == 0
    assert app.updater("prune", "--keep", "2", "--yes").code == 0
    assert sorted(it.name for it in bound.iterdir() if it.name != ".sets") == ["v1.2.0", "v1.3.0"]
    app.publish("v1.4.0", files={"config/settings.example.toml": NEW})
    assert app.updater("deploy", "v1.4.0").code == 0
    assert (bound / "v1.2.0" / "config" / "settings.toml").read_text() == MERGED
    linked = {os.readlink(it).rpartition("/")[2] for it in bound.iterdir() if it.is_symlink()}
    lately = app.history()[-1]["id"]
    assert {it.name for it in (bound / ".sets").iterdir() if not it.name.startswith(lately)} <= linked


def test_on_a_full_disk_the_settings_come_back_as_well(site: Site, tmp_path: Path) -> None:
    """F25: the ballast is enough for them."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=450m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    full = Site(small, site.server, site.releases)
    try:
        share(full, "config/settings.toml")
        mine(full).write_text(MINE)
        for tag, defaults in (("v1.0.0", OLD), ("v1.1.0", NEW)):
            full.publish(tag, files={"config/settings.toml": defaults})
            assert full.updater("deploy", tag).code == 0
        assert mine(full).read_text() == MERGED
        fill(full.root / "filler")
        done = full.updater("rollback")
        assert done.code == 0, done.text
        full.runs("v1.0.0")
        assert mine(full).read_text() == MINE
    finally:
        full.end()
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_what_spoils_the_settings_does_not_bar_the_way_back(app: Site) -> None:
    assert app.updater("deploy", "v1.1.0").code == 0
    bound = app.layout.bound_settings
    subprocess.run(["rm", "-rf", str(bound / ".sets")], check=True)
    (bound / ".sets").write_text("no directory")
    app.publish("v1.2.0", files={"config/settings.example.toml": NEW + "fee = 1\n"})
    done = app.updater("deploy", "v1.2.0")
    assert done.code == 4 and "could not be written" in done.err, done.text
    app.runs("v1.1.0")
    done = app.updater("rollback")
    assert done.code == 0, done.text
    app.runs("v1.0.0")
    assert mine(app).read_text() == MERGED


def test_damaged_keeps_are_told_and_the_present_settings_stay(app: Site) -> None:
    assert app.updater("deploy", "v1.1.0").code == 0
    (app.layout.bound_settings / "v1.0.0" / "config" / "settings.toml").write_text("cut o")
    done = app.updater("rollback")
    assert done.code == 0 and "settings that were kept are damaged" in done.out, done.text
    app.runs("v1.0.0")
    assert mine(app).read_text() == MERGED


def test_the_difference_of_two_releases_names_their_settings(app: Site) -> None:
    assert app.updater("fetch", "v1.1.0").code == 0
    done = app.updater("diff", "v1.1.0")
    assert "config/settings.toml: new in the defaults: exchange.name" in done.out, done.text
    found = json.loads(app.updater("--json", "diff", "v1.1.0").out)["configuration"]
    assert found["added"] == [key("exchange.name")]
