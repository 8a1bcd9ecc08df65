"""kill -9 at any call that changes the disk, then emergency_rollback.sh with no Python on the PATH: the old release runs, with its
data and its settings, and `updater recover` finds nothing left to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.crash.test_kill import came, chosen, count, run
from tests.integration.test_migration import ALTER, MIGRATE, columns, database, whats, with_trades
from tests.shells import script, tools
from tests.site import Site


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_killed_while_it_deploys_and_rolled_back_by_the_script(site: Site, call: str, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    with_trades(site)
    site.configure(extra=MIGRATE, watch=0.1)
    settings = site.layout.shared / "config" / "settings.toml"
    site.publish("v1.1.0", files={"migrate.py": ALTER})
    assert site.updater("fetch", "v1.1.0").code == 0
    before = site.updater("--json", "backup", "create", "--label", "before").json["id"]
    request: dict[str, Any] = {"kind": "activate", "wanted": "v1.1.0", "force": True}
    total = count(site, call, request)
    points, kills = chosen(total), 0
    for number in points:
        if site.current() != "v1.0.0":
            assert site.updater("rollback", "--to", "v1.0.0").code == 0
        assert site.updater("backup", "restore", before, "--yes").code == 0
        assert columns(database(site)) == ["id", "what"]
        status, said = run(site, call, number, request)
        kills += came(status, said, number)
        here = f"{call} {number}"
        committed = (site.layout.good.is_symlink() and site.layout.good.readlink().name) == "v1.1.0"
        done = script(
            site, path, "emergency_rollback.sh", "--yes", *(["--restore-data"] if committed else [])
        )
        if site.current() == "v1.1.0" and done.code == 0:
            # Nothing had begun, so the release before the one in service was gone back to: which here is the other one.
            done = script(site, path, "emergency_rollback.sh", "v1.0.0", "--yes")
        assert done.code == 0, f"{here}: {done.text}"
        site.runs("v1.0.0")
        assert columns(database(site)) == ["id", "what"], f"{here}: the old release, the new schema"
        assert whats(database(site)) == ["first"], f"{here}: {done.text}"
        ids = [it["id"] for it in site.history()]
        assert len(ids) == len(set(ids)), f"{here}: each deployment is recorded once"
        last = site.history()[-1]
        assert last["outcome"] in ("succeeded", "rolled-back") and last["origin"] == "script", (
            f"{here}: {last}"
        )
        assert (last["from"], last["outcome"]) != ("v1.0.0", "succeeded"), (
            f"{here}: it came from where it was"
        )
        again = site.updater("recover")
        assert again.code == 0 and "nothing to recover" in again.out, f"{here}: {again.text}"
        site.runs("v1.0.0")
        site.is_clean()
    assert kills >= len(points) - 1
    assert not settings.exists()
