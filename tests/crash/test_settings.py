"""kill -9 while the settings are adapted: they are those of the release that is in service, and no edit is lost."""

from __future__ import annotations

import signal

import pytest

from tests.crash.test_kill import chosen, count, oracle, run
from tests.site import Site

OLD, NEW = "a = 1\n", "a = 1\n# new\nb = 2\n"
MINE, MERGED = "# mine\na = 7\n", "# mine\na = 7\n# new\nb = 2\n"


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
def test_killed_while_the_settings_are_adapted(site: Site, call: str) -> None:
    site.configure(watch=0)
    text = site.layout.config.read_text()
    site.layout.config.write_text(text.replace('"data" = "data"', '"config/app.toml" = "config/app.toml"'))
    settings = site.layout.shared / "config" / "app.toml"
    settings.write_text(MINE)
    for tag, defaults in (("v1.0.0", OLD), ("v1.1.0", NEW)):
        site.publish(tag, files={"config/app.toml": defaults})
    assert site.updater("deploy", "v1.0.0").code == 0
    assert site.updater("fetch", "v1.1.0").code == 0
    request = {"kind": "activate", "wanted": "v1.1.0"}
    total = count(site, call, request)
    assert settings.read_text() == MERGED
    for number in chosen(total):
        back_to_the_old(site)
        assert settings.read_text() == MINE
        status, said = run(site, call, number, request)
        assert status in (-signal.SIGKILL, 0), said
        version = oracle(site, "v1.0.0", "v1.1.0", ["recover"])
        assert settings.read_text() == (MINE if version == "v1.0.0" else MERGED), f"{call} {number}"
        assert [it.name for it in settings.parent.iterdir()] == ["app.toml"], (
            "nothing aside, nothing left over"
        )
        if status and version == "v1.0.0":
            assert site.updater("activate", "v1.1.0").code == 0
            assert settings.read_text() == MERGED


def back_to_the_old(site: Site) -> None:
    """As if v1.1.0 had never been in service: its settings are not known, and it is not good yet."""
    if site.current() == "v1.1.0":
        assert site.updater("activate", "v1.0.0").code == 0
    site.layout.previous.unlink(missing_ok=True)
    (site.layout.bound_settings / "v1.1.0").unlink(missing_ok=True)
    (site.layout.marks / "v1.1.0.good").unlink(missing_ok=True)
