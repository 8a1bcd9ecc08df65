"""New in 1.4.0."""

from __future__ import annotations

from bot.settings import read
from dashboard.__main__ import exchange


def test_the_settings_of_an_older_version_do() -> None:
    assert exchange(read()) == "paper"


def test_an_exchange_in_the_settings_is_named() -> None:
    assert exchange({"exchange": {"name": "elsewhere"}}) == "elsewhere"
