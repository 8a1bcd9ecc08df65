"""GitHub and folders, over real HTTP: what is asked, what is sent where, and what happens when things go wrong."""

from __future__ import annotations

import hashlib
import http.server
import io
import random
import select
import socket
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from examples.release_server import Fault, Release, ReleaseServer
from tests.site import REPOSITORY, Site
from updater import sources, versions
from updater.config import SourceConfig
from updater.errors import (
    AccessDenied,
    ContentChanged,
    RateLimited,
    ReleaseNotFound,
    SourceFailed,
    TooLarge,
    UpdaterError,
)
from updater.sources import Source, resuming

BIG = bytes(range(256)) * 2000


def release(tag: str, number: int = 0, **about: object) -> Release:
    tree = {"serve.py": (b"print()\n", "100644"), "big": (random.Random(tag).randbytes(300_000), "100644")}
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    return Release(tag, tree, published=when, **about)  # type: ignore[arg-type]


@pytest.fixture
def github(server: ReleaseServer, tmp_path: Path) -> Source:
    return source(server, tmp_path)


def source(server: ReleaseServer, cache: Path, **about: object) -> Source:
    given = {"connect_timeout": 2.0, "stall_timeout": 1.0, "token_env": "UPDATER_TEST_TOKEN", **about}
    config = SourceConfig(repository=REPOSITORY, api_url=server.api_url, **given)  # type: ignore[arg-type]
    return sources.open_source(config, cache=cache)


def publish(server: ReleaseServer, *releases: Release) -> None:
    assert isinstance(server.releases, list)
    server.releases += releases


def download(port: Source, tag: str, **more: int) -> bytes:
    artifact = port.artifact(port.find(tag))
    with resuming(port, artifact, max_size=more.get("max_size", 2**31)) as stream:
        return b"".join(iter(lambda: stream.read(65536), b""))


def test_all_pages_of_the_list_and_the_newest_by_version(server: ReleaseServer, github: Source) -> None:
    publish(
        server,
        *(release(f"v1.{n}.0", number=250 - n) for n in range(205)),
        release("v2.0.0-rc.1", 300, prerelease=True),
    )
    found = github.releases()
    assert len(found) == 206
    newest = versions.newest(found, "stable")
    assert newest is not None and newest.tag == "v1.204.0"
    pre = versions.newest(found, "prerelease")
    assert pre is not None and pre.tag == "v2.0.0-rc.1"


def test_tags_that_are_no_versions_are_ordered_by_date(server: ReleaseServer, github: Source) -> None:
    publish(server, release("zebra", 1), release("apple", 2), release("mango", 3, draft=True))
    newest = versions.newest(github.releases(), "stable")
    assert newest is not None and newest.tag == "apple"


def test_asking_again_costs_no_quota(server: ReleaseServer, tmp_path: Path) -> None:
    """F40."""
    publish(server, release("v1.0.0"))
    source(server, tmp_path).releases()
    used = server.used
    again = source(server, tmp_path).releases()
    assert [it.tag for it in again] == ["v1.0.0"] and server.used == used
    assert server.requests[-1].status == 304
    for path in tmp_path.rglob("*.json"):
        path.write_text("{damaged")
    assert source(server, tmp_path).releases()[0].tag == "v1.0.0"


def test_a_tag_without_a_release_and_one_that_does_not_exist(server: ReleaseServer, github: Source) -> None:
    publish(server, release("v1.0.0", tagged_only=True), release("v0.9.0"))
    artifact = github.artifact(github.find("v1.0.0"))
    assert artifact.kind == "source" and artifact.tree == server.releases[0].tree_id
    with pytest.raises(ReleaseNotFound, match=r"no release and no tag v9") as raised:
        github.find("v9.0.0")
    assert "v0.9.0" in raised.value.details[0]


def test_a_tag_cannot_lead_to_another_repository(server: ReleaseServer, github: Source) -> None:
    """`..` in an address is resolved before it is sent, and the commits of forks can be had from each other."""
    for tag in ("v1/../../../../attacker/app/commits/evil", "v1/./x", "v1//x", "..", "/v1"):
        with pytest.raises(ReleaseNotFound, match="has no tag"):
            github.find(tag)
    assert [it.path for it in server.requests] == []


