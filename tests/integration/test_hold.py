"""A hold: nothing new goes into service, every way back stays open, and everybody is told who holds it and why."""

from __future__ import annotations

import getpass
import json

from tests.site import Site


def test_nothing_new_goes_into_service_and_every_way_back_does(site: Site) -> None:
    site.deployed("v1.0.0", "v1.1.0")
    site.publish("v1.2.0")
    held = site.updater("--json", "hold", "--reason", "the exchange\nmigrates")
    assert held.code == 0 and held.json["before"] is None and held.json["at_work"] is None, held.text
    known = {"reason": "the exchange migrates", "by": getpass.getuser(), "at": held.json["hold"]["at"]}
    assert held.json["hold"] == known and json.loads(site.layout.hold.read_text()) == known

    for words in (["deploy", "v1.2.0", "--force"], ["activate", "v1.0.0"]):
        done = site.updater(*words)
        assert done.code == 3, done.text
        assert f"held by {getpass.getuser()} since" in done.err and "the exchange migrates" in done.err
        assert "updater release-hold" in done.err, done.err
    site.runs("v1.1.0")
    told = site.updater("status")
    assert "! updates are held by" in told.out and "updater release-hold" in told.out
    assert site.status()["hold"] == known
    looked = site.updater("--json", "preflight")
    check = next(it for it in looked.json["checks"] if it["name"] == "hold")
    assert looked.code == 3 and check["result"] == "failed" and "release-hold" in check["remedy"]

    done = site.updater("rollback")
    assert done.code == 0 and "updates are held" in done.text, "it works, and warns"
    site.runs("v1.0.0")
    site.layout.hold.write_text("{")
    assert "updates are held" in site.updater("status").out, "what cannot be read holds all the same"
    assert "earlier hold" in site.updater("hold", "--reason", "mine").out
    assert "lifted" in site.updater("release-hold").out
    assert not site.layout.hold.exists() and site.status()["hold"] is None
    assert site.updater("activate", "v1.1.0").code == 0
    assert "nobody holds updates" in site.updater("release-hold").out
    log = site.layout.update_log.read_text()
    assert "the exchange migrates" in log and "the hold was lifted by" in log
