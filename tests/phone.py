"""Somebody who is told: a real HTTP endpoint on loopback, to which apprise sends (``json://``)."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.site import eventually


class Phone:
    """Keeps what it is told. ``/refuses`` answers 500, ``/hangs`` never; ``looks`` is asked when a message arrives."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.looks: Callable[[], Any] = lambda: None
        self.seen: list[Any] = []
        self._over = threading.Event()
        phone = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.startswith("/hangs"):
                    phone._over.wait(60)
                    return
                phone.seen.append(phone.looks())
                phone.messages.append(message)
                self.send_response(500 if self.path.startswith("/refuses") else 200)
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)

    def url(self, path: str = "") -> str:
        return f"json://127.0.0.1:{self._server.server_port}/{path}"

    def wait(self, count: int) -> list[dict[str, Any]]:
        """The messages, once there are so many."""
        eventually(lambda: len(self.messages) >= count, f"{count} messages")
        assert len(self.messages) == count, [it["title"] for it in self.messages]
        return self.messages

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
