"""``python -m bot.pause``: open no more trades, close those that are open; ``python -m bot.pause --over``: as before.

Updater runs both (``[gate] drain`` and ``resume``), so that an update need not wait for a trade that is opened meanwhile.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bot.settings import data_directory


def _mark() -> Path:
    return data_directory() / "paused"


def paused() -> bool:
    """Whether the bot may open no trade now."""
    return _mark().exists()


def main(arguments: list[str]) -> None:
    if arguments == ["--over"]:
        _mark().unlink(missing_ok=True)
    elif not arguments:
        _mark().touch()
    else:
        sys.exit("usage: python -m bot.pause [--over]")


if __name__ == "__main__":
    main(sys.argv[1:])
