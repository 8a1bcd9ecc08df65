"""The only code that touches the disk in anger: what it has returned from survives a power cut.

Everything is written beside, flushed, renamed into place, and the directory flushed. A reader, or a recovery after
``kill -9``, sees the old thing or the new one, never a mixture and never nothing. What a kill leaves behind are
names that start with :data:`TEMPORARY`; :func:`sweep` removes those.

A failed flush is never retried: after ``EIO`` the kernel may report success for pages that are lost (PostgreSQL's
"fsyncgate", 2018), so the error goes up and the caller does its phase again from scratch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".tmp-"
"""Prefix of every name that is not yet, or no longer, anything."""

_OURS = r"\.tmp-.*-(\d+-[0-9a-f]{8}|\d{8}T\d{6}-[0-9a-f]{6})"
"""Names of our own making and no others: an application may have names with that prefix too."""

_F_FULLFSYNC = 51  # macOS: fsync(2) there does not flush the drive (man 2 fcntl)


def temporary_name(name: str) -> str:
    """A unique temporary name for ``name``, in the same directory; unique because a leftover must not be reused (F21)."""
    return f"{TEMPORARY}{name}-{os.getpid()}-{os.urandom(4).hex()}"


def is_temporary(name: str) -> bool:
    """Whether a name is one that :func:`temporary_name` makes; what an application calls ``.tmp-…`` is its own."""
    return re.fullmatch(_OURS, name) is not None


def flush(fd: int) -> None:
    """Flush one open file to the disk itself."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(fd, _F_FULLFSYNC)
            return
        except OSError:
            pass  # not every filesystem knows it; fsync is then the best there is
    os.fsync(fd)


def flush_directory(directory: Path) -> None:
    """Flush a directory: makes creations, renames and removals in it durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flush(fd)
    finally:
        os.close(fd)


def encodable(text: str) -> str:
    """Text that can be written: a lone surrogate (a byte of the command line that was no UTF-8, a broken escape in an
    answer) becomes its escape, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace").decode()


def write(
    path: Path, content: bytes | str, *, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """Replace the file at ``path`` by ``content``, atomically and durably. The directory must exist.

    ``owner``: user and group; None: whoever writes.
    """
    payload = encodable(content).encode() if isinstance(content, str) else content
    beside = path.with_name(temporary_name(path.name))
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        try:
            view = memoryview(payload)
            while view:
                view = view[os.write(fd, view) :]
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            flush(fd)
        finally:
            os.close(fd)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    flush_directory(path.parent)


def write_new(path: Path, content: bytes) -> None:
    """Write a new file and flush it, but not its name: for a directory that counts only once it is flushed and renamed."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        flush(file.fileno())


def read(path: Path, limit: int = 16 * 1024**2) -> bytes:
    """The content of a record of our own: a regular file, not a link to one, of at most ``limit`` bytes.

    Raises:
        OSError: it is not there, or is something else (a pipe would never end), or is larger.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise OSError(errno.EINVAL, "not a record of updater", str(path))
        with open(fd, "rb", closefd=False) as file:  # it refuses a directory, and would leave it open
            return file.read(limit)
    finally:
        os.close(fd)


def write_quick(path: Path, content: str) -> None:
    """Replace a file atomically but without flushing: for what may be lost in a power cut (progress, caches)."""
    beside = path.with_name(temporary_name(path.name))
    try:
        beside.write_text(encodable(content), encoding="utf-8")
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def swap_symlink(link: Path, target: str) -> None:
    """Make ``link`` a symlink to ``target`` in one atomic step, and durably.

    This is the one swap of the product: activation, rollback and commit are this call.

    Raises:
        FileExistsError: something that is not a symlink stands at ``link``; it is never removed (F23, F24).
    """
    if os.path.lexists(link):
        if not link.is_symlink():
            raise FileExistsError(f"{link} is not a symlink; it is left alone")
        if os.readlink(link) == target:
            flush_directory(link.parent)  # an earlier swap may not be on the disk yet
            return
    beside = link.with_name(temporary_name(link.name))
    os.symlink(target, beside)
    try:
        os.replace(beside, link)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    flush_directory(link.parent)


def remove_symlink(link: Path) -> None:
    """Remove a symlink durably; no link there is fine, anything else there is left alone and raises."""
    if not os.path.lexists(link):
        return
    if not link.is_symlink():
        raise FileExistsError(f"{link} is not a symlink; it is left alone")
    os.unlink(link)
    flush_directory(link.parent)


def rename(source: Path, target: Path) -> None:
    """Rename within one filesystem, durably on both sides; an existing file at ``target`` is replaced."""
    os.replace(source, target)
    flush_directory(target.parent)
    if source.parent != target.parent:
        flush_directory(source.parent)


def remove(path: Path) -> None:
    """Remove a file durably; a file that is not there is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        flush_directory(path.parent)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory and its parents, durably."""
    missing = [place for place in (path, *path.parents) if not place.exists()]
    for place in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(place, mode)
        flush_directory(place.parent)


def remove_tree(path: Path) -> None:
    """Remove a directory: renamed to a temporary name first, so that a half-removed one is never taken for whole."""
    if not os.path.lexists(path):
        return
    doomed = path
    if not path.name.startswith(TEMPORARY):
        doomed = path.with_name(temporary_name(path.name))
        rename(path, doomed)
    if doomed.is_symlink() or not doomed.is_dir():
        os.unlink(doomed)
        return
    import shutil

    _make_removable(doomed)
    shutil.rmtree(doomed)


def _make_removable(tree: Path) -> None:
    for directory, _, _ in os.walk(tree):
        mode = os.lstat(directory).st_mode
        if mode & 0o700 != 0o700:
            os.chmod(directory, stat.S_IMODE(mode) | 0o700)


def sweep(directory: Path) -> list[str]:
    """Remove the temporary names that a kill left in ``directory``; call it under the lock. Returns their names.

    What cannot be looked at or removed stays for another time: tidying up bars nobody's way.
    """
    swept = []
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(directory)):
            if not is_temporary(entry.name):
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(Path(entry.path))
                else:
                    os.unlink(entry.path)
                swept.append(entry.name)
    return swept


def flush_tree(tree: Path) -> None:
    """Put everything below ``tree`` on the disk: one ``syncfs(2)`` on Linux, each file and one full flush on macOS.

    A release whose link is swapped before this is, after a power cut, a tree of empty files (F37).
    """
    if sys.platform == "linux":
        _syncfs(tree)
        return
    for file in _regular_files(tree):
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    flush_directory(tree)


def settle(directory: Path) -> None:
    """Have every later write below ``directory`` show in a date of its file, also one through a memory map.

    A mapped page that is dirty already takes writes without a new date. On Linux one that was flushed does not: the next write
    to it sets the dates at once. Elsewhere they are set when the page is flushed, so call it before each look.
    """
    if sys.platform == "linux":
        _syncfs(directory)
    else:
        os.sync()


def _syncfs(place: Path) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(place))
    finally:
        os.close(fd)


def _regular_files(tree: Path) -> Iterator[str]:
    for directory, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(directory, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                yield path
