"""Tags and versions: which directory a tag gets, which release is newer. Pure."""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from updater.errors import UsageError

if TYPE_CHECKING:
    from packaging.version import Version

    from updater.sources import Published

MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]*")
_TAG = re.compile(r"((?:(?!v?[0-9])[^/_@-]+[/_@-]+)*)v?([0-9].*)", re.IGNORECASE)
"""Words in front, none of which looks like a version itself, then the version with all that follows it."""
_BEGINNING = re.compile(
    r"(?:[0-9]+!)?[0-9]+(?:\.[0-9]+)*"
    r"(?:[._-]?(?:alpha|a|beta|b|preview|pre|c|rc)[._-]?[0-9]*)?"
    r"(?:-[0-9]+|[._-]?(?:post|rev|r)[._-]?[0-9]*)?"
    r"(?:[._-]?dev[._-]?[0-9]*)?(?![a-z0-9])",
    re.IGNORECASE,
)
"""The part of a text that is a version by PEP 440, up to its first word that is not."""
_WORDS = re.compile(r"[a-z0-9]+")
_EARLY = frozenset(
    ["daily", "draft", "experimental", "insiders", "milestone", "nightly", "prerelease", "snapshot", "unstable", "wip"]
)  # fmt: skip
"""Words that PEP 440 does not know and that nobody gives to a finished release, nor to a program."""
_EARLY_OR_NAME = frozenset(
    ["alpha", "beta", "canary", "dev", "devel", "edge", "next", "pre", "preview", "rc"]
)
"""Words of that kind that are names of programs as well (``edge-tts-1.4.0``): in front of a version only the last counts."""


def release_name(tag: str) -> str:
    """The directory name for a tag: the tag itself, with ``-`` for ``/``.

    Tags come from the network and from the keyboard, so a name never leads anywhere but directly below ``releases/``.

    Raises:
        UsageError: the tag cannot be a name.
    """
    name = tag.replace("/", "-")
    # An address is asked without its `.` and `..`: for v1/../main the source would answer with a branch. No tag of Git has those.
    dots = not {"", ".", ".."}.isdisjoint(tag.split("/"))
    if (
        dots
        or not _NAME.fullmatch(name)
        or len(name) > MAX_NAME
        or name.endswith((".good", ".bad", ".pinned"))
    ):
        raise UsageError(
            f"the tag {tag!r} cannot be the name of a release",
            details=[
                "it must begin with a letter or digit, then letters, digits, and . _ + @ - / only; no part of it is . or .."
            ],
            state="Nothing was changed.",
            advice="publish the release under another tag.",
        )
    return name


def version_of(tag: str) -> Version | None:
    """The version that a tag names: ``v1.4.0``, ``1.4.0-rc.1``, ``tradebot-1.4.0``, ``release/1.4``; None if it names none.

    What follows a version and is none of PEP 440's words makes it a later one (``v1.4.0-hotfix-1`` is 1.4.0+hotfix.1), but
    for words like ``nightly``.
    """
    match = _matched(tag)
    beginning = _BEGINNING.match(match[2]) if match else None
    if match is None or beginning is None:
        return None
    rest = _WORDS.findall(match[2][beginning.end() :].lower())
    early = not (_EARLY | _EARLY_OR_NAME).isdisjoint(map(_bare, rest))
    if not early and (whole := _version(match[2])):
        return whole
    found = _version(beginning[0])
    before = ".dev0" if early and found and not found.is_prerelease else ""
    return _version(f"{beginning[0]}{before}{'+' if rest else ''}{'.'.join(rest)}")


def is_prerelease(tag: str) -> bool:
    """Whether a tag says so itself: by its version, or by a word in front of it (``nightly-2024-01-01``), or by a word alone."""
    version, match = version_of(tag), _matched(tag)
    if version is not None and version.is_prerelease:
        return True
    front = match[1] if match else tag
    words = [_bare(word) for word in _WORDS.findall(front.lower())]
    named = front.endswith("@")  # of a package: next@1.4.0
    return not _EARLY.isdisjoint(words[:-1] if named else words) or (
        not named and words[-1:] != [] and words[-1] in _EARLY_OR_NAME
    )


def _matched(tag: str) -> re.Match[str] | None:
    return _TAG.fullmatch(tag) if len(tag) <= MAX_NAME else None


def _bare(word: str) -> str:
    """A word without its number: ``unstable1``."""
    return word.strip("0123456789")


def _version(text: str) -> Version | None:
    from packaging.version import Version

    with contextlib.suppress(ValueError):  # InvalidVersion is one
        return Version(text)
    return None


def agrees(text: str, tag: str) -> bool:
    """Whether the content of a file VERSION fits a tag: the same text, or the same version (PEP 440)."""
    if text == tag or text.removeprefix("v") == tag.removeprefix("v"):
        return True
    mine, theirs = version_of(text), version_of(tag)
    return mine is not None and mine == theirs


def order(published: Sequence[Published]) -> list[Published]:
    """Oldest first. Tags that are versions are ordered by version; one that is none comes right after the highest version
    that was published before it, and so never changes the order of the versions."""
    known = {it.tag: version_of(it.tag) for it in published}
    numbered = sorted((it for it in published if known[it.tag]), key=lambda it: (known[it.tag], _when(it)))
    earliest = [*accumulate(map(_when, reversed(numbered)), min)][::-1]  # of each version and those above it
    places: dict[str, tuple[float, float]] = {it.tag: (place, 0.0) for place, it in enumerate(numbered)}
    for it in published:
        if known[it.tag] is None:
            places[it.tag] = (bisect_right(earliest, _when(it)) - 0.5, _when(it))
    return sorted(published, key=lambda it: places[it.tag])


def _when(it: Published) -> float:
    return it.published_at.timestamp() if it.published_at else 0.0


def in_channel(it: Published, channel: str) -> bool:
    """Whether a release counts in a channel. Drafts never do; ``prerelease`` has the stable ones as well.

    The publisher's flag decides what a prerelease is, as on GitHub's own page; a stable release whose tag says
    that it is one (``v2.0.0rc1``, ``nightly-2024-01-01``) is one too: the flag is easily forgotten.
    """
    if it.draft:
        return False
    if channel == "prerelease":
        return True
    return not it.prerelease and not is_prerelease(it.tag)


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
