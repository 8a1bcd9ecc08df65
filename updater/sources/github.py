"""GitHub's REST API: releases, their assets, and the source tarball of a tag with the Git tree that proves it.

https://docs.github.com/en/rest/releases/releases, .../releases/assets, .../repos/contents (tarball), .../commits/commits
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from updater.config import SourceConfig
from updater.errors import Interrupted, ReleaseNotFound, SourceFailed, VerificationFailed
from updater.records import moment
from updater.sources import Artifact, Published, PublishedAsset, checksums, nameable
from updater.sources.answers import clean, number, origin, reason, shown
from updater.sources.gittree import GitHubTree
from updater.sources.http import Http

PAGES = 50
"""Pages of 100 releases that are read at most."""


@dataclass(frozen=True)
class Quota:
    """``limit`` and ``remaining`` requests until ``reset`` (seconds since the epoch); None: they are not counted. ``date``: of the
    answer, by the server's clock."""

    limit: int | None
    remaining: int | None
    reset: int | None
    date: datetime | None
    with_token: bool


class GitHubSource:
    """The releases of a repository on GitHub, or on GitHub Enterprise by its ``api_url``."""

    def __init__(self, config: SourceConfig, cache: Path | None) -> None:
        self._config = config
        self._http = Http(config, cache)
        self._base = f"{config.api_url}/repos/{config.repository}"
        self.warnings: list[str] = []

    def describe(self) -> str:
        host = re.sub(r"^https?://(api\.)?|/api/v3$", "", self._config.api_url)
        return f"{host}/{self._config.repository}"

    def quota(self) -> Quota:
        """How many requests are left; asking is free
        (https://docs.github.com/en/rest/rate-limit/rate-limit#get-rate-limit-status-for-the-authenticated-user).

        Raises:
            SourceFailed and its kinds.
        """
        body, date = self._http.fresh(f"{self._config.api_url}/rate_limit")
        core = body.get("resources", {}).get("core") if isinstance(body, dict) else None
        limit, remaining, reset = ((core or {}).get(name) for name in ("limit", "remaining", "reset"))
        if not (isinstance(limit, int) and isinstance(remaining, int) and isinstance(reset, int)):
            limit = remaining = reset = None
        return Quota(limit, remaining, reset, date, self._http.has_token)

    def releases(self) -> list[Published]:
        found: list[Published] = []
        odd: list[str] = []
        url: str | None = f"{self._base}/releases?per_page=100"
        for _ in range(PAGES):
            if url is None:
                return nameable(found, self.warnings, odd)
            body, headers = self._http.json(url)
            if not isinstance(body, list):
                raise _nonsense(url)
            for it in body:
                try:
                    found.append(_published(it))
                except SourceFailed:
                    odd.append("one without a tag")
            url = self._next(headers.get("Link", ""))
        raise SourceFailed(f"{self.describe()} has more than {PAGES * 100} releases")

    def _next(self, link: str) -> str | None:
        """The next page (RFC 8288). One on another host is refused: it would get the token."""
        match = re.search(r'<([^>]+)>\s*;[^,]*rel="?next"?', link)
        if match is None:
            return None
        if origin(match[1]) != origin(self._config.api_url):
            raise SourceFailed(f"the list of releases goes on at another host ({shown(match[1])}); refused")
        return match[1]

    def find(self, tag: str) -> Published:
        if not {"", ".", ".."}.isdisjoint(
            tag.split("/")
        ):  # in an address it would lead to another repository
            raise ReleaseNotFound(
                f"{self.describe()} has no tag {tag}",
                details=["Git allows no such name: man git-check-ref-format"],
            )
        quoted = quote(tag, safe="")
        try:
            body, _ = self._http.json(f"{self._base}/releases/tags/{quoted}")
        except ReleaseNotFound as no_release:
            return self._tag_alone(tag, no_release)
        found = _published(body)
        if found.tag != tag:
            raise SourceFailed(
                f"asked for the release {tag}, {self.describe()} answered with {found.tag}; refused",
                advice="try again; if it stays so, look at [source] api_url in updater.toml.",
            )
        return found

    def _tag_alone(self, tag: str, no_release: ReleaseNotFound) -> Published:
        """A tag that no release was made of: its source tarball is there all the same."""
        try:
            self._commit(tag)
        except ReleaseNotFound:
            self._explain(tag, no_release)
        return Published(tag, tag, url=f"{self._base}/git/refs/tags/{quote(tag)}")

    def _explain(self, tag: str, no_release: ReleaseNotFound) -> None:
        """Say which is missing, the repository or the tag. Always raises."""
        try:
            known = self.releases()
        except ReleaseNotFound:
            raise ReleaseNotFound(
                f"{self.describe()}: there is no such repository, or it is private",
                details=no_release.details,
                advice=f"look at [source] repository; for a private one set {self._config.token_env} to a token that may read it.",
            ) from None
        from updater import versions

        names = [it.tag for it in reversed(versions.order([it for it in known if not it.draft]))][:8]
        raise ReleaseNotFound(
            f"{self.describe()} has no release and no tag {tag}",
            details=[f"the newest there are: {', '.join(names) or 'none'}"],
            advice="`updater check` shows the newest one.",
        ) from None

    def _commit(self, tag: str) -> tuple[str, str]:
        """The commit of a tag, annotated or not, and the id of its tree."""
        url = f"{self._base}/commits/{quote(f'tags/{tag}')}"
        body, _ = self._http.json(url)
        try:
            commit, tree = str(body["sha"]), str(body["commit"]["tree"]["sha"])
        except (KeyError, TypeError):
            raise _nonsense(url) from None
        if not all(re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", it) for it in (commit, tree)):
            raise _nonsense(url)
        return commit, tree

    def artifact(self, published: Published) -> Artifact:
        if self._config.asset is None:
            commit, tree = self._commit(published.tag)
            # By the commit and not by the tag, so that the tarball and the tree are of the same moment.
            url = f"{self._base}/tarball/{commit}"
            files = GitHubTree(self._http, self._base, tree)
            return Artifact(f"{published.tag}.tar.gz", url, "source", commit=commit, tree=tree, files=files)
        asset = self._one_asset(published, self._config.asset)
        checksum = self._checksum(published, asset) if self._config.checksums else None
        return Artifact(asset.name, asset.location, "asset", asset.size, _digest(asset), checksum)

    def _one_asset(self, published: Published, pattern: str) -> PublishedAsset:
        fitting = [it for it in published.assets if fnmatch.fnmatchcase(it.name, pattern)]
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(it.name for it in published.assets) or "none"
        what = "no asset" if not fitting else f"{len(fitting)} assets"
        raise ReleaseNotFound(
            f"release {published.tag} has {what} that fit {pattern!r}",
            details=[f"its assets: {names}"],
            advice="correct [source] asset in updater.toml; without it the source tarball is taken.",
        )

    def _checksum(self, published: Published, asset: PublishedAsset) -> str:
        """The sum of the asset in the published checksum file; it fails closed (F39)."""
        file = self._one_asset(published, str(self._config.checksums))
        found = checksums.find(self._http.text(file.location), asset.name)
        if found is None:
            raise VerificationFailed(
                f"{file.name} of release {published.tag} does not list {asset.name}",
                advice="ask the publisher; without [source] checksums only the digest that GitHub gives is checked.",
            )
        return found

    def open(self, artifact: Artifact, *, offset: int = 0, validator: str | None = None) -> HttpDownload:
        headers = {"Accept": "application/octet-stream", "Accept-Encoding": "identity"}
        if offset and validator:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        return HttpDownload(self._http.get(artifact.location, headers), artifact)


class HttpDownload:
    """An artifact behind a URL, opened."""

    def __init__(self, answer: Any, artifact: Artifact) -> None:
        self._answer = answer
        self._name = artifact.name
        self._left = _length(answer)
        self.offset = 0
        self.total = self._left
        etag = answer.headers.get("ETag", "")
        self.validator: str | None = etag if etag and not etag.startswith("W/") else None
        if answer.status_code == 206:
            match = re.fullmatch(
                r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18}|\*)", answer.headers.get("Content-Range", "")
            )
            if match is None:
                self.close()
                raise SourceFailed(f"{self._name}: the server sent a part without saying which")
            self.offset = int(match[1])
            self.total = int(match[2]) if match[2] != "*" else None

    def read(self, count: int) -> bytes:
        """Bytes as they come. A body shorter than announced is an interruption, not an end."""
        from urllib3.exceptions import HTTPError

        try:
            chunk = bytes(
                self._answer.raw.read1(count)
                if hasattr(self._answer.raw, "read1")
                else self._answer.raw.read(count)
            )
        except (HTTPError, OSError) as failure:
            raise Interrupted(reason(failure)) from None
        if self._left is not None:
            self._left -= len(chunk)
            if not chunk and self._left > 0:
                raise Interrupted(f"the connection ended {self._left:,} bytes early")
        return chunk

    def close(self) -> None:
        self._answer.close()


