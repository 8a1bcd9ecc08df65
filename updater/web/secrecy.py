"""No secret leaves by the browser: everything that is sent is gone through first."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from updater import operations, redaction
from updater.errors import UpdaterError
from updater.layout import Layout
from updater.settings import secrets

SHORT = 8
"""Characters below which a secret is not looked for: `none` is a usual password of test machines, and a word of the API."""

_OVER_LINES = "PRIVATE KEY-----"
"""What begins or ends a secret of several lines: those of a log are then gone through together."""

_NAMES_OF_THEIRS = ("packages",)
"""Keys whose value has names of other people as its keys: google-auth is no secret."""

_of: Layout | None = None


def of(layout: Layout) -> None:
    """From now on the secrets of this root are known, besides those of the environment."""
    global _of
    _of = layout


def blank(data: Any) -> Any:
    """The same without secrets: those that are known here, and what looks like one. Keys stay as they are."""
    return _blanked(data, _redactor(), judge=True)


def _blanked(data: Any, redactor: redaction.Redactor, *, judge: bool) -> Any:
    if isinstance(data, Mapping):
        return {
            name: redaction.BLANK
            if judge and redaction.is_secret(str(name)) and redaction.holds(value)
            else _blanked(value, redactor, judge=name not in _NAMES_OF_THEIRS)
            for name, value in data.items()
        }
    if isinstance(data, (list, tuple)):
        if any(isinstance(it, str) and _OVER_LINES in it for it in data):
            return redactor.text("\n".join(map(str, data))).split("\n")
        return [_blanked(it, redactor, judge=judge) for it in data]
    return redactor.text(data) if isinstance(data, str) else data


def _redactor() -> redaction.Redactor:
    if _of is None:
        return _made(None, ())
    files = [_of.config, _of.token, *secrets.usual(_of)]
    return _made(_of, tuple(map(_sign, files)))


def _sign(path: Path) -> tuple[str, int, int, int] | None:
    """What changes when a file does."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return str(path), found.st_ino, found.st_mtime_ns, found.st_size
    return None


@functools.lru_cache(maxsize=2)
def _made(layout: Layout | None, _signs: object) -> redaction.Redactor:
    known = redaction.secrets_of(os.environ)
    if layout is not None:
        with contextlib.suppress(OSError):
            known.append(layout.token.read_text(encoding="utf-8", errors="replace").strip())
        with contextlib.suppress(UpdaterError, OSError):
            root = operations.open_root(layout.root, tolerant=True)
            known += secrets.known(layout, root.config, secrets.usual(layout))
    return redaction.Redactor(it for it in known if len(it) >= SHORT)
