"""New in 1.4.0: the banner. Something that answers like updater stands in for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from bot.trades import Trades
from dashboard.page import make_app

OURS = {"Origin": "http://localhost:8080", "Host": "localhost:8080"}


class Updater(ThreadingHTTPServer):
    """``asked``: what came in; ``progress`` and ``refusal``: what it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: list[tuple[str, str, Any]] = []
        self.progress: Any = None
        self.refusal: Any = None


class Answering(BaseHTTPRequestHandler):
    server: Updater

    def do_GET(self) -> None:
        if self.path.endswith("/check"):
            self.answer(200, {"update": {"tag": "v9.0.0"}})
        else:
            self.answer(200, {"deployment": self.server.progress})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        self.answer(409 if self.server.refusal else 202, self.server.refusal or {"id": "1"})

    def answer(self, status: int, body: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def updater(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Updater]:
    with Updater() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        (tmp_path / "token").write_text("a-token\n")
        monkeypatch.setenv("TRADEBOT_UPDATER_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("TRADEBOT_UPDATER_TOKEN_FILE", str(tmp_path / "token"))
        yield server
        server.shutdown()


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setenv("TRADEBOT_DATA", str(tmp_path))
    with Trades(tmp_path / "trades.db"):
        pass
    return make_app().test_client()


def test_without_updater_there_is_no_banner(browser: FlaskClient) -> None:
    assert browser.get("/").status_code == 200 and "banner" not in browser.get("/").text.split("</style>")[1]
    assert browser.post("/update", data={"tag": "v9.0.0"}, headers=OURS).status_code == 403


def test_a_newer_release_is_shown_and_ordered(updater: Updater, browser: FlaskClient) -> None:
    page = browser.get("/").text
    assert "Update available: <strong>v9.0.0</strong>" in page and "a-token" not in page
    assert browser.post("/update", data={"tag": "v9.0.0"}, headers=OURS).status_code == 303
    assert updater.asked == [
        ("/api/update/start", "Bearer a-token", {"tag": "v9.0.0", "reason": "from the bot's page"})
    ]
    updater.progress = {"outcome": None, "interrupted": False, "to": "v9.0.0", "phase": "probe"}
    assert "Updating to v9.0.0: probe" in browser.get("/").text


def test_a_refusal_is_told_with_its_advice(updater: Updater, browser: FlaskClient) -> None:
    updater.refusal = {"detail": "another deployment is running", "advice": "wait for it"}
    answer = browser.post("/update", data={"tag": "v9.0.0"}, headers=OURS)
    assert answer.status_code == 502 and "another deployment is running. wait for it" in answer.text


def test_when_updater_is_gone_the_trades_are_still_shown(updater: Updater, browser: FlaskClient) -> None:
    updater.shutdown()
    updater.server_close()
    answer = browser.get("/")
    assert answer.status_code == 200 and "No trades yet" in answer.text and "v9.0.0" not in answer.text


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "http://elsewhere.example", "Host": "localhost:8080"},
        {"Origin": "http://elsewhere.example:8080", "Host": "elsewhere.example:8080"},
        {"Host": "localhost:8080"},
    ],
)
def test_no_page_elsewhere_can_press_the_button(
    updater: Updater, browser: FlaskClient, foreign: dict[str, str]
) -> None:
    assert browser.post("/update", data={"tag": "v9.0.0"}, headers=foreign).status_code == 403
    assert updater.asked == []
