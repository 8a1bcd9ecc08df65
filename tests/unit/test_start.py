"""What takes long to import waits until it is used: a command and its worker are started for every way back."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "later"),
    [
        ("updater.cli.deploy", {"tomllib", "subprocess", "updater.config", "updater.preflight", "updater.settings"}),
        ("updater.deployment.worker", {"requests", "psutil", "subprocess", "socket", "tempfile", "updater.sources",
                                       "updater.artifacts.unpack", "updater.health", "updater.environments.building"}),
    ],
)  # fmt: skip
def test_nothing_is_imported_before_it_is_used(module: str, later: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert module in done.stdout.split()
    assert not later & set(done.stdout.split())
