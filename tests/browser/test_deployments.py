"""What people do with the dashboard, watched in a real browser from the click to the result."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.browsing import Serving, Visitor
from tests.integration.test_cancel import in_phase
from tests.site import Site, eventually

Visit = Callable[..., Visitor]
GATE = '[gate]\nfile = "data/busy"\non_busy = "wait"\nwait = 120\n'


def busy(site: Site) -> Path:
    """As long as this file is there, a deployment waits at the gate."""
    site.configure(extra=GATE)
    file = site.layout.shared / "data" / "busy"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def ended(page: Page, how: str) -> None:
    """The page says so by itself, and has given up the bar."""
    expect(page.locator("#h-deployment .tag")).to_have_text(how)
    expect(page.locator("#bar")).to_have_count(0)


def in_service(page: Page, version: str) -> None:
    expect(page.locator("#service .version")).to_contain_text(version)
    expect(page.locator("#processes tbody td").nth(1)).to_have_text(version)


def test_an_update_is_seen_explained_confirmed_and_watched_and_a_broken_one_comes_back(
    site: Site, serving: Serving, visit: Visit
) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0", notes="## Faster\n\n- *half* the time")
    file = busy(site)
    visitor = visit()
    page = visitor.log_in()
    in_service(page, "v1.0.0")
    page.locator("#update a.button").click()

    expect(page.get_by_role("heading", name="Update to v1.1.0")).to_be_visible()
    expect(page.locator(".notes em")).to_have_text("half")
    page.get_by_text("checks passed").click()
    expect(page.locator(".checks .ok", has_text="gate")).to_contain_text("busy is there")
    happens = page.locator("section", has=page.get_by_role("heading", name="What will happen"))
    for words in ("A backup", "web will be stopped", "may not be interrupted now", "v1.0.0 runs again"):
        expect(happens).to_contain_text(words)
    page.get_by_label("Why").fill("<b>faster</b>")
    page.get_by_role("button", name="Update to v1.1.0 now").click()

    visitor.watch()
    expect(page.locator("#h-deployment")).to_have_text(re.compile(r"At work: deploy v1\.1\.0"))
    expect(page.locator("#phase")).to_have_text("asking whether it may be interrupted")
    expect(page.locator("#steps li.running")).to_contain_text("asking whether it may be interrupted")
    page.locator("#lines summary").click()
    file.unlink()
    ended(page, "succeeded")
    in_service(page, "v1.1.0")
    assert page.title().startswith("v1.1.0")
    expect(page.locator("#deployment")).to_contain_text("v1.1.0 is in service")
    expect(page.locator("#log")).to_be_visible()  # what was unfolded stays so
    expect(page.locator("#log")).to_contain_text("v1.1.0")
    watched = visitor.watched()
    assert watched[0] != watched[-1] and len(watched) >= 3, watched
    site.runs("v1.1.0")
    record = site.history()[-1]
    assert (record["origin"], record["user"], record["reason"]) == ("dashboard", "dashboard", "<b>faster</b>")

    site.publish("v1.2.0", "sick")
    page.locator("#update a.button").click()
    page.get_by_role("button", name="Update to v1.2.0 now").click()
    visitor.watch()
    ended(page, "rolled back")
    in_service(page, "v1.1.0")
    evidence = page.locator("#deployment .evidence")
    for words in ("v1.2.0", "500", "v1.1.0 is in service", "Next:"):
        expect(evidence).to_contain_text(words)
    expect(page.locator("#steps li.failed")).to_contain_text("probing")
    expect(page.locator("#deployment")).to_contain_text(site.history()[-1]["backup"])
    assert "probing" in visitor.watched()
    site.runs("v1.1.0")

    page.get_by_role("link", name="History").click()
    expect(page.locator("tbody tr").first).to_contain_text("rolled back")
    page.locator("tbody tr").first.get_by_role("link").click()
    expect(page.locator(".evidence")).to_contain_text("500")
    expect(page.locator(".steps li.failed")).to_contain_text("probing")
    page.get_by_role("link", name="Releases").click()
    expect(page.locator("tr", has_text="v1.2.0").locator(".tag.bad")).to_have_text("bad")
    site.is_clean()


def test_a_server_killed_in_mid_deployment_is_told_and_finds_it_again(
    site: Site, serving: Serving, visit: Visit
) -> None:
    """One started from a shell is seen as well, and cancelled from the page."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    file = busy(site)
    visitor = visit()
    visitor.allowed = ("error: Failed to load resource: net::ERR_",)
    page = visitor.log_in()
    visitor.watch()
    running = site.start("deploy", "v1.1.0")
    expect(page.locator("#h-deployment")).to_contain_text("At work: deploy v1.1.0")
    eventually(lambda: in_phase(site, "gate"), "the gate")
    expect(page.locator("#phase")).to_have_text("asking whether it may be interrupted")

    serving.kill()
    expect(page.locator("#connection")).to_contain_text("does not answer")
    serving.start()
    expect(page.locator("#connection")).to_be_hidden()
    expect(page.locator("#phase")).to_have_text("asking whether it may be interrupted")
    expect(page.locator("#h-deployment")).to_contain_text("At work: deploy v1.1.0")

    serving.kill()
    file.unlink()
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, out + err
    serving.start()
    ended(page, "succeeded")
    in_service(page, "v1.1.0")
    visitor.watched()
    site.runs("v1.1.0")

    file.touch()
    running = site.start("activate", "v1.0.0")
    expect(page.locator("#phase")).to_have_text("asking whether it may be interrupted")
    page.get_by_role("link", name="Cancel").click()
    expect(page.locator("main li").first).to_contain_text("everything it did is undone")
    page.get_by_role("button", name="Cancel it").click()
    ended(page, "cancelled")
    in_service(page, "v1.1.0")
    running.communicate(timeout=60)
    assert running.returncode == 130
    site.runs("v1.1.0")


