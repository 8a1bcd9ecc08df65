"""What updater knows of a newer release, and the order to install it. This server asks; the token never reaches a browser.

``TRADEBOT_UPDATER_URL`` says where `updater serve` listens; without it there is no banner. The token is read anew each time from the file
``TRADEBOT_UPDATER_TOKEN_FILE``, else from the root that updater started this process from.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

Json = dict[str, Any]

SECONDS = 3.0
"""How long an answer may take; a page waits for it."""

REMEMBERED = 300.0
"""Seconds for which an answer is good enough: behind it the source of the releases is asked."""


class NoAnswer(Exception):
    """updater cannot be asked, or refuses; the text says why."""


class Updates:
    """updater's API, as far as the banner needs it."""

    def __init__(self, url: str, token_file: Path) -> None:
        self.url = url.rstrip("/")
        self.token_file = token_file
        self._asked = float("-inf")
        self._found: Json | None = None
        self._one = threading.Lock()

    @classmethod
    def configured(cls) -> Updates | None:
        """As the environment says; None where it says nothing."""
        url, root = os.environ.get("TRADEBOT_UPDATER_URL"), os.environ.get("UPDATER_ROOT")
        token = os.environ.get("TRADEBOT_UPDATER_TOKEN_FILE") or (root and f"{root}/.updater/token")
        return cls(url, Path(token)) if url and token else None

    def banner(self) -> Json | None:
        """``running``: the deployment at work, with its ``to`` and ``phase``; else ``offer``: the newer release's tag. None if there is
        nothing to show, be it that updater does not answer: the trades matter more."""
        try:
            running = self._call("GET", "progress")["deployment"]
            if running and running["outcome"] is None and not running["interrupted"]:
                return {"running": running, "watch": self.url}
            offer = self._offer()
        except NoAnswer:
            return None
        return {"offer": offer["tag"], "watch": self.url} if offer else None

    def _offer(self) -> Json | None:
        with self._one:
            if time.monotonic() - self._asked > REMEMBERED:
                self._asked, self._found = (
                    time.monotonic(),
                    None,
                )  # also when it fails: not every page shall wait
                self._found = self._call("GET", "check")["update"]
            return self._found

    def start(self, tag: str) -> None:
        """Have it installed. updater answers at once, and goes on when this process is stopped for it.

        Raises:
            NoAnswer: it refuses, or does not answer.
        """
        self._call("POST", "start", {"tag": tag, "reason": "from the bot's page"})

    def _call(self, method: str, name: str, body: Json | None = None) -> Json:
        try:
            request = urllib.request.Request(
                f"{self.url}/api/update/{name}", method=method, data=None if body is None else json.dumps(body).encode(),
                headers={
                    "Authorization": f"Bearer {self.token_file.read_text(encoding='ascii').strip()}",
                    "Content-Type": "application/json",
                },
            )  # fmt: skip
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(request, timeout=SECONDS) as answer:
                found: Json = json.load(answer)
                return found
        except urllib.error.HTTPError as refusal:
            with refusal:
                raise NoAnswer(_told(refusal.read())) from None
        except (OSError, ValueError) as failure:
            raise NoAnswer(f"updater does not answer: {failure}") from None


def _told(raw: bytes) -> str:
    """What a problem (RFC 9457) says, with updater's advice."""
    try:
        problem = json.loads(raw)
        return ". ".join(it for it in (problem["detail"], problem["advice"]) if it)
    except (ValueError, KeyError, TypeError):
        return "updater refuses"
