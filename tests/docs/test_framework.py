"""The form of pages: what is found in them, and when a block is not as it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import parse
from tests.docs.world import console, shows, world

PAGE = """<!-- in: deployed -->
# A page

## What to type

```sh
one
```

1. In a list:

   <!-- in: fresh
        ends: 4 -->
   <!-- shows: it: failed -->
   ```console
   $ two
   ```

## What to type

<!-- not run: it takes a day -->
```sh
three
```

```text
four
```

```sh
five
```
[there](page.md#what-to-type-1) `code`
"""


def test_blocks_are_run_in_the_world_that_was_last_named() -> None:
    page = parse(Path("page.md"), PAGE)
    found = [(it.preparation, [block.text for block in it.blocks]) for it in page.worlds()]
    assert found == [("deployed", ["one\n"]), ("fresh", ["$ two\n", "five\n"])]
    block = page.blocks[1]
    assert (block.ends, block.notes["shows"], block.line) == (4, ["it: failed"], 15)
    assert page.wrong == []
    assert page.anchors == {"a-page", "what-to-type", "what-to-type-1"}
    assert [it for _, it in page.links] == ["page.md#what-to-type-1"] and [it for _, it in page.code] == [
        "code"
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```sh\nls\n```\n", "1: in what is it run"),
        ("text\n\n<!-- in: fresh -->\ntext\n", "4: the comment before it belongs right above a block"),
        ("<!-- not run: -->\n```sh\nls\n```\n", "1: not run: what?"),
        ("<!-- inn: fresh -->\n", "1: inn: is none of"),
        ("text\n\n    ls\n", "3: code by indentation"),
        ("<!-- made by a program: do not edit -->\n", ""),
    ],
)
def test_what_is_not_in_the_form_is_told(text: str, wrong: str) -> None:
    found = parse(Path("page.md"), text).wrong
    assert found[0].startswith(wrong) if wrong else found == []


def test_a_console_holds_commands_and_what_they_show() -> None:
    assert list(console("$ one\na\nb\n$ two \\\n> more\nc\n$ three\n")) == [
        ("one\n", "a\nb\n"),
        ("two \\\nmore\n", "c\n"),
        ("three\n", ""),
    ]


@pytest.mark.parametrize(
    ("shown", "output", "same"),
    [
        ("done (0.3 s), pid 7\n", "done (12 min 4 s), pid 4711\n", True),
        ("a   b\n", "a b  \n", True),
        ("first\n…\nlast\n", "first\nx\ny\nlast\n", True),
        ("first\n…\n", "first\n", True),
        ("a … c\n", "a b c\n", True),
        ("a\n", "a\nb\n", False),
        ("", "a\n", False),
        ("", "", True),
        (f"x (sha256:{'a' * 64})\n", f"x (sha256:{'b' * 64})\n", True),
        ("in ~/updater\n", "in /home/you/updater\n", True),
        ("v1.4.0 made 2026-11-24 10:15\n", "v1.3.2 made 2026-11-25 11:16\n", False),
        ("v1.4.0 made 2026-11-24 10:15\n", "v1.4.0 made 2026-11-25 11:16\n", True),
    ],
)
def test_output_is_compared_but_for_what_differs_from_run_to_run(shown: str, output: str, same: bool) -> None:
    assert shows(shown, output) is same


def test_blocks_run_in_one_shell_and_are_answered_and_ended(tmp_path: Path) -> None:
    page = parse(
        Path("page.md"),
        "<!-- in: fresh -->\n```sh\nmkdir a && cd a\nexport WHERE=/srv/bot\n```\n"
        '```console\n$ pwd; test "$WHERE/a" = "$PWD"\n/srv/bot/a\n```\n'
        "<!-- ends: 3 -->\n```sh\n(exit 3)\necho never\n```\n"
        "<!-- answers: yes -->\n```sh\n[ -t 0 ] && read -r said && echo $said\n```\n"
        "<!-- until: ready -->\n```sh\necho ready; sleep 3600\n```\n",
    )
    (blocks,) = page.worlds()
    with world(tmp_path) as made:
        ran = [(it.code, it.output) for block in blocks.blocks for it in made.run(block)]
        assert made.here == made.site.root / "a"
    assert ran == [(0, ""), (0, "/srv/bot/a\n"), (3, ""), (0, "yes\n"), (0, "ready\n")]
