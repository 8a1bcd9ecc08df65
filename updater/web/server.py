"""``updater serve``: a socket, uvicorn around the application, and an end that does not wait for open pages."""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import resource
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from updater import apart, records
from updater.config import ServerConfig
from updater.errors import PreflightFailed
from updater.layout import Layout
from updater.web import access
from updater.web.app import application

HEAD_SECONDS = 10.0
"""Seconds in which a connection must have sent the head of a request, or be closed."""

OPERATION_SECONDS = 30
"""Seconds that the end of the server waits for what was asked for: a restart must not be broken off between stop and start."""

CONNECTIONS = 1000
"""Connections at once; more are answered with 503."""


class Protocol(H11Protocol):
    """uvicorn's own, which lets a connection wait for ever before a request is whole, be it the first or a later one."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._impatience = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._impatience.cancel()
        self._impatience = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._impatience.cancel()
        super().connection_lost(exc)


def listen(settings: ServerConfig) -> socket.socket:
    """The socket that the server listens on.

    Raises:
        PreflightFailed: the port is taken, or the host is not of this machine.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sets TCP_NODELAY only where it is told that this is TCP; without it each answer waits 40 ms for an ACK.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((settings.host, settings.port))
        except OSError:
            made.close()
            raise
    except (OSError, UnicodeError) as failure:
        raise _no_socket(settings, failure) from failure
    made.listen(512)
    made.set_inheritable(False)  # a deployment outlives the server and must not keep its port
    return made


def _no_socket(settings: ServerConfig, failure: Exception) -> PreflightFailed:
    where = f"{settings.host}:{settings.port}"
    if isinstance(failure, OSError) and failure.errno == errno.EADDRINUSE:
        from updater.processes import using

        owners = using.listeners([settings.port]).get(settings.port)
        who = f" by {owners[0].name} (pid {owners[0].pid})" if owners else ""
        return PreflightFailed(
            f"{where} is taken already{who}",
            state="Nothing was started.",
            advice=f"end that program, or take another port: `updater serve --port {settings.port + 1}` "
            "(for good: [server] port). On macOS, AirPlay Receiver listens on 5000: System Settings, General, AirDrop & Handoff.",
        )  # fmt: skip
    if isinstance(failure, OSError) and failure.errno == errno.EACCES:
        return PreflightFailed(
            f"this user may not listen on {where}",
            state="Nothing was started.",
            advice="take a port above 1023: `updater serve --port 5000`",
        )  # fmt: skip
    return PreflightFailed(
        f"cannot listen on {where}: {failure}", state="Nothing was started.",
        advice="give an address of this machine, such as --host 127.0.0.1",
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url(settings: ServerConfig) -> str:
    """The address that a browser on this machine can use."""
    if settings.public_url:
        return settings.public_url.rstrip("/") + "/"
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/"


def login_url(layout: Layout, settings: ServerConfig) -> str:
    """A link that logs a browser in, once."""
    return f"{url(settings)}login?code={access.login_code(layout)}"


def serve(layout: Layout, settings: ServerConfig, on_ready: Callable[[ServerConfig], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. ``on_ready`` is told the settings with the port that it really is.

    Raises:
        PreflightFailed: the port is taken.
    """
    made = listen(settings)
    settings = replace(settings, port=made.getsockname()[1])
    _more_files()
    gc.enable()  # the command line does without, and so would this for as long as it serves
    apart.serve()
    records.log(layout, f"the dashboard listens on {settings.host}:{settings.port}")
    app = application(layout, settings)
    server = _Server(
        uvicorn.Config(
            app,
            http=Protocol, ws="none", loop="asyncio", lifespan="on",
            access_log=False, log_level="warning", server_header=False, proxy_headers=False,
            timeout_keep_alive=20, timeout_graceful_shutdown=OPERATION_SECONDS, limit_concurrency=CONNECTIONS,
        ),
        lambda: on_ready(settings),
        app.stop,
    )  # fmt: skip
    asyncio.run(server.serve(sockets=[made]))


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()  # first: uvicorn waits for every open answer, and a stream has no end of its own
        await super().shutdown(sockets)


def _more_files() -> None:
    """Every connection is a file; the usual 1024 are few, and 256 on macOS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
