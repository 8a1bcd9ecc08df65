"""What a user can ask for. Both faces, the command line and HTTP, call these verbs and nothing below them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from updater.errors import ConfigError, NotARoot
from updater.layout import Layout

if TYPE_CHECKING:
    from updater import lock
    from updater.config import Config


class Root(NamedTuple):
    """One deployed application: its place and its configuration."""

    layout: Layout
    config: Config
    wrong: ConfigError | None = None
    """What is wrong with ``updater.toml``; ``config`` is then what the release in service last ran with."""
    instead: str = ""
    """What ``config`` is in that case; empty if nothing is known."""

    def starting(self, version: str) -> Root:
        """The root with the configuration to start a release with.

        Raises:
            ConfigError: ``updater.toml`` is wrong, and nothing tells what the release ran with.
        """
        if self.wrong is None:
            return self
        from updater.deployment import configuration

        known = configuration.of_release(self.layout, version, self.wrong)
        return self._replace(config=known.config, instead=known.instead)

    @contextlib.contextmanager
    def changing(self, operation: str, *, wait: float = 5.0) -> Iterator[lock.Lock]:
        """Hold the lock for a change that is no deployment; an interrupted deployment is brought to its end first.

        Raises:
            LockHeld: another operation is at work.
            RollbackFailed: an interrupted deployment could not be undone.
        """
        from updater import lock
        from updater.deployment import announcing, recovery

        with (
            announcing.of_recoveries(self.layout, self.config) as recovered,
            lock.hold(self.layout, operation, wait=wait) as held,
        ):
            recovered += recovery.recover(self.layout, self.config, held)
            recovery.start_nothing_without_data(recovered)
            yield held


def find_root(given: str | os.PathLike[str] | None = None) -> Layout:
    """The root: ``given``, else ``$UPDATER_ROOT``, else the nearest parent directory with ``updater.toml``.

    A root whose ``updater.toml`` is gone is one still: there is a way to stop what runs, and to go back.

    Raises:
        NotARoot: there is none.
    """
    named = given or os.environ.get("UPDATER_ROOT")
    if named:
        layout = Layout(Path(os.path.realpath(named)))
        if not (layout.config.is_file() or layout.own.is_dir()):
            raise _not_a_root(f"{named} holds no updater.toml")
        return layout
    here = Path(os.path.realpath("."))
    for layout in map(Layout, (here, *here.parents)):
        # A directory of that name alone may be anybody's.
        if layout.config.is_file() or (layout.own.is_dir() and layout.releases.is_dir()):
            return layout
    raise _not_a_root(f"there is no updater.toml in {here} or above it")


def _not_a_root(why: str) -> NotARoot:
    return NotARoot(
        why,
        state="Nothing was changed.",
        advice="go to the root, name it with --root DIR, or make one: updater init DIR --repo OWNER/NAME",
    )


def open_root(given: str | os.PathLike[str] | None = None, *, tolerant: bool = False) -> Root:
    """Find a root and read its configuration.

    ``tolerant``: a mistake in it is no hindrance. Looking, stopping, starting, going back and recovering must not depend on a
    typing error.

    Raises:
        NotARoot, ConfigError.
    """
    from updater.deployment import configuration

    layout = find_root(given)
    known = configuration.read(layout)
    if known.wrong is not None and not tolerant:
        raise known.wrong
    return Root(layout, known.config, known.wrong, known.instead)


def is_as_started(layout: Layout) -> bool:
    """Whether ``updater.toml`` is as it was when the release in service was started, and so right: told without reading TOML."""
    from updater.deployment import configuration
    from updater.releases import service

    return configuration.as_kept(layout, service.in_service(layout).version) is not None
