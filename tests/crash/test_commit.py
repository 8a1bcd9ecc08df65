"""A disk that fails at the very moment of the commit."""

from __future__ import annotations

import random

import pytest

from tests.crash import calls, campaign, faults, oracle
from tests.crash.faults import Case, Point
from tests.crash.operations import OPERATIONS


@pytest.mark.skipif(calls.missing() is not None, reason=f"nothing can be crashed here: {calls.missing()}")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("name", ["deploy", "roll back"])
@pytest.mark.usefixtures("job")
def test_what_is_renamed_is_committed_though_it_cannot_be_flushed(name: str, error: str) -> None:
    """On a disk that fails from there on: a way back, which fails as well, would leave nothing running, and a recovery that takes the
    rename for a success."""
    world, _ = campaign.world_on("")
    renamed: list[calls.Call] = []

    def flushed(call: calls.Call) -> bool:
        if call.name.startswith("rename") and call.paths[-1] == ".updater/good":
            renamed.append(call)
        return bool(renamed) and call.name == "fsync" and call.paths == (".updater",)

    point = Point(name, "error", 0, (error, "from then on"))
    case = Case(world, None, OPERATIONS[name], point, random.Random(1), [], [])
    verdict = faults.failing(case, flushed)
    assert case.came and verdict.state == "new"
    oracle.deploys_next(world, OPERATIONS[name])
