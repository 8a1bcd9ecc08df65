"""Whose a record is: the one that lies in this root, or a copy of another root's.

``cp -a`` copies pid files, the lock's owner and journals with everything else, and what they name are the original's
processes. So each such record carries the mark of the root's directory, device and inode: moving a root keeps it,
copying it does not. The inode alone is not enough, since all roots that are mount points or subvolumes have the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from updater.layout import Layout
from updater.subprocesses import boot_id

FIELD, PLACE = "root", "place"
"""The names of the fields; the launcher writes the first one as well."""


def mark(layout: Layout) -> str:
    """``device:inode`` of the root's directory, in decimal; empty if it cannot be looked at."""
    try:
        seen = layout.root.stat()
    except OSError:
        return ""
    return f"{seen.st_dev}:{seen.st_ino}"


def lasting(layout: Layout) -> dict[str, str]:
    """The fields of a record that outlives a boot: the path as well, since a device's number may be another then."""
    return {FIELD: mark(layout), PLACE: os.path.realpath(layout.root)}


def is_ours(layout: Layout, fields: Mapping[str, object]) -> bool:
    """Whether a record was written in this very root.

    The inode must agree. So must the device, unless its number may have changed since: with a record that tells its
    path, that must agree then; one that does not names a process, and is believed if it comes from another boot, in which
    it names nothing that lives. (While a process of the root lives, its filesystem stays, and so does the number.) A
    record without the field or without a device is of an older version, or of a shell that had no ``stat``.
    """
    written, here = str(fields.get(FIELD, "")), mark(layout)
    if written in ("", here):
        return True
    device, _, inode = written.rpartition(":")
    our_device, _, our_inode = here.rpartition(":")
    if inode != our_inode:
        return False
    if not device or device == our_device:
        return True
    if place := fields.get(PLACE):
        return place == os.path.realpath(layout.root)
    return fields.get("boot") != boot_id()
