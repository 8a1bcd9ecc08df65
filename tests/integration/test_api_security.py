"""Nobody who does not belong gets in, nothing that is sent can hurt, and nothing secret comes out."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from itsdangerous import URLSafeTimedSerializer

from tests.dashboard import Browser, Dashboard, names_outside, raw_request, status, whole, world
from tests.integration.test_api import refused
from tests.site import REPOSITORY, SERVE, Site, eventually, free_port
from updater.web.actions import ACTIONS
from updater.web.api import ENDPOINTS

Serve = Callable[..., Dashboard]
PAGES = (
    "/",
    "/releases",
    "/backups",
    "/history",
    "/logs",
    "/update",
    "/part/deployment",
    "/part/health",
    "/confirm/start",
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """v1.0.0 is in service; nobody changes it."""
    with world(tmp_path_factory.mktemp("api"), "v1.0.0") as made:
        yield made
        made.is_quiet()


@pytest.fixture(scope="module")
def browser(api: Dashboard) -> Browser:
    return api.browser().log_in(api.known_token)


# who may call


def test_without_a_token_nothing_is_said_and_nothing_is_done(api: Dashboard) -> None:
    untouched = (api.site.history(), api.site.layout.config.stat().st_mtime_ns)
    for path, method in [
        *((it.path, it.method) for it in ENDPOINTS),
        *((it, "GET") for it in ("/metrics", "/api/openapi.json", "/api/update/events")),
    ]:
        answer = api.apart(method, path)
        told = refused(answer, 401, "unauthenticated")
        assert "updater serve --show-token" in told["advice"] and answer.headers[
            "www-authenticate"
        ].startswith("Bearer")
    for page in (*PAGES, *(f"/confirm/{it}" for it in ACTIONS)):
        answer = api.apart("GET", page, allow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/login"), page
    for action in ACTIONS:
        assert api.apart("POST", f"/do/{action}", data={}).status_code == 401
    assert (api.site.history(), api.site.layout.config.stat().st_mtime_ns) == untouched


@pytest.mark.parametrize(
    "given",
    [
        "Bearer wrong",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer \xff\xfe",
        "bearer",
        "{token}",
        "Bearer {token}x",
        "Bearer {short}",
    ],
)
def test_a_wrong_token(api: Dashboard, given: str) -> None:
    header = given.replace("{token}", api.known_token).replace("{short}", api.known_token[:-1])
    refused(
        api.apart("GET", "/api/system/status", headers={"Authorization": header.encode("latin-1")}),
        401,
        "unauthenticated",
    )  # type: ignore[dict-item]


def test_the_token_is_for_its_owner_only(api: Dashboard) -> None:
    path = api.site.layout.token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert api.token() == api.known_token
    assert stat.S_IMODE(api.site.layout.logins.stat().st_mode) == 0o700
    path.chmod(0o644)
    assert api.token() == api.known_token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_logins_are_slowed_down_and_the_right_token_is_not(api: Dashboard) -> None:
    codes: list[int] = []

    def guess(path: str, **more: Any) -> None:
        codes.append(api.apart("POST", path, **more).status_code)

    guesses = [
        threading.Thread(
            target=guess, args=("/login",), kwargs={"data": {"token": "no"}, "allow_redirects": False}
        )
        for _ in range(8)
    ]
    guesses += [
        threading.Thread(
            target=guess, args=("/api/system/recover",), kwargs={"headers": {"Authorization": "Bearer no"}}
        )
        for _ in range(12)
    ]
    begun = time.monotonic()
    for it in guesses:
        it.start()
    assert api.get("/api/update/progress").status_code == 200
    assert any(it.is_alive() for it in guesses), "the right token waited for the wrong ones"
    for it in guesses:
        it.join()
    assert set(codes) == {401, 429} and time.monotonic() - begun > 4


def test_a_login_link_works_once_and_runs_out(api: Dashboard) -> None:
    def link() -> str:
        return str(api.site.updater("--json", "serve", "--show-token", "--port", str(api.port)).json["login"])

    address = link()
    assert address.startswith(f"{api.url}/login?code=")
    code = address.partition("code=")[2]
    assert code not in "".join(path.read_text() + path.name for path in api.site.layout.logins.iterdir()), (
        "only its digest is kept"
    )
    first, second = api.browser(), api.browser()
    assert code in first.get(f"/login?code={code}").text, "to look at it does not use it up: mail programs do"
    assert first.post("/login", {"code": code, "next": "/backups"}).headers["location"] == "/backups"
    assert first.get("/backups").status_code == 200
    again = second.post("/login", {"code": code})
    assert again.status_code == 401 and "has been used, or is too old" in again.text
    assert second.get("/", allow_redirects=False).status_code == 303
    code = link().partition("code=")[2]
    for path in api.site.layout.logins.iterdir():
        os.utime(path, (time.time() - 601, time.time() - 601))
    assert second.post("/login", {"code": code}).status_code == 401
    for wrong in ("", "../../token", "x" * 5000, "%00"):
        assert second.post("/login", {"code": wrong, "token": wrong}).status_code in (401, 429)
    assert api.site.layout.token.exists()


def test_after_the_login_nobody_is_led_elsewhere(api: Dashboard) -> None:
    for elsewhere in (
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil",
        "javascript:alert(1)",
        "/\n//evil",
        "",
    ):
        answer = api.browser().post("/login", {"token": api.known_token, "next": elsewhere})
        assert answer.headers["location"] == "/", elsewhere
        assert "evil" not in str(answer.headers)


def test_cookies(api: Dashboard) -> None:
    browser = api.browser()
    set_cookie = browser.post("/login", {"token": api.known_token}).headers["set-cookie"]
    assert "HttpOnly" in set_cookie and "SameSite=strict" in set_cookie and "Path=/" in set_cookie
    name, _, value = set_cookie.partition(";")[0].partition("=")

    def seen(cookie: str) -> int:
        return api.apart("GET", "/api/system/status", headers={"Cookie": f"{name}={cookie}"}).status_code

    assert seen(value) == 200
    forged = URLSafeTimedSerializer("guess", salt="updater-session").dumps("x")
    for wrong in (
        "",
        "x",
        value[:-1],
        value + "x",
        value.partition(".")[0],
        f"{value.partition('.')[0]}.{'.'.join(value.split('.')[1:])[::-1]}",
        forged,
    ):
        assert seen(str(wrong)) == 401, wrong
    # One that is too old: signed with the right key, eight days ago.
    import hmac

    class Old(URLSafeTimedSerializer):
        class default_signer(URLSafeTimedSerializer.default_signer):  # type: ignore[name-defined,misc]
            def get_timestamp(self) -> int:
                return int(time.time()) - 8 * 86400

    key = hmac.digest(api.known_token.encode(), b"sessions", "sha256")
    assert seen(str(URLSafeTimedSerializer(key, salt="updater-session").dumps("x"))) == 200
    assert seen(str(Old(key, salt="updater-session").dumps("x"))) == 401


def test_a_logout_holds_for_the_next_server_and_a_new_token_ends_everything_at_once(
    site: Site, serve: Serve
) -> None:
    dashboard = serve()
    first, second = (dashboard.browser().log_in(dashboard.known_token) for _ in range(2))
    cookie = dict(first.session.cookies)
    assert first.post("/logout", {"csrf": "x"}).status_code == 403
    assert first.post("/logout", {"csrf": first.csrf()}).headers["location"] == "/login"
    dashboard.kill()
    dashboard = serve()
    assert dashboard.apart("GET", "/api/system/status", cookies=cookie).status_code == 401
    second.url = dashboard.url
    assert second.get("/api/system/status").status_code == 200, "a restart ends no other session"

    stream, old = dashboard.listen(), dashboard.known_token
    done = site.updater("--json", "serve", "--new-token")
    assert done.code == 0 and done.json["token"] == dashboard.known_token != old
    assert second.get("/api/system/status").status_code == 401
    assert (
        dashboard.apart("GET", "/api/system/status", headers={"Authorization": f"Bearer {old}"}).status_code
        == 401
    )
    assert dashboard.get("/api/system/status").status_code == 200
    assert site.updater("pin", "v9").code != 0
    with site.layout.update_log.open("a") as log:
        log.write("something happens\n")
    assert "something happens" not in str([it.data for it in stream]), "a stream ends with its token"
    dashboard.is_quiet()


# who may not drive it


@pytest.mark.parametrize(
    "host",
    [
        None,
        "evil.example",
        "evil.example:5000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "127.0.0.1:0",
        "127.0.0.1:x",
        "",
        "[::1",
        "169.254.169.254",
        "0.0.0.0",
        "2130706433",
        "127.0.0.1/",
        "127.0.0.1, evil.example",
    ],
)
def test_a_foreign_host(api: Dashboard, host: str | None) -> None:
    """DNS rebinding: the browser believes that we are evil.example."""
    for path in ("/api/system/status", "/login", "/static/x/updater.css"):
        with api.raw(raw_request(path, f"Authorization: Bearer {api.known_token}", host=host)) as connection:
            answer = whole(connection)
        assert status(answer) in (400, 421) and api.site.root.name.encode() not in answer, answer


def test_two_hosts_and_what_is_ours(api: Dashboard) -> None:
    token = f"Authorization: Bearer {api.known_token}"
    with api.raw(raw_request("/api/system/status", token, "Host: evil.example")) as connection:
        assert status(whole(connection)) in (400, 421)
    for host in ("localhost", f"localhost:{api.port}", "127.0.0.1", "[::1]:80", "LOCALHOST.", "127.0.0.2"):
        with api.raw(raw_request("/api/update/progress", token, host=host)) as connection:
            assert status(whole(connection)) == 200, host


def test_a_page_elsewhere_cannot_drive_it_even_with_the_cookie(api: Dashboard, browser: Browser) -> None:
    csrf = browser.csrf()
    for origin in (
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        f"https://evil.example:{api.port}",
        f"http://127.0.0.1.evil.example:{api.port}",
        "file://",
        "chrome-extension://abc",
        "",
        f"{api.url}.evil.example",
        f"http://x@127.0.0.1:{api.port}",
    ):
        for path, more in (
            ("/do/force-stop", {"data": {"csrf": csrf}}),
            ("/login", {"data": {"token": api.known_token}}),
            ("/api/system/force-stop", {"json": {}, "headers": {"x-csrf-token": csrf}}),
        ):
            headers = {**more.get("headers", {}), "Origin": origin}  # type: ignore[dict-item]
            answer = browser.session.post(
                api.url + path,
                data=more.get("data"),
                json=more.get("json"),
                headers=headers,
                allow_redirects=False,
                timeout=60,
            )
            assert answer.status_code == 403 and "Set-Cookie" not in answer.headers, (
                origin,
                path,
                answer.text,
            )
    assert api.site.status()["processes"][0]["state"] == "running"
    ours = browser.session.post(
        f"{api.url}/api/system/recover",
        json={},
        headers={"Origin": api.url, "X-CSRF-Token": csrf},
        timeout=60,
    )
    assert ours.status_code == 200, ours.text


def test_every_change_needs_the_pages_own_token(api: Dashboard, browser: Browser) -> None:
    other = api.browser().log_in(api.known_token).csrf()
    for csrf in (None, "", "x", other, browser.csrf()[:-1]):
        fields = {"x": "1"} if csrf is None else {"csrf": csrf}
        for action in ACTIONS:
            assert browser.post(f"/do/{action}", fields).status_code == 403, action
        for one in ENDPOINTS:
            if one.method == "POST":
                headers = {} if csrf is None else {"X-CSRF-Token": csrf}
                refused(
                    browser.session.post(api.url + one.path, json={}, headers=headers, timeout=60),
                    403,
                    "forged",
                )
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x", ""):
        answer = browser.session.post(
            f"{api.url}/do/force-stop",
            data=f"csrf={browser.csrf()}",
            headers={"Content-Type": kind},
            timeout=60,
        )
        assert answer.status_code == 415
    assert api.site.status()["processes"][0]["state"] == "running"


def test_nobody_may_frame_it_or_run_something_in_it(api: Dashboard, browser: Browser) -> None:
    for path in (*PAGES, "/nothing", "/api/system/status", "/login"):
        headers = browser.get(path).headers
        assert (
            "default-src 'none'" in headers["content-security-policy"]
            and "unsafe" not in headers["content-security-policy"]
        )
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cache-control"] == "no-store" and "server" not in headers
        assert not any(name.lower().startswith("access-control") for name in headers)
    page = browser.get("/releases").text
    assert (
        "http://" not in page.replace(api.url, "")
        and " onclick" not in page
        and "<style" not in page
        and "style=" not in page
    )
    for script in re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL):
        assert script == ""


# what is sent


def test_bodies_that_are_no_body(api: Dashboard) -> None:
    def send(
        body: bytes | str, kind: str = "application/json", path: str = "/api/update/start"
    ) -> requests.Response:
        return api.call("POST", path, data=body, headers={"Content-Type": kind})

    deep = "[" * 30_000
    for wrong in (
        "{", "[]", "null", "1", '"tag"', "not json", b"\xff\xfe\x00", deep, '{"tag":' * 5_000 + "1" + "}" * 5_000, '{"tag": 5}', '{"tag": []}', '{"tag": ""}',
        '{"force": "yes"}', '{"tagg": "v1.0.0"}', '{"tag": "v1.0.0"} x', '{"tag": "\\ud800"}', '{"reason": "\\ud800"}', '{"reason": "a\\nb"}', '{"reason": "a\\n"}',
        '{"reason": "\\u001b[31m"}', '{"reason": "\\u009b31m"}', json.dumps({"reason": "x" * 501}), json.dumps({"tag": "v" * 101}), '{"tag": NaN}', "\ufeff{}".encode(),
    ):  # fmt: skip
        refused(send(wrong), 400, "usage")
    for wrong in (
        f'{{"keep": {"9" * 5000}}}',
        '{"keep": 1e400}',
        '{"keep": 0}',
        '{"keep": -1}',
        '{"keep": 1.5}',
        '{"keep": true}',
    ):
        refused(send(wrong, path="/api/releases/prune"), 400, "usage")
    refused(send("{}", kind="text/plain"), 415, "not-json")
    refused(send("tag=v1.0.0", kind="application/x-www-form-urlencoded"), 415, "not-json")
    refused(send(" " * 70_000), 413, "too-large")
    for query in (
        "limit=x",
        "limit=0",
        "limit=1001",
        f"limit={'9' * 5000}",
        "limit=1&limit=2",
        "zzz=1",
        "limit=",
        "limit=1.5",
    ):
        refused(api.get(f"/api/update/history?{query}"), 400, "usage")
    refused(api.get("/api/update/preflight?tag=%00"), 400, "usage")
    refused(api.get("/api/update/preflight?offline=maybe"), 400, "usage")
    refused(api.get("/api/update/events?after=%0d%0aevent:+x"), 400, "usage")
    assert api.site.history()[-1]["wanted"] == "v1.0.0", "none of it was a deployment"


def test_a_body_without_end(api: Dashboard) -> None:
    token = f"Authorization: Bearer {api.known_token}"
    kind = "Content-Type: application/json"
    with api.raw(
        raw_request("/api/update/start", token, kind, "Content-Length: 99999999999", method="POST")
    ) as connection:
        assert status(whole(connection)) == 413
    with api.raw(
        raw_request("/api/update/start", token, kind, "Transfer-Encoding: chunked", method="POST")
    ) as connection:
        answer = b""
        try:
            for _ in range(10_000):
                connection.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
            answer = whole(connection)
        except ConnectionError:  # it was told while we still sent
            pass
        assert not answer or status(answer) == 413
    with api.raw(raw_request("/api/update/start", "Content-Length: 1000", method="POST")) as connection:
        assert status(whole(connection)) == 401, "without a token nobody waits for a body"
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with api.raw(nonsense) as connection:
            try:
                assert status(whole(connection)) in (400, 421)
            except ConnectionError:
                pass
    assert api.get("/api/update/progress").status_code == 200


TRICKS = (
    "../../etc",
    "..",
    ".",
    "/etc/passwd",
    "v1.0.0/../../x",
    "v1.0.0\n",
    "v1.0.0\x00",
    "%2e%2e%2f",
    "~",
    "$(id)",
    "`id`",
    "-rf",
    "--force",
    "v1\\..\\x",
    "con ",
    "\u202ev",
    "a" * 5000,
    "*",
    ".updater",
    "v1.0.0/../v1.0.0",
)


def test_names_never_lead_outside(api: Dashboard, browser: Browser) -> None:
    place, root = api.site.place, api.site.root
    (place / "outside").mkdir(exist_ok=True)
    (place / "outside" / "manifest.json").write_text("{}")
    before, history = names_outside(place, root), len(api.site.history())
    names = {str(path) for path in root.rglob("*") if ".venv" not in path.parts and "cache" not in path.parts}
    asked = len(api.site.server.requests)
    for trick in (*TRICKS, "../../outside", str(place / "outside")):
        for path, field in (
            ("/api/releases/activate", "version"), ("/api/releases/pin", "version"), ("/api/releases/unpin", "version"), ("/api/releases/verify", "version"),
            ("/api/backups/restore", "id"), ("/api/backups/verify", "id"), ("/api/system/stop", "processes"), ("/api/system/start", "processes"),
        ):  # fmt: skip
            answer = api.post(path, {field: [trick] if field == "processes" else trick})
            assert answer.status_code in (400, 404) or (path, answer.status_code) == (
                "/api/releases/activate",
                202,
            ), (path, trick, answer.text)
            if answer.status_code == 202:
                assert api.ended(answer.json()["id"])["error"]["code"] in ("not-found", "usage")
                history += 1
        for path in (
            "/api/releases/diff?version",
            "/api/system/logs?process",
            "/history?all",
            "/logs?process",
            "/confirm/activate?version",
            "/confirm/restore?id",
        ):
            page = (
                requests.Request("GET", "http://x/", params={"q": trick})
                .prepare()
                .path_url.partition("q=")[2]
            )
            answer = browser.get(f"{path}={page}")
            assert answer.status_code in (200, 400, 404), (path, trick)
            assert "root:x:0" not in answer.text
        assert browser.get(f"/static/x/{requests.utils.quote(trick, safe='')}").status_code == 404
    assert names_outside(place, root) == before and len(api.site.history()) == history
    made = {
        str(path) for path in root.rglob("*") if ".venv" not in path.parts and "cache" not in path.parts
    } - names
    assert {Path(it).parent.relative_to(root).parts[:2] for it in made} <= {
        (".updater", "journal"),
        ("shared", "logs"),
    }, made
    assert len(api.site.server.requests) == asked


def test_a_tag_of_the_page_that_is_none_is_not_asked_for(api: Dashboard, browser: Browser) -> None:
    asked = len(api.site.server.requests)
    for trick in ("v1/../../../../attacker/app/commits/evil", "%00", "%0a", "a" * 5000):
        assert browser.get(f"/update?tag={trick}").status_code in (200, 400), trick
    assert not [it for it in api.site.server.requests[asked:] if "evil" in it.path]


# what does not get on


def test_500_slow_connections_and_the_server_answers_others(api: Dashboard, browser: Browser) -> None:
    """Half of them send half a head; the others have had an answer, and send half of the next one."""
    slow: list[socket.socket] = []
    try:
        for number in range(500):
            whole_first = "GET /api/system/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" if number % 2 else ""
            slow.append(api.raw(f"{whole_first}GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ".encode()))
        for path in ("/api/system/status", "/api/update/check", "/api/releases/list"):
            assert (
                requests.get(
                    api.url + path, headers={"Authorization": f"Bearer {api.known_token}"}, timeout=20
                ).status_code
                == 200
            )
        assert browser.get("/").status_code == 200
        server = psutil.Process(api.process.pid)
        eventually(lambda: len(server.net_connections()) < 50, "those that do not get on are sent away", 60)
    finally:
        for it in slow:
            it.close()


def test_clients_that_go_away(api: Dashboard) -> None:
    server, before = psutil.Process(api.process.pid), len(api.site.history())
    for _ in range(20):
        stream = api.listen()
        stream.answer.raw._fp.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        stream.close()
        api.raw(raw_request("/api/system/health", f"Authorization: Bearer {api.known_token}")).close()
        api.raw(
            raw_request(
                "/api/update/start",
                f"Authorization: Bearer {api.known_token}",
                "Content-Type: application/json",
                "Content-Length: 50",
                method="POST",
                body="{",
            )
        ).close()
    eventually(lambda: len(server.net_connections()) < 10, "no connection is left")
    assert api.get("/api/update/progress").status_code == 200
    assert len(api.site.history()) == before, "half a request is none"


def test_questions_that_hang_keep_nobody_from_looking(site: Site, serve: Serve) -> None:
    """A source that does not answer, asked by many pages: where a deployment stands is told all the same."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as mute:
        mute.settimeout(60)
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        timeouts = "connect_timeout = 60\nstall_timeout = 60"
        site.configure(source=f'repository = "{REPOSITORY}"\napi_url = "{address}"\n{timeouts}')
        dashboard = serve()
        browser = dashboard.browser().log_in(dashboard.known_token)
        asked = raw_request("/api/update/check", f"Authorization: Bearer {dashboard.known_token}")
        hanging = [dashboard.raw(asked) for _ in range(60)]
        hanging += [mute.accept()[0] for _ in range(25)]
        assert dashboard.told("/api/update/progress") == {"deployment": None, "last_event": None}
        assert browser.get("/").status_code == 200
        assert dashboard.get("/api/system/status").status_code == 200
        stream = dashboard.listen()
        with site.layout.update_log.open("a") as log:
            log.write("something happens\n")
        stream.until("log", text="something happens")
        stream.close()
        answered = select.select(hanging[:60], [], [], 0)[0]
        dashboard.kill()
        for it in hanging:
            it.close()
        assert answered == [], "they hang still"


