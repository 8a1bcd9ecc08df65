"""Preflight: every check is shown at once, each with its remedy, and none of them hangs."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.site import Site, free_port
from updater import preflight
from updater.preflight import Finding, machine, ok
from updater.preflight.plan import Plan


def checks(site: Site, *arguments: str) -> dict[str, Any]:
    found = site.updater("--json", "preflight", *arguments)
    return {it["name"]: it for it in found.json["checks"]} | {"code": found.code}


def test_everything_that_matters_is_looked_at(site: Site) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    found = checks(site)
    assert list(found) == [
        "lock", "source", "api", "root", "user", "current", "records", "space", "inodes", "clock", "release in service",
        "rollback", "data in releases", "hold", "data in place", "databases", "dumps", "last backup", "emergency", "gate", "health", "ports",
        "shared files", "power", "memory", "marks", "environment", "code",
    ]  # fmt: skip
    assert found["code"] == 0
    assert {it["result"] for it in found.values() if isinstance(it, dict)} <= {"ok", "warning"}
    assert all(0 <= it["seconds"] < 20 for it in found.values() if isinstance(it, dict))


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


def test_a_database_that_is_locked_is_not_called_broken(site: Site) -> None:
    """It was said to need `.recover`; the backup waits for it, and says so itself if that is in vain."""
    site.publish("v1.0.0")
    database = site.layout.shared / "data" / "trades.db"
    database.parent.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE trades (note TEXT)")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("INSERT INTO trades VALUES ('x')")  # only now there is a journal beside it
        found = checks(site, "--offline")["databases"]
    assert found["result"] == "warning" and ".recover" not in found["remedy"]
    assert (
        f"trades.db is held locked by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
        in found["summary"]
    )


def test_a_missing_emergency_tool_is_a_warning(site: Site) -> None:
    site.deployed("v1.0.0")
    site.environment["PATH"] = "/nonexistent"
    found = checks(site, "--offline")["emergency"]
    assert found["result"] == "warning"
    assert "tar and zstd missing: a backup could not be opened without Python" in found["summary"]
    assert "sha256sum or shasum missing: damage could not be told" in found["summary"]
    assert "flock or perl missing: a script could not hold the lock" in found["summary"]
    assert "apt-get install tar zstd coreutils util-linux" in found["remedy"]


@pytest.mark.parametrize("one", [("sha256sum", "flock"), ("shasum", "perl")])
def test_one_tool_of_each_kind_is_enough(site: Site, one: tuple[str, str]) -> None:
    tools = site.place / "tools"
    tools.mkdir()
    for name in ("tar", "zstd", *one):
        (tools / name).symlink_to(shutil.which("true") or "/bin/true")
    site.environment["PATH"] = str(tools)
    assert checks(site, "--offline")["emergency"]["result"] == "ok"


def test_a_check_that_hangs_or_breaks_does_not_keep_the_others_from_being_shown() -> None:
    release = threading.Event()

    def hangs() -> Finding:
        release.wait(60)
        return ok("")

    def breaks() -> Finding:
        raise OSError("broken")

    begun = time.monotonic()
    results = preflight.run({"hangs": hangs, "breaks": breaks, "fine": lambda: ok("")}, limit=0.3)
    release.set()
    assert time.monotonic() - begun < 10
    assert [(it.name, it.result) for it in results] == [
        ("hangs", "failed"),
        ("breaks", "failed"),
        ("fine", "ok"),
    ]
    with pytest.raises(preflight.PreflightFailed, match="2 preflight checks failed"):
        preflight.judge(results)


# --- the source ---


def test_the_api_tells_its_quota_and_asking_costs_none(site: Site) -> None:
    site.publish("v1.0.0")
    used = site.server.used
    found = checks(site)["api"]
    assert found["result"] == "ok" and "127.0.0.1 answers" in found["summary"]
    assert "of 5,000 requests left until" in found["summary"]
    paths = [it.path for it in site.server.requests]
    assert paths.count("/rate_limit") == 1 and site.server.used <= used + 2, (
        "only what finds the release costs"
    )


@pytest.mark.parametrize(("quota", "result"), [(0, "failed"), (5, "warning"), (60, "ok")])
def test_a_quota_that_is_used_up_is_told_with_its_end(site: Site, quota: int, result: str) -> None:
    """F40."""
    site.publish("v1.0.0")
    site.server.quota = quota
    found = checks(site)["api"]
    assert found["result"] == result and f"of {quota} requests left until" in found["summary"]
    if result != "ok":
        assert "wait until" in found["remedy"] and "GITHUB_TOKEN" in found["remedy"]


def test_an_api_that_does_not_count_is_none_the_worse(site: Site) -> None:
    site.publish("v1.0.0")
    site.server.counting = False
    found = checks(site)["api"]
    assert found["result"] == "ok" and "does not count requests" in found["summary"]


def test_a_token_that_is_not_taken_is_told(site: Site) -> None:
    site.publish("v1.0.0")
    site.environment["GITHUB_TOKEN"] = "expired"
    found = checks(site)
    for name in ("api", "source"):
        assert found[name]["result"] == "failed" and "does not accept the token" in found[name]["summary"]
        assert "expired" not in found[name]["summary"]
    assert found["code"] == 3


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[str]:
    """A server whose certificate nobody has signed."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_keeps_us_from_the_api_is_told_apart(site: Site, tls: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        reasons = {
            f"http://127.0.0.1:{deaf.getsockname()[1]}": "it stopped answering",
            "http://no-such-host.invalid": "its name cannot be resolved",
            f"http://127.0.0.1:{free_port()}": "the connection was refused",
            tls: "its certificate cannot be verified",
        }
        for address, reason in reasons.items():
            site.configure(source=f'repository = "example/app"\napi_url = "{address}"\nstall_timeout = 1')
            found = checks(site)
            assert found["code"] == 3 and found["api"]["result"] == "failed"
            assert reason in found["api"]["summary"], (address, found["api"])
            assert found["root"]["result"] == "ok", "the others are shown all the same"


