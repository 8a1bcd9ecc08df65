"""New in 1.1.0."""

from __future__ import annotations

from dashboard.page import profit


def test_only_closed_trades_count() -> None:
    closed = {"price": 100.0, "close_price": 110.0, "quantity": 0.5}
    still_open = {"price": 100.0, "close_price": None, "quantity": 0.5}
    assert profit([closed, still_open]) == 5.0
