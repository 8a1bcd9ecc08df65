"""``python -m dashboard``: serve the page."""

from __future__ import annotations

import os

from waitress import serve

from bot.settings import read
from dashboard.page import make_app


def main() -> None:
    web = read()["web"]
    exchange = read()["exchange"]  # the settings have no such section yet: this release cannot start
    print(f"exchange: {exchange}", flush=True)
    port = int(os.environ.get("PORT", web["port"]))
    print(f"serving on http://{web['host']}:{port}", flush=True)
    serve(make_app(), host=web["host"], port=port, threads=4, _quiet=True)


if __name__ == "__main__":
    main()
