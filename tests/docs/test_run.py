"""What the pages tell the reader to type is typed, and does what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import World as Blocks
from tests.docs.pages import pages, read
from tests.docs.preparations import PREPARATIONS
from tests.docs.world import console, shows, world
from tests.reference_pages import own_names


@pytest.mark.parametrize(
    "blocks", [it for page in pages() for it in read(page).worlds()], ids=lambda it: it.where
)
def test_the_blocks_of_a_page_can_be_run(blocks: Blocks, tmp_path: Path) -> None:
    with world(tmp_path) as made:
        PREPARATIONS[blocks.preparation](made)
        for block in blocks.blocks:
            ran = list(made.run(block))
            told = "\n".join(f"$ {it.typed}\n{it.output}[exit code {it.code}]" for it in ran)
            codes = [it.code for it in ran]
            assert codes == [0] * (len(ran) - 1) + [block.ends], f"{block.where}: ends with {codes}:\n{told}"
            if block.language == "console":
                for (command, shown), it in zip(console(block.text), ran, strict=True):
                    assert shows(shown, it.output), (
                        f"{block.where}: {command} shows\n{it.output}\nand not\n{shown}"
                    )
            output = "".join(it.output for it in ran)
            for text in block.notes.get("shows", ()):
                assert text in output, f"{block.where}: does not show {text!r}:\n{told}"
            for version in block.notes.get("runs", ()):
                made.runs(version)
        own = {it.name for it in made.site.layout.own.iterdir() if not it.name.startswith(".tmp-")}
        assert own <= own_names(), "docs/format.md has a table of these names"
