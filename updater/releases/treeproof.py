"""A source tarball that is not the tree of its commit: which files differ, and does ``.gitattributes`` explain each?

``git archive`` leaves files out (export-ignore) and converts them (line ends, ident, encodings, export-subst; GitHub can put
in LFS objects). What can be undone is undone and compared with the blob in the tree. Only what cannot is left unproven, and
whatever no attribute explains is refused. The attributes are read from the tree itself: those in the tarball may be forged.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from updater import artifacts
from updater.artifacts.unpack import Unpacked
from updater.errors import DigestMismatch
from updater.releases.gitattributes import Attributes, Values

LARGE = 16 * 1024**2
"""Bytes of a file beyond which no conversion is undone; text is never so large."""
SUBMODULE = "160000"
_IDENT = re.compile(rb"\$Id: [^$\r\n]*\$")


def explain(unpacked: Unpacked, artifact: Any) -> str:
    """What is proved of a tarball whose tree is not ``artifact.tree``, in words that begin with ``unproven`` if not all is.

    Raises:
        DigestMismatch: a file differs, and nothing explains it.
        SourceFailed: the source cannot be asked for the tree.
    """
    listed = artifact.files.paths() if artifact.files else None
    if listed is None:
        why = _why_it_may_differ(unpacked.tree)
        if why is None:
            raise _mismatch([f"published: {artifact.tree}", f"received:  {unpacked.manifest.tree_id}"])
        return f"unproven: {why}"
    found = _Comparison(unpacked, artifact.files, listed).run()
    if found.wrong:
        more = [f"and {len(found.wrong) - 20} more"] if len(found.wrong) > 20 else []
        raise _mismatch([*found.wrong[:20], *more])
    commit = f"commit {(artifact.commit or artifact.tree)[:12]}"
    if found.unproven:
        shown = ", ".join(f"{path} by {why}" for path, why in list(found.unproven.items())[:5])
        more = [", …"] if len(found.unproven) > 5 else []
        return (
            f"unproven: {len(found.unproven)} of {unpacked.manifest.file_count} files, which .gitattributes has changed on "
            f"the way ({shown}{''.join(more)}); the others are those of {commit}"
        )
    return (
        f"tree of {commit}, but for what .gitattributes and .gitmodules say: {found.left_out} files left out, "
        f"{found.converted} converted"
    )


def _mismatch(details: list[str]) -> DigestMismatch:
    return DigestMismatch(
        "what was received differs from the Git tree of its commit",
        details=details,
        advice="try again; if it stays so, the tarball was tampered with, or made in a way that is not known: ask the publisher.",
    )


@dataclass
class _Comparison:
    """The received files against those of the tree."""

    unpacked: Unpacked
    source: Any
    listed: Mapping[str, tuple[str, str]]
    left_out: int = 0
    converted: int = 0
    unproven: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def run(self) -> _Comparison:
        received = {entry.path: entry for entry in self.unpacked.manifest.entries if entry.kind != "D"}
        attributes = Attributes(self._attributes)
        self.wrong += [f"added: {path}" for path in sorted(received.keys() - self.listed.keys())]
        for path, (mode, blob) in sorted(self.listed.items()):
            entry = received.get(path)
            if entry is None:
                if mode == SUBMODULE or attributes.left_out(path):
                    self.left_out += 1
                else:
                    self.wrong.append(f"missing: {path}")
            elif entry.kind != _kind(mode):
                self.wrong.append(f"mode: {path}")
            elif self._blob(entry) != blob:
                self._changed(entry, blob, attributes.of(path))
        return self

    def _attributes(self, directory: str) -> str | None:
        mode, blob = self.listed.get(f"{directory}/.gitattributes".lstrip("/"), ("", ""))
        if _kind(mode) != "F":
            return None
        local = self.unpacked.tree / directory / ".gitattributes"
        content = local.read_bytes() if local.is_file() and not local.is_symlink() else b""
        if artifacts.blob_id(content).hex() != blob:
            content = self.source.blob(blob)
        return content.decode("utf-8", "surrogateescape")

    def _changed(self, entry: artifacts.Entry, blob: str, attributes: Values) -> None:
        if self._same_after_all(entry, blob, attributes):
            self.converted += 1
            return
        for name in ("export-subst", "filter", "working-tree-encoding"):
            if attributes.get(name) and entry.kind != "L":
                self.unproven[entry.path] = name
                return
        self.wrong.append(f"changed: {entry.path}")

    def _same_after_all(self, entry: artifacts.Entry, blob: str, attributes: Values) -> bool:
        """Whether a file is the blob in the tree, once what its attributes did to it is undone."""
        if entry.kind == "L":
            return False
        if attributes.get("filter") == "lfs":
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256.hex()}\nsize {entry.size}\n"
            if artifacts.blob_id(pointer.encode()).hex() == blob:
                return True
        ends = attributes.get("text") is not False and any(
            attributes.get(it) for it in ("text", "eol", "crlf")
        )
        encoding, ident = attributes.get("working-tree-encoding"), attributes.get("ident") is True
        if entry.size > LARGE or not (ends or ident or encoding):
            return False
        content = _decoded((self.unpacked.tree / entry.path).read_bytes(), encoding)
        plain = _plain(content, ends=ends, ident=ident)
        if artifacts.blob_id(plain).hex() == blob:
            return True
        return plain == _plain(self.source.blob(blob), ends=ends, ident=ident)

    def _blob(self, entry: artifacts.Entry) -> str:
        if entry.kind == "L":
            return artifacts.blob_id(artifacts.encode(entry.target)).hex()
        hashed = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
        with (self.unpacked.tree / entry.path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashed).hexdigest()


def _kind(mode: str) -> str:
    if not mode.startswith("100"):
        return "L" if mode == "120000" else ""
    return "X" if mode == "100755" else "F"


def _decoded(content: bytes, encoding: str | bool | None) -> bytes:
    """Text in another encoding as UTF-8; unchanged where that cannot be done."""
    if not isinstance(encoding, str):
        return content
    try:
        name = codecs.lookup(encoding.upper().removesuffix("-BOM")).name
        return content.decode(name).removeprefix("\ufeff").encode()
    except (LookupError, UnicodeError):
        return content


def _plain(content: bytes, *, ends: bool, ident: bool) -> bytes:
    if ends:
        content = content.replace(b"\r\n", b"\n")
    return _IDENT.sub(b"$Id$", content) if ident else content


def _why_it_may_differ(tree: Path) -> str | None:
    """For a tree too large for the source to list: an attribute in the tarball itself that would explain a difference.
    ``text`` alone is none: where GitHub makes its archives it changes nothing."""
    words = re.compile(rb"\b(export-ignore|export-subst|eol=crlf|ident|working-tree-encoding|filter)\b")
    for path in sorted(tree.rglob(".gitattributes")):
        if path.is_file() and not path.is_symlink() and (match := words.search(path.read_bytes())):
            return f"{path.relative_to(tree)} uses {match[1].decode()}, so the archive is not the tree"
    if (tree / ".gitmodules").is_file():
        return "it has submodules, which an archive leaves out"
    return None
