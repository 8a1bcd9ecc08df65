"""``python -m dashboard``: serve the page."""

from __future__ import annotations

from bot.settings import read
from dashboard.serving import serve_page


def main() -> None:
    serve_page(read()["web"])


if __name__ == "__main__":
    main()
