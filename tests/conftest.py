from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.site")

from examples.release_server import Release, ReleaseServer  # noqa: E402
from tests.site import REPOSITORY, Site  # noqa: E402


@pytest.fixture
def server() -> Iterator[ReleaseServer]:
    """A release server without releases; add them to its list."""
    releases: list[Release] = []
    with ReleaseServer(REPOSITORY, releases) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, server: ReleaseServer) -> Iterator[Site]:
    """A root with a source and an application, in a directory with a space in its name."""
    assert isinstance(server.releases, list)
    made = Site(tmp_path, server, server.releases)
    yield made
    made.end()


@pytest.fixture
def another_site(tmp_path: Path, server: ReleaseServer) -> Iterator[Callable[[str], Site]]:
    """More roots with the same source."""
    made: list[Site] = []

    def make(name: str) -> Site:
        place = tmp_path / name
        place.mkdir()
        assert isinstance(server.releases, list)
        made.append(Site(place, server, server.releases))
        return made[-1]

    yield make
    for it in made:
        it.end()
