"""Words for a shell: what updater writes so that an emergency script can read or run it, with no Python about."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Sequence


def escaped(text: str) -> bytes:
    """A name as one word on one line, whatever it holds; ``printf %b`` gives it back.

    Backslashes are doubled; control characters and spaces are ``\\0ooo``. Everything else stays the bytes that it is on the disk.
    """
    return b"".join(map(_escape, os.fsencode(text)))


def _escape(byte: int) -> bytes:
    if byte == 0x5C:
        return b"\\\\"
    return b"\\0%03o" % byte if byte <= 0x20 or byte == 0x7F else bytes((byte,))


def comment(*words: str) -> str | None:
    """Words quoted for a line of comment, from which a script takes them by ``eval``; None if one could break out of it."""
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for word in words for sign in word):
        return None
    return " ".join(map(shlex.quote, words))


def command(words: Sequence[str]) -> str:
    """A command of a release, for a script that has the release's directory in ``$release``.

    ``python`` is the release's own, by its resolved path: so the process list tells from which release a process runs.
    """
    first, *rest = words
    if first in ("python", "python3"):
        word = '"$release/.venv/bin/python"'
    elif first.startswith(("./", "../")) or "/" not in first:
        word = shlex.quote(first)
    else:
        word = shlex.quote(first) if os.path.isabs(first) else f'"$release"/{shlex.quote(first)}'
    return " ".join([word, *map(shlex.quote, rest)])
