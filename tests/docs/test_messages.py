"""What the guides promise of themselves: messages are messages of updater, each case is broken and mended, each question listed."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.docs.pages import HERE, read
from tests.unit.test_advice import SOURCES, texts

PAGE = HERE / "TROUBLESHOOTING.md"
ROW = re.compile(r"^\| (`+)(.+?)\1 \|", re.MULTILINE)


def messages() -> list[str]:
    """The first column of every table below `By message`."""
    text = PAGE.read_text(encoding="utf-8").partition("## By message")[2]
    return [found[2].strip() for found in ROW.finditer(text)]


@cache
def said() -> list[str]:
    """Everything that updater and its scripts say."""
    scripts = [
        line for it in (HERE / "scripts").glob("*.sh") for line in it.read_text(encoding="utf-8").splitlines()
    ]
    return [*(text for source in SOURCES for _, text in texts(source) if len(text) > 5), *scripts]


def holds(text: str, parts: list[str]) -> bool:
    """Whether a text has the parts, in their order."""
    place = 0
    for part in parts:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def test_there_are_messages() -> None:
    assert len(messages()) > 70


@pytest.mark.parametrize("message", messages())
def test_a_message_is_one_of_updater(message: str) -> None:
    """A message may be put together from several texts."""
    parts = [it.strip() for it in message.split("…") if it.strip()]
    assert any(holds(text, parts) for text in said()) or all(
        any(part in text for text in said()) for part in parts
    )


def test_every_question_is_in_the_table_of_contents() -> None:
    text = (HERE / "docs" / "UPDATE_FAQ.md").read_text(encoding="utf-8")
    questions = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert len(questions) >= 50
    assert questions == re.findall(r"^- \[(.+)\]\(#", text, re.MULTILINE)


def test_each_case_of_the_failure_guide_is_broken_and_then_runs() -> None:
    page = read(HERE / "UPDATE_FAILURE_GUIDE.md")
    worlds = list(page.worlds())
    assert len(worlds) == len([it for it in page.headings if re.match(r"\d+\. ", it)]) >= 12
    for world in worlds:
        assert world.preparation.startswith("broken-"), world.where
        assert any("runs" in block.notes for block in world.blocks), world.where
