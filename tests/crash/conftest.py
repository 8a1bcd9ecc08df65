"""What the crash tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash import campaign


@pytest.fixture(scope="session")
def job() -> Iterator[None]:
    """The worlds of this process; their states are made once."""
    with campaign.workplace() as place:
        campaign.begin_job(place, None)
        yield
        campaign.end_worlds()
