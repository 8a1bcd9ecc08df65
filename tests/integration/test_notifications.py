"""People are told how deployments end, once everything is on record; and nothing ever waits for that or fails because of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.test_ways_out import holder_pid
from tests.phone import Phone
from tests.site import Site, eventually
from updater import lock, notifications
from updater.config import Config, NotifyConfig
from updater.deployment import announcing
from updater.errors import RollbackFailed
from updater.layout import Layout

SECRET = "exchange"  # what the crashing release prints


def told(*urls: str, more: str = "") -> str:
    return f"\n[notify]\nurls = {list(urls)}\n{more}\n"


def no_apprise(site: Site) -> None:
    """Make updater run where apprise is not installed, as far as Python's imports can tell."""
    hiding = site.place / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(
        "import importlib.machinery as it\nfind = it.PathFinder.find_spec\n"
        "it.PathFinder.find_spec = lambda name, *more: None if name == 'apprise' else find(name, *more)\n"
    )
    site.environment["PYTHONPATH"] = str(hiding)


def test_an_update_and_a_way_back_are_told_when_all_is_over_and_give_nothing_away(
    site: Site, phone: Phone
) -> None:
    def state() -> tuple[object, ...]:
        return (
            lock.owner(site.layout),
            site.history()[-1]["outcome"],
            list(site.layout.journal.glob("*.jsonl")),
        )

    phone.looks = state
    site.configure(extra=told(phone.url("a-secret-path")))
    (site.layout.shared / ".env").write_text(f"API_TOKEN={SECRET}\n")
    site.deployed("v1.0.0")
    (first,) = phone.wait(1)
    assert (first["title"], first["type"]) == ("app: updated to v1.0.0", "success")
    assert "deploy: nothing → v1.0.0" in first["message"] and str(site.root) in first["message"]
    site.publish("v1.1.0", "crash")
    done = site.updater("deploy", "--reason", "the new\nstrategy")
    assert done.code == 4
    _, back = phone.wait(2)
    assert back["title"].startswith("app: v1.1.0") and "rolled back; v1.0.0 is in service" in back["title"]
    assert back["type"] == "warning"
    for part in (
        "deploy: v1.0.0 → v1.1.0",
        "KeyError: '***'",
        "the new strategy",
        "Nothing was lost: backup_",
        "Next: ",
    ):
        assert part in back["message"], back["message"]
    assert SECRET not in back["message"] and SECRET in done.err
    assert phone.seen == [(None, "succeeded", []), (None, "rolled-back", [])], (
        "the lock is free, the record written"
    )
    log = site.layout.update_log.read_text()
    eventually(
        lambda: "notified of 'rolled-back': JSON" in site.layout.update_log.read_text(), "it is logged"
    )
    assert "a-secret-path" not in log and "a-secret-path" not in done.text + str(site.history())


def test_a_service_that_hangs_or_refuses_is_a_line_in_the_log_and_delays_nobody(
    site: Site, phone: Phone
) -> None:
    more = 'events = ["updated"]\ntimeout = 3'
    site.configure(extra=told(phone.url("hangs"), phone.url("refuses/pa55word"), phone.url(), more=more))
    site.deployed("v1.0.0")
    assert lock.owner(site.layout) is None
    assert site.updater("pin", "v1.0.0").code == 0, "nobody waits for it"
    eventually(lambda: "no answer within 3 s" in site.layout.update_log.read_text(), "the limit of time")
    phone.wait(2)
    log = site.layout.update_log.read_text()
    assert "warning: notify: the message 'updated': JSON: Failed to send JSON POST notification" in log
    assert "pa55word" not in log and "notified of 'updated': JSON\n" in log
    (record,) = site.history()
    assert record["outcome"] == "succeeded" and record["warnings"] == []
    assert not site.layout.errors_log.exists()


def test_without_the_library_all_goes_on_and_with_it_a_recovery_is_told(site: Site, phone: Phone) -> None:
    no_apprise(site)
    site.configure(extra=told(phone.url()))
    site.publish("v1.0.0")
    done = site.updater("deploy")
    assert done.code == 0 and "the library apprise is not installed" in done.text
    eventually(lambda: "pip install 'updater[notify]'" in site.layout.update_log.read_text(), "the remedy")
    site.environment.pop("PYTHONPATH")
    site.publish("v1.1.0")
    site.configure(watch=60)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: (site.answer() or "").startswith("1.1.0"), "it is started")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    assert phone.messages == []
    assert site.updater("recover").code == 0
    (message,) = phone.wait(1)
    assert "was interrupted and rolled back; v1.0.0 is in service" in message["title"]
    assert "and it was interrupted" in message["message"]


