"""The page's own tests."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from bot.trades import Trades
from dashboard.page import FRESH, make_app


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, with signs in its name that mean something in a URI."""
    place = tmp_path / "data #1? 50%41"
    place.mkdir()
    monkeypatch.setenv("TRADEBOT_DATA", str(place))
    return place


@pytest.fixture
def browser(data: Path) -> FlaskClient:
    return make_app().test_client()


def test_health_without_a_bot_is_sick(browser: FlaskClient) -> None:
    answer = browser.get("/health")
    assert (answer.status_code, answer.json["status"], answer.json["heartbeat_age"]) == (503, "sick", None)


def test_health_follows_the_heartbeat(browser: FlaskClient, data: Path) -> None:
    with Trades(data / "trades.db"):
        (data / "heartbeat").write_text("100.00\n")
        assert browser.get("/health").status_code == 200
        old = time.time() - FRESH - 1
        os.utime(data / "heartbeat", (old, old))
        assert browser.get("/health").status_code == 503


def test_the_page_shows_positions_and_trades(browser: FlaskClient, data: Path) -> None:
    with Trades(data / "trades.db") as trades:
        trades.act("buy", "BTC/EUR", 0.1, 100.0)
        trades.act("buy", "BTC/EUR", 0.3, 120.0)
        assert "0.4 BTC/EUR at 115.0" in browser.get("/").text
        trades.act("sell", "BTC/EUR", 0.0, 130.0)
        text = browser.get("/").text
    assert "Held now: nothing" in text and text.count("<td>closed</td>") == 2


def test_what_comes_from_the_database_is_escaped(browser: FlaskClient, data: Path) -> None:
    with Trades(data / "trades.db") as trades:
        trades.act("buy", "<script>alert(1)</script>", 1.0, 1.0)
        text = browser.get("/").text
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_a_database_that_cannot_be_read_is_told(browser: FlaskClient, data: Path) -> None:
    (data / "trades.db").write_bytes(b"this is no database, " * 100)
    (data / "heartbeat").write_text("100.00\n")
    page, health = browser.get("/"), browser.get("/health")
    assert (
        page.status_code == 503 and "file is not a database" in page.text and "No trades yet" not in page.text
    )
    assert health.status_code == 503 and health.json["database"] == "file is not a database"