def _length(answer: Any) -> int | None:
    return number(answer.headers.get("Content-Length", ""))


def _published(body: Any) -> Published:
    """A release in an answer. Its every field is a stranger's."""
    tag = _text(body.get("tag_name")) if isinstance(body, dict) else ""
    if not tag:
        raise SourceFailed("the API answered with something that is no release")
    assets = body.get("assets")
    return Published(
        tag=tag,
        name=_text(body.get("name")) or tag,
        published_at=_moment(body),
        prerelease=body.get("prerelease") is True,
        draft=body.get("draft") is True,
        notes=_text(body.get("body"))[:100_000],
        url=_text(body.get("html_url")),
        assets=tuple(_asset(it) for it in assets if isinstance(it, dict)) if isinstance(assets, list) else (),
    )


def _asset(body: dict[str, Any]) -> PublishedAsset:
    digest, size = body.get("digest"), body.get("size")
    return PublishedAsset(
        name=_text(body.get("name")),
        location=_text(body.get("url")),
        size=size if type(size) is int and 0 <= size < 2**63 else None,
        digest=None if digest is None else clean(str(digest)),
    )


def _digest(asset: PublishedAsset) -> str | None:
    """The published digest. One that is there and not understood proves nothing, so it is no reason to go on (F39)."""
    if asset.digest is None or re.fullmatch(r"sha256:[0-9a-fA-F]{64}", asset.digest):
        return asset.digest and asset.digest.lower()
    raise VerificationFailed(
        f"the API gives a digest for {asset.name} that is none of SHA-256: {asset.digest[:80]!a}",
        advice="ask the publisher to upload the file anew.",
    )


def _moment(body: dict[str, Any]) -> datetime | None:
    """When it was published, if that is a time that clocks show."""
    found = moment(body.get("published_at") or body.get("created_at"))
    return found.astimezone(UTC) if found and 1970 < found.year < 9999 else None


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def _nonsense(url: str) -> SourceFailed:
    return SourceFailed(f"{shown(url)} answered with something else than documented")
