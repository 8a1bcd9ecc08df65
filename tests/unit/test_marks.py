"""The order of good releases, and where a rollback goes (F18)."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from updater.layout import Layout
from updater.releases import marks
from updater.releases.marks import Marks, rollback_target


def committed(found: Marks, version: str, leaving: str | None, *, going_back: bool = False) -> Marks:
    return Marks(
        {**found.good, **found.order(version, leaving=leaving, going_back=going_back)},
        found.bad,
        found.pinned,
    )


def test_rolling_back_again_and_again_goes_further_back_and_comes_round() -> None:
    found, here = Marks(), None
    for version in ("v1", "v2", "v3"):
        found = committed(found, version, here)
        here = version
    visited = [here]
    for _ in range(3):
        back = rollback_target(found, here, found.good)
        assert back is not None
        found = committed(found, back, here, going_back=True)
        here = back
        visited.append(here)
    assert visited == ["v3", "v2", "v1", "v3"]


def test_bad_and_missing_releases_are_skipped() -> None:
    found = Marks(good={"v1": 1, "v2": 2, "v3": 3, "v4": 4}, bad={"v3": "crashed"})
    assert rollback_target(found, "v4", ["v1", "v3", "v4"]) == "v1"
    assert rollback_target(found, "v4", ["v4"]) is None


def test_after_a_failed_hand_made_swap_the_last_good_one_is_the_target() -> None:
    found = Marks(good={"v1": 1, "v2": 2})
    assert rollback_target(found, "by-hand", ["v1", "v2", "by-hand"]) == "v2"
    assert rollback_target(found, None, ["v1", "v2"]) == "v2"


VERSIONS = st.sampled_from(["a", "b", "c", "d", "e"])


@given(st.lists(VERSIONS), st.sets(VERSIONS), st.sets(VERSIONS), VERSIONS)
def test_a_target_is_always_good_installed_and_another(
    deployed: list[str], bad: set[str], installed: set[str], current: str
) -> None:
    found, here = Marks(), None
    for version in deployed:
        found = committed(found, version, here)
        here = version
    found = Marks(found.good, dict.fromkeys(bad, ""), {})
    target = rollback_target(found, current, installed)
    candidates = {v for v in installed if v in found.good and v not in bad and v != current}
    assert (target in candidates) if candidates else target is None
    assert len(set(found.good.values())) == len(found.good), "no two releases share a place"


def test_marks_are_one_file_each_and_damage_stays_in_one(tmp_path: Path) -> None:
    """F54: an unreadable mark costs its own detail and nothing else."""
    layout = Layout(tmp_path)
    marks.put(layout, "v1", "good", seq=1)
    marks.put(layout, "v2", "good", seq=2)
    marks.put(layout, "v3", "bad", reason="died\nafter two lines")
    (layout.marks / "v2.good").write_bytes(b"\xff\x00rubbish")
    found = marks.read(layout)
    assert found.good.keys() == {"v1", "v2"}
    assert found.good["v1"] == 1
    assert found.bad["v3"] == "died after two lines"
    assert found.state("v3") == "bad"
    marks.take(layout, "v3", "bad")
    assert marks.read(layout).state("v3") == "installed"
