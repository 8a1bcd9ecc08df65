"""Whose a record is: the one that lies in this root, or a copy of another root's.

``cp -a`` copies pid files and the lock's owner with everything else, and what they name are the original's processes. So
each such record carries the inode of the root's directory: moving a root keeps that, copying it does not.
"""

from __future__ import annotations

from collections.abc import Mapping

from updater.layout import Layout

FIELD = "root"
"""The name of the field; the launcher writes it as well (the first word of ``ls -di``)."""


def mark(layout: Layout) -> str:
    """The inode of the root's directory, as text; empty if it cannot be looked at."""
    try:
        return str(layout.root.stat().st_ino)
    except OSError:
        return ""


def is_ours(layout: Layout, fields: Mapping[str, object]) -> bool:
    """Whether a record was written in this very root. One without the field is believed: older versions wrote none."""
    return fields.get(FIELD, "") in ("", mark(layout))
