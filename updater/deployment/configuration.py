"""The configuration that a command goes by: ``updater.toml``, or what a release last ran with where that is wrong or gone.

No typing error may bar the way back. So the text of the file is kept for each release that is started with it, in
``.updater/configurations/``; its processes are kept in its launchers besides (:mod:`updater.processes.bound`).
"""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from updater import durable
from updater.errors import ConfigError
from updater.layout import Layout
from updater.releases import service

if TYPE_CHECKING:
    from updater.config import Config

NEVER = 1_000_000
"""How many releases and backups stay where nobody knows how many should."""


class Known(NamedTuple):
    """A configuration. ``wrong``: what is wrong with ``updater.toml``; ``instead`` then says what this one is; it is empty if
    nothing is known at all."""

    config: Config
    wrong: ConfigError | None = None
    instead: str = ""


def read(layout: Layout) -> Known:
    """The present configuration; where it is wrong, what the release in service last ran with."""
    from updater import configfile

    try:
        return Known(configfile.load(layout.config))
    except ConfigError as wrong:
        found = _first(layout, *_served(layout))
        return found._replace(wrong=wrong) if found else Known(_unknown(layout), wrong)


def of_release(layout: Layout, version: str, wrong: ConfigError) -> Known:
    """What a release is to be started with while ``updater.toml`` is wrong: as it last ran, else as that did which is in service.

    Raises:
        ConfigError: ``wrong``; nothing tells how.
    """
    found = _first(layout, version, *_served(layout))
    if found is None:
        raise wrong
    return found._replace(wrong=wrong)


def keep(layout: Layout, config: Config, version: str) -> None:
    """Keep the text of the configuration that a release is started with. On a full disk the older one stays."""
    if not config.text:
        return
    place, wanted = layout.configuration(version), (_head(version, config) + config.text).encode()
    with contextlib.suppress(OSError):
        if not place.is_file() or durable.read(place) != wanted:
            durable.make_directory(place.parent)
            mode = (
                layout.config.stat().st_mode & 0o777 if layout.config.is_file() else 0o600
            )  # it may hold a password
            durable.write(place, wanted, mode=mode)


class Summary(NamedTuple):
    """What a look needs of a configuration."""

    name: str
    processes: tuple[str, ...]


def as_kept(layout: Layout, version: str | None) -> Summary | None:
    """What ``updater.toml`` says, if it is byte for byte what this very updater started a release with, and so found right; else
    None. Reading TOML takes as long as much of the rest of a look."""
    if version is None:
        return None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        head, _, kept = durable.read(layout.configuration(version)).partition(b"\n")
        if kept != durable.read(layout.config).removeprefix(codecs.BOM_UTF8):
            return None
        about, _, said = head.decode().partition(_FOUND)
        if about == _about(version):
            found = json.loads(said)
            return Summary(str(found["name"]), tuple(map(str, found["processes"])))
    return None


_FOUND = " found no mistake in it: "


def _about(version: str) -> str:
    from updater import version as own_version

    return f"# updater.toml as {version} was last started with it; updater {own_version()}"


def _head(version: str, config: Config) -> str:
    return (
        f"{_about(version)}{_FOUND}{json.dumps({'name': config.name, 'processes': list(config.processes)})}\n"
    )


def _served(layout: Layout) -> Iterator[str]:
    for version in (service.in_service(layout).release, service.named_by(layout, layout.good)):
        if version:
            yield version


def _first(layout: Layout, *versions: str) -> Known | None:
    """What is known of the first of these releases of which anything is."""
    return next((found for it in dict.fromkeys(versions) if (found := _kept(layout, it))), None)


def _kept(layout: Layout, version: str) -> Known | None:
    from updater.processes import bound
    from updater.releases import shared

    if config := _from_text(layout, version):
        place = layout.configuration(version).relative_to(layout.root)
        whole = bound.configuration(layout, config, version, config.processes)
        return Known(whole, instead=f"what {version} was last started with ({place})")
    if processes := bound.of_release(layout, version):
        config = replace(_unknown(layout), processes=processes, shared=shared.links(layout, version))
        return Known(
            config, instead=f"the launchers of {version}; what they do not tell, the gate too, by its default"
        )
    return None


def _unknown(layout: Layout) -> Config:
    """Every default, but that nothing is pruned."""
    from updater.config import BackupConfig, Config

    return Config(layout.config, keep=NEVER, backup=BackupConfig(keep=NEVER))


def _from_text(layout: Layout, version: str) -> Config | None:
    from updater import configfile

    with contextlib.suppress(OSError, UnicodeDecodeError, ConfigError):
        kept = durable.read(layout.configuration(version)).decode()
        config = configfile.parse(kept, layout.config)
        return replace(config, text=kept.partition("\n")[2])
    return None
