"""The files of a backup: how they are called, and how one is read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from updater.artifacts.decompress import ahead, decompressed
from updater.artifacts.tarstream import Member, TarStream
from updater.backups.uncached import WINDOW, Reader
from updater.errors import BackupDamaged

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"

CONTROL = ".updater-delta"
"""The directory in the archive of a delta with what a shell needs to apply it."""

_READ = 1024**2

Check = Callable[[], None] | None


def names(part: str) -> tuple[str, str, str]:
    """The files of a part that is stored whole: archive, index, block sums."""
    return f"{part}.tar.zst", f"{part}.index.zst", f"{part}.blocks"


def delta_names(part: str) -> tuple[str, str]:
    """The files of its delta: archive and index."""
    return f"{part}.delta.tar.zst", f"{part}.delta.index.zst"


class _Source:
    """A file read and hashed in one pass, as it lies on the disk and not as it lies in memory, as far as the system allows."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self._file = open(fd, "rb", buffering=0)  # noqa: SIM115
        self._hash = hashlib.sha256()
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def read(self, count: int = _READ) -> bytes:
        piece = self._file.read(count)
        self._hash.update(piece)
        return piece

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def sum_of(path: Path, check: Check = None) -> str:
    """The SHA-256 of a file, as it lies on the disk."""
    seen, at = hashlib.sha256(), 0
    with Reader(path) as file:
        file.drop()
        while piece := file.read(at, WINDOW):
            seen.update(piece)
            at += len(piece)
            if check:
                check()
    return seen.hexdigest()


def not_as_written(backup: str, name: str, found: str, wanted: str) -> BackupDamaged:
    return BackupDamaged(
        f"{backup}: {name} is not as it was written: its SHA-256 is {found[:12]}…, not {wanted[:12]}…"
    )


def members(
    directory: Path, name: str, *, sums: Mapping[str, str] | None = None, check: Check = None
) -> Iterator[tuple[Member, TarStream]]:
    """The members of an archive; the data of each must be taken before the next is asked for. ``sums``: the SHA-256 that each
    archive must have; None: they are not looked at.

    Raises:
        BackupDamaged, VerificationFailed, zstandard.ZstdError, OSError
    """
    source = _Source(directory / name)
    with source, contextlib.closing(ahead(decompressed(source.read))) as chunks:
        stream = TarStream(chunks)
        for member in stream.members():
            if check:
                check()
            yield member, stream
        stream.drain(limit=1024**2)
        wanted = sums.get(name, "nothing") if sums is not None else None
        if wanted and wanted != source.sha256:
            raise not_as_written(directory.name, name, source.sha256, wanted)


def path_of(member: Member) -> str:
    return os.fsdecode(member.name.rstrip(b"/"))
