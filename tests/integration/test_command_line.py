"""The command line itself: interrupted before it has begun, and logs that are no files."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.site import Site


@pytest.mark.parametrize("command", ["--help", "--version", "status", "deploy"])
def test_ctrl_c_while_it_is_still_being_loaded_is_quiet(site: Site, tmp_path: Path, command: str) -> None:
    """The first module from elsewhere that is imported is interrupted, as a person does who has mistyped."""
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "click.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    site.environment = {"PYTHONPATH": str(slow)}
    done = site.updater(command)
    assert (done.code, done.text) == (130, "")


@pytest.mark.parametrize("follow", [[], ["--follow"]])
@pytest.mark.parametrize(("name", "file"), [("web", "web.log"), ("update", "update.log")])
def test_a_log_that_is_a_pipe_is_refused_and_not_waited_for(
    site: Site, name: str, file: str, follow: list[str]
) -> None:
    site.deployed("v1.0.0")
    log = site.layout.logs / file
    log.unlink(missing_ok=True)
    os.mkfifo(log)
    done = site.updater("logs", name, *follow, timeout=20)
    assert done.code == 3 and f"{log} is not a regular file" in done.err and "mv " in done.err
    assert site.updater("mark-bad", "v9", timeout=20).code == 0, "nothing waits for it"
    log.unlink()


def test_no_lines_are_none(site: Site) -> None:
    site.deployed("v1.0.0")
    assert site.updater("logs", "web", "-n", "0").out == ""
    assert "serving 1.0.0" in site.updater("logs", "web", "-n", "1").out


def test_a_log_is_followed_as_it_grows(site: Site) -> None:
    site.deployed("v1.0.0")
    following = site.start("logs", "web", "--follow")
    try:
        assert following.stdout is not None
        assert "serving 1.0.0" in "".join(following.stdout.readline() for _ in range(2))
        with site.layout.process_log("web").open("a") as log:
            log.write("one more\n")
        assert following.stdout.readline() == "one more\n"
    finally:
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=30)
    assert following.returncode == 130, out + err


def test_a_proxy_without_a_host_is_told_and_its_password_is_not(site: Site) -> None:
    site.publish("v1.0.0")
    site.environment = {
        "HTTP_PROXY": "http://user:S3CRET@", "http_proxy": "http://user:S3CRET@", "NO_PROXY": "", "no_proxy": "",
    }  # fmt: skip
    for words in (["check"], ["-v", "check"], ["deploy"], ["preflight"]):
        done = site.updater(*words)
        assert done.code in (3, 8), done.text
        assert "the proxy in the environment is no address" in done.text and "HTTP_PROXY" in done.text
        assert "S3CRET" not in done.text
    for path in site.layout.logs.rglob("*"):
        assert "S3CRET" not in path.read_text()
    direct = subprocess.run(
        site.command("check"), env={**site.env(), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert direct.returncode == 0, "a host that needs no proxy: " + direct.stderr
