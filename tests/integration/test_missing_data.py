"""Data that a way back could not put back: what starts would begin without them, so nothing starts before somebody has decided that."""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_backups import make_root
from tests.integration.test_ways_out import by_script
from tests.site import Site
from updater import durable
from updater.backups import swap
from updater.deployment import missing, tidying
from updater.deployment.journal import Journal
from updater.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path)


def given_up(layout: Layout, *paths: str) -> list[Path]:
    """A move of data whose way back has ended for good, and that nobody has tidied up. Returns where the data lie."""
    book = Journal.create(layout, {"request": {"kind": "deploy"}, "before": {}})
    move = swap.begin(layout, book.id, "migrate", [""])
    for path in paths:
        (layout.shared / path).parent.mkdir(parents=True, exist_ok=True)
        (layout.shared / path).touch()
    steps = tuple(swap.Step(it, "", number, before=True, after=False) for number, it in enumerate(paths, 1))
    swap.forward(layout, replace(move, steps=steps, ready=True))
    book.record("end", None, {"outcome": "rollback-failed"})
    book.close()
    return [swap.directory(layout, move, "") / "old" / str(it.number) for it in steps]


def lay(layout: Layout, *places: str) -> None:
    for it in places:
        place = layout.root / it
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(it)


MOVED = "20260101T000000-abcdef"
OLD = f"shared/.updater-{MOVED}/old"
APP, LOG, NOTES = f"{OLD}/1", f"{OLD}/2", f"{OLD}/3"


@pytest.mark.parametrize(
    ("there", "named", "forgotten"),
    [
        ([APP, LOG, NOTES], ["app.db", "app.db-wal", "notes"], False),
        ([LOG, NOTES, "shared/data/app.db"], ["app.db-wal", "notes"], False),  # moved back, without its log
        ([APP, LOG, NOTES, "shared/data/app.db"], ["notes"], False),  # another one stands there
        ([APP, LOG, "shared/data/app.db", "shared/data/notes"], [], True),
        (["shared/data/app.db", "shared/data/notes"], [], True),  # its log may come and go
        ([], [], False),  # thrown away by hand; or on a disk that is not mounted
    ],
)
def test_what_never_came_back_is_named_until_it_is_back(
    layout: Layout, there: list[str], named: list[str], forgotten: bool
) -> None:
    lay(layout, *there)
    paths = {"data/app.db": APP, "data/app.db-wal": LOG, "data/notes": NOTES}
    durable.write(layout.missing, json.dumps({path: str(layout.root / it) for path, it in paths.items()}))
    told = missing.told(layout)
    assert [it.split(" ")[0] for it in told] == [f"shared/data/{name}" for name in named]
    missing.forget_what_came_back(layout)
    assert layout.missing.exists() != forgotten


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}'])
def test_a_record_of_what_is_missing_that_cannot_be_read_is_no_reason_to_start(
    layout: Layout, content: bytes
) -> None:
    layout.missing.write_bytes(content)
    assert "cannot be read" in missing.told(layout)[0]
    missing.forget_what_came_back(layout)
    assert layout.missing.exists()


def test_what_no_record_names_any_more_is_kept_aside_by_the_next_move(layout: Layout) -> None:
    lay(layout, APP)
    swap.begin(layout, MOVED, "migrate", [""])
    swap.undo(layout)
    (kept,) = layout.shared.glob(f".updater-kept-{MOVED}*")
    assert (kept / "old" / "1").read_text() == APP


def refused(site: Site, *told: object) -> None:
    for words in (("start",), ("restart",), ("activate", "v1.0.0")):
        done = site.updater(*words)
        assert done.code == 3 and all(str(it) in done.text for it in told), done.text
    assert site.answer() is None


def test_settings_and_a_backup_without_the_data_bring_nothing_back(site: Site) -> None:
    site.deployed("v1.0.0")
    trades = site.layout.shared / "data" / "trades.db"
    trades.write_text("before")
    assert site.updater("backup", "create").code == 0
    assert site.updater("stop").code == 0
    identifier = newest(site)
    trades.unlink()
    (place,) = given_up(site.layout, "data/trades.db")
    refused(site, f"shared/data/trades.db is not in its place: it is {place}")
    for back in (
        site.updater("backup", "restore", identifier, "--only", "config", "--yes"),
        by_script(site, "restore_backup.sh", identifier, "--only", "config", "--no-start", "--yes"),
        site.updater(
            "backup", "restore", "latest", "--yes"
        ),  # made by the restores before: it holds no trades.db
        by_script(site, "restore_backup.sh", newest(site), "--no-start", "--yes"),
    ):
        assert back.code == 0, back.text
        refused(site, f"shared/data/trades.db is not in its place: it is {place}")
    back = by_script(site, "restore_backup.sh", identifier, "--only", "data", "--no-start", "--yes")
    assert back.code == 0 and trades.read_text() == "before", back.text
    assert not site.layout.missing.exists() and site.updater("start").code == 0


