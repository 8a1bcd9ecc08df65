"""Every endpoint of the REST API, its success and its failures, over real HTTP against `updater serve`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from examples.release_server import Fault
from tests.dashboard import Dashboard, world
from tests.integration.test_cancel import in_phase
from tests.site import Site, eventually
from updater import lock, operations
from updater.operations import scheduling
from updater.web.api import ENDPOINTS

Serve = Callable[..., Dashboard]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """v1.0.0 and v1.1.0 were deployed, v1.2.0 is published."""
    with world(tmp_path_factory.mktemp("api"), "v1.0.0", "v1.1.0") as made:
        made.site.publish("v1.2.0", notes="## Faster\n\n<script>alert(1)</script>")
        yield made
        made.is_quiet()


def refused(answer: Any, status: int, code: str) -> Any:
    """The problem that an answer is, of this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["status"], found["code"]) == (status, code), found
    assert found["detail"] and found["type"] == f"urn:updater:{code}" and found["details"] is not None
    return found


def accepted(dashboard: Dashboard, path: str, body: Any = None) -> Any:
    """Start a deployment and wait for its end."""
    answer = dashboard.post(path, body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == "/api/update/progress"
    return dashboard.ended(answer.json()["id"])


SAME = {
    "/api/system/status": (("status",), None),
    "/api/update/check": (("check",), None),
    "/api/update/progress": (("progress",), "deployment"),
    "/api/update/history": (("history",), "deployments"),
    "/api/releases/list": (("releases",), "releases"),
    "/api/releases/diff": (("diff",), None),
    "/api/backups/list": (("backup", "list"), "backups"),
    "/api/update/preflight?offline=true": (("preflight", "--offline"), None),
}


def steady(found: Any) -> Any:
    """Without what changes from one moment to the next: times, and the numbers in a check's summary."""
    if isinstance(found, dict):
        return {
            name: steady(it) for name, it in found.items() if name not in ("uptime", "summary", "seconds")
        }
    return [steady(it) for it in found] if isinstance(found, list) else found


def test_what_can_be_looked_at_is_what_the_command_line_says(api: Dashboard) -> None:
    for path, (command, key) in SAME.items():
        told = api.told(path)
        said = api.site.updater("--json", *command)
        assert steady(told[key] if key else told) == steady(said.json), path
    assert api.told("/api/update/check")["update"]["tag"] == "v1.2.0"
    assert [it["tag"] for it in api.told("/api/releases/list")["releases"]] == ["v1.1.0", "v1.0.0"]
    assert len(api.told("/api/update/history?limit=1")["deployments"]) == 1
    assert api.told("/api/update/preflight?tag=v1.2.0")["target"] == "v1.2.0"
    assert api.told("/api/releases/diff?version=v1.0.0")["to"] == "v1.0.0"
    health = api.told("/api/system/health")
    assert (health["version"], health["healthy"]) == ("v1.1.0", True)
    assert "serving 1.1.0" in api.told("/api/system/logs?process=web")["lines"]
    assert len(api.told("/api/system/logs?lines=2")["lines"]) == 2
    metrics = api.get("/metrics")
    assert metrics.status_code == 200 and 'updater_release_info{version="v1.1.0"} 1.0' in metrics.text
    assert 'updater_process_up{process="web"} 1.0' in metrics.text


def test_what_cannot_be_answered(api: Dashboard) -> None:
    refused(api.get("/api/releases/diff?version=v9"), 404, "not-found")
    refused(api.get("/api/system/logs?process=nobody"), 404, "not-found")
    refused(api.post("/api/releases/verify", {"version": "v9"}), 404, "not-found")
    refused(api.post("/api/releases/pin", {"version": "v9"}), 404, "not-found")
    refused(api.post("/api/releases/unpin", {"version": "v9"}), 404, "not-found")
    refused(api.post("/api/system/start", {"processes": ["nobody"]}), 404, "not-found")
    refused(api.post("/api/system/stop", {"processes": ["nobody"]}), 404, "not-found")
    refused(api.post("/api/system/restart", {"processes": ["nobody"]}), 404, "not-found")
    refused(api.post("/api/backups/restore", {"id": "20000101_000000"}), 404, "not-found")
    refused(api.post("/api/backups/verify", {"id": "20000101_000000"}), 404, "not-found")
    refused(api.post("/api/backups/restore", {"id": "latest", "parts": ["dumps"]}), 409, "usage")
    assert "no deployment is running" in refused(api.post("/api/update/cancel"), 409, "usage")["detail"]
    refused(api.get("/api/nothing"), 404, "not-found")
    for one in ENDPOINTS:
        wrong = api.call("PUT", one.path)
        refused(wrong, 405, "method-not-allowed")
        assert one.method in wrong.headers["allow"]
    told = api.told("/api/update/preflight?tag=v9")
    assert not told["ready"] and told["checks"][1]["remedy"]
    api.site.server.faults.append(Fault("releases", "status", value=500, times=99))
    try:
        refused(api.get("/api/update/check"), 502, "source")
    finally:
        api.site.server.faults.clear()


def test_releases_and_backups_are_looked_after(api: Dashboard) -> None:
    assert api.post(
        "/api/releases/pin", {"version": "1.0.0", "reason": "the last with the old prices"}
    ).json() == {"version": "v1.0.0"}
    assert [it["pinned"] for it in api.told("/api/releases/list")["releases"]] == [False, True]
    assert api.post("/api/releases/unpin", {"version": "v1.0.0"}).json() == {"version": "v1.0.0"}
    assert api.post("/api/releases/mark-bad", {"version": "v0.9.0", "reason": "loses orders"}).json() == {
        "version": "v0.9.0"
    }
    assert api.post("/api/releases/prune", {"keep": 5}).json() == {"removed": []}
    verified = api.post("/api/releases/verify", {"all": True}).json()["reports"]
    assert {it["version"]: it["sound"] for it in verified} == {"v1.0.0": True, "v1.1.0": True}
    made = api.post("/api/backups/create", {"label": "before the audit"})
    assert made.status_code == 201, made.text
    identifier = made.json()["id"]
    assert (api.site.layout.backups / identifier / "manifest.json").is_file()
    assert api.told("/api/backups/list")["backups"][0]["label"] == "before the audit"
    assert api.post("/api/backups/verify", {"id": identifier}).json()["reports"][0]["sound"]
    assert api.post("/api/backups/prune", {"keep": 1}).status_code == 200
    assert identifier in [it["id"] for it in api.told("/api/backups/list")["backups"]], "it has a label"
    assert api.post("/api/system/recover").json() == {"recovered": []}
    assert api.post("/api/system/unlock-update").json() == {"recovered": []}


def test_processes_are_looked_after(api: Dashboard) -> None:
    before = api.told("/api/system/status")["processes"][0]["pid"]
    assert api.post("/api/system/start").json()["processes"][0]["pid"] == before, "it runs already"
    after = api.post("/api/system/restart", {"processes": ["web"]}).json()["processes"][0]["pid"]
    assert after != before
    os.kill(after, signal.SIGKILL)
    eventually(lambda: api.told("/api/system/status")["processes"][0]["state"] == "died", "its death is seen")
    eventually(lambda: not os.path.exists(f"/proc/{after}"), "the server leaves no zombie of what it started")
    assert api.post("/api/system/start").json()["processes"][0]["state"] == "running"
    assert api.post("/api/system/stop").json()["stopped"] == ["web"]
    assert api.site.answer() is None
    assert api.post("/api/system/start").status_code == 200
    assert api.post("/api/system/force-stop").json()["killed"] == ["web"]
    assert api.post("/api/system/start").status_code == 200
    assert (api.site.answer() or "").startswith("1.1.0")


def test_who_holds_the_lock_is_named_and_not_even_unlock_ends_the_server(api: Dashboard) -> None:
    with lock.hold(api.site.layout, "deploy v7"):
        told = refused(api.post("/api/update/start", {"tag": "v1.2.0"}), 409, "locked")
        assert f"deploy v7 (pid {os.getpid()}" in told["detail"] and told["exit_code"] == 6
        refused(api.post("/api/releases/pin", {"version": "v1.0.0"}), 409, "locked")
    # One request of the server holds the lock; another one must not end the server for that.
    owner = api.site.layout.lock_owner
    large = api.site.layout.shared / "data" / "large"
    large.write_bytes(os.urandom(80_000_000))
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(Dashboard.post(api, "/api/backups/create")))
    thread.start()
    try:
        eventually(lambda: owner.exists() and "backup" in owner.read_text(), "the backup holds the lock")
        answer = api.apart(
            "POST", "/api/system/unlock-update", headers={"Authorization": f"Bearer {api.known_token}"}
        )
        assert "this very process" in refused(answer, 409, "locked")["detail"]
    finally:
        thread.join()
        large.unlink()
    assert made[0].status_code == 201 and api.process.poll() is None


