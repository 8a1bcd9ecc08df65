"""A sample of what ``python -m tests.crash`` does in full: some points of every operation in every mode, the same in each run."""

from __future__ import annotations

import pytest

from tests.crash import calls, campaign, disk, points
from tests.crash.operations import OPERATIONS
from tests.crash.points import SAMPLE, SAMPLE_SEED


@pytest.mark.skipif(calls.missing() is not None, reason=f"nothing can be crashed here: {calls.missing()}")
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.usefixtures("job")
def test_interrupted_anywhere_it_ends_in_one_of_two_states(name: str) -> None:
    """And nothing is lost, left over, or told falsely; the next deployment succeeds."""
    seen = campaign.look(name, runs=1)
    doubles = points.divided("double", SAMPLE["double"], {name: len(seen)}, SAMPLE_SEED, each=True)
    recoveries = {
        (name, first): campaign.look_at_recovery(name, first)[2]
        for _ in doubles
        for first in points.firsts(name, seen, 1, SAMPLE_SEED)
    }
    made = points.plan({name: seen}, recoveries, SAMPLE, SAMPLE_SEED, each=True)
    results = campaign.try_points(made.points, deploy_every=3)
    failed = [campaign.told(it) for it in results if it.outcome in ("violation", "harness")]
    assert not failed, "\n\n".join([f"{len(failed)} of {len(results)}", *failed])
    assert len(results) >= 4


@pytest.mark.skipif(disk.missing() is not None, reason=f"no power can be cut here: {disk.missing()}")
def test_power_cuts_are_in_the_sample() -> None:
    """So that their absence shows among the skipped."""
    assert SAMPLE["power cut"] > 0
