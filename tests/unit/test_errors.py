"""Errors travel from a deployment's process to the command as JSON, and the exit code goes by what arrives."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import updater
from updater.errors import SourceFailed, UpdaterError, from_json


def kinds(base: type[UpdaterError] = UpdaterError) -> set[type[UpdaterError]]:
    return {base}.union(*map(kinds, base.__subclasses__()))


def test_whoever_reads_an_error_knows_every_kind_without_importing_more() -> None:
    """A deployment without network ended with 1 instead of 8: the command had not loaded the module of that error."""
    for module in pkgutil.walk_packages(updater.__path__, "updater."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {kind for kind in kinds() if kind.__module__.startswith("updater.") and "code" in vars(kind)}
    assert {kind.__module__ for kind in found} == {"updater.errors"}
    assert len({kind.code for kind in found}) == len(found)
    code = "import json, sys; from updater.errors import from_json; [print(from_json({'code': it}).exit_code) for it in sys.argv[1:]]"
    told = sorted(found, key=lambda it: it.code)
    done = subprocess.run(
        [sys.executable, "-c", code, *(kind.code for kind in told)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(line) for line in done.stdout.split()] == [kind.exit_code for kind in told]


def test_an_error_of_another_version_keeps_its_exit_code() -> None:
    told = {"code": "never-heard-of", "exit_code": 8, "message": "the moon cannot be reached"}
    assert isinstance(from_json(told), SourceFailed) and from_json(told).message == told["message"]
    assert from_json({"code": "never-heard-of", "exit_code": [8]}).exit_code == 1


def test_an_error_without_a_code_of_its_own_stands_for_no_other() -> None:
    importlib.import_module("updater.web.problems")
    assert type(from_json(UpdaterError("plain", details=["why"]).as_json())) is UpdaterError
