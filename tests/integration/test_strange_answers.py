"""A source's answers are a stranger's: odd entries, hostile headers, sums that are none. Each is refused or left out, with words."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.release_server import Fault, ReleaseServer
from tests.integration.test_sources import (
    BIG,
    artifact_file,
    download,
    folder_source,
    publish,
    release,
    source,
)
from tests.site import REPOSITORY, Site, eventually
from updater.config import SourceConfig
from updater.errors import AccessDenied, RateLimited, SourceFailed, VerificationFailed
from updater.sources import ContentChanged, resuming
from updater.sources.github import GitHubSource
from updater.sources.http import Http

SECRET = "ghp_SECRET"


@pytest.mark.parametrize("around", ["\n", "\r", "\r\n", " "])
def test_a_token_from_a_file_or_a_paste_is_stripped(
    server: ReleaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    server.private, server.token = True, SECRET
    publish(server, release("v1.0.0"))
    monkeypatch.setenv("UPDATER_TEST_TOKEN", f"{SECRET}{around}")
    assert source(server, tmp_path).find("v1.0.0").tag == "v1.0.0"


@pytest.mark.parametrize("token", [f"{SECRET}\nX: y", f"{SECRET}\u20ac", f"{SECRET} x", f"{SECRET}\udc80"])
def test_what_cannot_be_a_token_is_refused_and_never_shown(site: Site, token: str) -> None:
    site.publish("v1.0.0")
    site.environment = {"GITHUB_TOKEN": token}
    for command in ("check", "deploy"):
        done = site.updater("-v", command)
        assert done.code == 2 and "GITHUB_TOKEN holds no access token" in done.err
        assert SECRET not in done.text
    for path in site.root.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_the_key_in_a_download_address_is_never_shown(site: Site) -> None:
    """The library's own words for a failed connection hold the whole address."""
    site.publish("v1.0.0")
    port = site.server.download_url.rpartition(":")[2]
    hidden = f"https://user:PASSWORD@127.0.0.1:{port}/file?key=SIGNED"
    site.server.faults.append(Fault("/tarball/", "redirect", text=hidden, times=999))
    done = site.updater("-v", "deploy", "v1.0.0")
    assert done.code == 8 and "no secure connection (TLS)" in done.err and f"127.0.0.1:{port}" in done.err
    assert "SIGNED" not in done.text and "PASSWORD" not in done.text
    for path in site.layout.logs.rglob("*"):
        assert "SIGNED" not in path.read_text()


def entry(tag: Any, **more: Any) -> dict[str, Any]:
    return {"tag_name": tag, "published_at": "2026-01-01T00:00:00Z", "assets": [], **more}


