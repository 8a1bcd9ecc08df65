"""What an emergency script leaves is understood: its records, and the deployments that it has ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard import Dashboard
from tests.integration.test_cancel import in_phase
from tests.integration.test_scheduling import tick
from tests.integration.test_ways_out import holder_pid
from tests.phone import Phone
from tests.site import Site, eventually
from updater import records
from updater.deployment import journal

Json = dict[str, Any]

RECORD: Json = {
    "configuration": None, "ended": "2099-11-28T15:30:10.000Z", "error": None, "from": "v1.1.0", "id": "20991128T153000-ab12cd",
    "kind": "rollback", "origin": "script", "outcome": "succeeded", "phases": [], "reason": "", "recovered": False,
    "started": "2099-11-28T15:30:00.000Z", "text": "by emergency_rollback.sh", "to": "v1.0.0", "user": "root", "wanted": None,
    "warnings": [],
}  # fmt: skip


def append(site: Site, record: Json) -> None:
    """As a script does: one more line of the array."""
    text = site.layout.history.read_text().rstrip().removesuffix("]").rstrip()
    site.layout.history.write_text(f"{text},\n{json.dumps(record)}\n]\n")


def rolled_back(site: Site) -> None:
    """Two releases, and a script that went back."""
    site.deployed("v1.0.0", "v1.1.0")
    site.layout.current.unlink()
    site.layout.current.symlink_to("releases/v1.0.0")
    append(site, RECORD)


def test_every_command_shows_what_a_script_did(site: Site) -> None:
    rolled_back(site)
    told = site.updater("status").out
    assert "last        rollback v1.1.0 → v1.0.0: succeeded (by emergency_rollback.sh), 2099-11-28" in told
    assert (
        "`current` was changed by a script (by emergency_rollback.sh): by the records v1.1.0 was in service"
        in told
    )
    assert site.status()["last"]["origin"] == "script"
    table = site.updater("history").out.splitlines()[1]
    assert "rollback" in table and "v1.0.0" in table and table.endswith("by emergency_rollback.sh")
    one = site.updater("history", "latest").out
    assert "by       root (script)" in one and "text     by emergency_rollback.sh" in one
    assert "?" not in one, "what is not known is left out"
    assert site.updater("progress").out == "rollback v1.0.0: succeeded (by emergency_rollback.sh)\n"
    before = site.layout.history.read_bytes()
    assert site.updater("recover").out.splitlines() == [
        "nothing to recover",
        "done by a script: rollback v1.1.0 → v1.0.0: succeeded (by emergency_rollback.sh), "
        + records.moment(RECORD["ended"]).astimezone().strftime("%Y-%m-%d %H:%M:%S"),  # type: ignore[union-attr]
    ]
    assert site.layout.history.read_bytes() == before
    done = site.updater("report", "--output", str(site.place / "report.tar.gz"))
    assert done.code == 0, done.text
    assert site.updater("deploy", "v1.1.0").code == 0, "and updater goes on from there"
    site.runs("v1.1.0")
    assert site.history()[-2] == RECORD, "what a script wrote stays as it is"
    assert "script" not in site.updater("recover").out


def test_the_schedule_leaves_alone_what_a_script_went_back_from(site: Site) -> None:
    rolled_back(site)
    assert site.updater("restart").code == 0
    site.configure(extra='\n[schedule]\nupdate = true\nwindow = "02:00-04:00"\n')
    assert "an emergency script went back from v1.1.0 (20991128T153000-ab12cd)" in tick(site)["update"]["why"]


POOR: list[Json] = [
    {}, {"id": "20991128T153000-ab12cd"}, {"id": 7, "kind": 7, "outcome": 7, "to": 7, "text": 7, "seconds": "x", "ended": 7, "started": []},
    {"id": "20991128T153001-ab12cd", "error": {}, "phases": [7, {}, {"name": "stop"}], "warnings": [7, None], "outcome": "failed"},
    {"id": "20991128T153002-ab12cd", "origin": "script", "outcome": "rollback-failed", "error": {"message": "web did not start"}},
    {"id": "20991128T153003-ab12cd", "origin": "script", "kind": "restore", "outcome": "succeeded", "restored": "backup_20991128_153000"},
]  # fmt: skip


def test_records_that_lack_nearly_everything_are_shown_by_every_face(
    site: Site, serve: Callable[..., Dashboard]
) -> None:
    site.deployed("v1.0.0")
    for record in POOR:
        append(site, record)
        for words in (["status"], ["history", "latest"]):
            done = site.updater(*words)
            assert done.code == 0, (record, words, done.text)
    for words in (["history"], ["--json", "history"], ["progress"], ["recover"]):
        assert site.updater(*words).code == 0, words
    append(site, RECORD)
    dashboard = serve()
    for path in ("/api/update/history", "/api/update/progress", "/api/system/status", "/metrics"):
        answer = dashboard.get(path)
        assert answer.status_code == 200, (path, answer.text)
    assert (
        dashboard.get("/api/update/progress").json()["deployment"]["ended_by"] == "by emergency_rollback.sh"
    )
    metrics = dashboard.get("/metrics").text
    assert 'updater_last_deployment_outcome{outcome="succeeded"} 1.0' in metrics
    browser = dashboard.browser().log_in(dashboard.known_token)
    assert "by emergency_rollback.sh" in browser.get("/history").text
    assert "ended by a script: by emergency_rollback.sh" in browser.get("/").text
    for record in [*POOR, RECORD]:
        page = browser.get(f"/history/{record.get('id') or 'latest'}")
        assert page.status_code == 200, (record, page.text)


def killed(site: Site) -> Path:
    """A deployment that was killed while it watched; its journal."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    site.configure(watch=600)
    running = site.start("deploy", "v1.1.0")
    eventually(lambda: in_phase(site, "watch"), "it watches")
    os.kill(holder_pid(site), signal.SIGKILL)
    running.communicate(timeout=60)
    (path,) = journal.unfinished(site.layout)
    return path


