"""The pages themselves: who gets in, what comes from elsewhere, and that everybody can read and use them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.browsing import Serving, Visitor
from tests.site import Site, eventually

Visit = Callable[..., Visitor]
PAGES = (
    "", "releases", "backups", "history", "history/latest", "logs", "logs?process=web", "update", "update?tag=v9", "health", "confirm/rollback",
    "confirm/restore?id=latest", "confirm/force-stop", "confirm/prune", "nothing-here",
)  # fmt: skip
HOSTILE = """# <script>alert(1)</script>

<img src=x onerror=alert(2)> <svg onload=alert(3)> <iframe src="http://elsewhere.example/"></iframe>
<style>body { display: none }</style><meta http-equiv="refresh" content="0;url=http://elsewhere.example/">

[a link](javascript:alert(4)) [another](JaVaScRiPt&#58;alert(5)) [data](data:text/html,<script>alert(6)</script>)
[good](https://elsewhere.example/notes "onmouseover=alert(7)") ![a picture](http://elsewhere.example/tracker.png)
![x](x" onerror="alert(8)) <https://elsewhere.example/"onclick=alert(9)>

```html
</pre><script>alert(10)</script>
```
"""
CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")


def test_token_link_and_log_out(site: Site, serving: Serving, visit: Visit) -> None:
    site.deployed("v1.0.0")
    visitor = visit()
    visitor.allowed = ("error: Failed to load resource: the server responded with a status of 401",)
    page = visitor.go("backups")
    expect(page).to_have_url(re.compile(r"/login\?next="))
    keys = serving.keys()
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not the token")
    page.get_by_label("Token").fill(keys["token"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Backups", exact=True)).to_be_visible()
    cookie = visitor.context.cookies()[0]
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    assert keys["token"] not in cookie["value"] + page.content()

    other = visit()
    other.allowed = visitor.allowed
    page = other.page
    page.goto(keys["login"])
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#service")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.goto(serving.url)
    expect(page.get_by_label("Token")).to_be_visible()
    page.goto(keys["login"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("has been used")


def test_notes_from_elsewhere_are_harmless(site: Site, serving: Serving, visit: Visit) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", notes=HOSTILE)
    page = visit().log_in()
    for path in ("update", ""):
        page.goto(serving.url + path)
        notes = page.locator(".notes")
        if not path:
            page.get_by_text("What is new").click()
        expect(notes).to_contain_text("<script>alert(1)</script>")
        expect(notes).to_contain_text("</pre><script>alert(10)</script>")
        assert (
            page.locator("main :is(script, img, svg, iframe, style, meta, object, embed, form form)").count()
            == 0
        )
        for link in notes.locator("a").all():
            assert (link.get_attribute("href") or "").startswith(("https://elsewhere.", "http://elsewhere."))
            assert link.get_attribute("rel") == "noopener noreferrer nofollow"
        attributes = page.evaluate(
            "() => [...document.querySelectorAll('.notes *')].flatMap((it) => it.getAttributeNames())"
        )
        assert set(attributes) <= {"href", "rel", "target", "title", "class"}, attributes
        expect(notes.get_by_role("link", name="a picture")).to_have_attribute(
            "href", "http://elsewhere.example/tracker.png"
        )


def test_everything_is_legible_fits_a_phone_and_asks_nothing_elsewhere(
    site: Site, serving: Serving, visit: Visit
) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    site.publish("v1.2.0", "sick", notes="Some `code` and [a link](https://elsewhere.example/).")
    assert site.updater("deploy", "v1.2.0").code == 4
    site.publish("v1.3.0-with-a-name-that-is-longer-than-a-phone-is-wide", notes="Good.\n\n" + "long" * 40)
    first = visit(viewport={"width": 360, "height": 740}, color_scheme="light")
    first.log_in()
    state = first.context.storage_state()
    for scheme, width in (("light", 360), ("dark", 1100)):
        visitor = visit(viewport={"width": width, "height": 740}, color_scheme=scheme, storage_state=state)
        visitor.allowed = ("error: Failed to load resource: the server responded with a status of 404",)
        for path in PAGES:
            page = visitor.go(path)
            expect(page.locator("main")).to_be_visible()
            page.evaluate("() => document.querySelectorAll('details').forEach((it) => { it.open = true; })")
            poor = page.evaluate(CONTRAST)
            assert poor == [], f"{scheme} /{path}: too little contrast"
            inside, outside = page.evaluate(
                "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert inside <= outside, f"/{path} scrolls sideways: {inside} > {outside} at {width} px"
            headings = page.evaluate(
                "() => [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((it) => +it.tagName[1])"
            )
            assert headings.count(1) == 1 and headings[0] == 1, (path, headings)
            nameless = page.evaluate(
                """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), progress, summary")]
                  .filter((it) => !(it.textContent.trim() || it.labels?.length || it.getAttribute("aria-labelledby")))
                  .map((it) => it.outerHTML)"""
            )
            assert nameless == [], path
        page = visitor.go("update?tag=v9")  # what cannot succeed is not one click away
        expect(page.get_by_role("heading", name="Not ready")).to_be_visible()
        page.get_by_role("button", name="Update to v9 now").click()
        assert page.evaluate("() => document.querySelector('[name=force]').matches(':invalid')")
        expect(page.get_by_role("link", name="Check again")).to_be_visible()


def test_the_keyboard_alone_will_do(site: Site, serving: Serving, visit: Visit) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    page = visit().go()

    def reach(words: str) -> None:
        """Tab until this has the focus, and that can be seen."""
        seen = []
        for _ in range(60):
            page.keyboard.press("Tab")
            text, outline = page.evaluate(
                """() => { const it = document.activeElement;
                  return [(it.labels?.[0] ?? it).textContent.trim(), getComputedStyle(it).outlineStyle]; }"""
            )
            seen.append(text[:40])
            if text.startswith(words):
                assert outline != "none", f"nobody sees that {words} has the focus"
                return
        raise AssertionError(f"{words} cannot be reached: {seen}")

    page.keyboard.type(serving.keys()["token"])  # the field has the focus
    page.keyboard.press("Enter")
    expect(page.locator("#service")).to_be_visible()
    reach("Skip to the content")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    reach(page.locator("#update a.button").inner_text())
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Update to v1.1.0")).to_be_visible()
    reach("Why")
    page.keyboard.type("by keyboard")
    reach("Update to v1.1.0 now")
    page.keyboard.press("Enter")
    expect(page.locator("#h-deployment .tag")).to_have_text("succeeded")
    site.runs("v1.1.0")
    assert site.history()[-1]["reason"] == "by keyboard"
    reach("When nothing else helps")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Force stop")).to_be_visible()


def test_what_the_reader_has_opened_stays_open_while_the_page_follows(
    site: Site, serving: Serving, visit: Visit
) -> None:
    """And keeps the focus; a reader who hears the page is told what happens."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0", notes="- news")
    site.updater("check")
    visitor = visit()
    page = visitor.log_in()
    visitor.watch()
    news = page.locator("#update details")
    if not news.count():
        page.goto(serving.url + "update")
        page.goto(serving.url)
        visitor.watch()
    news.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".notes li")).to_be_visible()
    page.evaluate("() => { window.shown = document.querySelector('#update'); return refresh('/'); }")
    expect(page.locator(".notes li")).to_be_visible()
    assert page.evaluate("() => document.activeElement.tagName") == "SUMMARY"
    site.publish("v1.2.0")
    done = site.updater("deploy", "v1.2.0")
    assert done.code == 0, done.text
    expect(page.locator("#service .version")).to_contain_text("v1.2.0")
    expect(page.locator("#said")).to_contain_text("v1.2.0")
    expect(page.locator("#steps")).not_to_have_attribute("open", "")  # nobody unfolded it
    eventually(lambda: page.title().startswith("v1.2.0"), "the title follows")

    visitor.allowed = ("error: Failed to load resource: the server responded with a status of 503",)
    away = site.root.rename(site.place / "away")  # the server is there, and what it should tell is not
    page.evaluate("() => refresh('/')")
    expect(page.locator("#connection")).to_contain_text("it answers 503")
    expect(page.locator("#service .version")).to_contain_text("v1.2.0")
    away.rename(site.root)
    page.evaluate("() => refresh('/')")
    expect(page.locator("#connection")).to_be_hidden()
    visitor.watched()
