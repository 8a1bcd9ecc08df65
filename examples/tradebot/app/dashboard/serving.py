"""Serving the page until told to stop."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from waitress import serve

from dashboard.page import make_app


def serve_page(web: dict[str, Any]) -> None:
    """Serve with the settings of ``[web]``; ``PORT`` in the environment wins. Returns after SIGTERM."""
    port = int(os.environ.get("PORT", web["port"]))
    # waitress takes it for the wish to end: it finishes its threads, and serve() returns
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    print(f"serving on http://{web['host']}:{port}", flush=True)
    serve(make_app(), host=web["host"], port=port, threads=4, _quiet=True)
