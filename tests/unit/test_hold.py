"""The file of a hold: whatever is in it, updates are held while it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from updater import hold
from updater.layout import Layout

RUBBISH = ["", "{", "[]", '{"reason": 3, "by": null, "at": "yesterday"}', '{"at": {}}', "[" * 100_000, "\0"]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_what_cannot_be_read_holds_all_the_same(tmp_path: Path, rubbish: str) -> None:
    layout = Layout(tmp_path)
    layout.own.mkdir()
    layout.hold.write_text(rubbish)
    assert hold.read(layout) == hold.Hold("", "", "")
    assert hold.take(layout) is not None and hold.read(layout) is None and hold.take(layout) is None


def test_anything_of_that_name_holds(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.own.mkdir()
    layout.hold.symlink_to("nowhere")
    assert hold.read(layout) is not None
    hold.put(layout, "mine", "me")
    assert not layout.hold.is_symlink() and hold.read(layout) is not None


def test_a_reason_is_one_line_of_bounded_length(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    made = hold.put(layout, "two\nlines " + "x" * 1000, "me")
    assert made.reason.startswith("two lines xxx") and len(made.reason) == hold.LONGEST
    assert hold.read(layout) == made
    layout.hold.write_text('{"reason": "' + "x" * 1000 + '", "by": "me", "at": ""}')
    found = hold.read(layout)
    assert found is not None and len(found.reason) == hold.LONGEST and found.at == ""
