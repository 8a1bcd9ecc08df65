"""The files of a Git tree, as GitHub's API lists them.

https://docs.github.com/en/rest/git/trees#get-a-tree, .../git/blobs#get-a-blob
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from updater.artifacts import blob_id
from updater.errors import SourceFailed
from updater.sources.answers import shown
from updater.sources.http import Http

_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class GitHubTree:
    """One tree. Asked only when a tarball is not the tree: it costs requests. ``base``: the repository's address."""

    http: Http
    base: str
    tree: str

    def paths(self) -> dict[str, tuple[str, str]] | None:
        """Path → mode and object id of every file, symlink and submodule; None if there are more than the API lists.

        Raises:
            SourceFailed: the source cannot be reached, or answers something else.
        """
        url = f"{self.base}/git/trees/{self.tree}?recursive=1"
        body, _ = self.http.json(url, conditional=False)
        try:
            if body["sha"] != self.tree:
                raise _nonsense(url)
            if body["truncated"] is not False:
                return None
            entries = map(_entry, body["tree"])
            return {path: (mode, blob) for path, mode, blob in entries if mode != "040000"}
        except (KeyError, TypeError, ValueError):
            raise _nonsense(url) from None

    def blob(self, identifier: str) -> bytes:
        """The content of a file, proved by its id.

        Raises:
            SourceFailed: as :meth:`paths`.
        """
        url = f"{self.base}/git/blobs/{identifier}"
        body, _ = self.http.json(url, conditional=False)
        try:
            content = base64.b64decode(body["content"]) if body["encoding"] == "base64" else None
        except (KeyError, TypeError, binascii.Error):
            content = None
        if content is None or blob_id(content).hex() != identifier:
            raise _nonsense(url)
        return content


def _entry(it: Any) -> tuple[str, str, str]:
    path, mode, identifier = it["path"], it["mode"], it["sha"]
    if not isinstance(path, str) or not re.fullmatch(r"[0-7]{6}", mode) or not _ID.fullmatch(identifier):
        raise ValueError("no entry of a tree")
    return path, mode, identifier


def _nonsense(url: str) -> SourceFailed:
    return SourceFailed(f"{shown(url)} answered with something else than documented")
