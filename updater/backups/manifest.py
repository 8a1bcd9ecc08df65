"""What a backup says of itself: ``manifest.json``. Pure data; nothing here touches the disk."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

FORMAT = 1
"""Grows when an older updater could no longer read a backup."""

PARTS = ("config", "data", "logs", "dumps", "state")
"""``config``, ``data`` and ``logs`` are what lies below ``shared/``; ``dumps`` what dump commands wrote; ``state`` updater's
own records and the identity of the release, for reference."""

NAME = re.compile(r"backup_\d{8}_\d{6}")

Json = dict[str, Any]


def new_id(now: datetime, taken: Collection[str]) -> str:
    """A name that is not taken: the moment in UTC, moved on by seconds where two fall into the same one."""
    while (name := f"backup_{now:%Y%m%d_%H%M%S}") in taken:
        now += timedelta(seconds=1)
    return name


@dataclass(frozen=True)
class Part:
    """One part: ``files`` and ``size`` (bytes, before compression) of what it holds.

    ``full``: the archive that holds it whole; ``delta``: an archive of what has changed since, or None. Both lie in
    the backup's own directory: the first is shared with other backups by a hard link.
    """

    full: str
    delta: str | None
    files: int
    size: int


@dataclass(frozen=True)
class Database:
    """A SQLite database in the backup. ``schema``: SHA-256 over its tables, indexes, views and triggers."""

    path: str
    size: int
    user_version: int
    schema: str
    integrity: str = "ok"


@dataclass(frozen=True)
class Dump:
    """What a dump command wrote: ``dumps/<name>`` in the part ``dumps``. ``size`` in bytes; ``sha256`` of them."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that is known of a backup apart from its bytes."""

    id: str
    seq: int
    """Its place in the order of backups: clocks jump, numbers do not."""
    created: str
    reason: str
    """``by hand``, ``before deploy``, ``before restore`` ..."""
    root: Mapping[str, str]
    """``id``, ``name`` and ``path`` of the root that it was made of."""
    release: Mapping[str, Any] | None
    """``version``, ``tag`` and ``digest`` of the release that its data belong to."""
    updater: str
    parts: Mapping[str, Part]
    databases: tuple[Database, ...] = ()
    dumps: tuple[Dump, ...] = ()
    label: str = ""
    deployment: str | None = None
    warnings: tuple[str, ...] = ()
    format: int = field(default=FORMAT)

    def as_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest | None:
        """The manifest in ``manifest.json``; None if it is not one of a format that this updater reads."""
        with contextlib.suppress(TypeError, KeyError, AttributeError, ValueError):
            if data.get("format") != FORMAT or not NAME.fullmatch(data["id"]):
                return None
            parts = {str(name): Part(**it) for name, it in data["parts"].items()}
            if not all(name in PARTS and _plausible(part) for name, part in parts.items()):
                return None
            rest = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
            rest |= {
                "seq": int(data["seq"]),
                "parts": parts,
                "databases": tuple(Database(**it) for it in data.get("databases") or ()),
                "dumps": tuple(Dump(**it) for it in data.get("dumps") or ()),
                "warnings": tuple(map(str, data.get("warnings") or ())),
                "root": dict(data["root"]),
            }
            return cls(**rest)
        return None


_FILE = re.compile(r"[a-z]+(\.delta)?\.tar\.zst")


def _plausible(part: Part) -> bool:
    """Names of files in a manifest never lead out of its directory."""
    return all(_FILE.fullmatch(it) for it in (part.full, part.delta) if it is not None)
