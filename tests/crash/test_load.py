"""A small part of tests/crash/load.py, which tells what it is. ``LOAD_DEPLOYMENTS=150`` makes more of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.crash import load

DEPLOYMENTS = int(os.environ.get("LOAD_DEPLOYMENTS", "12"))
SEED = 2720
"""One whose first twelve have all there is: migrations that fail and schemas that are taken back, cancels, starts at the
same time, a way back, and a server that is restarted."""


@pytest.mark.timeout(120 + 10 * DEPLOYMENTS)
def test_deployment_after_deployment_while_others_read_listen_write_and_meddle(tmp_path: Path) -> None:
    with load.world(tmp_path) as site:
        running = load.Load(site, SEED, DEPLOYMENTS)
        running.run()
        found = running.report()
    print(*load.table(found), sep="\n")
    assert not found["violations"], "\n".join(found["violations"])
    assert found["refused_starts"] and found["servers_restarted"] and sum(found["cancels"].values())
    assert set(found["outcomes"]) >= {"succeeded", "rolled-back", "failed"}, found["outcomes"]
    assert found["rows_in_backups"], "a schema was taken back, and what had been written by it is kept"
