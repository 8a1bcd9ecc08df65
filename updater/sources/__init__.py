"""Where releases come from: GitHub, or a folder. One small port, so that the rest does not care which.

source = open_source(config.source, cache=layout.cache)
published = source.find("v1.4.0")
artifact = source.artifact(published)
with resuming(source, artifact, max_size=2**31) as stream:
    while chunk := stream.read(65536): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from updater import versions
from updater.config import SourceConfig
from updater.errors import ContentChanged, UsageError
from updater.sources.resuming import Resuming, resuming


@dataclass(frozen=True)
class PublishedAsset:
    """A file uploaded to a release. ``digest``: what the source gives, whatever it is. ``size`` in bytes."""

    name: str
    location: str
    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Published:
    """A release that a source has. ``notes`` is Markdown; ``published_at`` is aware and in UTC."""

    tag: str
    name: str
    published_at: datetime | None = None
    prerelease: bool = False
    draft: bool = False
    notes: str = ""
    url: str = ""
    assets: tuple[PublishedAsset, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """The file to fetch for a release, and all that the source says of it.

    ``kind``: ``asset`` (an uploaded file), ``source`` (made by the source from the tag) or ``file`` (in a folder; its digest is
    then what lies there and proves nothing). ``digest``: published with it;
    ``checksum``: SHA-256 in hex from the configured checksum file; ``commit`` and ``tree``: Git ids of the tag; ``files``:
    what the source can tell of that tree.
    """

    name: str
    location: str
    kind: str
    size: int | None = None
    digest: str | None = None
    checksum: str | None = None
    commit: str | None = None
    tree: str | None = None
    files: GitTree | None = field(default=None, compare=False, repr=False)


class GitTree(Protocol):
    """The files of a tree, asked for only where they are needed. Both may raise SourceFailed."""

    def paths(self) -> Mapping[str, tuple[str, str]] | None:
        """Path → Git mode and object id, without directories; None if the source cannot list them all."""
        ...

    def blob(self, identifier: str, /) -> bytes:
        """The content of a file."""
        ...


class Download(Protocol):
    """An open artifact. ``offset``: where its bytes really begin; ``total``: bytes of the whole, if told; ``validator``: what
    proves that it is still the same."""

    offset: int
    total: int | None
    validator: str | None

    def read(self, count: int, /) -> bytes: ...
    def close(self) -> None: ...


class Source(Protocol):
    """What a source can be asked. Every method may raise SourceFailed or one of its kinds; ``artifact`` raises
    VerificationFailed for sums that are published and cannot be understood."""

    warnings: list[str]
    """What was odd in the answers so far, and is left out."""

    def describe(self) -> str:
        """What people call it."""
        ...

    def releases(self) -> list[Published]:
        """All releases whose tags can be names, drafts included where they can be seen, in no particular order."""
        ...

    def find(self, tag: str) -> Published:
        """The release of a tag; raises ReleaseNotFound."""
        ...

    def artifact(self, published: Published) -> Artifact:
        """The file to fetch for a release."""
        ...

    def open(self, artifact: Artifact, *, offset: int = 0, validator: str | None = None) -> Download:
        """Open it, from ``offset`` on if it is still what ``validator`` says; else from its beginning."""
        ...


def nameable(found: Iterable[Published], warnings: list[str], odd: Sequence[str] = ()) -> list[Published]:
    """Those whose tags can be names; the others, and what is ``odd`` already, in one warning (F54)."""
    usable, left_out = [], list(odd)
    for it in found:
        try:
            versions.release_name(it.tag)
            usable.append(it)
        except UsageError:
            left_out.append(ascii(it.tag[:80]))
    if left_out:
        shown = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        warnings.append(f"left out, since their tags cannot be names of releases: {shown}")
    return usable


def open_source(config: SourceConfig, *, cache: Path | None) -> Source:
    """The source of a configuration. ``cache``: a directory for answers that may be asked for again; None: nothing is
    written."""
    if config.type == "directory":
        from updater.sources.directory import DirectorySource

        return DirectorySource(config)
    from updater.sources.github import GitHubSource

    return GitHubSource(config, cache)


__all__ = [
    "Artifact",
    "ContentChanged",
    "Download",
    "GitTree",
    "Published",
    "PublishedAsset",
    "Resuming",
    "Source",
    "nameable",
    "open_source",
    "resuming",
]
