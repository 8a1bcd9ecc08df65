"""New keys are inserted into the user's settings; everything that the user wrote stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from updater.settings import merging
from updater.settings.merging import Merged, Path, Unreadable, format_of

NAMES = {"toml": "settings.toml", "yaml": "settings.yaml", "json": "settings.json", "env": ".env"}


def merged(name: str, user: str, defaults: str, known: set[Path] = frozenset()) -> Merged:  # type: ignore[assignment]
    form = format_of(name)
    assert form is not None
    return merging.merged(form, user, defaults, known)


# --- what a person sees


def test_a_key_comes_with_its_comment_into_its_table() -> None:
    user = '[trading]\nsymbol = "BTC/EUR"   # mine\n\n# the page\n[web]\nport = 1\n'
    brought = '[trading]\nsymbol = "X"\n# percent of each trade\nfee = 0.1   # as on the exchange\n[web]\nport = 8080\n'
    found = merged("settings.toml", user, brought)
    assert found.text == (
        '[trading]\nsymbol = "BTC/EUR"   # mine\n# percent of each trade\nfee = 0.1   # as on the exchange\n\n'
        "# the page\n[web]\nport = 1\n"
    )
    assert found.added == [("trading", "fee")]


def test_a_new_table_goes_to_the_end() -> None:
    found = merged("settings.toml", "[a]\nx = 1\n", '[a]\nx = 2\n# where it trades\n[exchange]\nname = "p"\n')
    assert found.text == '[a]\nx = 1\n\n# where it trades\n[exchange]\nname = "p"\n'


def test_dotted_keys_stay_dotted() -> None:
    found = merged("settings.toml", "web.port = 1\n[z]\ny = 1\n", "[web]\nport = 2\ntls = true # secure\n")
    assert found.text == "web.port = 1\nweb.tls = true # secure\n[z]\ny = 1\n"


@pytest.mark.parametrize("value", ["true", "0x1F", "1_000.5", "'x'", "[1, 2]", "2026-01-05"])
def test_a_key_of_an_inline_table_becomes_a_line(value: str) -> None:
    found = merged("settings.toml", "[web]\nport = 1\n", f"web = {{ port = 2, new = {value} }}\n")
    assert found.text == f"[web]\nport = 1\nnew = {value}\n"


def test_what_has_no_place_for_a_line_is_left_for_a_person() -> None:
    found = merged("settings.toml", "auth = { user = 'me' }\n", "auth = { user = 'you', realm = 'x' }\n")
    assert (found.text, found.added) == ("auth = { user = 'me' }\n", [])
    assert found.by_hand == [("auth", "realm")]
    flow = merged("settings.yml", "auth: {user: me}\n", "auth: {user: you, realm: x}\n")
    assert (flow.text, flow.by_hand) == ("auth: {user: me}\n", [("auth", "realm")])


def test_a_value_of_the_users_stands_where_the_defaults_have_a_table() -> None:
    for name, user, brought in (
        ("a.toml", "log = 'off'\n", "[log]\nlevel = 1\n"),
        ("a.yaml", "log: off\n", "log:\n  level: 1\n"),
        ("a.json", '{"log": false}', '{"log": {"level": 1}}'),
    ):
        found = merged(name, user, brought)
        assert (found.text, found.by_hand) == (user, [("log", "level")])


def test_yaml_is_indented_as_the_user_indents_it() -> None:
    user = "web:\n    port: 1   # mine\n    names:\n    - a\n    -\n# foot\nbot:\n    token: !secret token\n"
    brought = "web:\n  port: 2\n  # secure\n  tls:\n    key: |\n      line\n  more: [1,\n    2]\nbot:\n  token: ''\n  list:\n  - x\n"
    found = merged("settings.yaml", user, brought)
    assert found.text == (
        "web:\n    port: 1   # mine\n    names:\n    - a\n    -\n    # secure\n    tls:\n      key: |\n        line\n"
        "    more: [1,\n      2]\n# foot\nbot:\n    token: !secret token\n    list:\n    - x\n"
    )


def test_what_yaml_merges_in_is_there_already() -> None:
    user = "base: &base\n  a: 1\nweb:\n  <<: *base\n  b: 2\n"
    assert merged("s.yaml", user, "web:\n  a: 9\n  b: 9\n").text == user
    assert merged("s.yaml", user, "web:\n  c: 9\n").text == f"{user}  c: 9\n"


def test_json_needs_no_comma_on_a_line_of_the_users() -> None:
    user = '{\n  "a": 1,\n  "z": {\n    "y": 2\n  }\n}\n'
    found = merged("settings.json", user, '{"a": 0, "b": [1], "z": {"y": 0, "x": null}}')
    assert found.text == '{\n  "a": 1,\n  "b": [1],\n  "z": {\n    "x": null,\n    "y": 2\n  }\n}\n'
    assert merged("settings.json", "{}", '{"a": 1}').text == '{\n  "a": 1\n}'


def test_env_files_go_by_the_rules_of_dotenv() -> None:
    user = "# mine\nexport TOKEN='a\nb' # both lines\nEMPTY\nX = 1"
    brought = 'TOKEN=\nEMPTY=1\n# seconds\nexport TICK="0.2" # default\nX=2\n'
    found = merged(".env", user, brought)
    assert found.text == f'{user}\n# seconds\nexport TICK="0.2" # default\n'


def test_what_the_user_took_out_stays_out() -> None:
    """Three ways: a key that the earlier defaults had too is missing on purpose, and so is what is new in its table."""
    known = {("a",), ("telegram", "token")}
    found = merged("s.toml", "b = 1\n", "a = 1\nb = 2\nc = 3\n[telegram]\ntoken = ''\nsilent = true\n", known)
    assert found.text == "b = 1\nc = 3\n" and found.added == [("c",)] and found.by_hand == []


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.toml", "a = 1\nb =\n", 2),
        ("a.toml", "a = 1\na = 2\n", 2),
        ("a.yaml", "a: 1\nb: [\n", 3),
        ("a.yaml", "a: 1\nb: 2\na: 3\n", 3),
        ("a.yaml", "a: 1\n---\nb: 2\n", 2),
        ("a.yaml", "a: 1\n\tb: 2\n", 2),
        ("a.json", '{\n"a": 1,\n}', 3),
        ("a.json", '{"a": 1, "a": 2}', None),
        (".env", "A=1\nnot a setting\n", 2),
        (".env", "A=1\nB='open\n", 2),
    ],
)
def test_a_file_that_cannot_be_read_names_its_line(name: str, text: str, line: int | None) -> None:
    form = format_of(name)
    assert form is not None
    with pytest.raises(Unreadable) as told:
        form.values(text)
    assert told.value.line == line, told.value.reason
    with pytest.raises(Unreadable):
        merging.merged(form, text, "A=1")


def test_line_ends_and_byte_order_marks_stay() -> None:
    for content in (b"a = 1\r\nb = 2\r\n", b"\xef\xbb\xbfa = 1\n", b"a = 1"):
        text = merging.decode(content)
        assert merging.encode(text, content) == content and not merging.is_mixed(content)
    assert merging.is_mixed(b"a = 1\r\nb = 2\n")
    with pytest.raises(Unreadable) as told:
        merging.decode(b"a = 1\nb = '\xff'\n")
    assert told.value.line == 2


def test_other_files_are_nobodys_business() -> None:
    assert format_of("settings.ini") is None and format_of("README") is None
    assert format_of("config/bot.env") is not None and format_of("environment") is None


# --- whatever people write: documents by the hundred

WORDS = st.sampled_from(
    ["a", "b", "port", "tls", "Name-1", "x_y", "on", "web", "log", "Ä ü", "k.dot", "", "1", "null", "#"]
)
SCALARS = st.one_of(
    st.booleans(), st.integers(-9, 99), st.floats(-5, 5, width=16),
    st.text("ab #'\"\\[]{}:,=\n\tü-|>", max_size=6),
    st.lists(st.one_of(st.integers(0, 9), st.text("a,]#'", max_size=3)), max_size=3),
)  # fmt: skip
TREES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(WORDS, SCALARS, max_size=4),
    lambda inner: st.dictionaries(WORDS, st.one_of(SCALARS, inner), max_size=4),
    max_leaves=12,
)
NOISE = st.sampled_from(["", "", "", "\n", "# note\n", "\n# [x]\n# a = 1\n", "  # in\n"])


def as_json(tree: dict[str, Any], draw: Any) -> str:
    indent = draw(st.sampled_from([None, 0, 2, 4, "\t"]))
    return json.dumps(tree, indent=indent, ensure_ascii=draw(st.booleans())) + draw(
        st.sampled_from(["", "\n", "\n\n"])
    )


def as_env(tree: dict[str, Any], draw: Any) -> str:
    lines = []
    for name, value in tree.items():
        key = "".join(character for character in name if character.isalnum() or character == "_") or "K"
        text = str(value).replace("\\", "").replace("\n", draw(st.sampled_from(["", "\n"])))
        quoted = draw(st.sampled_from(["'", '"'])) if "'" not in text and '"' not in text else None
        plain = text.replace("\n", "").replace("'", "").replace('"', "")
        written = f"{quoted}{text}{quoted}" if quoted else plain
        lines.append(f"{draw(NOISE)}{draw(st.sampled_from(['', 'export ']))}{key}={written}")
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"]))


def as_yaml(tree: dict[str, Any], draw: Any, indent: str = "") -> str:
    step = draw(st.sampled_from(["  ", "    "]))
    out = []
    for name, value in tree.items():
        key = json.dumps(name, ensure_ascii=False)
        out.append(draw(NOISE))
        style = draw(st.sampled_from(["block", "block", "flow", "literal"]))
        if isinstance(value, dict) and value and style != "flow":
            out.append(
                f"{indent}{key}:{draw(st.sampled_from(['', '   # here']))}\n{as_yaml(value, draw, indent + step)}"
            )
        elif isinstance(value, list) and value and style == "block":
            items = "".join(f"{indent}- {json.dumps(it)}\n" for it in value)
            out.append(f"{indent}{key}:\n{items}")
        elif (
            isinstance(value, str)
            and style == "literal"
            and value.strip() == value
            and "\t" not in value
            and value
        ):
            sign = draw(st.sampled_from(["|", ">-", "|+"]))
            body = "".join(f"{indent}{step}{line}\n" if line else "\n" for line in value.split("\n"))
            out.append(f"{indent}{key}: {sign}\n{body}")
        else:
            out.append(f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(out)


def toml_key(name: str, draw: Any) -> str:
    bare = name and all(it.isascii() and (it.isalnum() or it in "-_") for it in name)
    return name if bare and draw(st.booleans()) else json.dumps(name, ensure_ascii=False)


def toml_value(value: Any, draw: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{toml_key(k, draw)} = {toml_value(v, draw)}" for k, v in value.items()) + " }"
        )
    if isinstance(value, list):
        gap = draw(st.sampled_from(["", "\n  ", " # c ]\n"]))
        return "[" + ",".join(f"{gap}{toml_value(it, draw)}" for it in value) + gap + "]"
    if isinstance(value, str):
        if "\n" in value and "\\" not in value and '"' not in value and draw(st.booleans()):
            return f'"""\n{value}"""'
        if "'" not in value and "\n" not in value and draw(st.booleans()):
            return f"'{value}'"
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def as_toml(tree: dict[str, Any], draw: Any, table: tuple[str, ...] = (), dotted: str = "") -> str:
    own, below = [], []
    for name, value in tree.items():
        key = f"{dotted}{toml_key(name, draw)}"
        style = draw(st.sampled_from(["table", "table", "inline", "dotted"]))
        if isinstance(value, dict) and value and style == "dotted":
            own.append(as_toml(value, draw, table, f"{key}."))
        elif isinstance(value, dict) and style == "table" and not dotted:
            head = ".".join(toml_key(part, draw) for part in (*table, name))
            below.append(f"{draw(NOISE)}[{head}]\n{as_toml(value, draw, (*table, name))}")
        else:
            own.append(
                f"{draw(NOISE)}{key} = {toml_value(value, draw)}{draw(st.sampled_from(['', '  # why']))}\n"
            )
    return "".join([*own, *below])


WRITERS = {"toml": as_toml, "yaml": as_yaml, "json": as_json, "env": as_env}


@pytest.mark.parametrize("kind", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_is_written_the_users_stands_and_the_new_comes(kind: str, data: st.DataObject) -> None:
    form = format_of(NAMES[kind])
    assert form is not None
    user_tree, brought_tree = data.draw(TREES), data.draw(TREES)
    user, brought = (WRITERS[kind](tree, data.draw) for tree in (user_tree, brought_tree))
    try:
        mine, new = form.values(user), form.values(brought)
    except Unreadable:
        assume(False)
    found = merging.merged(form, user, brought)
    now = form.values(found.text)

    assert all(now[path] == value for path, value in mine.items() if value != merging.EMPTY)
    assert all(now[path] == new[path] for path in found.added)
    wanted = {path for paths in merging.missing(mine, new).values() for path in paths}
    assert wanted == {*found.added, *found.by_hand}
    if kind in (
        "json",
        "env",
    ):  # there a place is found for everything but what a plain value of the user's takes
        assert all(any(path[:depth] in mine for depth in range(len(path))) for path in found.by_hand)
    if kind == "json":
        rest = iter(found.text)
        assert all(character in rest for character in user)
    else:
        rest = iter(found.text.splitlines())
        assert all(line in rest for line in user.splitlines())

    again = merging.merged(form, found.text, brought)
    assert (again.text, again.added) == (found.text, [])
