"""The command line: parse, ask, call, print. No decision is taken here."""

from __future__ import annotations

import gc
import os


def main() -> None:
    """Entry point of the ``updater`` command. Ctrl-C while it is still being loaded, or is ending, is a quiet 130."""
    gc.disable()  # a command is short: what it drops, its end collects
    try:
        from updater.cli.app import run

        run()
    except KeyboardInterrupt:
        os._exit(130)
