"""`updater.toml`: what is right is understood, what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updater import configfile, configkeys, template
from updater.errors import ConfigError

FILE = Path("/srv/app/updater.toml")

FULL = """
[app]
name = "tradebot"
[source]
type = "github"
repository = "owner/tradebot"
asset = "tradebot-*.tar.gz"
[releases]
keep = 3
[shared]
"config/settings.toml" = "config/settings.toml"
"data" = "data"
[environment]
python = "3.11"
[processes.bot]
command = ["python", "-m", "bot"]
env = { MODE = "paper" }
stop_timeout = 20
[[processes.bot.probes]]
type = "file"
path = "data/heartbeat"
max_age = 5
[processes.dashboard]
command = ["python", "-m", "dashboard"]
[[processes.dashboard.probes]]
type = "http"
url = "http://127.0.0.1:8080/health"
[health]
successes = 3
watch = 0
[backup.dumps.postgres]
dump = ["pg_dump"]
restore = ["pg_restore"]
[notify]
urls = ["ntfy://topic"]
urls_file = "notify.urls"
events = ["needs-you"]
[schedule]
check_every = 3600
update = true
window = "22:30-04:00"
days = ["sat", "sun"]
"""


def test_the_whole_of_it_is_understood() -> None:
    config = configfile.parse(FULL, FILE)
    assert config.name == "tradebot"
    assert config.source.repository == "owner/tradebot"
    assert config.keep == 3
    assert config.shared["data"] == "data"
    bot = config.processes["bot"]
    assert bot.command == ("python", "-m", "bot")
    assert bot.env["MODE"] == "paper"
    assert [probe.type for probe in bot.probes] == ["alive", "file"], "a dead process is never healthy"
    assert config.health.watch == 0.0
    dump = config.backup.dumps["postgres"]
    assert config.notify.urls_file == Path("/srv/app/notify.urls") and config.notify.events == ("needs-you",)
    assert config.schedule.window == (22 * 60 + 30, 4 * 60) and config.schedule.days == ("sat", "sun")
    assert (dump.name, dump.dump, dump.restore, dump.check) == ("postgres", ("pg_dump",), ("pg_restore",), ())


@pytest.mark.parametrize(
    ("wrong", "right", "says"),
    [
        ('name = "tradebot"', 'nmae = "tradebot"', "updater.toml:3: app.nmae: unknown key; did you mean 'name'?"),
        ("[releases]", "[relaeses]", "updater.toml:8: relaeses: unknown section; did you mean 'releases'?"),
        ("keep = 3", 'keep = "3"', "updater.toml:9: releases.keep: must be a whole number"),
        ("keep = 3", "keep = 0", "updater.toml:9: releases.keep: must be between 2 and 1000"),
        ('type = "github"', 'type = "gitlab"', "updater.toml:5: source.type: must be one of 'github', 'directory'"),
        ('repository = "owner/tradebot"', "", "updater.toml:4: source: repository is missing"),
        ('"data" = "data"', '"../data" = "data"', "updater.toml:12: shared.../data: must be a relative path"),
        ('"data" = "data"', '"data" = "/data"', "must be a relative path without '..'"),
        ('"data" = "data"', '".venv/x" = "data"', ".venv belongs to updater"),
        ('"data" = "data"', '"config" = "config"', "lies inside another shared path"),
        ('command = ["python", "-m", "bot"]', 'command = "python -m bot"', "updater.toml:16: processes.bot.command: must be a list"),
        ('env = { MODE = "paper" }', "env = { MODE = 1 }", "updater.toml:17: processes.bot.env: must be a table of texts"),
        ('env = { MODE = "paper" }', 'env = { UPDATER_RELEASE = "v2" }', "updater.toml:17: processes.bot.env: UPDATER_RELEASE is set by updater itself"),
        ("stop_timeout = 20", "stop_timeout = true", "processes.bot.stop_timeout: must be a number"),
        ('path = "data/heartbeat"', "", "updater.toml:19: processes.bot.probes[0]: a probe of type file needs path"),
        ('type = "http"', 'type = "htpp"', "updater.toml:26: processes.dashboard.probes[0].type: must be one of"),
        ("[processes.bot]", "[processes.child]", "cannot be the name of a process"),
        ('name = "tradebot"', 'name = "a b"', "updater.toml:3: app.name: must be a short name"),
        ('restore = ["pg_restore"]', "", "updater.toml:31: backup.dumps.postgres: restore is missing: what cannot be put back"),
        ('dump = ["pg_dump"]', "dump = []", "updater.toml:32: backup.dumps.postgres.dump: must be a list of words"),
        ("[backup.dumps.postgres]", "[backup.dump.postgres]", "updater.toml:31: backup.dump: unknown key; did you mean 'dumps'?"),
        ("[backup.dumps.postgres]", '[backup.dumps."../up"]', "'../up' cannot be the name of a dump"),
        ("[backup.dumps.postgres]", "[backup.dumps]", "updater.toml:32: backup.dumps.dump: must be a table"),
        ('dump = ["pg_dump"]\nrestore = ["pg_restore"]', "", "updater.toml:31: backup.dumps.postgres: dump is missing"),
        ('urls = ["ntfy://topic"]\nurls_file = "notify.urls"', "", "updater.toml:36: notify.events: does nothing without urls"),
        ('events = ["needs-you"]', 'events = ["need-you"]', "updater.toml:37: notify.events: must be one of 'available'"),
        ("check_every = 3600", "check_every = 0.5", "schedule.check_every: must be 0 or between 1 and"),
        ("check_every = 3600", "check_every = 0", "schedule.check_every: must not be 0 where update is true"),
        ('window = "22:30-04:00"', "", "updater.toml:40: schedule.update: needs a window"),
        ('window = "22:30-04:00"', 'window = "22:30"', "schedule.window: must be two different times of a day"),
        ('window = "22:30-04:00"', 'window = "24:00-04:00"', "schedule.window: must be two different times of a day"),
        ('window = "22:30-04:00"', 'window = "04:00-04:00"', "schedule.window: must be two different times of a day"),
        ('days = ["sat", "sun"]', 'days = ["Saturday"]', "schedule.days: must be one of 'mon'"),
        ('days = ["sat", "sun"]', "days = []", "schedule.days: must name a day"),
        ("[app]", "[app", "updater.toml: "),
    ],
)  # fmt: skip
def test_every_mistake_names_its_line_and_key(wrong: str, right: str, says: str) -> None:
    assert wrong in FULL
    with pytest.raises(ConfigError) as raised:
        configfile.parse(FULL.replace(wrong, right), FILE)
    assert any(says in detail for detail in raised.value.details), raised.value.details
    assert raised.value.exit_code == 2


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        configfile.parse(FULL.replace("keep = 3", "kep = 3").replace("watch = 0", "watch = -1"), FILE)
    assert len(raised.value.details) == 2


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    for content in (None, b"\xff\xfe"):
        path = tmp_path / "updater.toml"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError):
            configfile.load(path)


def test_the_template_explains_every_key_and_is_itself_right() -> None:
    text = template.render(name="tradebot", repository="owner/tradebot")
    assert configfile.parse(text, FILE).source.repository == "owner/tradebot"
    for keys in (*configkeys.SECTIONS.values(), configkeys.PROCESS, configkeys.PROBE, configkeys.DUMP):
        for key in keys:
            assert f"{key.name} = " in text, key.name


def test_the_template_with_every_comment_taken_away_is_right_as_well() -> None:
    text = template.render(name="app", directory='odd "folder"')
    active = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert configfile.parse("\n".join(active), FILE).source.path == Path('/srv/app/odd "folder"')


@given(
    st.recursive(
        st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
    )
)
def test_no_value_anywhere_makes_it_fall_over(value: object) -> None:
    import json

    text = json.dumps(value)
    for section, keys in configkeys.SECTIONS.items():
        for key in keys:
            try:
                configfile.parse(f"[{section}]\n{key.name} = {text}\n", FILE)
            except ConfigError:
                pass
