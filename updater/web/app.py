"""The ASGI application: which request goes where, who is let in, and how answers and errors are sent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from updater import operations, records
from updater.config import ServerConfig
from updater.errors import UpdaterError
from updater.layout import Layout
from updater.web import models, openapi, secrecy
from updater.web.access import Access, Session
from updater.web.api import ENDPOINTS, Call, Endpoint
from updater.web.feed import Feed, position
from updater.web.guard import Guard, Names
from updater.web.problems import Refused, response
from updater.web.secrecy import blank

Act = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")

WAITING = 30
"""Requests at once that may wait long; more wait for those."""


class Server:
    """What the requests to one root share."""

    def __init__(self, layout: Layout, settings: ServerConfig) -> None:
        self.layout = layout
        self.access = Access(layout, public_url=settings.public_url)
        self.feed = Feed(layout)
        self._waiting = anyio.CapacityLimiter(WAITING)

    async def wait(self, act: Callable[..., T], *about: Any) -> T:
        """Run what may wait long in a thread, beside the threads of those who only look."""
        return await anyio.to_thread.run_sync(act, *about, limiter=self._waiting)

    async def let_in(self, request: Request) -> Session | None:
        """The session of a logged-in browser, or None for a client with the token.

        Raises:
            Refused: neither; or a browser asks for a change without the page's own token.
        """
        scheme, given = _authorization(request)
        if scheme == "bearer":
            if self.access.is_token(given):
                return None
            await self.access.slow_down()
            raise _unknown("this is not the token of this server")
        session = self.access.session(request.cookies.get(self.access.cookie))
        if session is None:
            raise _unknown("no token was given" if not scheme else "only a bearer token is taken")
        if request.method not in ("GET", "HEAD") and request.headers.get("x-csrf-token") != session.csrf:
            raise Refused(
                403, "forged", "the page's own token is missing", advice="reload the page and try again"
            )
        return session

    def knows(self, request: Request) -> bool:
        """Whether a client that was let in still would be."""
        scheme, given = _authorization(request)
        if scheme == "bearer":
            return self.access.is_token(given)
        return self.access.session(request.cookies.get(self.access.cookie)) is not None


def _authorization(request: Request) -> tuple[str, str]:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower(), given.strip()


def _unknown(why: str) -> Refused:
    return Refused(
        401, "unauthenticated", why, advice="`updater serve --show-token` shows the token; send it as `Authorization: Bearer …`",
        headers={"WWW-Authenticate": 'Bearer realm="updater"'},
    )  # fmt: skip


def application(layout: Layout, settings: ServerConfig | None = None) -> Guard:
    """The API and the dashboard of one root, as an ASGI application.

    Raises:
        OSError: the token can be neither read nor made.
    """
    from updater.web import metrics, pages

    settings = settings or ServerConfig()
    server = Server(layout, settings)
    secrecy.of(layout)
    routes: list[BaseRoute] = [
        Route(one.path, _endpoint(server, one), methods=[one.method]) for one in ENDPOINTS
    ]
    routes += [
        Route("/api/update/events", _events(server)),
        Route("/api/openapi.json", _openapi(server)),
        Route("/metrics", metrics.route(server)),
        *pages.routes(server),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            UpdaterError: _failed,
            OSError: _failed,
            HTTPException: _failed,
            Exception: _failed,
        },
        lifespan=_life(server),
    )
    return Guard(app, Names(settings.host, settings.public_url), server.feed.stop)


def _life(server: Server) -> Any:
    @contextlib.asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        server.access.forget_old_codes()
        clock = asyncio.create_task(_keep_schedule(server.layout))
        yield
        clock.cancel()

    return life


LOOK = 30.0
"""Seconds between two looks at the clock: `updater.toml` may have changed, and a machine that slept must notice."""


async def _keep_schedule(layout: Layout) -> None:
    """Ask the source when ``[schedule]`` says so, until the server ends."""
    chance = random.random()
    while True:
        try:
            if await run_in_threadpool(_one_round, layout, chance):
                chance = random.random()
        except (UpdaterError, OSError) as failure:
            # The root may be gone, or full: the next look tells whether it still is.
            await run_in_threadpool(records.log, layout, f"schedule: {failure}", error=True)
        await asyncio.sleep(LOOK)


def _one_round(layout: Layout, chance: float) -> bool:
    """Whether it was time, and the source was asked."""
    from updater.operations import scheduling

    root = operations.open_root(layout.root, tolerant=True)
    at = scheduling.due(root, chance)
    if at is None or at > records.now():
        return False
    scheduling.tick(root)
    return True


async def _failed(request: Request, failure: Exception) -> Response:
    error = explained(failure)
    if request.url.path.startswith("/api/") or request.url.path == "/metrics":
        return response(error)
    from updater.web import pages

    return pages.failure(request, error)


def explained(failure: Exception) -> UpdaterError:
    """Any failure as one that can be told; of what nobody foresaw the page says no more than its kind."""
    if isinstance(failure, UpdaterError):
        return failure
    if isinstance(failure, HTTPException):
        code = {404: "not-found", 405: "method-not-allowed"}.get(failure.status_code, "http")
        headers = dict(failure.headers) if failure.headers else {}
        return Refused(failure.status_code, code, str(failure.detail), headers=headers)
    if isinstance(failure, OSError) and failure.errno in (
        errno.ENOSPC,
        errno.EROFS,
        errno.EACCES,
        errno.EDQUOT,
        errno.EPERM,
        errno.EIO,
    ):
        from updater.deployment.engine import storage_error

        return storage_error(failure)
    import logging

    logging.getLogger("updater.web").error("unforeseen", exc_info=failure)
    return UpdaterError(
        f"unforeseen: {type(failure).__name__}",
        advice="this is a defect of updater: report what the server printed about it.",
    )


def _endpoint(server: Server, one: Endpoint) -> Act:
    async def act(request: Request) -> Response:
        session = await server.let_in(request)
        asked = _query(request, one.takes) if one.method == "GET" else await _body(request, one.takes)
        call = Call(server.layout, *_who(session), asked)
        answer = await (server.wait(one.act, call) if one.waits else run_in_threadpool(one.act, call))
        headers = {"Location": "/api/update/progress"} if one.status == 202 else None
        return Json(blank(answer), one.status, headers)

    return act


def _who(session: Session | None) -> tuple[str, str]:
    """User and origin, for the history."""
    return ("api", "api") if session is None else ("dashboard", "dashboard")


class Json(Response):
    """JSON in ASCII: a lone surrogate, from a file's name that is no UTF-8, becomes its escape instead of an error."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, default=str).encode()


