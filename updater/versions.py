"""Tags and versions: which directory a tag gets, which release is newer. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from updater.errors import UsageError

if TYPE_CHECKING:
    from packaging.version import Version

    from updater.sources import Published

MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]*")
_TAG = re.compile(r"(?:.*[/_@-])?v?(\d+(?:\.\d+)*.*)", re.IGNORECASE)


def release_name(tag: str) -> str:
    """The directory name for a tag: the tag itself, with ``-`` for ``/``.

    Tags come from the network and from the keyboard, so a name never leads anywhere but directly below ``releases/``.

    Raises:
        UsageError: the tag cannot be a name.
    """
    name = tag.replace("/", "-")
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME or name.endswith((".good", ".bad", ".pinned")):
        raise UsageError(
            f"the tag {tag!r} cannot be the name of a release",
            details=["it must begin with a letter or digit, then letters, digits, and . _ + @ - / only"],
            state="Nothing was changed.",
            advice="publish the release under another tag.",
        )
    return name


def version_of(tag: str) -> Version | None:
    """The version that a tag names: ``v1.4.0``, ``1.4.0-rc.1``, ``tradebot-1.4.0``, ``release/1.4``; None if it names none."""
    from packaging.version import InvalidVersion, Version

    for text in (tag.removeprefix("v"), *(match[1] for match in [_TAG.fullmatch(tag)] if match)):
        try:
            return Version(text)
        except InvalidVersion:
            continue
    return None


def agrees(text: str, tag: str) -> bool:
    """Whether the content of a file VERSION fits a tag: the same text, or the same version (PEP 440)."""
    if text == tag or text.removeprefix("v") == tag.removeprefix("v"):
        return True
    mine, theirs = version_of(text), version_of(tag)
    return mine is not None and mine == theirs


def order(published: Sequence[Published]) -> list[Published]:
    """Oldest first: by version where all tags are versions, else by date of publication."""
    versions = {it.tag: version_of(it.tag) for it in published}
    if all(version is not None for version in versions.values()):
        return sorted(published, key=lambda it: (versions[it.tag], _when(it)))
    return sorted(published, key=_when)


def _when(it: Published) -> float:
    return it.published_at.timestamp() if it.published_at else 0.0


def in_channel(it: Published, channel: str) -> bool:
    """Whether a release counts in a channel. Drafts never do; ``prerelease`` has the stable ones as well.

    The publisher's flag decides what a prerelease is, as on GitHub's own page; a stable release whose tag is a
    pre-release version (``v2.0.0rc1``) is one too: the flag is easily forgotten.
    """
    if it.draft:
        return False
    if channel == "prerelease":
        return True
    version = version_of(it.tag)
    return not it.prerelease and not (version is not None and version.is_prerelease)


def newest(published: Sequence[Published], channel: str) -> Published | None:
    """The newest release of a channel; None if it has none."""
    found = order([it for it in published if in_channel(it, channel)])
    return found[-1] if found else None


def is_newer(it: Published, tag: str, published: Sequence[Published]) -> bool:
    """Whether a release is newer than the one with this tag, among these.

    A tag that is not published (any more) is compared by version; if it is none, everything is newer.
    """
    if it.tag == tag:
        return False
    ordered = [other.tag for other in order(published)]
    if tag in ordered:
        return ordered.index(it.tag) > ordered.index(tag)
    mine, theirs = version_of(it.tag), version_of(tag)
    return mine is None or theirs is None or mine > theirs