def test_a_clock_that_is_wrong_is_told(site: Site) -> None:
    """By the source's clock, and by what was written when it was right."""
    faketime = shutil.which("faketime")
    site.deployed("v1.0.0")
    if faketime:
        done = subprocess.run(
            [faketime, "-f", "-2h", *site.command("--json", "preflight")],
            env=site.env(),
            capture_output=True,
            text=True,
            check=False,
        )
        found = {it["name"]: it for it in json.loads(done.stdout)["checks"]}
        assert "120 minutes behind" in found["api"]["summary"] and "set the clock" in found["api"]["remedy"]
    history = site.history()
    history[-1]["ended"] = "2099-01-01T00:00:00Z"
    site.layout.history.write_text("[\n" + ",\n".join(map(json.dumps, history)) + "\n]\n")
    found = checks(site, "--offline")
    assert found["clock"]["result"] == "warning" and "from the future" in found["clock"]["summary"]


# --- the root, and its disks ---


def test_a_minimum_that_must_be_free_is_kept(site: Site) -> None:
    site.publish("v1.0.0")
    site.configure(min_free=2**50)
    done = site.updater("deploy")
    assert done.code == 3 and "1,125,899,907 MB needed" in done.err and "min_free" in done.err, done.text
    assert not site.layout.current.is_symlink()


