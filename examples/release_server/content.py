"""What the server has: releases with their trees, source tarballs and uploaded assets."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

Tree = Mapping[str, tuple[bytes, str]]
"""Path → (content or link target, Git mode: 100644, 100755 or 120000); of a submodule (160000) the commit's id in hex."""


@dataclass
class Release:
    """One release. ``assets``: name → content. ``tagged_only``: there is a tag, and no release was made of it. ``archive``: the
    source tarball, where it is not made from the tree."""

    tag: str
    tree: Tree
    name: str = ""
    notes: str = ""
    published: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    prerelease: bool = False
    draft: bool = False
    tagged_only: bool = False
    assets: dict[str, bytes] = field(default_factory=dict)
    archive: bytes | None = None

    @cached_property
    def tree_id(self) -> str:
        """The Git tree id, computed as `git write-tree` does (and not by the code under test)."""
        return _tree_id(self.tree)

    @cached_property
    def commit(self) -> str:
        body = f"tree {self.tree_id}\nauthor A <a@example.com> 1767225600 +0000\n\n{self.tag}\n".encode()
        return hashlib.sha1(b"commit %d\0" % len(body) + body, usedforsecurity=False).hexdigest()

    def tarball(self, repository: str) -> bytes:
        """The source tarball as GitHub makes it: one directory ``owner-name-sha7`` at the top, the commit in a global pax
        header, modes 0664 and 0775."""
        if self.archive is not None:
            return self.archive
        top = f"{repository.replace('/', '-')}-{self.commit[:7]}"
        raw = io.BytesIO()
        stamp = int(self.published.timestamp())
        with tarfile.open(
            fileobj=raw, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": self.commit}
        ) as archive:
            for directory in ["", *sorted(_directories(self.tree))]:
                info = tarfile.TarInfo(f"{top}/{directory}".rstrip("/") + "/")
                info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o775, stamp
                archive.addfile(info)
            for path, (content, mode) in sorted(self.tree.items()):
                info = tarfile.TarInfo(f"{top}/{path}")
                info.mtime, info.mode = stamp, 0o775 if mode == "100755" else 0o664
                if mode == "160000":
                    info.type, info.mode = tarfile.DIRTYPE, 0o775
                    archive.addfile(info)
                elif mode == "120000":
                    info.type, info.linkname, info.mode = tarfile.SYMTYPE, content.decode(), 0o777
                    archive.addfile(info)
                else:
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return gzip.compress(raw.getvalue(), mtime=0)

    def objects(self) -> list[dict[str, object]]:
        """All that is in the tree, as "Get a tree" lists it recursively."""
        found: list[dict[str, object]] = []
        for path in _directories(self.tree):
            inside = {
                name.removeprefix(f"{path}/"): it
                for name, it in self.tree.items()
                if name.startswith(f"{path}/")
            }
            found.append({"path": path, "mode": "040000", "type": "tree", "sha": _tree_id(inside)})
        for path, (content, mode) in self.tree.items():
            if mode == "160000":
                found.append({"path": path, "mode": mode, "type": "commit", "sha": content.decode()})
            else:
                sha = _blob_id(content).hex()
                found.append({"path": path, "mode": mode, "type": "blob", "sha": sha, "size": len(content)})
        return sorted(found, key=lambda it: str(it["path"]))

    def blob(self, identifier: str) -> bytes | None:
        """The content of a file by its Git blob id."""
        return next((raw for raw, _ in self.tree.values() if _blob_id(raw).hex() == identifier), None)


def _blob_id(content: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).digest()


def _directories(tree: Tree) -> set[str]:
    return {parent for path in tree for parent in _parents(path)}


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _tree_id(tree: Tree) -> str:
    below: dict[str, dict[str, tuple[bytes, str]]] = {}
    rows: list[tuple[bytes, bytes]] = []
    for path, (content, mode) in tree.items():
        first, _, rest = path.partition("/")
        if rest:
            below.setdefault(first, {})[rest] = (content, mode)
        else:
            blob = bytes.fromhex(content.decode()) if mode == "160000" else _blob_id(content)
            rows.append((first.encode(), f"{mode} {first}\0".encode() + blob))
    for name, inner in below.items():
        rows.append((f"{name}/".encode(), f"40000 {name}\0".encode() + bytes.fromhex(_tree_id(inner))))
    body = b"".join(row for _, row in sorted(rows))
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def tree_of_archive(raw: bytes) -> Tree:
    """The files in a tarball, without its one directory at the top."""
    tree: dict[str, tuple[bytes, str]] = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        for info in archive:
            name = info.name.partition("/")[2]
            if info.issym():
                tree[name] = (info.linkname.encode(), "120000")
            elif info.isfile():
                file = archive.extractfile(info)
                assert file is not None
                tree[name] = (file.read(), "100755" if info.mode & 0o100 else "100644")
    return tree


def releases_in(folder: Path) -> list[Release]:
    """A release for each ``NAME-VERSION.tar.gz`` in a folder, with ``NAME-VERSION.md`` as its notes; the file itself and a
    ``SHA256SUMS`` are its assets."""
    found = []
    for number, path in enumerate(sorted(folder.glob("*.tar.gz"))):
        match = re.fullmatch(r".+-(\d.*)\.tar\.gz", path.name)
        if match is None:
            continue
        raw, notes = path.read_bytes(), path.with_name(path.name.replace(".tar.gz", ".md"))
        sums = f"{hashlib.sha256(raw).hexdigest()}  {path.name}\n".encode()
        found.append(
            Release(
                tag=f"v{match[1]}",
                tree=tree_of_archive(raw),
                name=path.name.removesuffix(".tar.gz"),
                notes=notes.read_text("utf-8") if notes.is_file() else "",
                published=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number),
                assets={path.name: raw, "SHA256SUMS": sums},
            )
        )
    return found
