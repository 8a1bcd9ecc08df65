"""What a deployment does to the settings, as a record and in words. Values are never told: they may be secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from updater.settings.comparing import Differences
from updater.settings.merging import Path, shown

Json = dict[str, Any]


@dataclass
class Report:
    """Files are paths from the root, keys as people write them.

    ``added``: keys that were, or would be, inserted. ``offered``: the release has them and the file not, and they are only shown.
    ``by_hand``: new ones for which there is no place for a line of their own. ``removed``, ``renamed``, ``changed``: what the defaults
    have no more, under another name, or with another value. ``restored``: files that are again as the release ran with them.
    ``kept``: files as they were edited since, and where they are now. ``missing``: files that only the user can provide.
    """

    added: list[Json] = field(default_factory=list)
    offered: list[Json] = field(default_factory=list)
    by_hand: list[Json] = field(default_factory=list)
    removed: list[Json] = field(default_factory=list)
    renamed: list[Json] = field(default_factory=list)
    changed: list[Json] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    kept: list[Json] = field(default_factory=list)
    missing: list[Json] = field(default_factory=list)

    def as_json(self) -> Json:
        return asdict(self)

    def note(self, file: str, differences: Differences) -> None:
        """What became of the keys that the file has."""
        self.removed += keys(file, differences.removed)
        self.changed += keys(file, differences.changed)
        self.renamed += [
            {"file": file, "from": shown(old), "to": shown(new)} for old, new in differences.renamed
        ]


def keys(file: str, paths: Iterable[Path]) -> list[Json]:
    return [{"file": file, "key": shown(path)} for path in paths]


_WORDS = {
    "added": "added",
    "offered": "not in it, but in the release's defaults",
    "by_hand": "to be added by hand",
    "removed": "no longer in the defaults",
    "changed": "with another default now; yours stays",
}
_AHEAD = {**_WORDS, "added": "would be added"}
_BETWEEN = {
    **_WORDS,
    "added": "new in the defaults",
    "removed": "not in the defaults",
    "changed": "with another default",
}


def lines(report: Mapping[str, Any], *, ahead: bool = False, between: bool = False) -> list[str]:
    """A report for people, a line for each fact; reads what :meth:`Report.as_json` wrote, also a part of it.

    ``ahead``: nothing of it has happened yet. ``between``: it is of two releases, and of no file of the user's.
    """
    said = []
    for name, words in (_BETWEEN if between else _AHEAD if ahead else _WORDS).items():
        for file, names in _by_file(report.get(name) or ()).items():
            said.append(f"{file}: {words}: {', '.join(names)}")
    for it in report.get("renamed") or ():
        yours = "" if between else "; your value is not carried over"
        said.append(f"{it['file']}: {it['from']} looks renamed to {it['to']}{yours}")
    for file in report.get("restored") or ():
        said.append(f"{file}: {'would come back' if ahead else 'is back'} as this release last ran with it")
    for it in report.get("kept") or ():
        said.append(f"{it['file']}: your edits since are in {it['as']}")
    for it in report.get("missing") or ():
        said.append(f"{it['file']} is missing; to start from the release's: {it['command']}")
    return said


def _by_file(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for it in entries:
        found.setdefault(str(it["file"]), []).append(str(it["key"]))
    return found
