"""Records are written whatever the words in them hold, and one damaged record loses one only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updater import records
from updater.cli import output
from updater.layout import Layout
from updater.subprocesses import as_lines, read_fields

ODD = ["v1.1\udcff", "no \ud800 way", "übel", "a\nb", "\x00\x1b[2J"]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.logs.mkdir(parents=True)
    return made


@pytest.mark.parametrize("text", ODD)
def test_a_word_that_no_file_can_hold_does_not_keep_a_record_from_being_written(
    layout: Layout, text: str
) -> None:
    records.add_to_history(layout, {"id": "1", "reason": text})
    records.log(layout, text, error=True)
    (found,) = records.history(layout)
    assert (found["id"], found["reason"]) == ("1", text)
    assert layout.errors_log.read_text(encoding="utf-8").strip()


names = st.text().filter(
    lambda it: it not in ("error", "configuration", "phases", "warnings")
)  # these are no texts


@given(st.lists(st.dictionaries(names, st.text(alphabet=st.characters(exclude_categories=())))))
def test_what_was_written_is_read_again(found: list[dict[str, str]]) -> None:
    text = records.format_history(found)
    text.encode()
    assert records.parse_history(text) == (found, [])


@pytest.mark.parametrize("text", ODD)
def test_fields_can_always_be_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "mark").write_bytes(as_lines({"reason": text}).encode())
    assert len(read_fields(tmp_path / "mark")) == 1


@pytest.mark.parametrize("text", ODD)
def test_what_is_shown_can_be_printed_and_cannot_drive_the_terminal(text: str) -> None:
    shown = output.safe(text)
    shown.encode()
    assert "\x1b[2J" not in shown and "\x00" not in shown
    assert output.as_json({"text": text}).encode()


def test_a_record_of_another_form_is_damage_and_not_shown() -> None:
    odd = '{"outcome": "failed", "error": "disk full", "phases": 3}'
    sound = {"id": "1", "error": None, "phases": []}
    assert records.parse_history(f"[\n{odd},\n{json.dumps(sound)}\n]\n") == ([sound], [f"{odd},"])
