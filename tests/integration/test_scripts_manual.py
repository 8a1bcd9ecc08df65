"""A release comes into service by a shell alone, and is one like any other to updater afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.emergency import run, toolbox
from tests.site import Done, Site

RUN = "manual_update.sh"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toolbox(tmp_path_factory.mktemp("tools") / "bin")


def update(tools: Path, site: Site, *arguments: str, **env: str) -> Done:
    return run(tools, RUN, *arguments, "--yes", "--root", str(site.root), **env)


def release(site: Site, version: str) -> Any:
    return json.loads((site.layout.release(version) / ".release" / "release.json").read_text())


def test_from_github_and_updater_takes_it_for_its_own(site: Site, tools: Path) -> None:
    site.deployed("v1")
    site.publish(
        "v2", files={"wheels/.keep": "", "data/shipped": "by the release", "sp ace/ünï": "x", "-": "dash"}
    )
    done = update(tools, site, "v2")
    print(done.text)
    assert done.code == 0, done.text
    site.runs("v2")
    site.is_clean()
    record = site.history()[-1]
    assert (record["kind"], record["from"], record["to"], record["outcome"]) == (
        "deploy",
        "v1",
        "v2",
        "succeeded",
    )
    verified = site.updater("--json", "verify", "v2")
    assert verified.code == 0 and verified.json[0]["sound"], verified.text
    assert record["id"] and "tree of commit" in release(site, "v2")["proof"]
    assert "nothing to do" in site.updater("deploy", "v2").text
    by_shell = release(site, "v2"), *sums(site, "v2")
    # the same by updater itself
    assert site.updater("rollback").code == 0
    site.runs("v1")
    shutil.move(site.layout.release("v2"), site.place / "aside")
    done = site.updater("deploy", "v2")
    assert done.code == 0, done.text
    by_updater = release(site, "v2"), *sums(site, "v2")
    for key in (
        "digest",
        "tree",
        "commit",
        "artifact",
        "source",
        "version_file",
        "files",
        "size",
        "tag",
        "proof",
    ):
        assert by_shell[0][key] == by_updater[0][key], key
    assert by_shell[1:] == by_updater[1:]
    assert update(tools, site, "v2").out.count("nothing to do") == 1


def sums(site: Site, version: str) -> tuple[str, ...]:
    records = site.layout.release(version) / ".release"
    return tuple((records / name).read_text() for name in ("manifest", "SHA256SUMS", "links.json"))
