"""What the bot has written, for reading only."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from bot.settings import data_directory


def trades(limit: int = 20) -> list[dict[str, Any]]:
    """The last trades, newest first. Raises sqlite3.Error if the database cannot be read."""
    return _rows("SELECT * FROM trades ORDER BY id DESC LIMIT ?", limit)


def positions() -> list[dict[str, Any]]:
    """What is held now: the open trades, added up by symbol. Raises sqlite3.Error."""
    return _rows(
        "SELECT symbol, sum(quantity) AS quantity, sum(quantity * price) / sum(quantity) AS price"
        " FROM trades WHERE status = 'open' GROUP BY symbol ORDER BY symbol"
    )


def heartbeat_age() -> float | None:
    """Seconds since the bot's last tick; None if there was none."""
    try:
        return time.time() - (data_directory() / "heartbeat").stat().st_mtime
    except FileNotFoundError:
        return None


def _rows(query: str, *values: object) -> list[dict[str, Any]]:
    # as_uri() quotes: a plain path with "#" or "?" in it would name another file
    database = (data_directory() / "trades.db").resolve().as_uri()
    connection = sqlite3.connect(f"{database}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query, values)]
    finally:
        connection.close()
