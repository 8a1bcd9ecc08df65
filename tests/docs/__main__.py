"""Run a page's blocks as the test does, and show what they print, in the page's words.

python -m tests.docs PAGE [--write]        --write: put what the console blocks really print into the page
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docs.pages import Block, read
from tests.docs.preparations import PREPARATIONS
from tests.docs.world import Ran, console, shows, world


def main(path: Path, *, write: bool) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    anew: dict[int, tuple[int, str]] = {}
    for blocks in read(path).worlds():
        with tempfile.TemporaryDirectory() as place, world(Path(place).resolve()) as made:
            PREPARATIONS[blocks.preparation](made)
            for block in blocks.blocks:
                ran = list(made.run(block))
                print(f"--- {block.where}")
                print("\n".join(f"$ {it.typed}\n{it.output}[exit code {it.code}]" for it in ran), flush=True)
                if write and block.language == "console":
                    anew[block.line] = (len(block.text.splitlines()), _as_it_was(block, ran))
    for line, (many, text) in sorted(
        anew.items(), reverse=True
    ):  # from the end: the lines before stay where they are
        lines[line : line + many] = [text]
    if write:
        path.write_text("".join(lines), encoding="utf-8")


def _as_it_was(block: Block, ran: list[Ran]) -> str:
    """The block anew; output that only differs in times and the like stays."""
    text = ""
    for (command, shown), it in zip(console(block.text), ran, strict=True):
        first, *more = command.splitlines()
        text += f"$ {first}\n" + "".join(f"> {line}\n" for line in more)
        text += shown if shows(shown, it.output) else it.output
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), write="--write" in sys.argv)