def ended_by_a_script(site: Site, path: Path, *, sums: bool = True) -> Json:
    """What a script does: the old release runs again, the history tells, the journal is put away."""
    assert site.updater("force-stop", "--yes").code == 0
    site.layout.trial.unlink()
    site.layout.current.unlink()
    site.layout.current.symlink_to("releases/v1.0.0")
    record = {
        **RECORD, "id": path.stem, "kind": "deploy", "from": "v1.0.0", "to": "v1.1.0", "outcome": "rolled-back",
        "text": "ended by emergency_rollback.sh",
    }  # fmt: skip
    append(site, record)
    if sums:
        last = journal.read(path).lines[-1]
        line = {"at": record["ended"], "boot": "", "data": record, "kind": "end", "mono": None, "phase": None, "seq": last.seq + 1, "v": 1}  # fmt: skip
        with path.open("ab") as file:
            file.write(journal.encode(line))
    shutil.move(path, path.parent / "closed" / path.name)
    return record


@pytest.mark.parametrize("sums", [True, False], ids=["with its last line", "without any SHA-256 tool"])
def test_a_deployment_that_a_script_has_ended_is_over(
    site: Site, serve: Callable[..., Dashboard], sums: bool
) -> None:
    path = killed(site)
    assert "interrupted" in site.updater("status").out
    ended_by_a_script(site, path, sums=sums)
    assert site.status()["deployment"] is None
    assert site.updater("progress").out == "deploy v1.1.0: rolled-back (ended by emergency_rollback.sh)\n"
    done = site.updater("recover")
    assert done.code == 0 and done.out.startswith(
        "nothing to recover\ndone by a script: "
        "deploy v1.0.0 → v1.1.0: rolled-back (ended by emergency_rollback.sh), "
    ), done.text
    if sums:
        return
    assert site.updater("start").code == 0 and site.answer().startswith("1.0.0 ")
    dashboard = serve()
    browser = dashboard.browser().log_in(dashboard.known_token)
    assert "ended by a script: ended by emergency_rollback.sh" in browser.get("/").text
    assert "deploy v1.0.0 → v1.1.0: rolled-back" in browser.get(f"/history/{path.stem}").text
    site.configure(watch=0.1)
    assert site.updater("deploy", "v1.1.0").code == 0
    site.runs("v1.1.0")
    site.is_clean()


def test_the_script_itself_and_then_updater(site: Site) -> None:
    path = killed(site)
    command = ["sh", str(site.layout.scripts / "emergency_rollback.sh"), "--yes"]
    done = subprocess.run(
        command, cwd="/", capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site.runs("v1.0.0")
    before = site.layout.history.read_bytes()
    recovered = site.updater("recover")
    assert recovered.code == 0 and recovered.out.startswith("nothing to recover\n"), recovered.text
    assert "done by a script: deploy v1.0.0 → v1.1.0: rolled-back (" in recovered.out
    assert "done by a script: rollback " not in recovered.out, "undoing it was the way back"
    assert site.layout.history.read_bytes() == before
    assert "by emergency_rollback.sh" in site.updater("status").out
    assert path.stem in [it["id"] for it in site.history()]
    assert site.updater("history").code == 0 and "interrupted" not in site.updater("progress").out
    site.is_clean()


def test_a_journal_that_a_script_has_ended_and_not_put_away_is_put_away_and_told(
    site: Site, phone: Phone
) -> None:
    path = killed(site)
    ended_by_a_script(site, path)
    shutil.move(path.parent / "closed" / path.name, path)
    site.configure(extra=f'\n[notify]\nurls = ["{phone.url()}"]\n')
    done = site.updater("recover")
    assert done.code == 0, done.text
    assert done.out.startswith(
        "an interrupted deployment had been ended already: deploy v1.0.0 → v1.1.0: rolled-back (ended by emergency_rollback.sh)\n"
    )
    assert not path.exists() and site.current() == "v1.0.0"
    assert [it["id"] for it in site.history()].count(path.stem) == 1
    (message,) = phone.wait(1)
    assert "v1.1.0: rolled-back ended by emergency_rollback.sh" in str(message)
    assert "updated to" not in str(message)


def test_a_closed_journal_that_nothing_tells_of_has_an_unknown_end(site: Site) -> None:
    site.deployed("v1.0.0")
    (path,) = journal.closed(site.layout)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    site.layout.history.write_text("[\n]\n")
    assert site.updater("progress").out == "deploy v1.0.0: unknown\n"
    assert site.updater("recover").out == "nothing to recover\n"
