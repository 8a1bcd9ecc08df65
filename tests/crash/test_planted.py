"""Every defect that is planted on purpose can still be planted, and is one that Python takes."""

from __future__ import annotations

import ast

import pytest

from tests.crash.planted import PLANTED, Planted, edited


@pytest.mark.parametrize("defect", PLANTED, ids=lambda it: it.name)
def test_it_can_be_planted(defect: Planted) -> None:
    for text in edited(defect).values():
        ast.parse(text)
