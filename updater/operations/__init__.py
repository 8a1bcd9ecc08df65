"""What a user can ask for. Both faces, the command line and HTTP, call these verbs and nothing below them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from updater.errors import ConfigError, NotARoot
from updater.layout import Layout

if TYPE_CHECKING:
    from updater import lock
    from updater.config import Config


@dataclass(frozen=True)
class Root:
    """One deployed application: its place and its configuration."""

    layout: Layout
    config: Config
    wrong: ConfigError | None = None
    """What is wrong with ``updater.toml``; ``config`` then holds what the release in service was started with."""

    @contextlib.contextmanager
    def changing(self, operation: str, *, wait: float = 5.0) -> Iterator[lock.Lock]:
        """Hold the lock for a change that is no deployment; an interrupted deployment is brought to its end first.

        Raises:
            LockHeld: another operation is at work.
            RollbackFailed: an interrupted deployment could not be undone.
        """
        from updater import lock
        from updater.deployment import recovery

        with lock.hold(self.layout, operation, wait=wait) as held:
            recovery.recover(self.layout, self.config, held)
            yield held


def find_root(given: str | os.PathLike[str] | None = None) -> Layout:
    """The root: ``given``, else ``$UPDATER_ROOT``, else the nearest parent directory with ``updater.toml``.

    Raises:
        NotARoot: there is none.
    """
    named = given or os.environ.get("UPDATER_ROOT")
    if named:
        root = Path(os.path.realpath(named))
        if not (root / "updater.toml").is_file():
            raise _not_a_root(f"{named} holds no updater.toml")
        return Layout(root)
    here = Path(os.path.realpath("."))
    for place in (here, *here.parents):
        if (place / "updater.toml").is_file():
            return Layout(place)
    raise _not_a_root(f"there is no updater.toml in {here} or above it")


def _not_a_root(why: str) -> NotARoot:
    return NotARoot(
        why,
        state="Nothing was changed.",
        advice="go to the root, name it with --root DIR, or make one: updater init DIR --repo OWNER/NAME",
    )


def open_root(given: str | os.PathLike[str] | None = None, *, tolerant: bool = False) -> Root:
    """Find a root and read its configuration.

    ``tolerant``: a mistake in it is no hindrance. Looking, stopping and recovering must not depend on a typing error.

    Raises:
        NotARoot, ConfigError.
    """
    from updater import configfile

    layout = find_root(given)
    try:
        return Root(layout, configfile.load(layout.config))
    except ConfigError as wrong:
        if not tolerant:
            raise
        return Root(layout, _last_known(layout), wrong)


def _last_known(layout: Layout) -> Config:
    from updater.config import Config
    from updater.processes import bound
    from updater.releases import service

    version = service.in_service(layout).release
    return Config(layout.config, processes=bound.of_release(layout, version) if version else {})
