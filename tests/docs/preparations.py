"""What pages are run in: `<!-- in: NAME -->` names one of these. To add one, write a function with `@preparation("name")`.

Each gets a :class:`World`: a root in /srv/bot with `updater.toml`, in which nothing is deployed, and a source without releases. Release names are
those that the pages use. :class:`tests.site.Site` tells what a site can do (publish, updater, start, layout …).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.docs.pages import HERE
from tests.docs.world import World

Preparation = Callable[[World], None]
PREPARATIONS: dict[str, Preparation] = {}


def preparation(name: str) -> Callable[[Preparation], Preparation]:
    def add(function: Preparation) -> Preparation:
        assert name not in PREPARATIONS, name
        PREPARATIONS[name] = function
        return function

    return add


@preparation("fresh")
def fresh(world: World) -> None:
    """The root is configured; v1.3.2 and v1.4.0 are published; nothing is deployed."""
    world.site.publish("v1.3.2")
    world.site.publish("v1.4.0")


@preparation("clone")
def clone(world: World) -> None:
    """A clone of this repository in which `./setup` was run; the reader stands in it, and there is no root in ~ yet."""
    world.here = HERE
    world.says |= {
        "/home/you/": f"{world.place}/",
        "watch = 10": "watch = 0.5",
        "interval = 0.5": "interval = 0.1",
    }
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    world.environment |= {"HOME": str(world.place), "XDG_CACHE_HOME": cache}


@preparation("update-available")
def update_available(world: World) -> None:
    """v1.3.2 is in service, and v1.4.0 is published."""
    world.site.deployed("v1.3.2")
    world.site.publish("v1.4.0")


@preparation("deployed")
def deployed(world: World) -> None:
    """v1.4.0 is in service, v1.3.2 was before it."""
    world.site.deployed("v1.3.2", "v1.4.0")


@preparation("broken-update")
def broken_update(world: World) -> None:
    """v1.3.2 is in service; v1.4.0, which crashes at its start, was tried and rolled back."""
    world.site.deployed("v1.3.2")
    world.site.publish("v1.4.0", "crash")
    assert world.site.updater("deploy").code == 4


from tests.docs import broken  # noqa: E402,F401  its preparations; it needs the registry
