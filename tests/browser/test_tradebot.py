"""The example application, updated from the click to the result: from updater's page, and from its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import browsing
from tests.browser.browsing import Serving
from tests.browser.tradebot import Tradebot, tradebot


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Tradebot, Serving]]:
    with tradebot(tmp_path, "v1.1.0", watch=1) as made:
        yield made


@pytest.mark.slow
def test_the_example_is_updated_fails_comes_back_and_updates_itself_from_its_own_page(
    world: tuple[Tradebot, Serving], chromium: Browser
) -> None:
    bot, serving = world
    bot.publish("v1.2.0")
    with browsing.visit(chromium, serving) as visitor:
        page = visitor.log_in()
        expect(page.locator("#processes tbody tr")).to_have_count(2)

        page.locator("#update a.button").click()
        expect(page.locator(".notes")).to_contain_text("crashes at its start")
        page.get_by_role("button", name="Update to v1.2.0 now").click()
        visitor.watch()
        expect(page.locator("#h-deployment .tag")).to_have_text("rolled back")
        for words in ("KeyError: 'exchange'", "v1.1.0 is in service"):
            expect(page.locator("#deployment .evidence")).to_contain_text(words)
        expect(page.locator("#service .version")).to_contain_text("v1.1.0")
        assert "starting the new processes" in visitor.watched() or "probing" in visitor.watched()

        bot.publish("v1.4.0")
        page.locator("#update a.button").click()
        expect(page.locator(".notes code").first).to_have_text("paper")
        page.get_by_role("button", name="Update to v1.4.0 now").click()
        visitor.watch()
        expect(page.locator("#h-deployment .tag")).to_have_text("succeeded")
        expect(page.locator("#service .version")).to_contain_text("v1.4.0")
        visitor.watched()
        found = bot.status()
        assert {it["name"]: it["release"] for it in found["processes"]} == dict.fromkeys(
            ("bot", "dashboard"), "v1.4.0"
        )

        bot.publish_next("v1.5.0", "v1.4.0", "Nothing but its number.")
        own = visitor.context.new_page()  # the same browser, on the bot's own page
        own.goto(bot.page)
        expect(own.locator(".banner")).to_contain_text("Update available: v1.5.0")
        assert serving.keys()["token"] not in own.content()
        bot.trade(
            "INSERT INTO trades (opened_at, symbol, side, quantity, price, status)"
            " VALUES ('by hand', 'ETH/EUR', 'buy', 1, 2500, 'open')"
        )
        own.get_by_role("button", name="Update now").click()
        expect(own.locator(".banner")).to_contain_text("Updating to v1.5.0")
        expect(page.locator("#h-deployment")).to_contain_text("At work: deploy v1.5.0")
        expect(page.locator("#phase")).to_have_text("asking whether it may be interrupted")
        bot.trade("UPDATE trades SET status = 'closed', close_price = 1 WHERE symbol = 'ETH/EUR'")
        expect(page.locator("#h-deployment .tag")).to_have_text("succeeded")
        expect(page.locator("#service .version")).to_contain_text("v1.5.0")
        own.goto(bot.page)
        expect(own.locator("h1")).to_contain_text("1.5.0")
        expect(own.locator(".banner")).to_have_count(0)