def test_a_private_repository(server: ReleaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.private, server.token = True, "s3cret"
    publish(server, release("v1.0.0", assets={"app.tar.gz": BIG}))
    with pytest.raises(ReleaseNotFound, match="private") as raised:
        source(server, tmp_path).find("v1.0.0")
    assert "UPDATER_TEST_TOKEN" in str(raised.value.advice)
    monkeypatch.setenv("UPDATER_TEST_TOKEN", "wrong")
    with pytest.raises(AccessDenied) as denied:
        source(server, tmp_path).find("v1.0.0")
    assert "wrong" not in denied.value.as_text()
    monkeypatch.setenv("UPDATER_TEST_TOKEN", "s3cret")
    port = source(server, tmp_path, asset="*.tar.gz")
    assert download(port, "v1.0.0") == BIG
    sent = [it for it in server.requests if it.host == "download"]
    assert sent and all("Authorization" not in it.headers for it in sent), (
        "the token never goes to the download host"
    )
    assert "s3cret" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


def test_the_quota_used_up_is_explained(server: ReleaseServer, github: Source) -> None:
    publish(server, release("v1.0.0"))
    server.quota = 0
    with pytest.raises(RateLimited, match=r"restored at \d\d:\d\d:\d\d \(in (59|60) minutes\)") as raised:
        github.releases()
    assert "5,000 requests an hour" in str(raised.value.advice) and raised.value.exit_code == 8


def test_retry_after_is_waited_for_when_short_and_told_when_long(
    server: ReleaseServer, github: Source
) -> None:
    publish(server, release("v1.0.0"))
    server.faults += [Fault("/releases", "retry-after", value=1)]
    assert github.releases()[0].tag == "v1.0.0"
    server.faults += [Fault("/releases", "retry-after", value=3000, times=9)]
    with pytest.raises(RateLimited, match="in 50 minutes"):
        github.releases()


def test_server_errors_are_tried_again_and_then_told(server: ReleaseServer, github: Source) -> None:
    publish(server, release("v1.0.0"))
    server.faults += [Fault("/releases", "status", value=502, times=2)]
    assert github.releases()[0].tag == "v1.0.0"
    server.faults += [Fault("/releases", "status", value=500, times=99)]
    with pytest.raises(SourceFailed, match="answered 500"):
        github.releases()


@pytest.mark.parametrize("kind", ["garbage", "wrong-type"])
def test_nonsense_is_an_error_and_no_traceback(server: ReleaseServer, github: Source, kind: str) -> None:
    server.faults += [Fault("/releases", kind, times=9)]
    for ask in (github.releases, lambda: github.find("v1.0.0")):
        with pytest.raises(SourceFailed):
            ask()


def test_redirects_are_bounded_and_never_less_safe(server: ReleaseServer, github: Source) -> None:
    publish(server, release("v1.0.0"))
    server.faults += [Fault("/releases", "redirect", times=50)]
    with pytest.raises(SourceFailed, match="more than 5 redirects"):
        github.releases()
    server.faults[:] = [Fault("/releases", "redirect", text="file:///etc/passwd")]
    with pytest.raises(SourceFailed, match="refused"):
        github.releases()


def test_a_download_cut_at_every_tenth_is_taken_up_where_it_broke_off(
    server: ReleaseServer, github: Source
) -> None:
    publish(server, release("v1.0.0", assets={"app.tar.gz": BIG}))
    port = github
    whole = server.releases[0].tarball(REPOSITORY)
    for tenth in range(10):
        server.faults[:] = [Fault("download", "cut", value=len(whole) * tenth // 10)]
        before = len(server.requests)
        assert download(port, "v1.0.0") == whole
        asked = [it for it in server.requests[before:] if it.host == "download"]
        assert len(asked) == 2
        assert tenth == 0 or asked[1].status == 206


def test_many_cuts_a_stall_and_a_server_that_ignores_range(server: ReleaseServer, github: Source) -> None:
    publish(server, release("v1.0.0"))
    whole = server.releases[0].tarball(REPOSITORY)
    server.faults += [Fault("download", "cut", value=len(whole) // 7, times=4)]
    assert download(github, "v1.0.0") == whole
    server.faults[:] = [Fault("download", "stall", value=1000)]
    assert download(github, "v1.0.0") == whole
    server.faults[:] = [Fault("download", "cut", value=5000), Fault("download", "no-range", times=9)]
    assert download(github, "v1.0.0") == whole


def test_a_cut_in_what_is_here_already_is_one_more_try(server: ReleaseServer, github: Source) -> None:
    """A server that ignores Range sends what an earlier run has received already, and breaks off in it."""
    publish(server, release("v1.0.0"))
    whole = server.releases[0].tarball(REPOSITORY)
    artifact = github.artifact(github.find("v1.0.0"))
    with resuming(github, artifact, max_size=2**30) as stream:
        validator = stream.validator
    server.faults += [Fault("download", "no-range", times=2), Fault("download", "cut", value=len(whole) // 3)]
    half = len(whole) // 2
    with resuming(
        github, artifact, offset=half, validator=validator, total=len(whole), max_size=2**30
    ) as stream:
        assert b"".join(iter(lambda: stream.read(65536), b"")) == whole[half:]


def test_a_file_that_changes_in_between_is_never_put_together(server: ReleaseServer, github: Source) -> None:
    publish(server, release("v1.0.0"))
    server.faults += [Fault("download", "cut", value=5000)]
    artifact = github.artifact(github.find("v1.0.0"))
    with resuming(github, artifact, max_size=2**30) as stream:
        stream.read(1000)
        server.faults += [Fault("download", "body", content=b"another file" * 9000, times=9)]
        with pytest.raises(ContentChanged):
            while stream.read(65536):
                pass


def test_more_than_is_allowed_or_announced_is_refused(server: ReleaseServer, github: Source) -> None:
    publish(server, release("v1.0.0"))
    with pytest.raises(TooLarge):
        download(github, "v1.0.0", max_size=1000)
    server.faults += [Fault("download", "no-etag"), Fault("download", "extra", value=10**7)]
    with pytest.raises(TooLarge):
        download(github, "v1.0.0", max_size=10**6)


def test_assets_are_chosen_by_pattern_and_proved_by_checksums(server: ReleaseServer, tmp_path: Path) -> None:
    sums = f"{hashlib.sha256(BIG).hexdigest()}  app-1.tar.gz\n".encode()
    publish(server, release("v1.0.0", assets={"app-1.tar.gz": BIG, "app-1.whl": b"x", "SHA256SUMS": sums}))
    artifact = source(server, tmp_path, asset="*.tar.gz", checksums="SHA256SUMS").artifact(
        server_release(server, tmp_path)
    )
    assert (
        artifact.digest == f"sha256:{hashlib.sha256(BIG).hexdigest()}"
        and artifact.checksum == hashlib.sha256(BIG).hexdigest()
    )
    for pattern, says in (("*.zip", "no asset"), ("app*", "2 assets")):
        with pytest.raises(ReleaseNotFound, match=says):
            source(server, tmp_path, asset=pattern).artifact(server_release(server, tmp_path))
    with pytest.raises(UpdaterError, match="does not list"):
        source(server, tmp_path, asset="*.whl", checksums="SHA256SUMS").artifact(
            server_release(server, tmp_path)
        )


def server_release(server: ReleaseServer, cache: Path) -> sources.Published:
    return source(server, cache).find("v1.0.0")


def test_enterprise_has_its_own_address(tmp_path: Path) -> None:
    with ReleaseServer(REPOSITORY, [release("v1.0.0")], prefix="/api/v3") as server:
        assert download(source(server, tmp_path), "v1.0.0") == server.releases[0].tarball(REPOSITORY)


def test_nobody_there(tmp_path: Path, server: ReleaseServer) -> None:
    """F41."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = SourceConfig(
            repository=REPOSITORY, api_url=f"http://127.0.0.1:{taken.getsockname()[1]}", connect_timeout=1
        )
        with pytest.raises(SourceFailed, match="the connection was refused") as raised:
            sources.open_source(config, cache=None).releases()
    assert raised.value.exit_code == 8


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A small forward proxy for plain HTTP."""
    seen: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            host, _, rest = self.path.removeprefix("http://").partition("/")
            name, _, port = host.partition(":")
            with socket.create_connection((name, int(port))) as upstream:
                headers = "".join(
                    f"{key}: {value}\r\n"
                    for key, value in self.headers.items()
                    if key.lower() != "connection"
                )
                upstream.sendall(f"GET /{rest} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
                while select.select([upstream], [], [], 5)[0] and (chunk := upstream.recv(65536)):
                    self.wfile.write(chunk)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", seen
        running.shutdown()


def test_a_proxy_is_used(
    server: ReleaseServer, tmp_path: Path, proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, seen = proxy
    monkeypatch.setenv("HTTP_PROXY", address)
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    publish(server, release("v1.0.0"))
    assert download(source(server, tmp_path), "v1.0.0") == server.releases[0].tarball(REPOSITORY)
    assert len(seen) >= 4


def artifact_file(folder: Path, name: str, version: str) -> Path:
    path = folder / name
    with tarfile.open(path, "w:gz") as archive:
        for inner, content in (("serve.py", b"print()\n"), ("VERSION", f"{version}\n".encode())):
            info = tarfile.TarInfo(f"app-{version}/{inner}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def folder_source(folder: Path) -> Source:
    return sources.open_source(SourceConfig(type="directory", path=folder), cache=None)


def test_a_folder_of_artifacts(tmp_path: Path) -> None:
    for name, version in (
        ("app-1.0.0.tar.gz", "1.0.0"),
        ("app-1.10.0.tgz", "1.10.0"),
        ("v1.9.0.tar.gz", "1.9.0"),
    ):
        artifact_file(tmp_path, name, version)
    (tmp_path / "app-1.10.0.md").write_text("# News\n")
    (tmp_path / "README").write_text("no artifact")
    port = folder_source(tmp_path)
    newest = versions.newest(port.releases(), "stable")
    assert newest is not None and (newest.tag, newest.notes) == ("1.10.0", "# News\n")
    assert port.find("v1.0.0").tag == "1.0.0"
    with pytest.raises(ReleaseNotFound, match=r"there are: 1\.0\.0, v1\.9\.0, 1\.10\.0"):
        port.find("2.0")
    artifact_file(tmp_path, "other-1.0.0.tar.gz", "1.0.0")
    with pytest.raises(SourceFailed, match="two artifacts"):
        port.releases()
    with pytest.raises(SourceFailed, match="cannot be read"):
        folder_source(tmp_path / "missing").releases()


def test_a_sum_beside_a_file_must_fit(site: Site, tmp_path: Path) -> None:
    """F39: verification fails closed."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    path = artifact_file(folder, "app-1.0.0.tar.gz", "1.0.0")
    site.configure(source=f'type = "directory"\npath = "{folder}"')
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {path.name}\n")
    done = site.updater("fetch", "1.0.0")
    assert done.code == 7 and "checksum file" in done.err
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    assert site.updater("fetch", "1.0.0").code == 0
    assert "listed in the published checksums" in site.updater("verify", "1.0.0").out


@pytest.mark.parametrize(
    "tag",
    [
        "../evil",
        "..",
        "/etc",
        "-rf",
        ".hidden",
        "a b",
        "a\nb",
        "",
        "x" * 200,
        "v1.good",
        "a/../../main",
        "a/./b",
        "a//b",
        "a/",
    ],
)
def test_a_tag_never_names_anything_outside(tag: str) -> None:
    with pytest.raises(UpdaterError):
        versions.release_name(tag)


@pytest.mark.parametrize(
    ("text", "tag", "fits"),
    [("1.4.0", "v1.4.0", True), ("v1.4.0", "1.4", True), ("1.4.0", "tradebot-1.4.0", True), ("1.4.0", "release/1.4", True),
     ("1.4.1", "v1.4.0", False), ("nightly", "nightly", True), ("nightly", "v1.0.0", False)],
)  # fmt: skip
def test_a_version_file_and_a_tag(text: str, tag: str, fits: bool) -> None:
    assert versions.agrees(text, tag) is fits
