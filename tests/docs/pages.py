"""What a page of the documentation holds: blocks of code with what is noted above them, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

HERE = Path(__file__).resolve().parents[2]
RUN = ("sh", "console")
"""Languages of blocks that are run."""
NOTES = ("in", "not run", "not checked", "ends", "shows", "answers", "until", "runs")
NOT_OURS = ("examples/tradebot/app/", "examples/tradebot/versions/")
"""The example's own pages are part of its releases."""

Notes = dict[str, list[str]]


def pages() -> list[Path]:
    """Every page but the change log, which speaks of what was."""
    found = [
        *sorted(HERE.glob("*.md")),
        *sorted((HERE / "docs").rglob("*.md")),
        *sorted((HERE / "bench").glob("*.md")),
        *sorted((HERE / "examples").rglob("README.md")),
    ]
    return [it for it in found if it.name != "CHANGELOG.md" and not name(it).startswith(NOT_OURS)]


def name(page: Path) -> str:
    return page.relative_to(HERE).as_posix() if page.is_relative_to(HERE) else page.name


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the comments right above it say."""

    page: Path
    line: int
    language: str
    text: str
    notes: Notes

    @property
    def where(self) -> str:
        return f"{name(self.page)}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in RUN and "not run" not in self.notes

    @property
    def ends(self) -> int:
        return int(self.notes.get("ends", ["0"])[-1])


@dataclass
class World:
    """Blocks that are run one after the other, in what one preparation has made."""

    preparation: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"{self.blocks[0].where}-{self.preparation}"


@dataclass
class Page:
    path: Path
    blocks: list[Block]
    notes: Notes
    """What stands at its top, for all of its blocks."""
    links: list[tuple[int, str]]
    headings: list[str]
    code: list[tuple[int, str]]
    """Inline code."""
    wrong: list[str]
    """Where it is not in the form that CONTRIBUTING.md describes."""

    def worlds(self) -> Iterator[World]:
        """Each ``in:`` begins a world; the blocks below it go on in it, until the next."""
        world = World(self.notes["in"][-1]) if "in" in self.notes else None
        for block in self.blocks:
            if not block.is_run:
                continue
            if "in" in block.notes:
                if world and world.blocks:
                    yield world
                world = World(block.notes["in"][-1])
            if world is None:
                continue  # one of `wrong`
            world.blocks.append(block)
        if world and world.blocks:
            yield world

    @property
    def anchors(self) -> set[str]:
        """The headings as GitHub makes anchors of them."""
        found: dict[str, int] = {}
        for heading in self.headings:
            slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            number = found.get(slug)
            found[slug] = 0 if number is None else number + 1
            if number is not None:
                found[f"{slug}-{number + 1}"] = 0
        return set(found)


@cache
def read(path: Path) -> Page:
    return parse(path, path.read_text(encoding="utf-8"))


def parse(path: Path, text: str) -> Page:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    page = Page(path, [], {}, [], [], [], [])
    pending: Notes = {}
    begun = False  # something besides the title has been seen
    for number, token in enumerate(tokens):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            for key, value in _notes(token.content):
                if key in NOTES and value:
                    pending.setdefault(key, []).append(value)
                else:
                    page.wrong.append(
                        f"{line}: {key}: {'what?' if key in NOTES else 'is none of ' + ', '.join(NOTES)}"
                    )
        elif token.type == "fence":
            language = (token.info.split() or [""])[0]
            page.blocks.append(Block(path, line, language, token.content, pending))
            pending, begun = {}, True
        elif token.type == "code_block":
            page.wrong.append(f"{line}: code by indentation; use a fence, so that it is known what it is")
        elif token.type == "inline":
            _inside(page, token, line, tokens[number - 1].type == "heading_open")
        elif token.type.endswith("_open"):
            if pending and begun:
                page.wrong.append(f"{line}: the comment before it belongs right above a block")
            page.notes.update(pending)
            pending = {}
            begun = begun or token.tag != "h1"
    placed = {id(it) for world in page.worlds() for it in world.blocks}
    page.wrong += [
        f"{it.line}: in what is it run? <!-- in: PREPARATION --> above it or at the top of the page, or <!-- not run: REASON -->"
        for it in page.blocks
        if it.is_run and id(it) not in placed
    ]
    return page


def _notes(html: str) -> Iterator[tuple[str, str]]:
    for comment in re.findall(r"<!--(.*?)-->", html, re.DOTALL):
        for line in comment.strip().splitlines():
            key, colon, value = line.strip().partition(":")
            if colon and re.fullmatch(r"[a-z]+( [a-z]+)?", key):
                yield key, value.strip()


def _inside(page: Page, token: Token, line: int, is_heading: bool) -> None:
    children = token.children or []
    if is_heading:
        page.headings.append("".join(it.content for it in children if it.type in ("text", "code_inline")))
    for it in children:
        if it.type == "code_inline":
            page.code.append((line, it.content))
        elif address := it.attrs.get("href") or it.attrs.get("src"):
            page.links.append((line, str(address)))
