"""The command line: parse, ask, call, print. No decision is taken here."""

from __future__ import annotations

import os


def main() -> None:
    """Entry point of the ``updater`` command. Ctrl-C while it is still being loaded, or is ending, is a quiet 130."""
    try:
        from updater.cli.app import run

        run()
    except KeyboardInterrupt:
        os._exit(130)
