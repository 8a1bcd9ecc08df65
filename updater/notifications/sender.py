"""The child that sends: a message on its standard input, what became of it at each service on its standard output, a line each.

The only module that imports apprise. Whoever started it ends it when the time is up; what it has said by then counts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from contextvars import ContextVar
from typing import Any

import apprise

_reasons: ContextVar[list[str] | None] = ContextVar("reasons", default=None)
"""What the library logs while it sends to one service; it carries the context over to threads of its own."""


class _Reasons(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if (said := _reasons.get()) is not None:
            said.append(record.getMessage())


def main() -> None:
    """Send, and end at once: a service that hangs must not keep anybody."""
    logger = logging.getLogger("apprise")
    logger.addHandler(_Reasons(logging.WARNING))
    logger.propagate = False
    message = json.loads(sys.stdin.buffer.read())
    sending = [
        threading.Thread(target=_send, args=(index, url, message), daemon=True)
        for index, url in enumerate(message["urls"])
    ]
    for thread in sending:
        thread.start()
    for thread in sending:
        thread.join()
    os._exit(0)


def _send(index: int, url: str, message: dict[str, Any]) -> None:
    said: list[str] = []
    _reasons.set(said)
    problem = "it was not taken"
    try:
        sent = _sent(index, url, message)
        problem = "" if sent else said[-1] if said else problem
    except Exception as failure:  # a plugin may raise anything
        problem = f"{type(failure).__name__}: {failure}"
    _tell({"index": index, "problem": problem})


def _sent(index: int, url: str, message: dict[str, Any]) -> bool:
    asset = apprise.AppriseAsset(
        app_id="updater", app_desc="updater", app_url="", async_mode=False, secure_logging=True
    )
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        raise ValueError("apprise does not know such an address; `apprise --details` lists what it knows")
    _tell({"index": index, "service": str(service.service_name)})
    everybody = apprise.Apprise(asset=asset)
    everybody.add(service)
    return bool(
        everybody.notify(
            title=message["title"],
            body=message["body"],
            notify_type=message["kind"],
            body_format="text",
        )
    )


_telling = threading.Lock()


def _tell(line: dict[str, Any]) -> None:
    with _telling, contextlib.suppress(BrokenPipeError):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
