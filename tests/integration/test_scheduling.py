"""Rounds of the schedule: looked for, remembered, told once, and deployed only when everything agrees."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.phone import Phone
from tests.site import Site, eventually
from updater import operations, records
from updater.operations import keeping, scheduling

NIGHT = datetime(2026, 5, 4, 2, 30).astimezone()
EVENING = datetime(2026, 5, 4, 20, 0).astimezone()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)


def tick(site: Site, now: datetime = NIGHT) -> Any:
    return scheduling.tick(operations.open_root(site.root), now=now)


def remembered(site: Site) -> Any:
    return scheduling.remembered(site.layout)


def settings(phone: Phone, more: str = "") -> str:
    told = f'[notify]\nurls = ["{phone.url()}"]\nevents = ["available", "needs-you"]\n'
    return f'\n{told}[schedule]\nupdate = true\nwindow = "02:00-04:00"\n{more}'


def test_a_new_release_is_told_once_and_remembered(site: Site, phone: Phone) -> None:
    assert remembered(site) is None
    site.deployed("v1.0.0")
    site.configure(extra=f'\n[notify]\nurls = ["{phone.url("refuses")}"]\n')
    first = tick(site)
    assert first["answer"]["update"] is None and first["update"] is None and not first["notified"]
    site.publish("v1.1.0", notes="# Better")
    assert tick(site)["notified"] is False, "nobody could be told"
    site.configure(extra=f'\n[notify]\nurls = ["{phone.url()}"]\n')
    phone.messages.clear()
    assert tick(site)["notified"] is True
    assert [it["title"] for it in phone.messages] == ["app: v1.1.0 is available"]
    assert "in service: v1.0.0" in phone.messages[0]["message"] and "# Better" in phone.messages[0]["message"]
    again = tick(site, EVENING)
    assert again["notified"] is False and again["update"] is None and len(phone.messages) == 1
    known = remembered(site)
    assert (known["at"], known["answered_at"]) == (records.stamp(EVENING), records.stamp(EVENING))
    assert known["answer"] == again["answer"] and known["notified"] == ["v1.1.0"]
    assert known["error"] is None and known["waiting"] is None

    text = site.layout.config.read_text().replace(site.server.api_url, "http://127.0.0.1:1")
    site.layout.config.write_text(text)
    failed = tick(site)
    assert failed["error"]["exit_code"] == 8 and failed["answer"] is None
    known = remembered(site)
    assert known["error"]["exit_code"] == 8 and known["answer"]["update"]["tag"] == "v1.1.0", (
        "the last one known"
    )
    assert known["at"] == records.stamp(NIGHT) and known["answered_at"] == records.stamp(EVENING)

    asked = scheduling.check(operations.open_root(site.root))
    assert asked == remembered(site) and asked["error"]["exit_code"] == 8 and asked["answer"]["update"]
    keeping.mark_bad(operations.open_root(site.root), "v1.1.0", "it loses money")
    known = remembered(site)["answer"]
    assert known["update"] is None and known["skipped"] == {"tag": "v1.1.0", "reason": "it loses money"}
    site.layout.check.write_text(
        json.dumps({**json.loads(site.layout.check.read_text()), "answer": {"in_service": "v0"}})
    )
    assert remembered(site)["answer"] is None, "from before this release came into service"


GATE = '[gate]\nfile = "data/busy"\n'


def test_it_waits_for_its_window_and_while_anybody_minds(site: Site, phone: Phone) -> None:
    site.publish("v1.0.0")
    busy = site.layout.shared / "data" / "busy"
    site.configure(extra=settings(phone) + GATE)
    assert "nothing is in service" in tick(site)["update"]["why"]
    assert site.updater("deploy").code == 0
    assert remembered(site)["answer"]["update"] is None, "it is what is in service now"
    site.publish("v1.1.0")
    root = operations.open_root(site.root)

    assert tick(site, EVENING)["update"] == {
        "tag": "v1.1.0",
        "started": None,
        "waiting": False,
        "why": "it is not between 02:00 and 04:00",
    }
    assert "deployed by itself, between 02:00 and 04:00" in phone.messages[-1]["message"]
    keeping.hold(root, "not now", "me")
    assert "updates are held by me" in tick(site)["update"]["why"]
    keeping.release_hold(root)
    busy.write_text("3 open trades")
    waits = tick(site)["update"]
    assert waits["started"] is None and waits["waiting"] and "3 open trades" in waits["why"]
    assert remembered(site)["waiting"] == "v1.1.0"
    assert scheduling.due(root, 0.5, now=NIGHT) == NIGHT + timedelta(minutes=5)
    site.configure(extra=(settings(phone) + GATE).replace("update = true", "update = false"))
    assert tick(site)["update"] is None and remembered(site)["waiting"] is None, "nobody wants it any more"
    site.configure(extra=settings(phone) + GATE)
    busy.unlink()
    with root.changing("a test"):
        assert "a test (pid" in tick(site)["update"]["why"]
    assert len(site.history()) == 1


def test_it_tries_each_release_once(site: Site, phone: Phone) -> None:
    site.publish("v1.0.0")
    site.configure(extra=settings(phone))
    assert site.updater("deploy").code == 0
    site.publish("v1.1.0", "sick")
    started = tick(site)["update"]
    assert started["started"] and started["why"] == "" and remembered(site)["waiting"] is None
    record = eventually(lambda: site.history()[1:], "it has ended")[0]
    assert (record["id"], record["origin"], record["outcome"]) == (
        started["started"],
        "schedule",
        "rolled-back",
    )
    site.runs("v1.0.0")
    after = tick(site)
    assert after["update"] is None and after["answer"]["skipped"]["tag"] == "v1.1.0", "never to a bad one"

    site.publish("v1.2.0")
    site.configure(min_free=2**49, extra=settings(phone))
    assert tick(site)["update"]["started"]
    eventually(lambda: len(site.history()) == 3, "it has ended")
    assert site.history()[2]["outcome"] == "failed"
    site.configure(min_free=10**6)
    assert "has tried v1.2.0 already: failed" in tick(site)["update"]["why"]
    assert len(site.history()) == 3
    titles = [it["title"] for it in phone.wait(3)]
    assert titles[:2] == [f"app: {tag} is available" for tag in ("v1.1.0", "v1.2.0")]
    assert titles[2].startswith("app: the scheduled deploy was not done: ")


def test_check_on_the_command_line_remembers_where_it_can(site: Site) -> None:
    site.publish("v1.0.0")
    assert site.updater("check").code == 0
    assert remembered(site)["answer"]["update"]["tag"] == "v1.0.0"
    site.layout.check.unlink()
    site.layout.check.mkdir()
    assert site.updater("check").code == 0, "what cannot be remembered does not matter"
    assert remembered(site) is None
    with pytest.raises(OSError):
        tick(site)


def test_a_mistake_in_the_configuration_is_remembered_as_an_error(site: Site) -> None:
    site.layout.config.write_text("[app")
    found = scheduling.tick(operations.open_root(site.root, tolerant=True))
    assert found["error"]["code"] == "config" == remembered(site)["error"]["code"]
