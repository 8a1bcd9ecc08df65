"""Every secret of a root that can be told as one: what must not leave this machine in a report or a message."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from updater import durable, redaction
from updater.config import Config
from updater.errors import UpdaterError
from updater.layout import Layout
from updater.settings import merging

LONGEST = 256 * 1024
"""Bytes of a settings file that are looked through."""


def known(layout: Layout, config: Config, settings: Iterable[Path] | None = None) -> list[str]:
    """The values, here, in the environment and in the settings, whose names say that they are secret.

    ``settings``: the files of the application's settings; without it they are looked for in all of ``shared/``.
    """
    found = redaction.secrets_of(os.environ)
    found += [os.environ.get(name, "") for name in config.own_variables]
    for process in config.processes.values():
        found += redaction.secrets_of(process.env)
    for dump in config.backup.dumps.values():
        found += dump.env.values()  # all of them: the documentation says to put passwords there
    if config.notify.configured:
        from updater import notifications

        found += redaction.secrets_of_urls(notifications.targets(config.notify).urls)
    own = (layout.config, *layout.configurations.glob("*.toml"))
    named = (layout.shared / below for below in config.shared.values())
    for path in (*own, *(_settings(layout) if settings is None else settings), *named):
        with contextlib.suppress(OSError, UpdaterError):
            found += _secrets_in(path)
    for path in own:
        with contextlib.suppress(OSError):
            text = durable.read(path, LONGEST).decode("utf-8", "replace")
            found += redaction.secrets_of_urls(redaction.addresses_in_toml(text))
    return found


def _secrets_in(path: Path) -> list[str]:
    """By the lines of a file, and where it is of a known kind also by what it says: a value may go over several lines."""
    content = durable.read(Path(os.path.realpath(path)), LONGEST)
    found = list(redaction.secrets_in_text(content.decode("utf-8", "replace")))
    if form := merging.format_of(path.name):
        with contextlib.suppress(merging.Unreadable):
            for names, value in form.scalars(merging.decode(content)):
                if any(map(redaction.is_secret, names)):
                    found.append(value)
    return found


def _settings(layout: Layout) -> Iterator[Path]:
    """Files that may hold the application's settings: all in ``shared/config``, and every ``.env``."""
    for directory, _, names in os.walk(os.path.realpath(layout.shared / "config")):
        yield from (Path(directory, name) for name in names)
    for directory, below, names in os.walk(os.path.realpath(layout.shared)):
        below[:] = [it for it in below if it not in ("backups", "logs")]
        yield from (
            Path(directory, name) for name in names if name.endswith(".env") or name.startswith(".env")
        )


def usual(layout: Layout, limit: int = 50) -> list[Path]:
    """Settings in the usual places, found without a walk through all data: the files directly in ``shared/config``, and a
    ``.env`` in ``shared/``."""
    found: list[Path] = []
    for directory in (layout.shared / "config", layout.shared):
        with contextlib.suppress(OSError):
            found += [
                path for path in sorted(directory.iterdir())
                if path.is_file() and (directory != layout.shared or ".env" in path.name)
            ]  # fmt: skip
    return found[:limit]
