"""The bytecode of the release's own modules: compiled once, shared, and recorded, because Python runs it unasked.

Bytecode that the release itself brings is content like any other: it stays as it was published, and the manifest vouches
for it. What is compiled here is listed in ``.release/bytecode``, in the form of a manifest, so that ``verify`` sees when it
was changed: Python looks at a module's size and time only, and runs whatever lies beside it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from updater import artifacts, durable
from updater.artifacts.manifest import Entry, Manifest
from updater.layout import ReleaseFiles

if TYPE_CHECKING:
    from updater.environments.building import Site

FOLDER = "__pycache__"

_COMPILE = """
import compileall, importlib.util, os, sys
with open(sys.argv[1], "rb") as listed:
    for path in map(os.fsdecode, listed.read().split(b"\\n")[:-1]):
        if not os.path.lexists(importlib.util.cache_from_source(path)):
            compileall.compile_file(path, quiet=2)
"""


def compile_tree(site: Site, donors: Sequence[Path] = ()) -> None:
    """Byte-compile the release's own modules, so that no start is slower than another and none writes into the release.

    Sources that are shared with a donor share its bytecode too (same inode, same time stamp: still valid). What is there
    is left as it is: it was published, or it is on record.
    """
    sweep(site.release)
    listed = [(donor, recorded(donor)) for donor in donors[:2]]
    missing = [path for path in _sources(site.release) if not _share(site.release, path, listed)]
    if not missing:
        return
    names = site.release / ReleaseFiles.RECORDS / durable.temporary_name("compile")
    names.parent.mkdir(exist_ok=True)
    try:
        names.write_bytes(b"".join(os.fsencode(path) + b"\n" for path in missing))
        from updater import subprocesses

        # A source that does not compile (a template, a test for another Python) is the application's own affair.
        subprocesses.run(
            [site.environment / "bin" / "python", "-I", "-c", _COMPILE, names], cwd=site.release, env=site.env(),
            timeout=max(1.0, site.deadline - time.monotonic()), keep_fds=site.keep_fds, record=site.record, check=site.check,
        )  # fmt: skip
    finally:
        names.unlink(missing_ok=True)


def _sources(release: Path) -> list[str]:
    return [
        os.path.join(folder, name)
        for folder, names in _walk(release)
        for name in names
        if name.endswith(".py")
    ]


def _walk(release: Path) -> Iterator[tuple[str, list[str]]]:
    for folder, folders, names in os.walk(release):
        if folder == os.fspath(release):
            folders[:] = [name for name in folders if name not in (".venv", ".release")]
        yield folder, names


def _share(release: Path, source: str, donors: Sequence[tuple[Path, Mapping[str, Entry]]]) -> bool:
    """Link the bytecode of a source from a donor that has the same file, if it is what the donor's record says."""
    folder, name = os.path.split(source)
    below = os.path.relpath(folder, release)
    for donor, known in donors:
        other = donor / below
        shared = False
        with contextlib.suppress(OSError):
            if not known or not os.path.samestat(os.lstat(other / name), os.lstat(source)):
                continue
            for it in os.listdir(other / FOLDER):
                entry = known.get(os.path.normpath(os.path.join(below, FOLDER, it)))
                if not it.startswith(f"{name[:-3]}.") or entry is None:
                    continue
                if artifacts.hash_file(other / FOLDER / it) == entry.sha256.hex():
                    os.makedirs(os.path.join(folder, FOLDER), exist_ok=True)
                    os.link(other / FOLDER / it, os.path.join(folder, FOLDER, it))
                    shared = True
        if shared:
            return True
    return False


def found(release: Path, published: Container[str]) -> Manifest:
    """The bytecode that lies in a release, without what was published."""
    entries = []
    for folder, names in _walk(release):
        if os.path.basename(folder) != FOLDER:
            continue
        for name in names:
            place = Path(folder, name)
            path = os.path.relpath(place, release)
            if name.endswith(".pyc") and path not in published and not place.is_symlink():
                seen = place.stat()
                kind = "X" if seen.st_mode & 0o100 else "F"
                entries.append(Entry(path, kind, seen.st_size, bytes.fromhex(artifacts.hash_file(place))))
    return Manifest.of(entries)


def record(release: Path, published: Container[str]) -> None:
    """Put on record what :func:`compile_tree` made."""
    durable.write(release / ReleaseFiles.BYTECODE, found(release, published).as_bytes())


def recorded(release: Path) -> dict[str, Entry]:
    """What is on record, by path; nothing where the record is missing or damaged: then no bytecode is trusted."""
    try:
        listed = Manifest.from_bytes((release / ReleaseFiles.BYTECODE).read_bytes())
    except (OSError, ValueError):
        return {}
    return {entry.path: entry for entry in listed.entries}


def sweep(release: Path) -> None:
    """Remove bytecode that is neither published nor as recorded from a release that was sealed before: Python makes it
    again from the sources. A release that is being built for the first time has only what it brings."""
    try:
        manifest = Manifest.from_bytes((release / ReleaseFiles.MANIFEST).read_bytes())
    except (OSError, ValueError):
        return
    known = recorded(release)
    for entry in found(release, {entry.path for entry in manifest.entries}).entries:
        if known.get(entry.path) != entry:
            (release / entry.path).unlink(missing_ok=True)


def runs_unasked(path: str, known: Mapping[str, Entry], python_version: str) -> bool:
    """Whether the release's Python would take this file for the bytecode of a module, by its tag. That of another Python,
    with which somebody ran the code by hand, is never looked at."""
    own = "cpython-" + "".join(python_version.split(".")[:2])
    return _tag(path) in {own, *map(_tag, known)}


def _tag(path: str) -> str | None:
    """``cpython-313`` for ``a/__pycache__/b.cpython-313.opt-1.pyc``."""
    match = re.fullmatch(r".+\.([a-z]+-?\d+[a-z]?)(?:\.opt-\w+)?\.pyc", os.path.basename(path))
    return match[1] if match else None
