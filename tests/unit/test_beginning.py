"""A root is made, or nothing is."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from updater.errors import UsageError
from updater.operations import beginning


def init(root: Path, *, name: str | None = None, repository: str = "owner/app") -> None:
    beginning.init(root, name=name, repository=repository, artifacts=None)


@pytest.mark.parametrize("name", ['My "bot"', "back\\slash", "two\nlines", "tab\t, del \x7f and \u00e9"])
def test_any_folder_is_written_as_it_was_given(tmp_path: Path, name: str) -> None:
    beginning.init(tmp_path / name, name=None, repository=None, artifacts=tmp_path / name / "dist")
    written = tomllib.loads((tmp_path / name / "updater.toml").read_text("utf-8"))
    assert tmp_path / name / written["source"]["path"] == tmp_path / name / "dist"
    beginning.init(tmp_path / "root", name=None, repository=None, artifacts=tmp_path / name)
    written = tomllib.loads((tmp_path / "root" / "updater.toml").read_text("utf-8"))
    assert written["source"]["path"] == str(tmp_path / name)


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        init(tmp_path / "root", name='My "bot"')
    assert "app.name" in raised.value.details[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("repository", ["../app", "owner/..", "./app", "owner", 'o/n"', "o/n\n[app]"])
def test_a_repository_that_is_none_is_refused_before_anything_is_made(
    tmp_path: Path, repository: str
) -> None:
    with pytest.raises(UsageError, match="arguments make no configuration"):
        init(tmp_path / "root", repository=repository)
    assert list(tmp_path.iterdir()) == []


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    ".": lambda path: path.write_text("a file"),
    "releases": lambda path: path.write_text("a file"),
    "shared": lambda path: path.symlink_to("/nonexistent/volume"),
    "shared/logs": lambda path: os.mkfifo(path),
    "updater.toml": lambda path: path.symlink_to("/nonexistent/updater.toml"),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_stands_in_the_way_is_told_and_stays(tmp_path: Path, name: str) -> None:
    place = tmp_path / "root" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    IN_THE_WAY[name](place)
    before = {str(path): os.lstat(path).st_ino for path in tmp_path.rglob("*")}
    with pytest.raises(UsageError, match=r"is not a directory|is a link to what|cannot be read"):
        init(tmp_path / "root")
    assert {str(path): os.lstat(path).st_ino for path in tmp_path.rglob("*")} == before
    with pytest.raises(UsageError, match="is not a directory"):
        init(Path("/dev/null/root"))
