"""The workflow that docs/adopting.md gives to applications builds what updater deploys."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from examples.release_server.content import releases_in
from tests.docs.pages import HERE, read
from tests.site import Site, tree

FILE = HERE / "examples" / "github-workflow" / "release.yml"


@pytest.fixture(scope="module")
def workflow() -> Any:
    return YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))


def step(workflow: Any, name: str) -> str:
    (found,) = [it["run"] for it in workflow["jobs"]["release"]["steps"] if it.get("name") == name]
    assert "${{" not in found, "text of others in a script would be run"
    return str(found)


def run(script: str, place: Path, tag: str, **env: str) -> subprocess.CompletedProcess[str]:
    """As GitHub runs a step."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=place, capture_output=True, text=True, check=False,
        env={**os.environ, "GITHUB_REPOSITORY": "example/app", "GITHUB_REF_NAME": tag, **env},
    )  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    if not shutil.which("bash") or not shutil.which("sha256sum"):
        pytest.skip("needs bash and sha256sum, as GitHub's machines have them")
    place = tmp_path / "repository"
    place.mkdir()
    for name, (content, _) in tree("v1.4.0").items():
        (place / name).write_bytes(content)
    (place / "notes").mkdir()
    (place / "notes" / "todo").write_text("for developers")
    (place / ".gitattributes").write_text("notes export-ignore\n")
    person = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*person, "commit", "-qm", "first"], ["tag", "v1.4.0"]):
        subprocess.run(["git", *words], cwd=place, check=True)
    return place


def test_the_page_shows_the_file() -> None:
    (shown,) = [it.text for it in read(HERE / "docs" / "adopting.md").blocks if it.language == "yaml"]
    assert shown == FILE.read_text(encoding="utf-8")


def test_it_may_do_what_it_needs_and_no_more(workflow: Any) -> None:
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    assert workflow["permissions"] == {"contents": "write"}
    assert workflow["defaults"]["run"]["shell"] == "bash"
    assert [it.get("name", it.get("uses")) for it in workflow["jobs"]["release"]["steps"]] == [
        "actions/checkout@v5", "Build", "Publish",
    ]  # fmt: skip


def test_what_it_builds_is_deployed_from_a_folder_and_as_an_uploaded_file(
    workflow: Any, repository: Path, site: Site
) -> None:
    built = run(step(workflow, "Build"), repository, "v1.4.0")
    assert built.returncode == 0, built.stderr
    dist = repository / "dist"
    assert sorted(it.name for it in dist.iterdir()) == ["SHA256SUMS", "app-1.4.0.tar.gz"]
    site.configure(source=f'type = "directory"\npath = "{dist}"')
    done = site.updater("fetch", "1.4.0")
    assert done.code == 0 and "listed in the published checksums" in done.out, done.text
    names = {it.name for it in (site.layout.releases / "1.4.0").iterdir()}
    assert "serve.py" in names and "notes" not in names
    # as `gh release create` uploads it
    site.releases += releases_in(dist)
    source = f'repository = "{site.server.repository}"\napi_url = "{site.server.api_url}"'
    site.configure(source=f'{source}\nasset = "*.tar.gz"\nchecksums = "SHA256SUMS"')
    done = site.updater("deploy")
    assert done.code == 0, done.text
    site.runs("v1.4.0")


def test_a_tag_that_does_not_fit_is_not_published(workflow: Any, repository: Path) -> None:
    done = run(step(workflow, "Build"), repository, "v1.5.0")
    assert done.returncode == 1 and "it says 1.4.0, and the tag is v1.5.0" in done.stdout
    assert not (repository / "dist").exists()


@pytest.mark.parametrize(
    ("tag", "prerelease"), [("v1.4.0", False), ("v1.4.0-rc1", True), ("v2", False), ("v2.0b1", True)]
)
def test_what_is_no_plain_version_becomes_a_prerelease(
    workflow: Any, tmp_path: Path, tag: str, prerelease: bool
) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "app.tar.gz").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "gh").write_text('#!/bin/sh\necho "$@"\n')
    (programs / "gh").chmod(0o755)
    done = run(step(workflow, "Publish"), tmp_path, tag, PATH=f"{programs}:{os.environ['PATH']}")
    flags = "--verify-tag --generate-notes" + (" --prerelease" if prerelease else "")
    assert done.stdout == f"release create {tag} {flags} dist/app.tar.gz\n", done.stderr
