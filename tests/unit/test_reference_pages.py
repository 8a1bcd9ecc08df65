"""The reference says what the code does, no more and no less."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from tests import reference_pages
from updater import errors
from updater.cli.app import COMMANDS, EXITS, exit_codes, updater
from updater.configkeys import ABOUT, DUMP, PROBE, PROCESS, SECTIONS
from updater.deployment import phases
from updater.deployment.transaction import Request
from updater.layout import Layout
from updater.web import openapi
from updater.web.api import ENDPOINTS


@pytest.mark.parametrize("name", reference_pages.PAGES)
def test_the_reference_is_that_of_the_code(name: str) -> None:
    text = (reference_pages.DOCS / name).read_text(encoding="utf-8")
    reference = reference_pages.PAGES[name]()
    assert text == reference_pages.written(text, reference), (
        "not up to date: run `python -m tests.reference_pages`"
    )


def test_every_endpoint_is_in_it() -> None:
    text = reference_pages.PAGES["api.md"]()
    assert {f"{it.method} {it.path}" for it in ENDPOINTS} <= set(re.findall(r"\*\*`([^`]+)`\*\*", text))


def test_every_command_says_what_it_ends_with() -> None:
    backup = updater.get_command(click.Context(updater), "backup")
    assert isinstance(backup, click.Group)
    names = {name for section in COMMANDS.values() for name in section if name != "backup"}
    assert names | {f"backup {name}" for name in backup.commands} == EXITS.keys()
    assert {code for name in EXITS for code in exit_codes(name)} == errors.EXIT_CODES.keys()
    assert errors.EXIT_CODES.keys() == {
        0,
        *(it.exit_code for it in errors._tree(errors.UpdaterError).values()),
    }


def test_every_table_of_the_configuration_is_explained_and_every_example_is_right() -> None:
    assert ABOUT.keys() == {*SECTIONS, "shared", "processes", "probes", "dumps"}
    for key in [it for keys in (*SECTIONS.values(), PROCESS, PROBE, DUMP) for it in keys]:
        assert key.default is not None or key.example is not None, key.name
        for text in (key.default, key.example):
            if text is not None:
                key.read(tomllib.loads(f"it = {text}")["it"])


def test_every_name_that_belongs_to_updater_is_in_the_table() -> None:
    documented = reference_pages.own_names()
    layout = Layout(Path("/"))
    own = {
        value
        for name in dir(Layout)
        if isinstance(value := getattr(layout, name), Path) and value.is_relative_to(layout.own)
    }
    assert {it.relative_to(layout.own).parts[0] for it in own if it != layout.own} == documented


def test_every_error_has_its_place_beside_its_status() -> None:
    table = (
        (reference_pages.DOCS / "api.md")
        .read_text(encoding="utf-8")
        .partition("| status | code |")[2]
        .partition("\n\n")[0]
    )
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


def test_the_diagram_of_the_design_has_the_phases_in_their_order() -> None:
    text = (
        (reference_pages.DOCS / "design.md")
        .read_text(encoding="utf-8")
        .partition("```text\n")[2]
        .partition("```")[0]
    )
    shown = [line[14:].split()[0] for line in text.splitlines()]
    backwards = {"choose", "stage", "restore", "load"}  # of a way back that restores data
    assert shown[:-1] == [it.name for it in phases.of(Request("deploy")) if it.name not in backwards]