# what comes out


SECRETS = {
    "EXCHANGE_API_KEY": "k3y-of-the-exchange",
    "DATABASE_URL": "postgres://bot:s3cr3t-pw@db/x",
    "SMTP_PASSWORD": "mail-passw0rd",
}
TELLING = """
import os, sys
print("connecting with", os.environ.get("SMTP_PASSWORD"), os.environ.get("DATABASE_URL"), "settings-s3cret", flush=True)
print("-----BEGIN PRIVATE KEY-----\\nTUlJRXZRSUJBREFOQmdrcWhraUc\\n-----END PRIVATE KEY-----", flush=True)
print("k3y-of-the-exchange", flush=True)
"""


def test_no_secret_comes_out(site: Site, serve: Serve) -> None:
    """Neither the token, nor a secret of the server's environment, of updater.toml or of the application's settings."""
    _with_secrets(site)
    site.publish("v1.0.0", files={"serve.py": TELLING + SERVE})
    site.publish("v1.1.0", files={"serve.py": TELLING + "sys.exit('k3y-of-the-exchange was refused')\n"})
    dashboard = serve()
    for tag, outcome in (("v1.0.0", "succeeded"), ("v1.1.0", "rolled-back")):
        started = dashboard.post("/api/update/start", {"tag": tag})
        assert dashboard.ended(started.json()["id"])["outcome"] == outcome
    texts = _everything_told(dashboard)
    told = texts["log"] + texts["/history/latest"]
    assert "connecting with ***" in told and "was refused" in texts["/history/latest"], "the rest is shown"
    own = ("s3cr3t-pw", "settings-s3cret", "TUlJRXZRSUJBREFOQmdrcWhraUc")
    for name, text in texts.items():
        for secret in (dashboard.known_token, *SECRETS.values(), *own):
            assert secret not in text, name
    # What only sounds secret stays: the truth is not to be blanked out.
    assert dashboard.told("/api/system/status")["root"] == str(site.root)
    assert dashboard.told("/api/update/history")["deployments"][0]["user"] == "api"


