"""What an error advises is typed as it stands there, and helps."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sqlite3

import pytest

from tests.site import Done, Site


def advised(done: Done, flag: str) -> list[str]:
    """The command with that flag in the advice of an error."""
    commands = re.findall(rf": updater ([a-z][^;`]*? {flag})(?![\w-])", done.err)
    assert commands, done.err
    return shlex.split(commands[-1])


@pytest.mark.parametrize("words", [["rollback"], ["rollback", "--to", "v1.0.0"], ["activate", "v1.0.0"], ["deploy", "v1.0.0"]])  # fmt: skip
@pytest.mark.parametrize("damaged", ["file", "manifest"])
def test_past_a_release_that_was_edited(site: Site, words: list[str], damaged: str) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    path = site.layout.release("v1.0.0") / ("behaviour" if damaged == "file" else ".release/manifest")
    path.chmod(0o644)
    path.write_text("edited\n")
    done = site.updater(*words)
    assert done.code == 7, done.text
    again = advised(done, "--force")
    assert again == [*words, "--force"]
    assert site.updater(*again).code == 0
    site.runs("v1.0.0")
    assert any("differs from what was published" in it for it in site.history()[-1]["warnings"])


def test_past_a_mark(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    assert site.updater("mark-bad", "v1.0.0").code == 0
    done = site.updater("rollback", "--to", "v1.0.0")
    assert done.code == 3 and advised(done, "--force") == ["rollback", "--to", "v1.0.0", "--force"]
    assert site.updater("rollback", "--to", "v1.0.0", "--force").code == 0
    site.runs("v1.0.0")


def test_past_a_busy_application(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    site.configure(extra='\n[gate]\ncommand = ["false"]\n')
    done = site.updater("rollback")
    assert done.code == 9
    assert site.updater(*advised(done, "--force")).code == 0
    site.runs("v1.0.0")


def test_past_a_corrupt_database(site: Site) -> None:
    """A deployment that a corrupt database stops is not helped by a backup made by hand."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    database = site.layout.shared / "data" / "trades.db"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("CREATE TABLE trades (note TEXT)")
        connection.executemany("INSERT INTO trades VALUES (?)", (("x" * 500,) for _ in range(160_000)))
    with database.open("r+b") as file:
        file.seek(4096 * 5)
        file.write(os.urandom(4096 * 4))
    assert database.stat().st_size > 64 * 1024**2, "too large to be checked before the backup"
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 4 and "is corrupt" in done.err, done.text
    again = advised(done, "--force")
    assert again == ["deploy", "v1.1.0", "--force"]
    assert site.updater(*again).code == 0
    site.runs("v1.1.0")


def test_past_a_tag_that_was_moved(site: Site) -> None:
    site.deployed("v1.0.0")
    site.releases.clear()
    site.publish("v1.0.0", files={"more": "other content\n"})
    done = site.updater("fetch", "v1.0.0")
    assert done.code == 7 and advised(done, "--replace") == ["fetch", "v1.0.0", "--replace"]
    assert site.updater("fetch", "v1.0.0", "--replace").code == 0
    site.runs("v1.0.0")
