"""What became of each key from one release's defaults to the next, as far as it concerns the user's file. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from updater.settings.merging import Path, Values

ALIKE = 0.7
"""How much of two names must agree, of 1, for a key to look renamed in its place."""


class Differences(NamedTuple):
    """``added``: only in the new defaults. ``removed``: only in the old ones. ``renamed``: pairs of these two that look like one key;
    they are in neither of them. ``changed``: in both, with another default."""

    added: tuple[Path, ...] = ()
    removed: tuple[Path, ...] = ()
    renamed: tuple[tuple[Path, Path], ...] = ()
    changed: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.renamed or self.changed)


def compare(old: Values | None, new: Values, user: Values | None = None) -> Differences:
    """The differences between two releases' defaults; with the ``user``'s keys only those that matter to that file: what it has
    not got yet is added, what it has is removed or renamed, what it has left at the old default has changed.

    ``old`` None: the earlier release had no defaults, so all that the new ones have is new.
    """
    was = old or {}
    added = [path for path in new if path not in was]
    removed = [path for path in was if path not in new]
    if user is not None:
        removed = [path for path in removed if path in user]
    renamed = likely_renamed(removed, added, was, new)
    gone, came = {old for old, _ in renamed}, {new for _, new in renamed}
    if user is not None:
        added = [path for path in added if path not in user]
        renamed = [(old, new) for old, new in renamed if new not in user]
    return Differences(
        added=tuple(path for path in added if path not in came),
        removed=tuple(path for path in removed if path not in gone),
        renamed=tuple(renamed),
        changed=tuple(
            path
            for path in new
            if path in was and new[path] != was[path] and (user is None or user.get(path) == was[path])
        ),
    )


def likely_renamed(
    removed: Iterable[Path], added: Collection[Path], old: Values, new: Values
) -> list[tuple[Path, Path]]:
    """Pairs of a key that went and one that came and look the same: each key in one pair at most, the most alike first."""
    likeness = [(_likeness(gone, came, old, new), gone, came) for gone in removed for came in added]
    pairs: list[tuple[Path, Path]] = []
    for score, gone, came in sorted(likeness, key=lambda it: -it[0]):
        if score > 0 and all(gone != it[0] and came != it[1] for it in pairs):
            pairs.append((gone, came))
    return sorted(pairs)


def _likeness(gone: Path, came: Path, old: Values, new: Values) -> float:
    """How alike two keys are; 0: not enough to say so. The same value counts for something, and so does the same table."""
    if not gone or not came:
        return 0
    same_value = old[gone] == new[came]
    if gone[-1] == came[-1]:
        return 1 + same_value  # moved to another table
    if gone[:-1] != came[:-1]:
        return 0
    import difflib

    names = difflib.SequenceMatcher(None, gone[-1].lower(), came[-1].lower()).ratio()
    needed = ALIKE - 0.2 if same_value else ALIKE
    return names + same_value if names >= needed else 0
