"""What messages say, whatever is in a record; and what is known of addresses is blanked out of everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updater import configfile, notifications, redaction
from updater.config import NotifyConfig
from updater.configkeys import EVENTS
from updater.errors import Busy, ConfigError, DeploymentFailed, LockHeld, RollbackFailed, UsageError
from updater.notifications import messages
from updater.notifications.messages import About

ABOUT = About("bot", "pi", "/srv/bot")
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(max_size=9), it, max_size=3),
)
KEYS = ["kind", "outcome", "origin", "user", "reason", "from", "to", "wanted", "seconds", "outage_seconds", "backup",
        "restored", "data", "warnings", "error", "text", "recovered"]  # fmt: skip
ERRORS = st.fixed_dictionaries(
    {"message": JUNK, "details": JUNK, "state": JUNK, "advice": JUNK, "code": JUNK}
)
RECORDS = st.dictionaries(st.sampled_from(KEYS), JUNK).flatmap(
    lambda it: st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["deploy", "activate", "rollback", "restore", "fetch"]),
            "outcome": st.sampled_from(["succeeded", "rolled-back", "failed", "cancelled", "rollback-failed", "nothing-to-do"]),
            "origin": st.sampled_from(["shell", "schedule"]),
            "error": st.none() | ERRORS,
        }
    ).map(lambda sound: {**it, **sound})
)  # fmt: skip


@given(RECORDS | st.dictionaries(st.sampled_from(KEYS), JUNK))
def test_any_record_is_one_bounded_message_or_none(record: dict[str, object]) -> None:
    message = messages.of_record(ABOUT, record)
    if message is None:
        return
    assert message.event in EVENTS and message.title.startswith("bot: ")
    assert len(message.title) <= messages.TITLE and "\n" not in message.title
    assert len(message.body) <= messages.TEXT and message.body.endswith("(/srv/bot on pi)")
    assert not [
        it for it in message.title + message.body if it != "\n" and not it.isprintable() and ord(it) < 160
    ]
    (message.title + message.body).encode()


@given(JUNK)
def test_any_answer_of_a_source_is_a_message_or_none(junk: object) -> None:
    for answer in (
        {"update": junk},
        {"update": {"tag": "v1", "notes": junk, "url": junk, "published_at": junk}},
    ):
        found = messages.available(ABOUT, answer)
        assert found is None or found.title.startswith("bot: ")


def end(kind: str, outcome: str, origin: str = "shell", error: object = None) -> dict[str, object]:
    return {"kind": kind, "outcome": outcome, "origin": origin, "to": "v2", "from": "v1", "error": error}


@pytest.mark.parametrize(
    ("record", "event"),
    [
        (end("deploy", "succeeded"), "updated"),
        (end("activate", "succeeded"), "updated"),
        (end("rollback", "succeeded"), "rolled-back"),
        (end("restore", "succeeded"), "rolled-back"),
        (end("deploy", "rolled-back"), "rolled-back"),
        (end("rollback", "rollback-failed"), "needs-you"),
        (end("fetch", "succeeded"), None),
        (end("deploy", "nothing-to-do"), None),
        (end("deploy", "cancelled"), None),
        (end("deploy", "failed"), None),
        (end("deploy", "failed", "schedule"), "needs-you"),
        (end("deploy", "failed", "schedule", Busy("busy").as_json()), None),
    ],
)
def test_which_end_is_which_event(record: dict[str, object], event: str | None) -> None:
    assert messages.event_of(record) == event
    assert (messages.of_record(ABOUT, record) is None) == (event is None)


def test_what_could_not_begin() -> None:
    failed = RollbackFailed("the way back failed", details=["web: sick"], advice="updater recover")
    message = messages.of_error(ABOUT, failed, "deploy", "shell")
    assert message is not None and message.title == "bot: needs you: the way back failed"
    assert message.body == "  web: sick\nNext: updater recover\n(/srv/bot on pi)"
    assert messages.of_error(ABOUT, DeploymentFailed("x"), "deploy", "shell") is None
    assert messages.of_error(ABOUT, LockHeld("x"), "deploy", "schedule") is None
    assert messages.of_error(ABOUT, UsageError("x"), "deploy", "schedule") is not None


def test_release_notes_are_cut_and_what_comes_next_is_said() -> None:
    answer = {
        "in_service": "v1",
        "update": {"tag": "v2", "notes": "# New\n" + "word " * 1000, "url": "https://x/v2"},
    }
    message = messages.available(ABOUT, answer)
    assert message is not None and message.title == "bot: v2 is available"
    assert "# New\n" in message.body and "\n…\n" in message.body and "Next: updater deploy v2" in message.body


URLS = [
    "tgram://123456789:AAEhBP0av28abcdefghijklmnopqrstuvw1/4711",
    "mailto://me:pa%20ss@mail.example/?to=x",
]


@pytest.mark.parametrize(
    "text",
    [
        '[app]\n[notify]\nurls = ["{0}", "{1}"]\n[schedule]\n',
        "[notify]\nurls = [ # mine\n  '{0}',\n  \"{1}\",\n]\nevents = []\n",
        'notify = {{ urls = ["{0}", "{1}"] }}',
        'notify.urls = ["{0}",\n"{1}"]',
        '[notify]\nurls = ["{0}\n"{1}"\n[broken',
    ],
)
def test_addresses_are_found_in_any_configuration_also_a_broken_one(text: str) -> None:
    assert redaction.addresses_in_toml(text.format(*URLS)) >= set(URLS)


def test_no_part_of_an_address_gets_into_what_a_service_said() -> None:
    blank = notifications.redactor(URLS)
    for url in URLS:
        assert "AAEhBP0av28" not in blank.text(f"POST {url} failed") and "pa%20ss" not in blank.text(url)
    assert "pa ss" not in blank.text("cannot log in as me with 'pa ss'")


@pytest.mark.parametrize(
    "wrong", ['"secret-0815"', '["secret-0815"]', '["x://secret-0815 y"]', "[4711]", '{ a = "secret-0815" }']
)
def test_no_error_repeats_an_address(wrong: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configfile.parse(
            f'[source]\nrepository = "a/b"\n[notify]\nurls = {wrong}\n', Path("/srv/updater.toml")
        )
    assert "notify.urls: must be a list of addresses" in raised.value.details[0]
    assert "secret-0815" not in raised.value.as_text() and "4711" not in raised.value.as_text()


def test_a_configuration_does_not_show_its_addresses() -> None:
    config = configfile.parse(
        f'[source]\nrepository = "a/b"\n[notify]\nurls = {URLS}\n', Path("/srv/updater.toml")
    )
    assert config.notify.urls == tuple(URLS) and "tgram" not in repr(config)


def test_targets_are_each_taken_once_and_what_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "urls"
    place.write_text(f"# {URLS[1]}\n\nntfy://a   {URLS[0]}\nrubbish-with-a-secret\n")
    place.chmod(0o600)
    (tmp_path / "link").symlink_to(place)
    monkeypatch.setenv("TELL", " ".join(f"ntfy://{it}" for it in range(30)))
    found = notifications.targets(NotifyConfig(urls=(URLS[0],), urls_file=tmp_path / "link"))
    assert found.urls == (URLS[0], "ntfy://a") and len(found.problems) == 1
    assert "1 of the addresses is none" in found.problems[0] and "rubbish" not in found.problems[0]
    many = notifications.targets(NotifyConfig(urls_env="TELL"))
    assert len(many.urls) == 20 and "more than 20" in many.problems[0]
    place.write_bytes(b"\xff")
    assert "not UTF-8" in notifications.targets(NotifyConfig(urls_file=place)).problems[0]
    assert "cannot be read" in notifications.targets(NotifyConfig(urls_file=tmp_path)).problems[0]


def test_nothing_of_it_is_loaded_where_nobody_is_told() -> None:
    code = (
        "import sys, updater.deployment.worker, updater.operations.looking, updater.operations.deploying\n"
        "print([it for it in sys.modules if 'apprise' in it or 'notifications' in it or 'schedul' in it])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
