"""A real browser before the real server: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.site import UPDATER

PATIENCE = 60.0
"""Seconds in which what must happen on the page has to happen; the machine may be busy."""

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-dev-shm-usage",
]  # fmt: skip

expect.set_options(timeout=PATIENCE * 1000)


def chromium() -> str | None:
    """The browser of the system; none is ever downloaded."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser without windows."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        try:
            yield found
        finally:
            found.close()


class Serving:
    """`updater serve` of a root, as a process of its own. ``url`` ends with a slash."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        self.environment = environment
        self.log = root.parent / "serve.log"
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it; again on the same port if it ran before."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [UPDATER, "--json", "serve", "--port", str(self.port)], env=self._env(), cwd=self.root.parent,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        said = ""
        while not said.rstrip().endswith("}"):
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            said += line
        found = json.loads(said)
        self.url, self.port = str(found["url"]), int(found["port"])

    def _env(self) -> dict[str, str]:
        return {**self.environment, "UPDATER_ROOT": str(self.root)}

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def end(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def keys(self) -> Any:
        """The token, and a link that logs in once."""
        command = [UPDATER, "--json", "serve", "--show-token", "--port", str(self.port)]
        done = subprocess.run(
            command, env=self._env(), capture_output=True, text=True, check=True, timeout=PATIENCE
        )
        return json.loads(done.stdout)


@dataclass
class Visitor:
    """One person's browser, logged in or not, and everything in it that should not be: what its console said, what the
    Content-Security-Policy stopped, and what was asked from elsewhere."""

    context: BrowserContext
    page: Page
    serving: Serving
    complaints: list[str] = field(default_factory=list)
    allowed: tuple[str, ...] = ()
    """Beginnings of complaints that the test has caused itself."""

    def go(self, path: str = "") -> Page:
        self.page.goto(self.serving.url + path.removeprefix("/"))
        return self.page

    def log_in(self) -> Page:
        self.go()
        self.page.get_by_label("Token").fill(self.serving.keys()["token"])
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.locator("#service")).to_be_visible()
        return self.page

    def watch(self) -> None:
        """Note every phase that the page shows from now on, and lose the notes with any reload."""
        expect(self.page.locator("#deployment")).to_be_visible()
        self.page.evaluate(
            """() => {
              window.phases = [];
              const look = () => {
                const text = document.getElementById("phase")?.textContent;
                if (text && window.phases.at(-1) !== text) window.phases.push(text);
              };
              new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
              look();
            }"""
        )

    def watched(self) -> list[str]:
        found = self.page.evaluate("() => window.phases ?? null")
        assert found is not None, "the page was loaded anew"
        return list(found)

    def complain(self, text: str) -> None:
        if not text.startswith(self.allowed or ("\0",)):
            self.complaints.append(text)


def _listen(visitor: Visitor) -> None:
    own = urlsplit(visitor.serving.url).netloc

    def asked(url: str) -> None:
        if urlsplit(url).netloc != own:
            visitor.complain(f"asked elsewhere: {url}")

    page = visitor.page
    page.on("console", lambda it: visitor.complain(f"{it.type}: {it.text} at {it.location['url']}"))
    page.on("pageerror", lambda it: visitor.complain(f"exception: {it}"))
    page.on("dialog", lambda it: (visitor.complain(f"dialog: {it.message}"), it.dismiss()))
    page.on("request", lambda it: asked(it.url))


@contextlib.contextmanager
def visit(found: Browser, serving: Serving, **how: Any) -> Iterator[Visitor]:
    """A fresh browser profile with one page; at the end there must be nothing to complain of."""
    context = found.new_context(**how)
    context.set_default_timeout(PATIENCE * 1000)
    visitor = Visitor(context, context.new_page(), serving)
    _listen(visitor)
    try:
        yield visitor
    finally:
        context.close()
    assert visitor.complaints == [], serving.log.read_text()[-8000:]
