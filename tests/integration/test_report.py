"""`updater report`: wanted when things are broken, so it is made of whatever there is; and it gives no secret away."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from tests.integration.test_broken_configuration import BREAKAGES
from tests.site import Site

SECRETS = {
    "environment": "tok-from-the-environment-1",
    "process": "pa55 word of a process",
    "toml": 'exchange "secret" of TOML',
    "yaml": "yaml-secret-4711",
    "dotenv": "dotenv$ecret%20x",
    "url": "password-in-a-url",
    "dump": "given-to-a-dump-only",
    "words": "correct horse battery, staple",
    "list": "second of a list",
    "linked": "behind a link; with a semicolon",
    "named": "beside shared/config",
    "database": "p/ss@w0rd",
}


def contents(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        files = {it.name.partition("/")[2]: tar.extractfile(it) for it in tar.getmembers()}
        return {name: file.read().decode() for name, file in files.items() if file}


def made(site: Site) -> tuple[Path, dict[str, str]]:
    done = site.updater("--json", "report")
    assert done.code == 0, done.text
    place = Path(done.json["file"])
    assert place.parent == site.place and stat.S_IMODE(place.stat().st_mode) == 0o600
    found = contents(place)
    assert found.keys() == done.json["holds"].keys()
    return place, found


def test_it_holds_what_a_maintainer_asks_for(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", "crash")
    assert site.updater("deploy", "v1.1.0").code == 4
    _, found = made(site)
    assert json.loads(found["status.json"])["in_service"]["version"] == "v1.0.0"
    assert {it["outcome"] for it in json.loads(found["history.json"])} == {"succeeded", "rolled-back"}
    assert "KeyError: 'exchange'" in found["logs/web.log"] and "v1.1.0" in found["logs/update.log"]
    assert json.loads(found["verify.json"])["sound"] is True
    assert {it["name"] for it in json.loads(found["preflight.json"])["checks"]} >= {"space", "ports"}
    assert "current -> releases/v1.0.0" in found["files.txt"] and "[processes.web]" in found["updater.toml"]
    machine = json.loads(found["machine.json"])
    assert machine["updater"] and machine["filesystems"][str(site.root)]["inodes_free"] >= 0
    assert len([name for name in found if name.startswith("journal/")]) == 2
    assert not [name for name in found if "data" in name], "nothing of the data"


def test_no_secret_is_given_away(site: Site) -> None:
    site.publish("v1.0.0")
    site.configure(
        extra=f'''
[backup.dumps.other]
dump = ["echo", "x"]
restore = ["sh", "-c", "cat > /dev/null"]
env = {{ PLACE = "{SECRETS["dump"]}" }}
'''
    )
    text = site.layout.config.read_text().replace('"data" = "data"', '"data" = "data"\n"bot.cfg" = "bot.cfg"')
    text = text.replace("env = { PORT", f'env = {{ EXCHANGE_PASSWORD = "{SECRETS["process"]}", PORT')
    site.layout.config.write_text(text)
    config = site.layout.shared / "config"
    (config / "settings.toml").write_text(f"secret = {json.dumps(SECRETS['toml'])}\n")
    (config / "more.yml").write_text(f"exchange:\n  api_key: {SECRETS['yaml']}\n")
    (config / "wallet.yaml").write_text(
        f"wallet:\n  mnemonic: >-\n    {SECRETS['words']}\n  keys:\n  - first\n  - {SECRETS['list']}\n"
    )
    (site.place / "elsewhere").mkdir()
    (site.place / "elsewhere" / "bot.ini").write_text(f"[api]\npassword = {SECRETS['linked']}\n")
    (config / "bot.ini").symlink_to(site.place / "elsewhere" / "bot.ini")
    (site.layout.shared / "bot.cfg").write_text(f"pass: {SECRETS['named']}\n")
    dotenv = (
        f"TELEGRAM_TOKEN={SECRETS['dotenv']}\nDATABASE_URL=postgres://bot:{SECRETS['database']}@db/trades\n"
    )
    (site.layout.shared / ".env").write_text(dotenv)
    site.environment["SOME_TOKEN"] = SECRETS["environment"]
    assert site.updater("deploy", "--reason", f"for {SECRETS['yaml']}").code == 0
    with site.layout.process_log("web").open("a") as log:
        for secret in SECRETS.values():
            log.write(f"connecting with {secret!r}, {json.dumps(secret)}, {secret}\n")
        log.write(f"https://bot:{SECRETS['url']}@exchange.example/ws\n")
        log.write(f"DSN=postgres://bot:{SECRETS['url']}@db/trades password={SECRETS['url']}\n")
    text = site.layout.process_log("web").read_text()
    site.layout.process_log("web").write_text(
        "\n".join(line for line in text.splitlines() if SECRETS["url"] not in line or "bot:" in line) + "\n"
    )
    _, found = made(site)
    for name, content in found.items():
        for kind, secret in SECRETS.items():
            assert secret not in content and json.dumps(secret)[1:-1] not in content, (name, kind)
    assert "connecting with" in found["logs/web.log"], "the rest of a line stays"


@pytest.mark.parametrize("breaks", BREAKAGES)
def test_it_is_made_whatever_is_wrong_with_the_configuration(site: Site, breaks: object) -> None:
    site.deployed("v1.0.0")
    assert callable(breaks)
    breaks(site)
    _, found = made(site)
    assert json.loads(found["status.json"])["in_service"]["version"] == "v1.0.0"
    assert found["updater.toml"]


def test_it_is_made_of_ruins(site: Site) -> None:
    site.deployed("v1.0.0")
    site.layout.current.unlink()
    site.layout.history.write_bytes(b"\xff\x00[{")
    (site.layout.journal / "20260101T000000-abcdef.jsonl").write_bytes(os.urandom(500))
    site.layout.errors_log.unlink(missing_ok=True)
    os.mkfifo(site.layout.errors_log)
    for release in site.layout.releases.iterdir():
        (release / ".release" / "release.json").write_text("{")
    _, found = made(site)
    assert "is not a regular file" in found["logs/errors.log"]
    assert "files.txt" in found and "journal/20260101T000000-abcdef.jsonl" in found


def test_it_writes_where_it_is_told_and_over_nothing(site: Site) -> None:
    place = site.place / "mine.tar.gz"
    done = site.updater("report", "-o", str(place))
    assert done.code == 0 and str(place) in done.out and "README.txt" in done.out, done.text
    again = site.updater("report", "-o", str(place))
    assert again.code == 2 and "is there already" in again.err
    nowhere = site.updater("report", "-o", str(site.place / "no" / "such"))
    assert nowhere.code == 2 and "cannot be written" in nowhere.err and "--output" in nowhere.err, (
        nowhere.text
    )


def test_a_long_log_is_told_from_its_end(site: Site) -> None:
    site.deployed("v1.0.0")
    with site.layout.process_log("web").open("a") as log:
        for number in range(300_000):
            log.write(f"line {number}\n")
    place, found = made(site)
    assert found["logs/web.log"].endswith("line 299999\n") and len(found["logs/web.log"]) < 1024**2
    assert found["logs/web.log"].startswith("line ")
    assert place.stat().st_size < 20 * 1024**2
