"""The command line: parse, ask, call, print. No decision is taken here."""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``updater`` command."""
    from updater.cli.app import run

    run()
