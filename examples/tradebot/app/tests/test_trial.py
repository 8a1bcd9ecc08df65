"""A release on trial places no orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.trial import on_trial


def test_the_trial_ends_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trial"
    file.touch()
    monkeypatch.setenv("UPDATER_TRIAL_FILE", str(file))
    assert not on_trial(), "the file of an earlier deployment says nothing to a process that is not on trial"
    monkeypatch.setenv("UPDATER_TRIAL", "1")
    assert on_trial()
    file.unlink()
    assert not on_trial()