def test_deployments_from_the_first_to_the_last(api: Dashboard) -> None:
    fetched = accepted(api, "/api/releases/fetch", {"tag": "v1.2.0"})
    assert (fetched["kind"], fetched["outcome"]) == ("fetch", "succeeded")
    updated = accepted(api, "/api/update/start", {"tag": "v1.2.0", "reason": "asked for by ops"})
    assert updated["outcome"] == "succeeded" and all(it["done"] for it in updated["phases"])
    api.site.runs("v1.2.0")
    record = api.told("/api/update/history?limit=1")["deployments"][0]
    assert (record["origin"], record["user"], record["reason"]) == ("api", "api", "asked for by ops")
    back = accepted(api, "/api/update/rollback")
    assert (back["kind"], back["to"]) == ("rollback", "v1.1.0")
    (api.site.layout.shared / "data" / "note").write_text("new")
    restored = accepted(api, "/api/backups/restore", {"id": "latest", "parts": ["data"]})
    assert (restored["kind"], restored["outcome"]) == ("restore", "succeeded")
    assert not (api.site.layout.shared / "data" / "note").exists()
    activated = accepted(api, "/api/releases/activate", {"version": "v1.1.0"})
    assert activated["outcome"] == "nothing-to-do"
    failed = accepted(api, "/api/update/start", {"tag": "v9.9.9"})
    assert failed["outcome"] != "succeeded" and failed["error"]["code"] == "release-not-found"
    api.site.runs("v1.1.0")
    api.site.is_clean()


