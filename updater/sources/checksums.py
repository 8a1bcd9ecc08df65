"""Published files of SHA-256 sums."""

from __future__ import annotations

import re

_GNU = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_BSD = re.compile(r"SHA256 ?\((.+)\) ?= ?([0-9a-fA-F]{64})")
_BARE = re.compile(r"([0-9a-fA-F]{64})")


def parse(text: str, *, only: str | None = None) -> dict[str, str]:
    """Name → SHA-256 in lower-case hex, from the formats of ``sha256sum``, ``shasum`` and BSD's ``sha256``.

    A file that holds one bare sum speaks of ``only``.
    """
    found = {}
    for line in text.splitlines():
        line = line.strip()
        if match := _GNU.fullmatch(line):
            found[match[2].strip().removeprefix("./")] = match[1].lower()
        elif match := _BSD.fullmatch(line):
            found[match[1]] = match[2].lower()
        elif (match := _BARE.fullmatch(line)) and only:
            found[only] = match[1].lower()
    return found
