"""Published files of SHA-256 sums."""

from __future__ import annotations

import re

from updater.errors import VerificationFailed

_GNU = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_BSD = re.compile(r"SHA256 ?\((?P<name>.+)\) ?= ?(?P<sum>[0-9a-fA-F]{64})")
_BARE = re.compile(r"[0-9a-fA-F]{64}")


def find(text: str, name: str, *, bare: bool = True) -> str | None:
    """The SHA-256 of a file in lower-case hex, from the formats of ``sha256sum``, ``shasum`` and BSD's ``sha256``; None if
    the text has none.

    Directories in front of a listed name are not compared: sums are made where the files are built. ``bare``: the text may
    be one sum without a name.

    Raises:
        VerificationFailed: the text has several that differ, or speaks of the file in a form that is not understood.
    """
    exact, elsewhere, unclear = set(), set(), False
    for line in filter(None, map(str.strip, text.splitlines())):
        listed, digest = _read(line)
        if not digest:
            unclear |= name in re.split(r"[\s/()*]+", line)
        elif listed == name or (not listed and bare):
            exact.add(digest)
        elif listed.rpartition("/")[2] == name:
            elsewhere.add(digest)
    found = exact or elsewhere
    if len(found) > 1 or (unclear and not found):
        why = "several sums that differ" if found else "a sum that is no SHA-256"
        raise VerificationFailed(
            f"the published sums give {why} for {name}", advice="ask the publisher which file is meant."
        )
    return next(iter(found), None)


def _read(line: str) -> tuple[str, str]:
    """The name and the sum in a line; empty where there is none."""
    if match := _GNU.fullmatch(line):
        return match[2].strip().removeprefix("./"), match[1].lower()
    if match := _BSD.fullmatch(line):
        return match["name"].removeprefix("./"), match["sum"].lower()
    return "", line.lower() if _BARE.fullmatch(line) else ""
