"""Tags: which of them is a version, and which release is the newest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updater import versions
from updater.sources import Published


def published(*tags: str) -> list[Published]:
    """Releases that were published one day after the other, in this order."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    return [Published(tag, tag, first + timedelta(days=day)) for day, tag in enumerate(tags)]


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v1.4.0", "1.4.0"), ("V1.4", "1.4"), ("1.4.0-rc.1", "1.4.0rc1"), ("tradebot-1.4.0", "1.4.0"), ("release/1.4", "1.4"),
        ("py3-app@1.2.3", "1.2.3"), ("2024-02-03", "2024.post2+3"), ("v2.0.0-build-7", "2.0.0+build.7"),
        ("v1.4.0-hotfix-1", "1.4.0+hotfix.1"), ("v1.4.0-SNAPSHOT", "1.4.0.dev0+snapshot"), ("v1.4.0-rc1-nightly", "1.4.0rc1+nightly"),
        ("v1.0.0-rc.1+build.5", "1.0.0rc1+build.5"), ("first-import", None), ("app1", None), ("3scale-1.0", None), ("v", None),
        ("v" + "9" * 5000, None),
    ],
)  # fmt: skip
def test_the_version_in_a_tag(tag: str, version: str | None) -> None:
    found = versions.version_of(tag)
    assert (found and str(found)) == version


@pytest.mark.parametrize(
    ("tags", "ordered"),
    [
        (["first-import", "v2.0.0", "v1.9.5"], ["first-import", "v1.9.5", "v2.0.0"]),
        (["2024-01-15", "2024-02-03"], ["2024-01-15", "2024-02-03"]),
        (["v2.1.0", "v2.0.0-build-7", "v2.0.0"], ["v2.0.0", "v2.0.0-build-7", "v2.1.0"]),
        (["v1.3.0", "v1.4.0", "v1.4.0-hotfix-1"], ["v1.3.0", "v1.4.0", "v1.4.0-hotfix-1"]),
        (["v1.0.0", "apple", "v2.0.0", "zebra", "v0.9"], ["v0.9", "v1.0.0", "apple", "v2.0.0", "zebra"]),
        (["zebra", "apple"], ["zebra", "apple"]),
    ],
)
def test_versions_among_themselves_and_other_tags_by_date(tags: list[str], ordered: list[str]) -> None:
    """F18: a backport that was published later is not newer, and one odd tag does not change that."""
    releases = published(*tags)
    assert [it.tag for it in versions.order(releases)] == ordered
    newest = versions.newest(releases, "stable")
    assert newest is not None and newest.tag == ordered[-1]
    for number, tag in enumerate(ordered):
        newer = [it.tag for it in releases if versions.is_newer(it, tag, releases)]
        assert sorted(newer) == sorted(ordered[number + 1 :])


def test_a_word_for_what_is_unfinished_makes_a_prerelease_of_it() -> None:
    releases = published("v1.0.0", "v2.0.0-nightly", "v2.0.0-rc1-2")
    stable, early = versions.newest(releases, "stable"), versions.newest(releases, "prerelease")
    assert stable is not None and early is not None
    assert (stable.tag, early.tag) == ("v1.0.0", "v2.0.0-rc1-2")


NUMBERS = st.lists(st.integers(0, 3000), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
EARLY = st.sampled_from(
    ["nightly", "snapshot", "unstable", "canary", "experimental", "edge", "next", "alpha", "beta", "rc", "dev", "preview"]
)  # fmt: skip
CASES = st.sampled_from([str.lower, str.upper, str.capitalize])
JOINS = st.sampled_from(["-", "_", "/", "."])


def offered(tag: str) -> tuple[bool, bool]:
    """Whether the channels stable and prerelease have it."""
    (it,) = published(tag)
    return versions.in_channel(it, "stable"), versions.in_channel(it, "prerelease")


@given(NUMBERS, EARLY, CASES, JOINS, st.sampled_from(["", "1", "20240101", ".3", "-7"]))
def test_a_word_for_what_is_unfinished_behind_a_version_makes_an_earlier_one_of_it(
    number: str, word: str, case: object, join: str, count: str
) -> None:
    for middle in ("", f"hotfix{join}"):
        tag = f"v{number}{join}{middle}{case(word)}{count}"  # type: ignore[operator]
        assert offered(tag) == (False, True), tag
        early, finished = versions.version_of(tag), versions.version_of(f"v{number}")
        assert early is not None and finished is not None and early < finished, tag


@given(NUMBERS, EARLY, CASES, st.sampled_from(["-", "_", "/", "-v", "1-"]))
def test_a_word_for_what_is_unfinished_in_front_of_a_version_counts_as_well(
    number: str, word: str, case: object, join: str
) -> None:
    for front in ("", "app-"):
        assert offered(f"{front}{case(word)}{join}{number}") == (False, True)  # type: ignore[operator]


@pytest.mark.parametrize(
    "tag",
    ["nightly-2024-01-01", "v1.4.0-unstable1", "nightly", "latest-nightly", "nightly-build-7", "beta", "v1.4.0-hotfix-rc1", "wip/1.4"],
)  # fmt: skip
def test_tags_of_rolling_builds_are_in_no_stable_channel(tag: str) -> None:
    assert offered(tag) == (False, True)


@given(
    st.sampled_from(
        ["", "v", "app-", "release/", "edge-tts-", "next@", "alphabet-", "canary-bot-v", "py3-app@"]
    ),
    NUMBERS,
    st.sampled_from(["", "-hotfix-1", "+build.7", "-linux", ".post1"]),
)
def test_what_only_has_a_name_like_that_is_finished(front: str, number: str, rest: str) -> None:
    assert offered(f"{front}{number}{rest}") == (True, True)