async def _body(request: Request, kind: type) -> Any:
    try:
        raw = await request.body()
    except ClientDisconnect:
        raise Refused(400, "gone", "the client went away") from None
    if not raw:
        raw = b"{}"
    elif request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(
            415, "not-json", "the body must be JSON", advice="send it with Content-Type: application/json"
        )
    try:
        return msgspec.convert(_integral(msgspec.json.decode(raw)), kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as wrong:
        raise Refused(400, "usage", f"the body does not fit: {wrong or 'it is too deep'}") from None


def _integral(data: Any) -> Any:
    """To JSON Schema, 5.0 is an integer as well."""
    if isinstance(data, dict):
        return {name: _integral(it) for name, it in data.items()}
    if isinstance(data, list):
        return [_integral(it) for it in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data


def _query(request: Request, kind: type) -> Any:
    """The query string as a type; what appears twice or is not known is a mistake."""
    pairs = parse_qsl(request.url.query, keep_blank_values=True)
    given = dict(pairs)
    known = () if kind is models.Nothing else kind.__struct_fields__  # type: ignore[attr-defined]
    if unknown := set(given) - set(known):
        raise Refused(400, "usage", f"unknown in the query: {', '.join(sorted(unknown))}"[:200])
    if len(given) != len(pairs):
        raise Refused(400, "usage", "the query names something twice")
    try:
        return msgspec.convert(given, kind, strict=False)
    except (msgspec.ValidationError, UnicodeError) as wrong:
        raise Refused(400, "usage", f"the query does not fit: {wrong}") from None


def _events(server: Server) -> Act:
    async def events(request: Request) -> Response:
        await server.let_in(request)
        asked = _query(request, models.EventsQuery)
        if server.feed.full():
            raise Refused(
                429, "too-many-listeners", "too many pages listen already", headers={"Retry-After": "10"}
            )
        after = position(request.headers.get("last-event-id") or asked.after)
        return StreamingResponse(
            _while_let_in(server, request, server.feed.listen(after)), media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )  # fmt: skip

    return events


async def _while_let_in(
    server: Server, request: Request, chunks: AsyncGenerator[bytes, None]
) -> AsyncIterator[bytes]:
    """The stream until its client has logged out, or a new token was made."""
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            if not server.knows(request):
                return
            yield chunk


def _openapi(server: Server) -> Act:
    async def show(request: Request) -> Response:
        await server.let_in(request)
        return Json(openapi.document())

    return show