def test_a_script_tells_what_updater_has_not_come_to_tell(site: Site) -> None:
    """A way back was given up, and the process that did it was killed before it said what is missing."""
    site.deployed("v1.0.0")
    assert site.updater("backup", "create").code == 0
    assert site.updater("stop").code == 0
    durable.write(site.layout.missing, json.dumps({"data/longer": "/nowhere"}) + "\n")
    odd = 'data/a "b" \\ ü' + ("\udcff" if sys.platform == "linux" else "")
    places = given_up(site.layout, "data/trades.db", odd)
    site.layout.missing.rename(site.place / "missing.json")
    warned = by_script(site, "emergency_rollback.sh", "v1.0.0", "--yes", "--no-start")
    assert (
        f"data are not in their place since a way back was given up; they lie in {places[0].parents[1]}"
        in warned.text
    )
    looked = by_script(site, "health_check_enhanced.sh")
    assert looked.code == 4 and "data are not in their place since a way back was given up" in looked.text
    assert "restore_backup.sh" in looked.text and "cleanup_failed_update.sh" not in looked.text, looked.text
    assert "updater start" not in looked.text and "first put back the data" in looked.text, looked.text
    (site.place / "missing.json").rename(site.layout.missing)
    back = by_script(site, "restore_backup.sh", newest(site), "--only", "config", "--no-start", "--yes")
    assert back.code == 0, back.text
    noted = json.loads(site.layout.missing.read_text())
    assert noted == {"data/longer": "/nowhere", "data/trades.db": str(places[0]), odd: str(places[1])}
    refused(site, places[0])

    later = given_up(site.layout, "data/c", "data/d")
    back = by_script(site, "restore_backup.sh", newest(site), "--only", "config", "--no-start", "--yes")
    assert back.code == 0, back.text
    also = {"data/c": str(later[0]), "data/d": str(later[1])}
    assert json.loads(site.layout.missing.read_text()) == noted | also


def test_status_recover_and_the_clean_up_tell_what_is_missing_and_advise_no_start(site: Site) -> None:
    site.deployed("v1.0.0")
    assert site.updater("stop").code == 0
    (place,) = given_up(site.layout, "data/trades.db")
    told = f"shared/data/trades.db is not in its place: it is {place}"
    before = site.updater("status")
    assert told in before.out and "updater start" not in before.out, before.out
    planned = by_script(site, "cleanup_failed_update.sh", "--dry-run")
    assert planned.code == 0 and str(place.parents[1]) in planned.text and site.layout.swap.exists(), (
        planned.text
    )
    for _ in range(2):
        cleaned = by_script(site, "cleanup_failed_update.sh", "--yes")
        assert cleaned.code == 5 and str(site.layout.missing) in cleaned.text, cleaned.text
        assert json.loads(site.layout.missing.read_text()) == {"data/trades.db": str(place)}
        assert not site.layout.swap.exists()
    looked = by_script(site, "health_check_enhanced.sh")
    assert "cleanup_failed_update.sh" not in looked.text and str(site.layout.missing) in looked.text
    for words in (("recover",), ("status",)):
        done = site.updater(*words)
        assert told in done.text and "updater start" not in done.text, done.text
        assert "backup restore" in done.text and done.code == 0
    machine = json.loads(site.updater("--json", "recover").out)
    assert machine["recovered"] == [] and machine["missing"] == [told]
    place.rename(site.layout.shared / "data" / "trades.db")
    assert json.loads(site.updater("--json", "recover").out)["missing"] == []
    assert by_script(site, "cleanup_failed_update.sh", "--yes").code == 0
    assert site.updater("start").code == 0 and not site.layout.missing.exists()


def test_a_move_that_no_shell_can_read_is_not_called_missing_for_sure(site: Site) -> None:
    site.deployed("v1.0.0")
    given_up(site.layout, "data/trades.db")
    site.layout.swap_steps.unlink()
    looked = by_script(site, "health_check_enhanced.sh")
    assert looked.code != 0 and "data may not be in their place" in looked.text, looked.text


def newest(site: Site) -> str:
    return max(it.name for it in site.layout.backups.iterdir() if it.name.startswith("backup_"))


@pytest.mark.parametrize("hindered", [False, True])
def test_what_could_not_be_noted_is_missing_all_the_same(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, hindered: bool
) -> None:
    (place,) = given_up(layout, "data/trades.db")
    write = durable.write

    def writing(path: Path, *rest: Any, **more: Any) -> None:
        if path == layout.missing and hindered:
            raise OSError(errno.EIO, "Input/output error")
        write(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "write", writing)
        tidying.tidy(layout)
    assert layout.missing.exists() != hindered
    told = [f"shared/data/trades.db is not in its place: it is {place}"]
    assert missing.told(layout) == told
    tidying.tidy(layout)
    assert layout.missing.exists() and not layout.swap.exists()
    assert missing.told(layout) == told


def test_a_move_whose_record_is_damaged_is_no_reason_to_start(layout: Layout) -> None:
    layout.swap.write_text("{")
    assert "it is damaged" in missing.told(layout)[0]
    assert f"mv {layout.swap} {layout.swap}.aside" in missing.way_out(layout)


def test_data_of_a_deployment_at_work_are_not_missing(layout: Layout) -> None:
    move = swap.begin(
        layout, Journal.create(layout, {"request": {"kind": "deploy"}, "before": {}}).id, "migrate", [""]
    )
    (layout.shared / "data" / "file").write_text("")
    swap.forward(
        layout, replace(move, steps=(swap.Step("data/file", "", 1, before=True, after=False),), ready=True)
    )
    assert missing.told(layout) == []
