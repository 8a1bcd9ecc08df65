"""What became of a key: added, removed, renamed, or another default."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from updater.settings.comparing import compare
from updater.settings.merging import Values


def values(**keys: object) -> Values:
    return {tuple(name.split("__")): repr(value) for name, value in keys.items()}


def test_a_key_that_came_and_one_that_went() -> None:
    found = compare(values(a=1, web__port=2), values(a=1, exchange="x"))
    assert found.added == (("exchange",),) and found.removed == (("web", "port"),) and not found.renamed


def test_a_key_that_moved_to_another_table_looks_renamed() -> None:
    found = compare(values(trading__tick=0.2), values(market__tick=0.5))
    assert found.renamed == ((("trading", "tick"), ("market", "tick")),)
    assert not found.added and not found.removed


def test_a_key_with_a_name_much_alike_looks_renamed_and_others_do_not() -> None:
    assert compare(values(timeout=30), values(timeout_s=5)).renamed
    assert compare(values(tick=0.25), values(ticks_s=0.25)).renamed, "the same value"
    assert not compare(values(fast=3), values(exchange=3)).renamed
    assert not compare(values(a__fast=3), values(b__slow=3)).renamed


def test_each_key_is_in_one_pair() -> None:
    found = compare(values(timeout=1, timeouts=2), values(timeout_s=2))
    assert found.renamed == ((("timeouts",), ("timeout_s",)),) and found.removed == (("timeout",),)


def test_only_what_matters_to_the_users_file() -> None:
    old, new = values(a=1, gone=1, old_name=1, c=1), values(a=2, b=1, old_names=1, c=1)
    found = compare(old, new, values(a=1, gone=3, old_name=5))
    assert found.added == (("b",),) and found.removed == (("gone",),)
    assert found.renamed == ((("old_name",), ("old_names",)),) and found.changed == (("a",),)
    assert not compare(old, new, values(a=7, b=1, old_names=2)), "it has all of it, and a value of its own"


def test_without_earlier_defaults_everything_is_new() -> None:
    assert compare(None, values(a=1, b=2), values(a=5)).added == (("b",),)


KEYS = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["tick", "ticks", "port"])), st.sampled_from("123")
)


@given(KEYS, KEYS)
def test_every_key_that_came_or_went_is_told_once(old: Values, new: Values) -> None:
    found = compare(old, new)
    gone = [*found.removed, *(before for before, _ in found.renamed)]
    came = [*found.added, *(after for _, after in found.renamed)]
    assert sorted(gone) == sorted(old.keys() - new.keys())
    assert sorted(came) == sorted(new.keys() - old.keys())
    assert not compare(new, new)
