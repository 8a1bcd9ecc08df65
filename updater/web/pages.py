"""The pages: HTML made on the server, usable without JavaScript. The forms call the very endpoints of the API."""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from updater import version, words
from updater.errors import NotFound, UpdaterError
from updater.web import views
from updater.web.access import SESSION_SECONDS, Session
from updater.web.actions import ACTIONS, Action
from updater.web.api import Call
from updater.web.markdown import render as markdown
from updater.web.problems import Refused, problem
from updater.web.secrecy import blank

if TYPE_CHECKING:
    from updater.web.app import Server

Json = dict[str, Any]
Show = Callable[[Request], Awaitable[Response]]
HERE = Path(__file__).parent
STATIC = {"updater.css": "text/css", "updater.js": "text/javascript", "icon.svg": "image/svg+xml"}


@functools.cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("updater.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "size": words.size, "seconds": words.seconds, "moment": words.moment, "phase": words.phase, "markdown": markdown,
    }  # fmt: skip
    made.globals |= {"updater_version": version(), "static": _address}
    return made


@functools.cache
def _file(name: str) -> bytes:
    return (HERE / "static" / name).read_bytes()


@functools.cache
def _address(name: str) -> str:
    """A file's address: it changes with its content, so that browsers may keep it for ever."""
    return f"/static/{hashlib.sha256(_file(name)).hexdigest()[:12]}/{name}"


def _html(template: str, facts: Mapping[str, Any], status: int = 200) -> Response:
    return HTMLResponse(_templates().get_template(template).render(**blank(facts)), status)


def failure(request: Request, error: UpdaterError) -> Response:
    """The page of an error; a browser that is not logged in is led to the login."""
    told = problem(error)
    if told["status"] == 401 and request.method == "GET":
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?{urlencode({'next': path})}" if path != "/" else "/login", 303)
    headers = error.headers if isinstance(error, Refused) else {}
    made = _html("error.html", {"problem": told, "csrf": None, "name": None, "here": ""}, told["status"])
    made.headers.update(headers)
    return made


def routes(server: Server) -> list[BaseRoute]:
    return [
        Route("/", _page(server, "overview.html", views.overview)),
        Route("/releases", _page(server, "releases.html", views.releases)),
        Route("/backups", _page(server, "backups.html", views.backups)),
        Route("/history", _page(server, "history.html", views.history)),
        Route("/history/{id}", _page(server, "deployment.html", views.one_of_history)),
        Route("/logs", _page(server, "logs.html", views.logs)),
        Route("/health", _page(server, "health.html", views.health_page, waits=True)),
        Route("/update", _page(server, "update.html", views.update, waits=True)),
        Route("/part/deployment", _page(server, "part_deployment.html", views.deployment)),
        Route("/part/health", _page(server, "part_health.html", views.health, waits=True)),
        Route("/confirm/{action}", _confirm(server)),
        Route("/do/{action}", _do(server), methods=["POST"]),
        Route("/login", _login_form(server), methods=["GET"]),
        Route("/login", _login(server), methods=["POST"]),
        Route("/logout", _logout(server), methods=["POST"]),
        Route("/static/{sum}/{name}", _static),
    ]


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise NotFound(f"there is no {name}"[:200])
    return Response(
        _file(name), media_type=STATIC[name], headers={"Cache-Control": "public, max-age=31536000, immutable"}
    )


async def _browser(server: Server, request: Request) -> Session:
    """The session of a logged-in browser; the API's token alone opens no page."""
    session = server.access.session(request.cookies.get(server.access.cookie))
    if session is None:
        raise Refused(401, "unauthenticated", "you are not logged in")
    return session


def _page(server: Server, template: str, view: views.View, *, waits: bool = False) -> Show:
    async def show(request: Request) -> Response:
        session = await _browser(server, request)
        asked = {**dict(request.query_params), **request.path_params}
        facts = await (server.wait if waits else run_in_threadpool)(view, server.layout, asked)
        return _html(template, {"csrf": session.csrf, "here": request.url.path, **facts})

    return show


