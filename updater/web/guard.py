"""What every request passes first: is it meant for us, does it come from us, is it small and fast enough?

A page elsewhere can make a browser send requests to localhost; DNS rebinding can even make it believe that they go to that page's
own host. Against the first stand the Origin header and the tokens, against the second the Host header.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from updater.web.problems import Refused, response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 64 * 1024
"""Bytes of a request's body; the largest that means anything has some hundred."""

BODY_SECONDS = 10.0
"""Seconds in which a body must have come."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer the browser would hide the Origin of our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Names:
    """The names under which a server may be called."""

    def __init__(self, host: str, public_url: str | None) -> None:
        public = urlsplit(public_url or "")
        self.origin = f"{public.scheme}://{public.netloc}".lower() if public_url else None
        self._names = {"localhost", host.lower(), *([public.hostname] if public.hostname else [])}
        self._local_only = _is_loopback(host)
        if not self._local_only:
            name = socket.gethostname().lower()
            self._names |= {name, socket.getfqdn().lower(), f"{name.partition('.')[0]}.local"}

    def knows(self, host: str) -> bool:
        """Whether a Host header names us. No rebinding is possible to an address: it needs a name of the attacker's."""
        with contextlib.suppress(ValueError):
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
            if urlsplit(f"//{host}").port == 0 or any(it in host for it in "@/?#\\ "):
                return False
            if name in self._names:
                return True
            address = ipaddress.ip_address(name)
            return address.is_loopback or not self._local_only
        return False


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class Guard:
    """The outermost layer of the application. ``on_stop`` ends the answers that have no end of their own."""

    def __init__(self, app: App, names: Names, on_stop: Callable[[], None]) -> None:
        self.app = app
        self.names = names
        self._on_stop = on_stop
        self._stopping = False

    def stop(self) -> None:
        """The server is about to end."""
        self._stopping = True
        self._on_stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        if refusal := self._refuses(headers):
            await response(refusal)(scope, receive, _with_headers(send, scope))
            return
        answer = _Answer(_with_headers(send, scope))
        try:
            await self.app(scope, _bounded(receive), answer.send)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            if not answer.begun:
                await response(_stopped())(scope, receive, answer.send)

    def _refuses(self, headers: list[tuple[bytes, str]]) -> Refused | None:
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self.names.knows(hosts[0]):
            return Refused(
                421, "foreign-host", f"this server is not called {hosts[0] if hosts else 'nothing'!r}"[:200],
                advice="call it by its address, or name it in [server] public_url",
            )  # fmt: skip
        for name, value in headers:
            if name == b"origin" and not self._is_ours(value, hosts[0]):
                return Refused(403, "foreign-origin", f"a page of {value} may not drive this server"[:200])
            if name == b"content-length" and (not value.isdigit() or int(value[:12]) > MAX_BODY):
                return Refused(413, "too-large", f"a body may have at most {MAX_BODY} bytes")
        return None

    def _is_ours(self, origin: str, host: str) -> bool:
        """Whether a page of ours sent it. Behind a proxy the scheme is the proxy's, and perhaps the name as well."""
        if origin.lower() == self.names.origin:
            return True
        with contextlib.suppress(ValueError):
            found = urlsplit(origin)
            return (
                found.scheme in ("http", "https")
                and found.netloc.lower() == host.lower()
                and self.names.knows(found.netloc)
            )
        return False


class _Answer:
    """Whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.begun = True
        await self._send(message)


def _stopped() -> Refused:
    refusal = Refused(503, "stopping", "the server is being stopped")
    refusal.state = (
        "What was asked for was broken off; the next command that changes something brings it to a safe end."
    )
    return refusal


def _bounded(receive: Receive) -> Receive:
    """The body, no larger than :data:`MAX_BODY` and no slower than :data:`BODY_SECONDS`."""
    seen, over = 0, False
    deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal seen, over
        if over:  # only the client's end can come now, and it may wait for ever
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise Refused(408, "too-slow", f"the body did not come within {BODY_SECONDS:g} s") from None
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            over = not message.get("more_body", False)
            if seen > MAX_BODY:
                raise Refused(413, "too-large", f"a body may have at most {MAX_BODY} bytes")
        return message

    return bounded


def _with_headers(send: Send, scope: Scope) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            extra = HEADERS if "/static/" in scope["path"] else {**HEADERS, "Cache-Control": "no-store"}
            message["headers"] = [
                *message["headers"],
                *(
                    (name.lower().encode(), value.encode())
                    for name, value in extra.items()
                    if name.lower().encode() not in present
                ),
            ]
        await send(message)

    return sending
