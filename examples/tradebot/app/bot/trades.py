"""The trades, in SQLite. One writer (the bot), any number of readers (the dashboard)."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trades (
    id INTEGER PRIMARY KEY,
    opened_at TEXT NOT NULL,
    closed_at TEXT,
    symbol TEXT NOT NULL,
    side TEXT NOT NULL,
    quantity REAL NOT NULL,
    price REAL NOT NULL,
    close_price REAL,
    status TEXT NOT NULL CHECK (status IN ('open', 'closed'))
);
INSERT OR IGNORE INTO meta VALUES ('schema', '1');
"""


class Trades:
    def __init__(self, database: Path) -> None:
        database.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(database)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.executescript(SCHEMA)

    def __enter__(self) -> Trades:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def act(self, wanted: str, symbol: str, quantity: float, price: float) -> None:
        """Open a trade on ``buy``; close the symbol's open ones on ``sell``."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._connection:
            if wanted == "buy":
                self._connection.execute(
                    "INSERT INTO trades (opened_at, symbol, side, quantity, price, status) VALUES (?, ?, 'buy', ?, ?, 'open')",
                    (now, symbol, quantity, price),
                )
            else:
                self._connection.execute(
                    "UPDATE trades SET status = 'closed', closed_at = ?, close_price = ? WHERE status = 'open' AND symbol = ?",
                    (now, price, symbol),
                )
