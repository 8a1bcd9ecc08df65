"""The listing of an environment: a sum over the names, kinds, sizes and times of everything in it, and its clone by hard
links in the same pass.

Nearly all of the time is the kernel's, and two threads of one Python would wait for each other: at the first directory
with many others in it (``site-packages``) a forked child takes half of them. It inherits the root's lock: as long as it
writes, nobody else does.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

WIDE = 16
"""Directories in a directory from which on a second process is worth its start."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def listing(environment: Path, *, seal: bool = False, link_to: Path | None = None) -> str:
    """SHA-256 over everything below an environment, as hexadecimal digits.

    ``seal``: also take the write permission from every file: releases share them. ``link_to``: also clone it there, by
    hard links, in the same pass.

    Raises:
        OSError: it cannot be read, or cannot be cloned (another filesystem, too many links).
    """
    source = os.open(environment, _DIRECTORY)
    target = None
    try:
        if link_to is not None:
            os.mkdir(link_to)
            target = os.open(link_to, _DIRECTORY)
        return _directory(_Place(source, target, seal, alone=True))
    finally:
        for fd in (source, target):
            if fd is not None:
                os.close(fd)


@dataclass(frozen=True)
class _Place:
    """A directory of the environment, and the same one of the clone. Names relative to open directories: half the
    work of the kernel for deep trees. ``alone``: there is no second process yet."""

    source: int
    target: int | None
    seal: bool
    alone: bool


def _directory(place: _Place) -> str:
    lines, folders = [], []
    with os.scandir(place.source) as found:
        entries = sorted(found, key=lambda it: it.name)
    for entry in entries:
        name = entry.name
        if entry.is_symlink():
            text = os.readlink(name, dir_fd=place.source)
            lines.append(f"{name} -> {text}\n")
            if place.target is not None:
                os.symlink(text, name, dir_fd=place.target)
        elif entry.is_dir(follow_symlinks=False):
            folders.append(name)
        else:
            seen = entry.stat(follow_symlinks=False)
            if place.seal and seen.st_mode & 0o222:
                os.chmod(name, stat.S_IMODE(seen.st_mode) & ~0o222, dir_fd=place.source)
            lines.append(f"{name} {seen.st_size} {seen.st_mtime_ns}\n")
            if place.target is not None:
                os.link(name, name, src_dir_fd=place.source, dst_dir_fd=place.target, follow_symlinks=False)
    # A fork of a process with other threads may find a lock taken that nobody gives back in it, and wait for ever.
    two = place.alone and len(folders) >= WIDE and threading.active_count() == 1
    sums = _shared_out(place, folders) if two else _folders(place, folders)
    lines += [f"{name}/ {sums[name]}\n" for name in folders]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _folders(place: _Place, names: Sequence[str]) -> dict[str, str]:
    return {name: _folder(place, name) for name in names}


def _folder(place: _Place, name: str) -> str:
    source = os.open(name, _DIRECTORY, dir_fd=place.source)
    target = None
    try:
        if place.target is not None:
            os.mkdir(name, dir_fd=place.target)
            target = os.open(name, _DIRECTORY, dir_fd=place.target)
        return _directory(replace(place, source=source, target=target))
    finally:
        for fd in (source, target):
            if fd is not None:
                os.close(fd)


def _shared_out(place: _Place, names: Sequence[str]) -> dict[str, str]:
    """Half of the directories here, half in a forked child."""
    place = replace(place, alone=False)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _work(place, names[1::2], writer)
    os.close(writer)
    try:
        mine = _folders(place, names[0::2])
    finally:  # also after a failure: nothing is left that still writes
        with open(reader, "rb") as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
    answer: dict[str, Any] = json.loads(said) if said else {"errno": errno.EIO}
    theirs: dict[str, str] = answer.get("sums", {})
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    return mine | theirs


def _work(place: _Place, names: Sequence[str], tell: int) -> NoReturn:
    """The child. It never returns into its parent's code."""
    try:
        with open(tell, "w", encoding="ascii") as pipe:
            try:
                said: dict[str, Any] = {"sums": _folders(place, names)}
            except OSError as failure:
                said = {"errno": failure.errno or errno.EIO}
            json.dump(said, pipe)
    finally:
        os._exit(0)
