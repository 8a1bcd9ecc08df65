"""``python -m dashboard``: serve the page."""

from __future__ import annotations

from typing import Any

from bot.settings import read
from dashboard.serving import serve_page


def exchange(settings: dict[str, Any]) -> str:
    """The exchange's name. A new setting has a default: the file of an older version must do."""
    return str(settings.get("exchange", {}).get("name", "paper"))


def main() -> None:
    settings = read()
    print(f"exchange: {exchange(settings)}", flush=True)
    serve_page(settings["web"])


if __name__ == "__main__":
    main()
