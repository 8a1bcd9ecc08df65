"""Preflight: every check is shown at once, each with its remedy, and none of them hangs."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import Any

import pytest

from tests.site import Site
from updater import preflight
from updater.preflight import Check, ok


def checks(site: Site, *arguments: str) -> dict[str, Any]:
    found = site.updater("--json", "preflight", *arguments)
    return {it["name"]: it for it in found.json["checks"]} | {"code": found.code}


def test_everything_that_matters_is_looked_at(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    found = checks(site)
    names = {
        "source",
        "lock",
        "root",
        "current",
        "space",
        "inodes",
        "databases",
        "backup",
        "last backup",
        "emergency",
        "gate",
        "health",
    }
    assert names <= found.keys() and found["code"] == 0
    assert {it["result"] for it in found.values() if isinstance(it, dict)} <= {"ok", "warning"}


def test_an_application_that_is_not_well_now_is_told(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(timeout=0.5)
    text = site.layout.config.read_text()
    site.layout.config.write_text(text.replace(f"127.0.0.1:{site.port}/", "127.0.0.1:1/"))
    found = checks(site)
    assert (
        found["health"]["result"] == "warning"
        and "v1.0.0 is not healthy now: web" in found["health"]["summary"]
    )


def test_a_corrupt_database_fails_with_the_way_back(site: Site) -> None:
    site.deployed("v1.0.0")
    database = site.layout.shared / "data" / "trades.db"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE trades (note TEXT)")
        connection.executemany("INSERT INTO trades VALUES (?)", (("x" * 900,) for _ in range(100)))
    with database.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(b"\xff" * 8192)
    site.publish("v1.1.0")
    done = site.updater("deploy", "v1.1.0")
    assert done.code == 3 and "shared/data/trades.db" in done.err and "updater backup list" in done.err, (
        done.text
    )
    site.runs("v1.0.0")


def test_a_missing_emergency_tool_is_a_warning(site: Site) -> None:
    site.deployed("v1.0.0")
    site.environment["PATH"] = "/nonexistent"
    found = checks(site, "--offline")
    assert found["emergency"]["result"] == "warning" and "zstd" in found["emergency"]["summary"]


def test_a_check_that_hangs_or_breaks_does_not_keep_the_others_from_being_shown() -> None:
    release = threading.Event()

    def hangs() -> Check:
        release.wait(60)
        return ok("hangs", "")

    def breaks() -> Check:
        raise OSError("broken")

    begun = time.monotonic()
    results = preflight.run([hangs, breaks, lambda: ok("fine", "")], limit=0.3)
    release.set()
    assert time.monotonic() - begun < 10
    assert [(it.name, it.result) for it in results] == [
        ("hangs", "failed"),
        ("breaks", "failed"),
        ("fine", "ok"),
    ]
    with pytest.raises(preflight.PreflightFailed, match="2 preflight checks failed"):
        preflight.judge(results)
