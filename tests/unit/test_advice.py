"""Every command that a message names can be typed as it stands there. Of pages the same is looked at in tests/docs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.typed import commands_in, parsed
from updater.deployment.transaction import Request

HERE = Path(__file__).resolve().parents[2]
SOURCES = sorted((HERE / "updater").rglob("*.py"))
PAGES = [HERE / "README.md", *sorted((HERE / "docs").rglob("*.md"))]
SCRIPTS = HERE / "scripts"
HOLE = "VALUE"


def texts(source: Path) -> Iterator[tuple[int, str]]:
    """The string literals of a module but its docstrings, as one text each; a hole of an f-string is a word."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(map(_part, node.values))


def _part(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else HOLE


@pytest.mark.parametrize("source", SOURCES, ids=lambda it: str(it.relative_to(HERE)))
def test_every_command_in_a_message_can_be_typed(source: Path) -> None:
    """F13: what is offered must be possible."""
    wrong = []
    for line, text in texts(source):
        for command in commands_in(text):
            try:
                parsed(command)
            except click.ClickException as failure:
                wrong.append(f"{source.name}:{line}: updater {command}: {failure.format_message()}")
    assert wrong == []


SCRIPT = re.compile(r"(?<![\w.-])([a-z][a-z_]*\.sh)((?: (?:--[a-z-]+|[A-Za-z][\w.]*))*)")
NAMED = {
    "emergency_rollback.sh", "health_check_enhanced.sh", "manual_update.sh", "restore_backup.sh", "force_stop.sh",
    "unlock_update.sh", "cleanup_failed_update.sh", "test_update_system.sh",
}  # fmt: skip


def wrong_with_scripts(text: str) -> list[str]:
    """What a text says of emergency scripts that is not so, and commands that would put a link into a directory."""
    wrong = []
    for name, words in SCRIPT.findall(text):
        if name not in NAMED | {it.name for it in SCRIPTS.glob("*.sh")}:
            wrong.append(f"there is no script {name}")
        elif (SCRIPTS / name).is_file():
            known = (SCRIPTS / name).read_text() + (SCRIPTS / "lib.sh").read_text()
            wrong += [f"{name} knows no {it}" for it in re.findall("--[a-z-]+", words) if it not in known]
    for found in re.finditer("ln -sfn [^`]* current", text):
        if not re.search(r"\[ -L current \][^`]*$", text[: found.start()]):
            wrong.append(f"not guarded: {found[0]}")
    return wrong


@pytest.mark.parametrize("source", SOURCES, ids=lambda it: str(it.relative_to(HERE)))
def test_every_script_in_a_message_is_there_and_every_link_is_guarded(source: Path) -> None:
    found = [(line, wrong_with_scripts(text)) for line, text in texts(source)]
    assert [f"{source.name}:{line}: {'; '.join(it)}" for line, it in found if it] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda it: str(it.relative_to(HERE)))
def test_every_script_in_the_documentation_is_there_and_every_link_is_guarded(page: Path) -> None:
    assert wrong_with_scripts(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("run: sh scripts/emergency_rollback.sh v1.0.0", 0),
        ("run: sh scripts/emergency_rolback.sh", 1),
        ("by hand: cd X && ln -sfn releases/v1 current", 1),
        ("by hand: cd X && { [ -L current ] || [ ! -e current ]; } && ln -sfn releases/v1 current", 0),
        ("`[ -L current ] && true`, then `ln -sfn releases/v1 current`", 1),
    ],
)
def test_what_is_wrong_with_a_script_or_a_link_is_found(text: str, wrong: int) -> None:
    assert len(wrong_with_scripts(text)) == wrong


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("see `updater status`, or roll back: updater rollback --to VERSION", True),
        ("updater holds still", True),
        ('`updater hold --reason "the exchange moves"`', True),
        ("as before: updater activate VERSION --force.", True),
        ("try `updater rolback`", False),
        ("try `updater rollback VERSION`", False),
        ("now: updater rollback --back", False),
        ("the mark (updater verify --force) decides", False),
        ("`updater activate`", False),
        ("`updater backup mend`", False),
    ],
)
def test_what_cannot_be_typed_is_found(text: str, fine: bool) -> None:
    found = list(commands_in(text))
    assert found or fine
    if fine:
        for command in found:
            parsed(command)
    else:
        with pytest.raises(click.ClickException):
            for command in found:
                parsed(command)


def test_there_is_advice_to_look_at() -> None:
    found = [command for source in SOURCES for _, text in texts(source) for command in commands_in(text)]
    assert len(found) > 50 and {"rollback --to VERSION", "backup create --force"} <= set(found)


@pytest.mark.parametrize(
    ("request_", "typed"),
    [
        (Request("deploy"), "updater deploy --force"),
        (Request("deploy", "v1", replace=True), "updater deploy v1 --replace --force"),
        (Request("fetch", "v1", rebuild=True, force=True), "updater fetch v1 --rebuild --force"),
        (Request("activate", "v1"), "updater activate v1 --force"),
        (Request("rollback"), "updater rollback --force"),
        (Request("rollback", "v1"), "updater rollback --to v1 --force"),
    ],
)
def test_a_request_can_be_typed_again(request_: Request, typed: str) -> None:
    assert request_.command("--force") == typed
    parsed(typed.removeprefix("updater "))