# changes


def _action(request: Request) -> Action:
    found = ACTIONS.get(request.path_params["action"])
    if found is None:
        raise NotFound(f"there is no action {request.path_params['action']}"[:200])
    return found


def _confirm(server: Server) -> Show:
    async def show(request: Request) -> Response:
        session = await _browser(server, request)
        action = _action(request)
        fields = dict(request.query_params)
        asked = action.read(fields)
        facts = await server.wait(action.facts, server.layout, asked)
        return _html(
            "confirm.html",
            {
                "csrf": session.csrf,
                "here": "",
                "fields": fields,
                "action": action.as_json(request.path_params["action"]),
                **facts,
            },
        )

    return show


def _do(server: Server) -> Show:
    async def act(request: Request) -> Response:
        session = await _browser(server, request)
        fields = await _form(request)
        if not hmac.compare_digest(fields.pop("csrf", "").encode(), session.csrf.encode()):
            raise Refused(
                403,
                "forged",
                "the page's own token is missing",
                advice="go back, reload the page and try again",
            )
        action = _action(request)
        asked = action.read(fields)
        answer = await server.wait(action.endpoint.act, Call(server.layout, "dashboard", "dashboard", asked))
        if action.shows:
            facts = await run_in_threadpool(views.result, server.layout, action.title, blank(answer))
            return _html("result.html", {"csrf": session.csrf, "here": action.back, **facts})
        return RedirectResponse(action.back, 303)

    return act


async def _form(request: Request) -> dict[str, str]:
    if (
        request.headers.get("content-type", "").partition(";")[0].strip().lower()
        != "application/x-www-form-urlencoded"
    ):
        raise Refused(415, "not-a-form", "this is not a form")
    try:
        found = parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise Refused(400, "usage", "the form cannot be read") from None
    return {name: values[-1] for name, values in found.items()}


# logging in and out


def _login_form(server: Server) -> Show:
    async def show(request: Request) -> Response:
        if server.access.session(request.cookies.get(server.access.cookie)):
            return RedirectResponse(_local(request.query_params.get("next")), 303)
        return _login_page(request.query_params.get("next", ""), request.query_params.get("code", ""))

    return show


def _login_page(then: str, code: str, wrong: str = "", status: int = 200) -> Response:
    return _html(
        "login.html",
        {"csrf": None, "here": "", "name": None, "next": then, "code": code, "wrong": wrong},
        status,
    )


def _login(server: Server) -> Show:
    async def login(request: Request) -> Response:
        fields = await _form(request)
        code, given = fields.get("code", ""), fields.get("token", "").strip()
        if not (server.access.use_code(code) if code else server.access.is_token(given)):
            await server.access.slow_down()
            told = (
                "This login link has been used, or is too old."
                if code
                else "This is not the token of this server."
            )
            return _login_page(fields.get("next", ""), "", told, 401)
        cookie, _ = server.access.open_session()
        leaving = RedirectResponse(_local(fields.get("next")), 303)
        leaving.set_cookie(
            server.access.cookie,
            cookie,
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=server.access.secure,
        )
        return leaving

    return login


def _local(path: str | None) -> str:
    """A path of ours and nothing else, to go to after the login."""
    safe = (
        path
        and path.startswith("/")
        and not path.startswith("//")
        and "\\" not in path
        and path.isprintable()
    )
    return str(path) if safe else "/"


def _logout(server: Server) -> Show:
    async def logout(request: Request) -> Response:
        session = await _browser(server, request)
        fields = await _form(request)
        if not hmac.compare_digest(fields.get("csrf", "").encode(), session.csrf.encode()):
            raise Refused(403, "forged", "the page's own token is missing")
        server.access.end_session(session)
        leaving = RedirectResponse("/login", 303)
        leaving.delete_cookie(
            server.access.cookie, httponly=True, samesite="strict", secure=server.access.secure
        )
        return leaving

    return logout