def _with_secrets(site: Site) -> None:
    """Secrets in the server's environment, in updater.toml and in the settings, beside values that only sound like some."""
    site.environment = {
        "EXCHANGE_API_KEY": SECRETS["EXCHANGE_API_KEY"],
        "PWD": str(site.root),
        "XDG_SESSION_CLASS": "user",
        "AUTH_MODE": "none",
    }
    mail, database = SECRETS["SMTP_PASSWORD"], SECRETS["DATABASE_URL"]
    secret = f'env = {{ SMTP_PASSWORD = "{mail}", DATABASE_URL = "{database}", PORT'
    config = site.layout.config
    config.write_text(config.read_text().replace("env = { PORT", secret))
    (site.layout.shared / "config" / "app.toml").write_text('api_secret = "settings-s3cret"\nauth = "none"\n')


def _everything_told(dashboard: Dashboard) -> dict[str, str]:
    """What every page, endpoint, stream and log of the server says, by its name."""
    browser = dashboard.browser().log_in(dashboard.known_token)
    stream = dashboard.listen("?after=20000101T000000-000000:0")
    stream.until("line", kind="end", outcome="rolled-back")
    pages = (*PAGES, "/history/latest", "/logs?process=web", "/logs?process=errors")
    return {
        **{one.path: dashboard.get(one.path).text for one in ENDPOINTS if one.method == "GET"},
        **{it: browser.get(it).text for it in pages},
        "log": dashboard.get("/api/system/logs?process=web").text,
        "stream": stream.text,
        "metrics": dashboard.get("/metrics").text,
        "printed": dashboard.log.read_text(),
        "refused": dashboard.get("/api/releases/diff?version=k3y-of-the-exchange").text,
    }