@pytest.mark.parametrize("tag", ["pkg=0.1", "../../x", "v1\x1b[2J", "v1\ud800", "", None, 7])
def test_one_odd_tag_is_left_out_with_a_warning(site: Site, tag: Any) -> None:
    """F54."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0")
    listed = json.dumps([entry("v1.1.0"), entry(tag), entry("v1.0.0")]).encode()
    site.server.faults.append(Fault("/releases?", "json", content=listed, times=9))
    done = site.updater("check")
    assert done.code == 0 and "v1.1.0 is available" in done.out
    assert "left out, since their tags cannot be names" in done.text and "\x1b[2J" not in done.text
    assert site.updater("deploy").code == 0
    site.runs("v1.1.0")
    assert "left out" in site.history()[-1]["warnings"][0]


def test_nothing_but_odd_tags_is_no_release(site: Site) -> None:
    site.publish("pkg=0.1")
    done = site.updater("deploy")
    assert done.code == 8 and "no release in the channel" in done.err and "'pkg=0.1'" in done.err


def test_a_folder_with_a_file_of_an_odd_name(tmp_path: Path) -> None:
    artifact_file(tmp_path, "app-1.0.0.tar.gz", "1.0.0")
    artifact_file(tmp_path, "app-1.0.0 (1).tar.gz", "1.0.0")
    port = folder_source(tmp_path)
    assert [it.tag for it in port.releases()] == ["1.0.0"] and "'1.0.0 (1)'" in port.warnings[0]


@pytest.mark.parametrize(
    "digest",
    ["sha256:ABCDEF", f"sha512:{'0' * 128}", "garbage", "", 5, ["sha256"], f"sha256:{'0' * 63}\u0660"],
)
def test_a_digest_that_is_not_understood_is_no_missing_one(
    server: ReleaseServer, tmp_path: Path, digest: Any
) -> None:
    """F39."""
    assets = [{"name": "app.tar.gz", "url": f"{server.api_url}/x", "size": 5, "digest": digest}]
    body = json.dumps(entry("v1.0.0", assets=assets)).encode()
    server.faults.append(Fault("/releases/tags", "json", content=body))
    port = source(server, tmp_path, asset="*.tar.gz")
    published = port.find("v1.0.0")
    with pytest.raises(VerificationFailed, match=r"app\.tar\.gz that is none of SHA-256"):
        port.artifact(published)


def test_a_tag_from_the_keyboard_that_can_be_no_name(site: Site) -> None:
    done = site.updater("fetch", "a b\n")
    assert done.code == 2 and "cannot be the name of a release" in done.err
    assert not [it for it in site.server.requests if "a%20b" in it.path]


def test_a_digest_in_capitals_is_the_same(server: ReleaseServer, tmp_path: Path) -> None:
    digest = hashlib.sha256(BIG).hexdigest()
    assets = [{"name": "a.tar.gz", "url": f"{server.api_url}/x", "digest": f"sha256:{digest.upper()}"}]
    body = json.dumps(entry("v1.0.0", assets=assets)).encode()
    server.faults.append(Fault("/releases/tags", "json", content=body))
    port = source(server, tmp_path, asset="*.tar.gz")
    assert port.artifact(port.find("v1.0.0")).digest == f"sha256:{digest}"


def test_another_release_than_was_asked_for(server: ReleaseServer, tmp_path: Path) -> None:
    server.faults.append(Fault("/releases/tags", "json", content=json.dumps(entry("v2.0.0")).encode()))
    with pytest.raises(SourceFailed, match=r"asked for the release v1\.0\.0, .* answered with v2\.0\.0"):
        source(server, tmp_path).find("v1.0.0")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no SHA-256"),
        ("nonsense\n", "holds no SHA-256"),
        (f"{'0' * 64}  other-1.0.0.tar.gz\n", "holds no SHA-256"),
        (f"{'0' * 32}  app-1.0.0.tar.gz\n", "a sum that is no SHA-256"),
        (f"MD5 (app-1.0.0.tar.gz) = {'0' * 32}\n", "a sum that is no SHA-256"),
        (f"{'0' * 64}  app-1.0.0.tar.gz\n{'1' * 64}  app-1.0.0.tar.gz\n", "several sums"),
    ],
)
def test_a_file_of_sums_that_holds_none_proves_nothing(tmp_path: Path, text: str, says: str) -> None:
    """F39."""
    artifact_file(tmp_path, "app-1.0.0.tar.gz", "1.0.0")
    (tmp_path / "app-1.0.0.tar.gz.sha256").write_text(text)
    port = folder_source(tmp_path)
    with pytest.raises(VerificationFailed, match=says):
        port.artifact(port.find("1.0.0"))


@pytest.mark.parametrize("name", ["SHA256SUMS", "sha256sums.txt"])
@pytest.mark.parametrize("text", [f"{'0' * 64}  app-0.9.0.tar.gz\n", f"{'0' * 64}\n", "", "nonsense\n"])
def test_sums_that_do_not_list_a_file_are_no_missing_ones(tmp_path: Path, name: str, text: str) -> None:
    """F39: somebody has put a file beside the published ones."""
    path = artifact_file(tmp_path, "app-1.0.0.tar.gz", "1.0.0")
    (tmp_path / name).write_text(text)
    port = folder_source(tmp_path)
    with pytest.raises(VerificationFailed, match=rf"{name} holds no SHA-256 of app-1\.0\.0") as raised:
        port.artifact(port.find("1.0.0"))
    assert f"sha256sum app-1.0.0.tar.gz >> {name}" in str(raised.value.advice)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "app-1.0.0.tar.gz.sha256").write_text(digest)
    assert port.artifact(port.find("1.0.0")).checksum == digest, "it has one of its own"
    (tmp_path / name).unlink()
    (tmp_path / "app-1.0.0.tar.gz.sha256").unlink()
    assert port.artifact(port.find("1.0.0")).checksum is None


@pytest.mark.parametrize("kind", ["pipe", "dangling", "directory"])
def test_sums_that_cannot_be_read_are_no_missing_ones(tmp_path: Path, kind: str) -> None:
    """F39."""
    artifact_file(tmp_path, "app-1.0.0.tar.gz", "1.0.0")
    sums = tmp_path / "SHA256SUMS"
    make = {
        "pipe": lambda: os.mkfifo(sums),
        "dangling": lambda: sums.symlink_to("gone"),
        "directory": sums.mkdir,
    }
    make[kind]()
    port = folder_source(tmp_path)
    with pytest.raises(SourceFailed, match="SHA256SUMS is not a regular file"):
        port.artifact(port.find("1.0.0"))


@pytest.mark.parametrize(
    "line",
    ["{}", "{}  app-1.0.0.tar.gz", "{} *./dist/app-1.0.0.tar.gz", "SHA256 (out/app-1.0.0.tar.gz) = {}"],
)
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_sums_are_found_by_the_base_name(tmp_path: Path, line: str, case: Any) -> None:
    path = artifact_file(tmp_path, "app-1.0.0.tar.gz", "1.0.0")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(line.format(case(digest)) + "\n")
    port = folder_source(tmp_path)
    assert port.artifact(port.find("1.0.0")).checksum == digest


@pytest.mark.parametrize("after", ["9" * 20, "9" * 15, "\u00b2", "-5", "Wed, 99 Foo 99999 99:99:99 GMT", ""])
def test_a_time_that_no_clock_shows_is_later(server: ReleaseServer, tmp_path: Path, after: str) -> None:
    server.faults.append(Fault("/releases", "retry-after", text=after or " ", times=9))
    with pytest.raises(SourceFailed):
        source(server, tmp_path).releases()
    server.faults.clear()
    server.quota, server.reset = 0, after  # type: ignore[assignment]
    with pytest.raises(RateLimited, match="later"):
        source(server, tmp_path).releases()


def test_maintenance_for_an_hour_is_told_at_once(server: ReleaseServer, tmp_path: Path) -> None:
    server.faults.append(Fault("/releases", "maintenance", value=3600, times=9))
    with pytest.raises(SourceFailed, match="answered 503") as raised:
        source(server, tmp_path).releases()
    assert "in 60 minutes" in str(raised.value.advice) and len(server.requests) == 1


@pytest.mark.parametrize(
    "target", ["http://[::1", "http://127.0.0.1:99999/x", "ftp://x/y", "http://", "//", "http://a..b/"]
)
def test_a_redirect_to_nowhere_is_refused_at_once(server: ReleaseServer, tmp_path: Path, target: str) -> None:
    publish(server, release("v1.0.0"))
    server.faults.append(Fault("/tarball", "redirect", text=target, times=99))
    begun = time.monotonic()
    with pytest.raises(SourceFailed, match=r"no address of the web|5 redirects"):
        download(source(server, tmp_path), "v1.0.0")
    assert time.monotonic() - begun < 5


def test_a_list_that_goes_on_at_no_address(server: ReleaseServer, tmp_path: Path) -> None:
    port = source(server, tmp_path)
    assert isinstance(port, GitHubSource)
    with pytest.raises(SourceFailed, match="another host"):
        port._next('<http://[::1>; rel="next"')


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/asset", "file:///etc/passwd", ""])
def test_an_asset_elsewhere_is_not_fetched_less_safely_than_the_api(url: str) -> None:
    """What begins with https stays so, whoever gives the address."""
    http = Http(SourceConfig(repository=REPOSITORY, api_url="https://127.0.0.1:1"), None)
    with pytest.raises(SourceFailed, match="refused"):
        http.get(url, {})


def test_texts_that_utf_8_cannot_hold(site: Site) -> None:
    """JSON can hold half of a surrogate pair; nothing that is written down later may fail at it."""
    odd = "no \ud800 way"
    asset = {"name": odd, "url": odd, "size": True}
    body = entry("v1.0.0", body=odd, name=odd, assets=[asset], published_at="0001-01-01T00:00:00+14:00")
    site.server.faults.append(Fault("/releases?", "json", content=json.dumps([body]).encode()))
    update = site.updater("--json", "check").json["update"]
    assert (update["notes"], update["published_at"]) == ("no \ufffd way", None)
    site.publish("v1.0.0")
    site.server.faults.append(Fault("/releases/tags", "status", value=403, text=odd))
    done = site.updater("deploy", "v1.0.0")
    assert done.code == 8 and "no \ufffd way" in done.err
    assert site.updater("deploy", "v1.0.0").code == 0


def test_a_download_that_is_here_already_is_not_asked_for_again(site: Site) -> None:
    """A range that begins at the end is an error (RFC 9110, section 15.5.17): a try that failed later must not wedge."""
    site.deployed("v1.0.0")
    site.publish("v1.1.0", files={"requirements.txt": "no requirement at all ===\n"})
    for _ in range(3):
        done = site.updater("deploy", "v1.1.0")
        assert done.code == 4, done.text
    asked = [it for it in site.server.requests if it.host == "download"]
    assert [it.status for it in asked] == [200, 200]
    assert site.updater("deploy", "v1.0.0").code == 0
    assert list(site.layout.cache.glob("*.part"))
    site.deployed("v1.2.0")
    assert not [it for it in site.layout.cache.iterdir() if it.is_file()], "nor is it kept for ever"


def test_a_range_behind_the_end_is_another_file(server: ReleaseServer, tmp_path: Path) -> None:
    publish(server, release("v1.0.0"))
    whole = server.releases[0].tarball(REPOSITORY)
    port = source(server, tmp_path)
    artifact = port.artifact(port.find("v1.0.0"))
    with resuming(port, artifact, max_size=2**30) as stream:
        validator = stream.validator
    with pytest.raises(ContentChanged, match="no such part"):
        resuming(port, artifact, offset=len(whole), validator=validator, max_size=2**30)
    assert server.requests[-1].status == 416
    with resuming(
        port, artifact, offset=len(whole), validator=validator, total=len(whole), max_size=2**30
    ) as stream:
        assert stream.read(10) == b""


def test_what_is_no_archive_is_not_resumed(site: Site) -> None:
    """The publisher replaced a broken file: the next try begins anew."""
    site.publish("v1.0.0")
    site.server.faults.append(Fault("download", "body", content=b"\x1f\x8b broken" * 900))
    assert site.updater("deploy", "v1.0.0").code == 7
    assert site.updater("deploy", "v1.0.0").code == 0


@pytest.mark.parametrize(
    "proxy",
    ["http:///PASSWORD", "http://user:PASSWORD@", "http://user:PASSWORD@:80", "user:PASSWORD@", "http://user:PASSWORD@host:port",
     "http://user:PASSWORD@[::1", "http://user:PASSWORD@ho st", "ftp://user:PASSWORD@host", "socks5://user:PASSWORD@host:1"],
)  # fmt: skip
def test_a_proxy_that_is_no_address(
    server: ReleaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    with pytest.raises(SourceFailed, match="the proxy in the environment is no address") as raised:
        source(server, tmp_path).releases()
    assert "PASSWORD" not in raised.value.as_text()


@contextlib.contextmanager
def refusing(body: bytes, length: int) -> Iterator[tuple[str, list[str]]]:
    """A source that answers 403 with a body, and goes on to say nothing until its length is reached. Yields its address
    and the paths that were asked for."""
    asked: list[str] = []
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            asked.append(self.path)
            if len(body) < length:
                over.wait(60)

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        over.set()
        server.shutdown()


@pytest.mark.parametrize(
    "body", [b"[]", b'"no"', b"7", b"null", b"{", b"\xff", b"[" * 50_000, b'{"message": ["\\ud800"]}', b""]
)
def test_an_explanation_that_is_none_is_no_harm(body: bytes) -> None:
    with refusing(body, len(body)) as (url, _), pytest.raises(AccessDenied, match="access is denied"):
        Http(SourceConfig(repository=REPOSITORY, api_url=url), None).json(f"{url}/x")


def test_a_request_to_cancel_is_obeyed_while_a_refusal_is_read(site: Site) -> None:
    """The source says no, and takes for ever to say why."""
    with refusing(b"{", 1000) as (url, asked):
        site.configure(source=f'repository = "{REPOSITORY}"\napi_url = "{url}"\nstall_timeout = 60')
        running = site.start("deploy", "v1.0.0")
        eventually(lambda: asked, "the source was asked")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert running.returncode == 130, out + err
