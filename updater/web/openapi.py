"""The OpenAPI 3.1 document, made from the table of endpoints and its types."""

from __future__ import annotations

from typing import Any

import msgspec

from updater import errors, version
from updater.web import models
from updater.web.api import ENDPOINTS, Endpoint
from updater.web.problems import MEDIA_TYPE, STATUS

Json = dict[str, Any]

_ALWAYS = {
    401: "No token, or a wrong one.",
    403: "Not from here: a foreign Origin, or the page's own token is missing.",
    408: "The body did not come in time.",
    421: "Not called by a name that the server knows.",
    429: "Too many wrong tokens.",
    500: "Something that nobody foresaw, or a way back that failed.",
    503: "The root is gone.",
    507: "The disk is full, read-only or failing.",
}
_EVENT_ID = {"type": "string", "maxLength": 80, "pattern": "^[0-9A-Za-z:-]*$"}
_WITH_BODY = {400: "The body does not fit.", 413: "The body is too large.", 415: "The body is not JSON."}


def document() -> Json:
    """The whole document. Its paths and types are those that the server itself uses."""
    used: list[Any] = [models.Problem, models.EventsQuery]
    used += [it for one in ENDPOINTS for it in (one.takes, one.gives) if it is not dict]
    _, components = msgspec.json.schema_components(used, ref_template="#/components/schemas/{name}")
    paths: Json = {}
    for one in ENDPOINTS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, components)
    paths["/api/update/events"] = {"get": _events(components)}
    paths["/metrics"] = {"get": _metrics()}
    bodies = {it.takes.__name__ for it in ENDPOINTS if it.method != "GET"}
    queries = {it.takes.__name__ for it in ENDPOINTS if it.method == "GET"} - bodies | {"EventsQuery"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "updater",
            "version": version(),
            "description": "Update a self-hosted Python application safely, and always be able to go back.",
            "license": {"name": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {name: it for name, it in components.items() if name not in queries},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`updater serve --show-token` shows it.",
                }
            },
        },
    }


def _operation(one: Endpoint, components: Json) -> Json:
    made: Json = {
        "operationId": one.act.__name__,
        "summary": one.does,
        "tags": [one.path.split("/")[2]],
        "responses": {str(one.status): _answer(one), **_problems(one)},
    }
    if one.method == "GET":
        made["parameters"] = _parameters(one.takes, components)
    else:
        schema = {"schema": {"$ref": f"#/components/schemas/{one.takes.__name__}"}}
        if one.example:
            schema["example"] = one.example
        required = bool(components[one.takes.__name__].get("required"))
        made["requestBody"] = {"required": required, "content": {"application/json": schema}}
    return made


def _answer(one: Endpoint) -> Json:
    schema: Json = (
        {"type": "object"} if one.gives is dict else {"$ref": f"#/components/schemas/{one.gives.__name__}"}
    )
    return {"description": one.does, "content": {"application/json": {"schema": schema}}}


def _problems(one: Endpoint) -> Json:
    told: dict[int, list[str]] = {}
    for kind in one.fails:
        said = (kind.__doc__ or kind.code).partition("\n")[0]
        told.setdefault(_status(kind), []).append(said)
    told |= {status: [said] for status, said in _ALWAYS.items() if status not in told}
    told |= {
        status: [said]
        for status, said in (_WITH_BODY if one.method != "GET" else {400: "The query does not fit."}).items()
    }
    return {str(status): _problem(" ".join(said)) for status, said in sorted(told.items())}


def _status(kind: type[errors.UpdaterError]) -> int:
    return next(STATUS[it] for it in kind.__mro__ if it in STATUS)


def _problem(said: str) -> Json:
    return {
        "description": said,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _parameters(query: type, components: Json) -> list[Json]:
    found = components.get(query.__name__, {}).get("properties", {})
    made = []
    for name, schema in found.items():
        # A query string has no null: what may be left out is a plain value or absent.
        plain = next((it for it in schema.get("anyOf", ()) if it.get("type") != "null"), schema)
        plain = {key: it for key, it in plain.items() if not (key == "default" and it is None)}
        made.append({"name": name, "in": "query", "required": False, "schema": plain})
    return made


def _events(components: Json) -> Json:
    return {
        "operationId": "events",
        "summary": "The same as progress, as a stream of server-sent events.",
        "description": (
            "`event: line`: a line of the journal (its id resumes the stream); `event: progress`: how far the present phase is; "
            "`event: log`: a line of update.log. A comment every 15 s keeps proxies from closing it."
        ),
        "tags": ["update"],
        "parameters": [
            *_parameters(models.EventsQuery, components),
            {"name": "Last-Event-ID", "in": "header", "required": False, "schema": _EVENT_ID},
        ],
        "responses": {
            "200": {"description": "The stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **{str(status): _problem(said) for status, said in {**_ALWAYS, 400: "The query does not fit."}.items()},
        },
    }  # fmt: skip


def _metrics() -> Json:
    return {
        "operationId": "metrics",
        "summary": "Metrics in Prometheus' format.",
        "tags": ["system"],
        "responses": {
            "200": {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **{str(status): _problem(said) for status, said in _ALWAYS.items()},
        },
    }