def test_packages_are_not_taken_for_secrets() -> None:
    from updater.web.secrecy import blank

    found = {
        "packages": {"google-auth": [None, "2.0"], "tokenizers": ["0.1", "0.2"]},
        "token": "abc",
        "kind": "none",
    }
    assert blank(found) == {**found, "token": "***"}


# the server itself


def test_a_taken_port_is_told_with_the_way_out(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = site.updater("serve", "--port", str(port))
    assert (
        done.code == 3
        and f"127.0.0.1:{port} is taken already" in done.err
        and f"--port {port + 1}" in done.err
    ), done.text
    assert f"(pid {os.getpid()})" in done.err
    done = site.updater("serve", "--host", "192.0.2.1", "--port", "0")
    assert done.code == 3 and "cannot listen on 192.0.2.1" in done.err


def test_from_other_machines_it_warns(site: Site) -> None:
    port = free_port()
    running = site.start("serve", "--host", "0.0.0.0", "--port", str(port))
    assert running.stdout and running.stderr
    assert f"http://127.0.0.1:{port}/" in running.stdout.readline()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert "nothing encrypts what they send" in err and "Traceback" not in err
    assert "login?code" not in out, "a link that logs in is not for the log of a service"


def test_its_end_does_not_wait_for_pages_but_for_what_it_was_asked_for(site: Site, serve: Serve) -> None:
    site.deployed("v1.0.0")
    dashboard = serve()
    streams = [dashboard.listen() for _ in range(5)]
    begun = time.monotonic()
    assert dashboard.kill(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert time.monotonic() - begun < 10
    assert all("retry:" in "".join([it.text, *(str(event) for event in it), it.text]) for it in streams), (
        "they end as they should"
    )
    dashboard.is_quiet()

    dashboard = serve()
    made: list[requests.Response] = []
    thread = threading.Thread(target=lambda: made.append(dashboard.post("/api/system/restart")))
    thread.start()
    eventually(lambda: site.layout.lock_owner.exists(), "the restart is at work")
    dashboard.kill(signal.SIGTERM)
    thread.join()
    assert made[0].status_code == 200, made[0].text
    site.runs("v1.0.0")
    dashboard.is_quiet()


HIDDEN = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"starlette", "uvicorn", "jinja2", "itsdangerous", "msgspec", "markdown_it", "prometheus_client"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from updater.cli import main
sys.argv[0] = "updater"
sys.exit(main())
"""


def test_without_the_extra_it_says_how_to_install_it_and_all_else_works(site: Site) -> None:
    site.publish("v1.0.0")

    def updater(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-c", HIDDEN, *arguments],
            env=site.env(),
            cwd=site.place,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    done = updater("serve", "--port", "0")
    assert (
        done.returncode == 3
        and "pip install 'updater[dashboard]'" in done.stderr
        and "Traceback" not in done.stderr
    ), done.stderr
    for command in (
        ("check",),
        ("status",),
        ("releases",),
        ("history",),
        ("health", "--help"),
        ("serve", "--help"),
    ):
        done = updater(*command)
        assert done.returncode == 0, done.stderr