def test_each_filesystem_is_looked_at(site: Site, mount: Callable[..., Path]) -> None:
    """F25: backups may lie on another disk than releases."""
    small = mount("small")
    site.layout.backups.rmdir()
    site.layout.backups.symlink_to(small)
    site.publish("v1.0.0")
    big = site.layout.shared / "data" / "big"
    big.write_bytes(os.urandom(1024) * 100_000)
    with (small / "filler").open("wb") as filler:
        free = os.statvfs(small)
        os.posix_fallocate(filler.fileno(), 0, free.f_bavail * free.f_frsize - 100 * 1024**2)
    found = checks(site)
    assert found["code"] == 3 and found["space"]["result"] == "failed"
    assert f"on the filesystem of {site.layout.backups} (backup)" in found["space"]["summary"]
    big.unlink()
    (small / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,nr_inodes=2000", small], check=True)
    for number in range(os.statvfs(small).f_favail):
        (small / str(number)).touch()
    found = checks(site)
    assert found["inodes"]["result"] == "failed" and "0 inodes free" in found["inodes"]["summary"]


def test_every_place_that_is_written_to_is_tried(site: Site) -> None:
    if os.geteuid() == 0:
        place = site.layout.run  # root may write anywhere but through what is no directory
        place.rmdir()
        place.write_text("")
    else:
        site.layout.run.chmod(0o500)
    site.publish("v1.0.0")
    found = checks(site)
    assert (
        found["root"]["result"] == "failed" and ".updater/run cannot be written" in found["root"]["summary"]
    )


# --- releases and data ---


def test_edits_of_the_release_in_service_are_named(site: Site) -> None:
    site.deployed("v1.0.0")
    edited = site.layout.release("v1.0.0") / "behaviour"
    edited.chmod(0o644)
    edited.write_text("edited\n")
    found = checks(site)["release in service"]
    assert found["result"] == "warning" and "edited by hand: behaviour" in found["summary"]


def test_a_database_inside_a_release_bars_an_update_and_not_the_way_back(site: Site) -> None:
    """F27: it would stay behind with the release, and be removed with it."""
    site.deployed("v1.0.0", "v1.1.0")
    release = site.layout.release("v1.1.0")
    release.chmod(0o755)
    with contextlib.closing(sqlite3.connect(release / "trades.db")) as connection, connection:
        connection.execute("CREATE TABLE trades (id INTEGER)")
    site.publish("v1.2.0")
    done = site.updater("deploy", "v1.2.0")
    assert done.code == 3 and "(trades.db): the next release would begin without" in done.err, done.text
    assert '"trades.db" = "data/trades.db"' in done.err
    site.runs("v1.1.0")
    assert site.updater("rollback").code == 0
    site.runs("v1.0.0")
    assert (release / "trades.db").exists()


# --- the application and the machine ---


def test_a_stranger_s_answer_is_no_health(site: Site) -> None:
    """Who answers on the port is somebody else, while the process itself listens on nothing: it is not well."""
    site.publish("v1.0.0", "mute")
    assert site.updater("fetch", "v1.0.0").code == 0
    site.layout.current.symlink_to("releases/v1.0.0")
    with http.server.HTTPServer(("127.0.0.1", site.port), http.server.SimpleHTTPRequestHandler) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        done = site.updater("start")
        stranger.shutdown()
    assert done.code == 4, done.text
    assert (
        f"port {site.port} is listened on by python (pid {os.getpid()}), not by this application" in done.err
    )


def test_a_port_that_a_stranger_listens_on_is_found_before_anything_stops(site: Site) -> None:
    site.publish("v1.0.0")
    with socket.create_server(("127.0.0.1", site.port)):
        done = site.updater("deploy")
        assert done.code == 3 and f"{site.port} is listened on by python" in done.err, done.text
        assert f"(pid {os.getpid()})" in done.err and "not by this application" in done.err
    assert site.updater("deploy").code == 0
    assert checks(site)["ports"]["summary"] == f"{site.port} listened on by the application itself"


def test_an_empty_shared_file_is_told(site: Site) -> None:
    """F26: somebody may have created it for want of another."""
    site.deployed("v1.0.0")
    text = site.layout.config.read_text().replace(
        '"data" = "data"', '"data" = "data"\n".env" = "config/.env"'
    )
    site.layout.config.write_text(text)
    (site.layout.shared / "config" / ".env").touch()
    found = checks(site, "--offline")["shared files"]
    assert found["result"] == "warning" and found["summary"] == "empty: shared/config/.env"


@pytest.mark.parametrize(
    ("bits", "result", "says"),
    [
        ("0", "ok", "enough power since the start"),
        ("50000", "warning", "since its start there was under-voltage, throttling"),
        ("50005", "failed", "this machine says: under-voltage, throttled"),
        ("rubbish", "ok", "nothing tells of a weak power supply"),
    ],
)
def test_a_raspberry_pi_with_too_little_power(tmp_path: Path, bits: str, result: str, says: str) -> None:
    told_in = tmp_path / "get_throttled"
    told_in.write_text(f"{bits}\n")
    found = machine.power(Plan("v1.0.0", True, None), told_in)
    assert (found.result, found.summary) == (result, says)


def test_a_unit_that_would_not_start_the_application_is_told(site: Site) -> None:
    site.publish("v1.0.0")
    text = site.layout.config.read_text().replace("[app]", '[app]\nunit = "no-such-unit.service"')
    site.layout.config.write_text(text)
    found = checks(site)["unit"]
    assert found["result"] == "warning" and "would not start with the machine" in found["summary"]
