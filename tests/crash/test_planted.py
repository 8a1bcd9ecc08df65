"""Every defect that is planted on purpose can still be planted, and is one that Python takes; what counts as found is sound."""

from __future__ import annotations

import ast

import pytest

from tests.crash.faults import Point, Result
from tests.crash.planted import (
    OF_NOBODY,
    OF_PROGRAMMERS,
    PLANTED,
    Look,
    Planted,
    edited,
    mistake,
    objection,
)


@pytest.mark.parametrize("defect", PLANTED, ids=lambda it: it.name)
def test_it_can_be_planted(defect: Planted) -> None:
    for text in edited(defect).values():
        ast.parse(text)


def _result(outcome: str, text: str = "") -> Result:
    return Result(Point("deploy", "kill", 7), outcome, text=text)


RED, GOOD, UNREACHED = _result("violation", "rows are lost"), _result("old"), _result("harness")


def test_a_point_counts_that_is_good_without_the_defect_and_red_again_with_it() -> None:
    assert not objection([GOOD], [RED])
    assert not objection([UNREACHED, GOOD], [GOOD, UNREACHED, RED])


@pytest.mark.parametrize(
    ("control", "again", "why"),
    [
        ([GOOD, RED], [RED], "red without the defect, too: rows are lost"),
        ([UNREACHED], [RED], "not reached without the defect"),
        ([GOOD], [GOOD, GOOD], "not red again in 2 tries"),
        ([GOOD], [UNREACHED], "not red again in 1 tries: 1 harness"),
    ],
)
def test_an_accident_that_happens_to_anybody_has_found_nothing(
    control: list[Result], again: list[Result], why: str
) -> None:
    assert why in objection(control, again)


@pytest.mark.parametrize(
    ("look", "spare"),
    [
        (Look(tried=3, good=3), True),
        (Look(tried=3, unreached=3), False),
        (Look(tried=3, good=2, unreached=1), False),
        (Look(), False),
        (Look(tried=3, good=2, found="rows are lost"), False),
    ],
)
def test_belt_and_braces_is_only_what_was_looked_for(look: Look, spare: bool) -> None:
    assert look.is_spare(Planted("a flush", (), spare="another flush")) == spare
    assert not look.is_spare(Planted("a flush", ()))


def test_a_mistake_in_python_is_none_of_the_planted_defects() -> None:
    text = "exit 1\nTraceback (most recent call last):\nNameError: name 'losing' is not defined\n"
    assert mistake(text, OF_NOBODY) == "NameError: name 'losing' is not defined"
    assert mistake("unforeseen: AttributeError: 'None' has no attribute 'id'", OF_PROGRAMMERS)
    assert not mistake("unforeseen: AttributeError: of an empty file", OF_NOBODY)
    assert not mistake("Violation: rows are lost", OF_PROGRAMMERS)
