"""Release notes as HTML. They come from elsewhere: no HTML of theirs, no script, nothing that the browser would load."""

from __future__ import annotations

import functools
from collections.abc import MutableMapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

LONGEST = 50_000
"""Characters of notes that are rendered; what follows is cut off."""

FIRST_LEVEL = 3
"""The page has its own first and second headings."""


@functools.cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable(["table", "strikethrough"])
    parser.add_render_rule("link_open", _link)
    parser.add_render_rule("image", _image)
    for rule in ("heading_open", "heading_close"):
        parser.add_render_rule(rule, _heading)
    return parser


def _link(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    return renderer.renderToken(tokens, index, options, env)


def _image(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """A picture would be loaded from elsewhere: its description, as a link to it."""
    token = tokens[index]
    text = escape(token.content or "picture")
    return f'<a href="{escape(str(token.attrs.get("src", "")))}" rel="noopener noreferrer nofollow" target="_blank">{text}</a>'


def _heading(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    token = tokens[index]
    token.tag = (
        f"h{min(6, int(token.tag[1]) + FIRST_LEVEL - 1)}" if not token.meta.get("moved") else token.tag
    )
    token.meta["moved"] = True
    return renderer.renderToken(tokens, index, options, env)


def render(text: str | None) -> Markup:
    """Markdown as HTML that can stand in the page."""
    return Markup(_parser().render((text or "")[:LONGEST]))