def test_a_schedule_that_could_not_update_needs_somebody(site: Site, phone: Phone) -> None:
    site.publish("v1.0.0")
    site.configure(min_free=2**49, extra=told(phone.url()))
    assert site.updater("deploy").code == 3 and phone.messages == [], "who is there has seen it"
    site.environment["UPDATER_ORIGIN"] = "schedule"
    assert site.updater("deploy").code == 3
    (message,) = phone.wait(1)
    assert message["type"] == "failure" and message["title"].startswith(
        "app: the scheduled deploy was not done: "
    )


def test_the_test_names_services_and_no_address(site: Site, phone: Phone) -> None:
    nothing = site.updater("notify-test")
    assert nothing.code == 2 and "[notify]" in nothing.err and "urls_file" in nothing.err
    site.configure(extra=told(phone.url("fine/t0ken1"), more='events = ["needs-you"]'))
    done = site.updater("notify-test")
    assert (done.code, done.out) == (0, "sent JSON\n"), done.text
    assert phone.messages[0]["title"] == "app: a test of updater's messages"
    bad = f"json://127.0.0.1:{phone.url().rpartition(':')[2].rstrip('/')}/refuses/t0ken2"
    site.configure(extra=told(phone.url("fine/t0ken1"), bad, "nosuch://t0ken3/x"))
    done = site.updater("--json", "notify-test")
    assert done.code == 8 and done.json["ok"] is False and done.json["problems"] == []
    assert [(it["service"], it["ok"]) for it in done.json["services"]] == [
        ("JSON", True),
        ("JSON", False),
        ("address 3", False),
    ]
    assert "t0ken" not in done.text + site.layout.update_log.read_text()

    no_apprise(site)
    missing = site.updater("notify-test")
    assert missing.code == 3 and "pip install 'updater[notify]'" in missing.err
    looked = site.updater("--json", "preflight")
    check = next(it for it in looked.json["checks"] if it["name"] == "notify")
    assert check["result"] == "warning" and "pip install 'updater[notify]'" in check["remedy"]
    assert notifications.installed()


def test_addresses_from_the_environment_and_from_a_file_are_nowhere_to_be_read(
    site: Site, phone: Phone
) -> None:
    secret = {kind: f"{kind}-0123456789abcdef" for kind in ("here", "env", "file")}
    place = site.root / "notify.urls"
    place.write_text(f"# mine\n{phone.url(secret['file'])}\n")
    place.chmod(0o644)
    site.environment["TELL"] = f" {phone.url(secret['env'])}\n"
    more = 'urls_env = "TELL"\nurls_file = "notify.urls"'
    site.configure(extra=told(phone.url(secret["here"]), more=more))
    done = site.updater("notify-test")
    assert done.code == 0 and done.out.count("sent") == 3 and f"chmod 600 {place}" in done.err, done.text
    site.layout.update_log.write_text("\n".join(phone.url(it) for it in secret.values()))
    site.layout.configurations.mkdir()
    site.layout.configuration("v1.0.0").write_text(
        f'notify.urls = ["{phone.url("old-0123456789abcdef")}"]\n[x'
    )
    found = site.updater("--json", "report")
    from tests.integration.test_report import contents

    for name, content in contents(Path(found.json["file"])).items():
        assert "0123456789abcdef" not in content, name
    site.environment.pop("TELL")
    place.unlink()
    done = site.updater("--json", "notify-test")
    assert len(done.json["services"]) == 1 and len(done.json["problems"]) == 2
    assert "TELL is not set" in done.json["problems"][0] and "cannot be read" in done.json["problems"][1]


@pytest.mark.parametrize("event", ["needs-you", "updated"])
def test_only_wanted_events_are_sent(phone: Phone, event: str) -> None:
    config = NotifyConfig(urls=(phone.url(),), events=("needs-you",))
    assert notifications.notify(config, event, "a title", "a text") == []
    assert len(phone.messages) == (event == "needs-you")


def test_a_way_back_that_failed_in_a_recovery_needs_somebody(phone: Phone, tmp_path: Path) -> None:
    config = Config(tmp_path / "updater.toml", name="bot", notify=NotifyConfig(urls=(phone.url(),)))
    with pytest.raises(RollbackFailed), announcing.of_recoveries(Layout(tmp_path), config):
        raise RollbackFailed("the way back failed", advice="updater recover")
    with announcing.of_recoveries(Layout(tmp_path), config):
        pass
    (message,) = phone.messages
    assert (message["title"], message["type"]) == ("bot: needs you: the way back failed", "failure")
    assert "Next: updater recover" in message["message"]
