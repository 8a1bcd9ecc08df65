"""Data come back by a shell alone: `restore_backup.sh`, and the moves that it shares with updater itself."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.emergency import SHELLS, call, toolbox
from tests.integration.test_backups import backup, make_root
from tests.integration.test_restore import TREES, Killed, plant, replant, staged, state
from updater.backups import swap
from updater.config import BackupConfig

pytestmark = pytest.mark.skipif(not shutil.which("zstd"), reason="NOT TESTED: no zstd")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toolbox(tmp_path_factory.mktemp("tools") / "bin")


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(first=TREES, second=TREES, data=st.data())
def test_what_updater_was_killed_in_moving_a_shell_takes_back(
    tmp_path_factory: pytest.TempPathFactory,
    tools: Path,
    first: dict[str, Any],
    second: dict[str, Any],
    data: st.DataObject,
) -> None:
    layout = make_root(tmp_path_factory.mktemp("a root"))
    place = layout.shared / "data"
    plant(place, first)
    made = backup(layout)
    replant(place, second)
    before = state(layout)
    moving = staged(layout, made, BackupConfig())
    dies_at, keep = data.draw(st.integers(0, 12)), data.draw(st.booleans())
    done = [0]
    real = os.rename

    def rename(source: Any, target: Any, **more: Any) -> None:
        done[0] += 1
        if done[0] == dies_at:
            raise Killed
        real(source, target, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rename", rename)
        with contextlib.suppress(Killed):
            moving.put()
    undone = call(
        tools,
        layout.root,
        f"swap_undo {'keep' if keep else 'drop'}",
        shell=data.draw(st.sampled_from(SHELLS)),
    )
    assert (undone.code, undone.err) == (0, "")
    kept = [Path(it) for it in undone.out.splitlines()]
    assert keep or not kept
    for it in kept:
        assert (it / "PATHS").is_file()
        shutil.rmtree(it)
    assert state(layout) == before
    assert (
        not list(layout.shared.rglob(".updater-*"))
        and not layout.swap.exists()
        and not layout.swap_steps.exists()
    )
    assert swap.pending(layout) is None
    assert call(tools, layout.root, "swap_undo keep").code == 0
