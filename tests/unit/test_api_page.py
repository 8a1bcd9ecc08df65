"""docs/api.md says what the server does, no more and no less."""

from __future__ import annotations

import re
from typing import Any

from tests import api_page
from updater import errors
from updater.web import openapi
from updater.web.api import ENDPOINTS


def test_the_reference_is_that_of_the_server() -> None:
    text = api_page.PAGE.read_text(encoding="utf-8")
    assert text == api_page.written(text), "not up to date: run `python -m tests.api_page`"
    assert {f"{it.method} {it.path}" for it in ENDPOINTS} <= set(re.findall(r"\*\*`([^`]+)`\*\*", text))


def test_every_error_has_its_place_beside_its_status() -> None:
    table = api_page.PAGE.read_text(encoding="utf-8").partition("| status | code |")[2].partition("\n\n")[0]
    rows = {int(row.split("|")[1]): set(re.findall(r"`([a-z-]+)`", row)) for row in table.splitlines()[2:]}

    def kinds(kind: type[errors.UpdaterError]) -> list[type[errors.UpdaterError]]:
        return [
            kind,
            *(
                it
                for below in kind.__subclasses__()
                if below.__module__ == "updater.errors"
                for it in kinds(below)
            ),
        ]

    missing = [
        (status, kind.code)
        for kind in kinds(errors.UpdaterError)
        if kind.code not in rows.get(status := openapi._status(kind), ())
    ]
    assert missing == []


def test_the_document_refers_to_nothing_that_is_not_in_it() -> None:
    found = openapi.document()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [it for inner in value.values() for it in references(inner)]
        return [it for inner in value for it in references(inner)] if isinstance(value, list) else []

    names = {it.rpartition("/")[2] for it in references(found)}
    assert names - found["components"]["schemas"].keys() == set()
