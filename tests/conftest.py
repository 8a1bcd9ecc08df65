from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

pytest.register_assert_rewrite("tests.site", "tests.dashboard")

from examples.release_server import Release, ReleaseServer  # noqa: E402
from tests.dashboard import Dashboard  # noqa: E402
from tests.phone import Phone  # noqa: E402
from tests.site import REPOSITORY, Site  # noqa: E402

hypothesis.settings.register_profile("updater", deadline=None)  # a busy machine is not a defect
hypothesis.settings.load_profile("updater")


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
def phone() -> Iterator[Phone]:
    """Somebody who is told of events."""
    with Phone() as made:
        yield made


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


@pytest.fixture
def serve(site: Site) -> Iterator[Callable[..., Dashboard]]:
    """Starts `updater serve` on the site, once or again."""
    made: list[Dashboard] = []

    def start(*arguments: str) -> Dashboard:
        made.append(Dashboard(site, *arguments))
        return made[-1]

    yield start
    for it in made:
        it.end()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str, Path | None], Path]]:
    """Makes a directory that is a filesystem of its own, or with a second argument that one by another path."""
    if os.getuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("needs root on Linux: it mounts filesystems")
    made: list[Path] = []

    def mount(name: str, what: Path | None = None) -> Path:
        place = tmp_path / name
        place.mkdir()
        words = ["--bind", what] if what else ["-t", "tmpfs", "-o", "size=1g", "tmpfs"]
        subprocess.run(["mount", *words, place], check=True)
        made.append(place)
        return place

    yield mount
    for place in made:
        subprocess.run(["umount", "-l", place], check=True)
