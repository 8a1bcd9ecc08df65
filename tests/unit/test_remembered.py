"""The record of the last look is never trusted: whatever is in it, what comes out has the documented form, or is None."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from updater import records
from updater.layout import Layout
from updater.operations import scheduling

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=9)
    | st.sampled_from(["v1", "../x", "2026-01-01T00:00:00Z"]),
    lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(max_size=9), it, max_size=3),
)
UPDATE = st.dictionaries(st.sampled_from(["tag", "name", "notes", "url", "published_at"]), JUNK)
ANSWER = st.dictionaries(st.sampled_from(["in_service", "newest", "source", "warnings"]), JUNK).flatmap(
    lambda it: st.fixed_dictionaries({"update": UPDATE | JUNK, "skipped": UPDATE | JUNK}).map(
        lambda more: it | more
    )
)
KNOWN = st.fixed_dictionaries(
    {"at": st.just("2026-01-01T00:00:00.000Z") | JUNK, "answer": ANSWER | JUNK, "error": UPDATE | JUNK},
    optional={"notified": JUNK, "waiting": JUNK, "answered_at": JUNK},
)


@given(KNOWN | JUNK)
def test_whatever_is_in_it(tmp_path_factory: object, found: object) -> None:
    layout = Layout(Path(tmp_path_factory.mktemp("root")))  # type: ignore[attr-defined]
    layout.own.mkdir()
    layout.check.write_text(json.dumps(found))
    known = scheduling.remembered(layout)
    if known is None:
        return
    assert records.moment(known["at"]) is not None
    assert all(isinstance(it, str) and "/../" not in it for it in known["notified"])
    assert known["waiting"] is None or isinstance(known["waiting"], str)
    assert known["error"] is None or isinstance(known["error"]["message"], str)
    if (answer := known["answer"]) is not None:
        assert answer["in_service"] is None, "nothing is in service here"
        assert answer.keys() == {"in_service", "newest", "update", "skipped", "source", "warnings"}
        if update := answer["update"]:
            assert isinstance(update["tag"], str) and not update["tag"].startswith((".", "/"))
            assert update["url"] is None or update["url"].startswith("http")
    layout.check.write_bytes(b"\xff\x00{")
    assert scheduling.remembered(layout) is None
