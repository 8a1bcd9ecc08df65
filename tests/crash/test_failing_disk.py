"""A disk that fails at a moment that has a name."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.crash import calls, campaign, faults, oracle
from tests.crash.faults import Case, Point
from tests.crash.operations import OPERATIONS

pytestmark = [
    pytest.mark.skipif(calls.missing() is not None, reason=f"nothing can be crashed here: {calls.missing()}"),
    pytest.mark.usefixtures("job"),
]


def state_after(name: str, error: str, often: str, begins: Callable[[calls.Call], bool]) -> str:
    """Which state an operation ends in, of which calls fail from the one that ``begins`` names on; the next deployment succeeds."""
    world, _ = campaign.world_on("")
    point = Point(name, "error", 0, (error, often))
    case = Case(world, None, OPERATIONS[name], point, random.Random(1), [], [])
    verdict = faults.failing(case, begins)
    assert case.came
    oracle.deploys_next(world, OPERATIONS[name])
    return verdict.state


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("name", ["deploy", "roll back"])
def test_what_is_renamed_is_committed_though_it_cannot_be_flushed(name: str, error: str) -> None:
    """A way back, which fails as well, would leave nothing running, and a recovery that takes the rename for a success."""
    renamed: list[calls.Call] = []

    def flushed(call: calls.Call) -> bool:
        if call.name.startswith("rename") and call.paths[-1] == ".updater/good":
            renamed.append(call)
        return bool(renamed) and call.name == "fsync" and call.paths == (".updater",)

    assert state_after(name, error, "from then on", flushed) == "new"


@pytest.mark.parametrize("call", ["fsync", "openat"])
def test_a_way_back_that_begins_once_more_is_recorded_once(call: str) -> None:
    """The first line is on the disk, and the disk is full: room is made, and it begins anew."""
    renamed: list[str] = []

    def first(it: calls.Call) -> bool:
        if it.name.startswith("rename") and it.paths[-1].startswith(".updater/journal/"):
            renamed.append(it.paths[-1])
        return bool(renamed) and it.name == call and it.paths[0] in (renamed[0], ".updater/journal")

    assert state_after("roll back", "ENOSPC", "once", first) == "new"