def test_activate_roll_back_back_up_restore_and_force_stop(
    site: Site, serving: Serving, visit: Visit
) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    data = site.layout.shared / "data" / "notes.txt"
    data.write_text("before")
    page = visit().log_in()

    page.get_by_role("link", name="Backups").click()
    page.get_by_role("link", name="Back up now").click()
    page.get_by_label("What for").fill("before the experiment")
    page.get_by_role("button", name="Make a backup now").click()
    row = page.locator("tr", has_text="before the experiment")
    expect(row).to_be_visible()
    data.write_text("after")
    row.get_by_role("link", name="restore").click()
    expect(page.locator("main li").nth(1)).to_contain_text("are kept as another backup first")
    page.get_by_role("button", name="Restore").click()
    ended(page, "succeeded")
    assert data.read_text() == "before"

    page.get_by_role("link", name="Releases").click()
    page.locator("tr", has_text="v1.0.0").get_by_role("link", name="activate").click()
    expect(page.locator("main li").first).to_contain_text("v1.0.0 is put into service")
    page.get_by_role("button", name="Activate").click()
    ended(page, "succeeded")
    in_service(page, "v1.0.0")

    page.locator("#service").get_by_role("link", name="Roll back to v1.1.0").click()
    page.get_by_role("button", name="Roll back now").click()
    ended(page, "succeeded")
    in_service(page, "v1.1.0")
    site.runs("v1.1.0")

    force = page.get_by_role("link", name="Force stop")
    expect(force).to_be_hidden()
    page.get_by_text("When nothing else helps").click()
    force.click()
    expect(page.locator("section.danger")).to_contain_text("Killed without being asked: web")
    assert site.answer(), "nothing was done yet"
    page.get_by_role("button", name="Kill every process").click()
    expect(page.get_by_text("Killed: web.")).to_be_visible()
    assert site.answer() is None
    page.get_by_role("link", name="Back", exact=True).click()
    page.get_by_role("link", name="start", exact=True).click()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#processes .tag")).to_have_text("running")
    site.runs("v1.1.0")


def test_without_javascript_the_essentials_work(site: Site, serving: Serving, visit: Visit) -> None:
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.publish("v1.2.0", "sick")
    file = busy(site)
    page = visit(java_script_enabled=False).log_in()
    page.get_by_role("link", name="Ask every probe now").click()
    expect(page.locator("#health .tag").first).to_have_text("healthy")
    page.get_by_role("link", name="Overview").click()
    page.goto(serving.url + "update?tag=v1.1.0")
    page.get_by_role("button", name="Update to v1.1.0 now").click()
    expect(page.locator("#phase")).to_have_text("asking whether it may be interrupted")  # it reloads itself
    file.unlink()
    ended(page, "succeeded")
    in_service(page, "v1.1.0")
    page.goto(serving.url + "update")
    page.get_by_role("button", name="Update to v1.2.0 now").click()
    ended(page, "rolled back")
    expect(page.locator("#deployment .evidence")).to_contain_text("500")
    page.get_by_role("link", name="Roll back to v1.0.0").click()
    page.get_by_role("button", name="Roll back now").click()
    ended(page, "succeeded")
    in_service(page, "v1.0.0")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    site.runs("v1.0.0")
