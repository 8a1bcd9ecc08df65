"""What the pages name is there: commands, options, scripts, links, exit codes, settings. Nothing is run."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from tests.docs.pages import HERE, RUN, Page, name, pages, parse, read
from tests.docs.preparations import PREPARATIONS
from tests.docs.world import console
from tests.typed import commands_in, is_updater, parsed, parsed_words, shell_commands
from updater import configfile, errors

PAGES = pages()
SCRIPT = re.compile(r"(?<![\w.-])scripts/([a-z0-9_]+\.sh)")
EXIT_CODES = re.compile(
    r"\bexit(?:s|ed)?(?: code| status)?s?(?: of| with)?:? [`*]*(\d+)[`*]*((?:, [`*]*\d+\b[`*]*)*(?:,? (?:and|or) [`*]*\d+\b[`*]*)?)",
    re.IGNORECASE,
)

every_page = pytest.mark.parametrize("path", PAGES, ids=name)


def _commands(page: Page) -> Iterator[tuple[str, list[str]]]:
    """Every command in a block or in inline code, where it stands, as words."""
    for block in page.blocks:
        if block.language in RUN:
            typed = (
                "".join(it for it, _ in console(block.text)) if block.language == "console" else block.text
            )
            for words in shell_commands(typed):
                yield block.where, words
    for line, code in page.code:
        if "updater" in code or "scripts/" in code:
            try:
                commands = list(shell_commands(code.replace("…", "").replace("[", "").replace("]", "")))
            except ValueError:
                continue  # no command
            for words in commands:
                yield f"{name(page.path)}:{line}", words


@every_page
def test_it_says_how_its_blocks_are_run(path: Path) -> None:
    page = read(path)
    assert page.wrong == []
    assert {it.preparation for it in page.worlds()} <= PREPARATIONS.keys()


@every_page
def test_every_command_can_be_typed(path: Path) -> None:
    wrong = []
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for command in commands_in(prose):
        try:
            parsed(command)
        except click.MissingParameter:
            pass  # a page may speak of a command without typing it
        except click.ClickException as failure:
            wrong.append(f"updater {command}: {failure.format_message()}")
    for where, words in _commands(read(path)):
        if is_updater(words[0]):
            try:
                parsed_words(words[1:])
            except click.MissingParameter:
                pass
            except click.ClickException as failure:
                wrong.append(f"{where}: {' '.join(words)}: {failure.format_message()}")
    assert wrong == []


@every_page
def test_every_module_to_run_is_there(path: Path) -> None:
    for where, words in _commands(read(path)):
        if words[1:2] == ["-m"] and (HERE / words[2].partition(".")[0]).is_dir():
            assert importlib.util.find_spec(words[2]), f"{where}: {' '.join(words)}"


@every_page
def test_every_script_is_there_and_has_the_options(path: Path) -> None:
    for script in SCRIPT.findall(path.read_text(encoding="utf-8")):
        assert (HERE / "scripts" / script).is_file(), f"scripts/{script}"
    assert _unknown_options(read(path)) == []


def _unknown_options(page: Page) -> list[str]:
    wrong = []
    for where, words in _commands(page):
        for number, word in enumerate(words[:3]):
            if found := SCRIPT.search(word):
                known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", _help(found[1])))
                options = [it.partition("=")[0] for it in words[number + 1 :] if re.match("--?[a-z]", it)]
                wrong += [f"{where}: {found[0]} has no {it}" for it in options if it not in known]
                break
    return wrong


@cache
def _help(script: str) -> str:
    done = subprocess.run(
        ["sh", HERE / "scripts" / script, "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"scripts/{script} --help: {done.stdout}{done.stderr}"
    return done.stdout


@every_page
def test_every_link_leads_somewhere(path: Path) -> None:
    wrong = []
    for line, address in read(path).links:
        if re.match(r"[a-z][a-z+.-]*:", address):
            continue
        file, _, anchor = address.partition("#")
        target = (path.parent / file).resolve() if file else path
        there = target.exists() and target.is_relative_to(HERE)
        if there and anchor:
            there = target.suffix == ".md" and anchor in read(target).anchors
        if not there:
            wrong.append(f"{name(path)}:{line}: {address}")
    assert wrong == []


@every_page
def test_every_exit_code_is_one_of_ours(path: Path) -> None:
    known = {0, *(it.exit_code for it in errors._tree(errors.UpdaterError).values())}
    text = " ".join(path.read_text(encoding="utf-8").split())
    named = {int(it) for found in EXIT_CODES.finditer(text) for it in re.findall(r"\d+", found[1] + found[2])}
    assert named <= known


@every_page
def test_settings_and_documents_can_be_read(path: Path) -> None:
    for block in read(path).blocks:
        if "not checked" in block.notes:
            continue
        if block.language == "toml":
            source = (
                ""
                if re.search(r"^\[source\]", block.text, re.MULTILINE)
                else '[source]\nrepository = "owner/name"\n'
            )
            try:
                configfile.parse(block.text + source, HERE / "updater.toml")
            except errors.ConfigError as failure:
                pytest.fail(f"{block.where}: {failure.line}", pytrace=False)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "python":
            compile(block.text, block.where, "exec")


def test_there_is_something_to_look_at() -> None:
    found = [words for path in PAGES for _, words in _commands(read(path)) if is_updater(words[0])]
    assert len(PAGES) > 15 and len(found) > 50


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("cd /srv/bot && sudo updater deploy # now", [["cd", "/srv/bot"], ["updater", "deploy"]]),
        ("A=1 updater status 2>&1 | grep x >y", [["updater", "status"], ["grep", "x"]]),
        ('token=$(updater --json serve); x "a\nb"', [["updater", "--json", "serve"], ["x", "a\nb"]]),
        ("cat >f <<'EOF'\nupdater nonsense\nEOF\nupdater \\\n  check", [["cat"], ["updater", "check"]]),
    ],
)
def test_commands_are_found_in_a_script(script: str, commands: list[list[str]]) -> None:
    assert list(shell_commands(script)) == commands


def test_exit_codes_are_found_in_prose() -> None:
    text = "exit code 3, 4 or 5; it exits with **6** and exit codes `7`, `8`; exit 9 times"
    assert [re.findall(r"\d+", it[1] + it[2]) for it in EXIT_CODES.finditer(text)] == [
        ["3", "4", "5"],
        ["6"],
        ["7", "8"],
        ["9"],
    ]


def test_an_option_that_a_script_does_not_have_is_found() -> None:
    page = parse(
        Path("page.md"), "Run `sh scripts/force_stop.sh --gently`, or `scripts/force_stop.sh --yes`."
    )
    assert _unknown_options(page) == ["page.md:1: scripts/force_stop.sh has no --gently"]