def test_a_deployment_outlives_the_server_is_found_again_and_can_be_cancelled(
    site: Site, serve: Serve
) -> None:
    """F08, F09: the server is killed in the middle; the next one, and a shell, see the same deployment."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=60)
    first = serve()
    started = first.post("/api/update/start", {"tag": "v1.1.0"}).json()["id"]
    held = refused(first.post("/api/update/rollback"), 409, "locked")
    assert "deploy" in held["detail"] and "pid" in held["detail"]
    eventually(lambda: in_phase(site, "watch"), "phase watch")
    first.kill()
    second = serve()
    seen = second.told("/api/update/progress")["deployment"]
    assert (seen["id"], seen["phase"], seen["outcome"], seen["interrupted"]) == (
        started,
        "watch",
        None,
        False,
    )
    assert second.told("/api/system/status")["deployment"]["id"] == started
    cancelled = second.post("/api/update/cancel")
    assert (cancelled.status_code, cancelled.json()) == (202, {"id": started})
    assert second.ended(started)["outcome"] == "cancelled"
    site.runs("v1.0.0")

    running = site.start("deploy", "v1.1.0")  # from a shell
    shown = eventually(
        lambda: (it := second.told("/api/update/progress")["deployment"])["outcome"] is None and it,
        "it shows",
    )
    assert shown["kind"] == "deploy" and "pid" in shown["owner"]
    # Whoever did it dies: it is said to be interrupted, and can be recovered from here.
    eventually(lambda: in_phase(site, "start"), "phase start")
    os.kill(int(site.layout.lock_owner.read_text().partition("pid=")[2].split()[0]), signal.SIGKILL)
    running.communicate(timeout=60)
    # its pipe closes some moments before the process is gone
    interrupted = eventually(
        lambda: (it := second.told("/api/update/progress")["deployment"])["interrupted"] and it, "it is seen"
    )
    assert interrupted["outcome"] is None
    assert any("interrupted" in it for it in second.told("/api/system/status")["advice"])
    recovered = second.post("/api/system/recover")
    assert recovered.status_code == 200 and len(recovered.json()["recovered"]) == 1, recovered.text
    site.runs("v1.0.0")
    site.is_clean()
    second.is_quiet()


def test_a_busy_application_and_a_wrong_configuration(site: Site, serve: Serve) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(extra='[gate]\ncommand = ["sh", "-c", "echo 2 open trades; exit 1"]\n')
    dashboard = serve()
    failed = accepted(dashboard, "/api/update/start", {"tag": "v1.1.0"})
    assert failed["error"]["code"] == "busy" and failed["error"]["exit_code"] == 9
    site.layout.config.write_text(site.layout.config.read_text() + "\n[serverr]\nport = 5000\n")
    refused(dashboard.get("/api/update/check"), 409, "config")
    told = refused(dashboard.post("/api/update/start", {"tag": "v1.1.0"}), 409, "config")
    assert "serverr" in str(told)
    assert "serverr" in dashboard.told("/api/system/status")["configuration"], "looking goes on"
    assert dashboard.post("/api/system/restart").status_code == 200
    site.runs("v1.0.0")
    dashboard.is_quiet()


def test_a_root_that_vanishes_while_it_is_served_and_comes_back(site: Site, serve: Serve) -> None:
    dashboard = serve()
    token = {"Authorization": f"Bearer {dashboard.known_token}"}
    browser = dashboard.browser().log_in(dashboard.known_token)
    root, csrf = operations.open_root(site.root), browser.csrf()
    away = site.place / "away"
    site.root.rename(away)
    for one in ENDPOINTS:
        answer = dashboard.apart(one.method, one.path, one.example or None, headers=token)
        refused(answer, 503, "not-a-root")
    for page in (
        "/",
        "/releases",
        "/backups",
        "/history",
        "/logs",
        "/update",
        "/part/deployment",
        "/confirm/start",
    ):
        assert browser.get(page).status_code == 503, page
    assert dashboard.apart("GET", "/metrics", headers=token).status_code == 503
    assert dashboard.browser().log_in(token["Authorization"].split()[1]).get("/").status_code == 503
    with pytest.raises(OSError):
        scheduling.tick(root)
    assert browser.post("/logout", {"csrf": csrf}).status_code == 303
    assert not site.root.exists(), "nothing was made in its place"
    away.rename(site.root)
    assert dashboard.told("/api/system/status")["in_service"]["kind"] == "none"
    assert browser.get("/", allow_redirects=False).status_code == 303, "who logged out stays so"
    assert dashboard.browser().log_in(dashboard.known_token).get("/").status_code == 200
    dashboard.is_quiet()


def test_the_server_keeps_the_schedule(site: Site, serve: Serve) -> None:
    """It looks by itself, and deploys inside the window because `[schedule]` says so."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    now = datetime.now()
    window = f"{now - timedelta(hours=2):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    site.configure(extra=f'\n[schedule]\nupdate = true\nwindow = "{window}"\n')
    dashboard = serve()
    eventually(lambda: scheduling.remembered(site.layout), "the source was asked")
    eventually(lambda: site.history()[-1]["to"] == "v1.1.0", "it was deployed")
    last = site.history()[-1]
    assert (last["outcome"], last["origin"]) == ("succeeded", "schedule")
    site.runs("v1.1.0")
    assert dashboard.get("/api/system/status").json()["in_service"]["version"] == "v1.1.0"
