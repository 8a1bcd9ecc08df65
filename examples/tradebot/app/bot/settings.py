"""``config/settings.toml``, and the places of the data."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """``tick`` in seconds; ``fast`` and ``slow`` in ticks."""

    symbol: str
    quantity: float
    tick: float
    fast: int
    slow: int
    seed: int
    database: Path
    heartbeat: Path


def read() -> dict[str, Any]:
    """The settings as they are in the file."""
    file = Path(os.environ.get("TRADEBOT_SETTINGS", "config/settings.toml"))
    return tomllib.loads(file.read_text(encoding="utf-8"))


def data_directory() -> Path:
    return Path(os.environ.get("TRADEBOT_DATA", "data"))


def load() -> Settings:
    """The settings, checked. Raises KeyError for a missing one, ValueError for one that cannot be."""
    trading, data = read()["trading"], data_directory()
    for name in ("tick", "quantity"):
        if not trading[name] > 0:
            raise ValueError(f"[trading] {name} must be greater than zero, not {trading[name]}")
    return Settings(
        symbol=trading["symbol"],
        quantity=trading["quantity"],
        tick=trading["tick"],
        fast=trading["fast"],
        slow=trading["slow"],
        seed=trading["seed"],
        database=data / "trades.db",
        heartbeat=data / "heartbeat",
    )
