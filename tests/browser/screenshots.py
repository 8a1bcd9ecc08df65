"""Makes the pictures of the dashboard in docs/images/: the example application, on a machine with Chromium.

python -m tests.browser.screenshots [--out DIR]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.browser import browsing
from tests.browser.browsing import Serving, Visitor
from tests.browser.tradebot import Tradebot, tradebot

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
LARGEST = 150_000
"""Bytes of a picture."""

WIDE, NARROW = {"width": 1000, "height": 760}, {"width": 390, "height": 800}
LOOKS = [(scheme, form) for scheme in ("light", "dark") for form in ("wide", "narrow")]
OPEN = (
    "INSERT INTO trades (opened_at, symbol, side, quantity, price, status)"
    " VALUES ('by hand', 'ETH/EUR', 'buy', 1, 2500, 'open')"
)
CLOSED = "UPDATE trades SET status = 'closed', close_price = 2501 WHERE symbol = 'ETH/EUR'"


@contextmanager
def visitors(found: Browser, serving: Serving) -> Iterator[dict[str, Visitor]]:
    """A logged-in browser profile for each look."""
    with ExitStack() as stack:
        made = {}
        for scheme, form in LOOKS:
            size = WIDE if form == "wide" else NARROW
            visitor = stack.enter_context(browsing.visit(found, serving, viewport=size, color_scheme=scheme))
            visitor.log_in()
            made[f"{scheme}-{form}"] = visitor
        yield made


def shoot(pages: dict[str, Page], name: str, out: Path) -> None:
    for look, page in pages.items():
        path = out / f"{name}-{look}.png"
        page.evaluate("() => { document.activeElement?.blur(); scrollTo(0, 0); }")
        page.screenshot(path=path, animations="disabled")
        size = path.stat().st_size
        assert size < LARGEST, f"{path} has {size} bytes"
        print(f"{size:>8} {path}", flush=True)


def story(bot: Tradebot, serving: Serving, found: Browser, out: Path) -> None:
    bot.publish("v1.4.0")
    with visitors(found, serving) as looks:
        pages = {name: it.page for name, it in looks.items()}
        first = pages["light-wide"]
        first.goto(serving.url + "update")  # asks the source
        for page in pages.values():
            page.goto(serving.url)
            expect(page.locator("#health .tag").first).to_have_text("healthy")
            page.locator("#news summary").click()
        shoot(pages, "update-available", out)

        bot.trade(OPEN)
        first.goto(serving.url + "update")
        first.get_by_role("button", name="Update to v1.4.0 now").click()
        for page in pages.values():
            expect(page.locator("#phase")).to_have_text("asking whether it may be interrupted")
            expect(page.locator("#far")).to_contain_text("ETH/EUR")
        shoot(pages, "running", out)
        bot.trade(CLOSED)
        expect(first.locator("#h-deployment .tag")).to_have_text("succeeded")

        bot.publish_next("v1.5.0", "v1.3.0", "Caches prices: pages come twice as fast.")
        first.goto(serving.url + "update")
        first.get_by_role("button", name="Update to v1.5.0 now").click()
        for page in pages.values():
            expect(page.locator("#h-deployment .tag")).to_have_text("rolled back")
            expect(page.locator("#service .version")).to_contain_text("v1.4.0")
            page.goto(serving.url)
            expect(page.locator("#health .tag").first).to_have_text("healthy")
        shoot(pages, "rolled-back", out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=IMAGES)
    out: Path = parser.parse_args().out
    if browsing.chromium() is None:
        parser.error("needs Chromium: apt-get install chromium")
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="updater-") as place,
        tradebot(Path(place), "v1.1.0", watch=2, tick=0.2) as (bot, serving),
        browsing.browser() as found,
    ):
        story(bot, serving, found, out)


if __name__ == "__main__":
    main()
