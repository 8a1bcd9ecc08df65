"""The package's face stays what it says, however often it is asked."""

from __future__ import annotations

import updater.environments as environments


def test_what_builds_is_a_function_before_and_after_it_was_used() -> None:
    for _ in range(2):
        for name in environments.__all__:
            assert callable(getattr(environments, name)), name
