"""Updates a self-hosted Python application safely, and can always go back."""

from __future__ import annotations


def version() -> str:
    """The version of updater itself, from the file ``VERSION`` (inside a wheel, or at the top of a checkout)."""
    from pathlib import Path

    here = Path(__file__).resolve().parent
    for place in (here / "VERSION", here.parent / "VERSION"):
        if place.is_file():
            return place.read_bytes().decode().strip()
    raise FileNotFoundError(f"no VERSION beside {here}")
