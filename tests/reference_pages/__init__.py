"""The parts of the documentation that are made from the code.

python -m tests.reference_pages        write them anew
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.reference_pages import api, commands, configuration, exit_codes

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES: dict[str, Callable[[], str]] = {
    "api.md": api.reference,
    "reference/commands.md": commands.reference,
    "reference/configuration.md": configuration.reference,
    "reference/exit-codes.md": exit_codes.reference,
}
BEGIN = "<!-- made by `python -m tests.reference_pages`; a test holds it against the code -->"
END = "<!-- end -->"


def written(text: str, reference: str) -> str:
    """A page with the reference of today. What stands around it is written by hand."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference}\n{END}{after}"


def pages() -> Iterator[tuple[Path, str, str]]:
    """Each page: where it is, what it says, what it should say."""
    for name, reference in PAGES.items():
        path = DOCS / name
        text = path.read_text(encoding="utf-8")
        yield path, text, written(text, reference())


def own_names() -> set[str]:
    """What docs/format.md tells of `.updater/`: the first part of each name."""
    text = (DOCS / "format.md").read_text(encoding="utf-8")
    table = text.partition("\n  .updater/\n")[2].partition("```")[0]
    lines = [re.split(r" {2,}", line.strip())[0] for line in table.splitlines() if re.match(r" {4}\S", line)]
    return {
        name.strip().partition("/")[0]
        for line in lines
        for name in line.split(",")
        if not name.strip().startswith(".")
    }
