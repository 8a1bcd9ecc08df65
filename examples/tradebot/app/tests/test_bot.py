"""The bot's own tests: `python -m pytest` in the unpacked release."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bot.market import Market
from bot.pause import main as pause
from bot.pause import paused
from bot.settings import load
from bot.strategy import Crossover
from bot.trades import Trades


def test_the_same_seed_is_the_same_market() -> None:
    first, second = Market(7), Market(7)
    assert [first.next_price() for _ in range(50)] == [second.next_price() for _ in range(50)]


def test_a_crossing_upwards_buys_and_one_downwards_sells() -> None:
    strategy = Crossover(fast=1, slow=3)
    decisions = [strategy.decide(price) for price in (10, 10, 9, 12, 12, 12, 5)]
    assert decisions == [None, None, None, "buy", None, "sell", None]


def test_a_fast_average_that_is_not_fast_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller"):
        Crossover(3, 3)


def test_a_trade_is_opened_and_closed(tmp_path: Path) -> None:
    with Trades(tmp_path / "trades.db") as trades:
        trades.act("buy", "BTC/EUR", 0.1, 100.0)
        trades.act("sell", "BTC/EUR", 0.1, 110.0)
    with closing(sqlite3.connect(tmp_path / "trades.db")) as database:
        rows = database.execute("SELECT status, price, close_price FROM trades").fetchall()
    assert rows == [("closed", 100.0, 110.0)]


def test_a_trade_of_another_symbol_stays_open(tmp_path: Path) -> None:
    with Trades(tmp_path / "trades.db") as trades:
        trades.act("buy", "ETH/EUR", 1.0, 50.0)
        trades.act("sell", "BTC/EUR", 0.1, 110.0)
    with closing(sqlite3.connect(tmp_path / "trades.db")) as database:
        assert database.execute("SELECT status FROM trades").fetchall() == [("open",)]


def test_a_pause_begins_and_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEBOT_DATA", str(tmp_path))
    seen = [paused()]
    for arguments in ([], [], ["--over"], ["--over"]):
        pause(arguments)
        seen.append(paused())
    assert seen == [False, True, True, False, False]


def test_the_settings_that_come_with_it_are_read() -> None:
    settings = load()
    assert settings.symbol == "BTC/EUR" and settings.fast < settings.slow


def test_a_tick_of_zero_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path("config/settings.toml").read_text(encoding="utf-8")
    (tmp_path / "settings.toml").write_text(text.replace("tick = 0.2", "tick = 0"), encoding="utf-8")
    monkeypatch.setenv("TRADEBOT_SETTINGS", str(tmp_path / "settings.toml"))
    with pytest.raises(ValueError, match="tick must be greater than zero"):
        load()
