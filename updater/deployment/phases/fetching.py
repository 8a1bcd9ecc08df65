"""The streaming pass of phase 3: what a broken-off download left in the cache is read first, the rest from the source.

``.updater/cache/<name>.part`` holds the received bytes, ``<name>.json`` what they are part of. After a power cut the
bytes may be holes, so they are taken up again only within the same boot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

from updater import durable, sources
from updater.artifacts.unpack import Unpacked, unpack
from updater.deployment.phases.resolution import Resolved
from updater.deployment.transaction import Transaction
from updater.errors import VerificationFailed
from updater.records import read_json
from updater.releases import store, verification
from updater.subprocesses import boot_id

READ = 256 * 1024


def fetch(tx: Transaction, found: Resolved, staging: Path) -> Unpacked:
    """Bring the artifact of a release into ``staging``, unpacked and hashed.

    Raises:
        SourceFailed: the source cannot be reached, or the download broke off for good; what came stays for the next try.
        HostileArchive, VerificationFailed: the archive is not what a release may be.
    """
    part, note = _places(tx, found)
    for attempt in (1, 2):
        validator, total = _remembered(part, note, found)
        try:
            return _pass(tx, found, staging, part, note, validator, total)
        except VerificationFailed:
            forget(tx, found)  # no archive: the next try must not begin with the same bytes
            raise
        except sources.ContentChanged:
            durable.remove_tree(staging)
            forget(tx, found)
            if attempt == 2:
                raise
            tx.say("the artifact changed while it was fetched; once more from its beginning")
    raise AssertionError


def _places(tx: Transaction, found: Resolved) -> tuple[Path, Path]:
    name = hashlib.sha256(f"{found.source}\n{found.artifact.location}".encode()).hexdigest()[:24]
    return tx.layout.cache / f"{name}.part", tx.layout.cache / f"{name}.json"


def forget(tx: Transaction, found: Resolved) -> None:
    """Remove what the cache holds of an artifact."""
    for path in _places(tx, found):
        path.unlink(missing_ok=True)


def forget_all(tx: Transaction) -> None:
    """Remove every download from the cache: once a release is installed, what broke off before is hardly asked for again."""
    for path in (*tx.layout.cache.glob("*.part"), *tx.layout.cache.glob("*.json")):
        with contextlib.suppress(OSError):  # tidying up fails nothing (F28)
            path.unlink()


def _remembered(part: Path, note: Path, found: Resolved) -> tuple[str | None, int | None]:
    """The validator of the bytes in the cache, and how many the whole has, if that is known. ``(None, None)``: there are
    none that may be taken up again."""
    known = read_json(note) or {}
    total = known.get("total")
    total = total if isinstance(total, int) else None
    usable = (
        known.get("boot") == boot_id()
        and known.get("location") == found.artifact.location
        and known.get("validator")
        and part.is_file()
        and (total is None or part.stat().st_size <= total)
    )
    if not usable:
        part.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        return None, None
    return str(known["validator"]), total


def _pass(
    tx: Transaction,
    found: Resolved,
    staging: Path,
    part: Path,
    note: Path,
    validator: str | None,
    total: int | None,
) -> Unpacked:
    durable.make_directory(tx.layout.cache)
    have = part.stat().st_size if validator else 0
    limit = tx.config.source.max_size

    def remember(total: int | None) -> None:
        if rest.validator:
            known = {"location": found.artifact.location, "validator": rest.validator, "total": total}
            durable.write_quick(note, json.dumps({**known, "boot": boot_id()}))

    with (
        part.open("r+b" if validator else "wb") as file,
        tx.cancel.interrupting(),
        sources.resuming(
            found.port, found.artifact, offset=have, validator=validator, total=total, max_size=limit
        ) as rest,
    ):
        remember(rest.total)
        expected = rest.total or found.artifact.size
        reader = _Both(file, have, rest, tee=bool(rest.validator))
        unpacked = unpack(
            reader, staging,
            donors=_donors(tx), check=tx.cancel.check,
            on_bytes=lambda done: tx.progress.tell(done=done, total=expected),
        )  # fmt: skip
    remember(unpacked.artifact_size)
    return unpacked


def _donors(tx: Transaction) -> list[Any]:
    """The releases whose equal files are shared: the latest two are nearly all that can be."""
    found = (verification.donor(release) for release in reversed(store.installed(tx.layout)[-2:]))
    return [donor for donor in found if donor]


class _Both:
    """Reads the cached bytes, then the rest; what is new goes to the cache on its way."""

    def __init__(self, file: BinaryIO, have: int, rest: Any, *, tee: bool) -> None:
        self._file, self._left, self._rest, self._tee = file, have, rest, tee

    def read(self, count: int = READ) -> bytes:
        if self._left:
            chunk = self._file.read(min(count, self._left))
            if not chunk:
                raise OSError("the cached part of the download was cut off meanwhile")
            self._left -= len(chunk)
            return chunk
        chunk = bytes(self._rest.read(count))
        if self._tee and chunk:
            self._file.write(chunk)
        return chunk
