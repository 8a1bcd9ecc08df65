"""``python -m dashboard``: serve the page."""

from __future__ import annotations

from bot.settings import read
from dashboard.serving import serve_page


def main() -> None:
    settings = read()
    exchange = settings["exchange"]  # the settings have no such section yet: this release cannot start
    print(f"exchange: {exchange}", flush=True)
    serve_page(settings["web"])


if __name__ == "__main__":
    main()
