"""The bundled example, deployed for a browser to look at: its packed artifacts, with their real dependencies."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from examples.demo import Demo
from examples.release_server import Release, ReleaseServer
from examples.release_server.content import releases_in
from tests.browser.browsing import Serving
from tests.site import UPDATER

DIST = Path(__file__).resolve().parents[2] / "examples" / "tradebot" / "dist"


@dataclass
class Tradebot:
    """A root with the example, the server of its releases, and `updater serve`."""

    demo: Demo
    published: list[Release]
    environment: dict[str, str]
    packed: dict[str, Release] = field(default_factory=lambda: {it.tag: it for it in releases_in(DIST)})

    @property
    def root(self) -> Path:
        return self.demo.root

    @property
    def page(self) -> str:
        """The address of the bot's own page."""
        return f"http://127.0.0.1:{self.demo.port}/"

    def publish(self, tag: str, *, notes: str | None = None) -> None:
        """Add a packed version to the server; the text that warns of its fault can be another."""
        found = self.packed[tag]
        self.published.append(found if notes is None else replace(found, notes=notes))

    def publish_next(self, tag: str, like: str, notes: str) -> None:
        """Add a version that is no other than an older one but for its number."""
        base = self.packed[like]
        tree = {**base.tree, "VERSION": (f"{tag.removeprefix('v')}\n".encode(), "100644")}
        when = max(it.published for it in self.published) + timedelta(days=1)
        self.published.append(Release(tag, tree, notes=notes, published=when))

    def configure(self, old: str, new: str) -> None:
        file = self.root / "updater.toml"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    def updater(self, *arguments: str, expect: int = 0) -> str:
        done = subprocess.run(
            [UPDATER, "--root", self.root, *arguments], env=self.environment, cwd=self.root.parent, text=True,
            capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=170,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    def status(self) -> Any:
        return json.loads(self.updater("--json", "status"))

    def trade(self, statement: str) -> None:
        """What a person does by hand, past the bot."""
        database = self.root / "shared" / "data" / "trades.db"
        with contextlib.closing(sqlite3.connect(database)) as trades, trades:
            trades.execute(statement)


@contextlib.contextmanager
def tradebot(
    place: Path, version: str, *, watch: float, tick: float = 0.02
) -> Iterator[tuple[Tradebot, Serving]]:
    """``version`` is in service and the only one published; ``tick``: seconds between two prices, which ends open trades sooner."""
    clean = {name: it for name, it in os.environ.items() if name not in ("UPDATER_ROOT", "GITHUB_TOKEN")}
    root = place / "tradebot"
    published: list[Release] = []
    with ReleaseServer("example/tradebot", published) as server:
        made = Tradebot(Demo(root, watch), published, {**clean, "NO_PROXY": "127.0.0.1"})
        made.publish(version)
        subprocess.run(
            [UPDATER, "--json", "init", root, "--repo", server.repository], env=clean, check=True, stdout=subprocess.DEVNULL
        )  # fmt: skip
        made.demo.configure(server.api_url)
        settings = made.demo.settings
        text = settings.read_text(encoding="utf-8")
        settings.write_text(text.replace("tick = 0.2 ", f"tick = {tick} "), encoding="utf-8")
        serving = Serving(root, made.environment)
        try:
            for process, name, value in (
                ("dashboard", "TRADEBOT_UPDATER_URL", serving.url),
                ("bot", "TRADEBOT_DIES_AFTER", "1.5"),
            ):
                head = f"\n[processes.{process}]\n"
                made.configure(head, f'{head}env = {{ {name} = "{value}" }}\n')
            made.updater("deploy", version)
            yield made, serving
        finally:
            serving.end()
            made.updater("force-stop", "--yes")
