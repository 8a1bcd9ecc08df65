"""The messages that TROUBLESHOOTING.md explains are messages of updater."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.docs.pages import HERE
from tests.unit.test_advice import SOURCES, texts

PAGE = HERE / "TROUBLESHOOTING.md"
ROW = re.compile(r"^\| (`+)(.+?)\1 \|", re.MULTILINE)


def messages() -> list[str]:
    """The first column of every table below `By message`."""
    text = PAGE.read_text(encoding="utf-8").partition("## By message")[2]
    return [found[2].strip() for found in ROW.finditer(text)]


@cache
def said() -> list[str]:
    """Everything that updater says."""
    return [text for source in SOURCES for _, text in texts(source) if len(text) > 5]


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
