"""The two hosts: the API, and the downloads that it redirects to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from examples.release_server.content import Release
from examples.release_server.faults import Fault

API_FAULTS = ("status", "garbage", "wrong-type", "json", "redirect", "retry-after", "maintenance")
DOCS = "https://docs.github.com/rest"


@dataclass(frozen=True)
class Request:
    """A request that came in."""

    host: str
    """``api`` or ``download``."""
    path: str
    headers: Mapping[str, str]
    status: int


@dataclass
class ReleaseServer:
    """Serves the releases of one repository. ``token``: needed for a private repository; ``prefix``: ``/api/v3`` as GitHub
    Enterprise has it; ``quota``: requests an hour, answers 304 not counted; ``counting``: whether its rate limit may
    be asked for."""

    repository: str
    releases: Sequence[Release]
    token: str | None = None
    private: bool = False
    prefix: str = ""
    quota: int = 5000
    counting: bool = True
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.used = 0
        self.reset = int(time.time()) + 3600
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._keys: dict[str, bytes] = {}
        self._api = _Host(self, "api", self.port)
        self._download = _Host(self, "download", 0)

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._api.server_port}{self.prefix}"

    @property
    def download_url(self) -> str:
        return f"http://127.0.0.1:{self._download.server_port}"

    def __enter__(self) -> ReleaseServer:
        for host in (self._api, self._download):
            threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        for host in (self._api, self._download):
            host.shutdown()
            host.server_close()

    def fault(self, path: str, *kinds: str) -> Fault | None:
        with self._lock:
            return next((it for it in self.faults if it.kind in kinds and it.applies(path)), None)

    def remember(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def offer(self, content: bytes) -> str:
        """A download address for some bytes, with a key of its own, as the real download host has for private ones."""
        key = secrets.token_hex(8)
        with self._lock:
            self._keys[key] = content
        return f"{self.download_url}/file?key={key}"

    def content(self, key: str) -> bytes | None:
        return self._keys.get(key)


class _Host(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, server: ReleaseServer, name: str, port: int) -> None:
        self.owner, self.name = server, name
        super().__init__(("127.0.0.1", port), _Api if name == "api" else _Download)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Host

    @property
    def owner(self) -> ReleaseServer:
        return self.server.owner

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str],
        *,
        cut: int | None = None,
        stall: int | None = None,
    ) -> None:
        self.owner.remember(Request(self.server.name, self.path, dict(self.headers.items()), status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304 and "Content-Length" not in headers and headers.get("Connection") != "close":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status == 304:
            return
        limit = cut if cut is not None else stall
        self.wfile.write(body if limit is None else body[:limit])
        self.wfile.flush()
        if stall is not None:
            self.owner.stopping.wait(600)
        if limit is not None or headers.get("Connection") == "close":
            self.close_connection = True


class _Api(_Handler):
    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        owner = self.owner
        if fault := owner.fault(self.path, *API_FAULTS):
            self._fail(fault)
            return
        if not self._authorised():
            return
        if path == f"{owner.prefix}/rate_limit":
            self._rate_limit()
            return
        if owner.used >= owner.quota:
            self._error(
                403, "API rate limit exceeded for 127.0.0.1.", "/overview/rate-limits-for-the-rest-api"
            )
            return
        base = f"{owner.prefix}/repos/{owner.repository}"
        if not path.startswith(f"{base}/") and path != base:
            self._error(404, "Not Found")
            return
        self._repository(unquote(path.removeprefix(base)))

    def _rate_limit(self) -> None:
        """Costs nothing. Where rate limiting is off (GitHub Enterprise) there is no such thing."""
        owner = self.owner
        if not owner.counting:
            self._error(404, "Rate limiting is not enabled.")
            return
        core = {
            "limit": owner.quota, "used": owner.used, "remaining": max(0, owner.quota - owner.used), "reset": owner.reset,
        }  # fmt: skip
        body = json.dumps({"resources": {"core": core}, "rate": core}).encode()
        self.answer(200, body, {"Content-Type": "application/json; charset=utf-8", **self._limits()})

    def _authorised(self) -> bool:
        sent = self.headers.get("Authorization", "")
        token = sent.removeprefix("Bearer ").removeprefix("token ")
        if sent and token != self.owner.token:
            self._error(401, "Bad credentials")
            return False
        self.trusted = bool(sent)
        if self.owner.private and not sent:
            self._error(404, "Not Found")
            return False
        return True

    def _repository(self, path: str) -> None:
        if path == "/releases":
            self._list()
        elif path == "/releases/latest":
            stable = [it for it in self._visible() if not it.prerelease and not it.draft]
            self._found(max(stable, key=lambda it: it.published, default=None))
        elif match := re.fullmatch(r"/releases/tags/(.+)", path):
            self._found(next((it for it in self._visible() if it.tag == match[1] and not it.draft), None))
        elif match := re.fullmatch(r"/releases/assets/(\d+)-(\d+)", path):
            self._asset(int(match[1]), int(match[2]))
        elif match := re.fullmatch(r"/commits/(.+)", path):
            self._commit(self._by_ref(match[1]))
        elif match := re.fullmatch(r"/git/ref/tags/(.+)", path):
            self._ref(self._by_ref(match[1]))
        elif match := re.fullmatch(r"/git/trees/([0-9a-f]{40})", path):
            self._tree(match[1])
        elif match := re.fullmatch(r"/git/blobs/([0-9a-f]{40})", path):
            self._blob(match[1])
        elif match := re.fullmatch(r"/tarball/(.+)", path):
            self._tarball(self._by_ref(match[1]))
        else:
            self._error(404, "Not Found")

    def _visible(self) -> list[Release]:
        made = [it for it in self.owner.releases if not it.tagged_only]
        return made if self.trusted else [it for it in made if not it.draft]

    def _by_ref(self, ref: str) -> Release | None:
        name = ref.removeprefix("refs/").removeprefix("tags/")
        return next((it for it in self.owner.releases if name in (it.tag, it.commit)), None)

    def _list(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        size, page = min(int(query.get("per_page", ["30"])[0]), 100), int(query.get("page", ["1"])[0])
        found = sorted(self._visible(), key=lambda it: it.published, reverse=True)
        headers = {}
        if len(found) > page * size:
            here = f"{self.owner.api_url}/repos/{self.owner.repository}/releases?per_page={size}"
            last = -(-len(found) // size)
            headers["Link"] = f'<{here}&page={page + 1}>; rel="next", <{here}&page={last}>; rel="last"'
        self._json([self._release(it) for it in found[(page - 1) * size : page * size]], headers)

    def _found(self, release: Release | None) -> None:
        if release is None:
            self._error(404, "Not Found", "/releases/releases#get-a-release-by-tag-name")
        else:
            self._json(self._release(release))

    def _release(self, it: Release) -> dict[str, Any]:
        number = list(self.owner.releases).index(it)
        base = f"{self.owner.api_url}/repos/{self.owner.repository}"
        when = it.published.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "url": f"{base}/releases/{number + 1}", "html_url": f"https://example.com/releases/{it.tag}", "id": number + 1,
            "tag_name": it.tag, "target_commitish": "main", "name": it.name or it.tag, "body": it.notes,
            "draft": it.draft, "prerelease": it.prerelease, "created_at": when, "published_at": None if it.draft else when,
            "tarball_url": f"{base}/tarball/{it.tag}", "zipball_url": f"{base}/zipball/{it.tag}",
            "assets": [self._asset_json(number, index, name, raw) for index, (name, raw) in enumerate(it.assets.items())],
        }  # fmt: skip

    def _asset_json(self, release: int, index: int, name: str, raw: bytes) -> dict[str, Any]:
        return {
            "url": f"{self.owner.api_url}/repos/{self.owner.repository}/releases/assets/{release}-{index}",
            "id": index, "name": name, "state": "uploaded", "content_type": "application/octet-stream",
            "size": len(raw), "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}",
            "browser_download_url": f"{self.owner.download_url}/{name}",
        }  # fmt: skip

    def _asset(self, release: int, index: int) -> None:
        try:
            name, raw = list(self.owner.releases[release].assets.items())[index]
        except IndexError:
            self._error(404, "Not Found")
            return
        if self.headers.get("Accept") != "application/octet-stream":
            self._json(self._asset_json(release, index, name, raw))
            return
        self._redirect(self.owner.offer(raw))

    def _commit(self, found: Release | None) -> None:
        if found is None:
            self._error(422, "No commit found for SHA: tags", "/commits/commits#get-a-commit")
        else:
            self._json(
                {"sha": found.commit, "commit": {"message": found.tag, "tree": {"sha": found.tree_id}}}
            )

    def _ref(self, found: Release | None) -> None:
        if found is None:
            self._error(404, "Not Found", "/git/refs#get-a-reference")
        else:
            self._json({"ref": f"refs/tags/{found.tag}", "object": {"type": "commit", "sha": found.commit}})

    def _tree(self, sha: str) -> None:
        """Recursively, which is all that updater asks for; at most 100,000 entries, then it says ``truncated``."""
        found = next((it for it in self.owner.releases if it.tree_id == sha), None)
        if found is None or "recursive" not in parse_qs(urlsplit(self.path).query):
            self._error(404, "Not Found", "/git/trees#get-a-tree")
            return
        fault = self.owner.fault(self.path, "truncated")
        limit = fault.value if fault else 100_000
        base = f"{self.owner.api_url}/repos/{self.owner.repository}/git"
        listed = found.objects()
        entries = [{**it, "url": f"{base}/{it['type']}s/{it['sha']}"} for it in listed[:limit]]
        self._json(
            {"sha": sha, "url": f"{base}/trees/{sha}", "tree": entries, "truncated": len(listed) > limit}
        )

    def _blob(self, sha: str) -> None:
        content = next((raw for it in self.owner.releases if (raw := it.blob(sha)) is not None), None)
        if content is None:
            self._error(404, "Not Found", "/git/blobs#get-a-blob")
            return
        text = base64.encodebytes(content).decode()  # with the line ends that GitHub's answers have
        self._json({"sha": sha, "size": len(content), "encoding": "base64", "content": text})

    def _tarball(self, found: Release | None) -> None:
        if found is None:
            self._error(404, "Not Found")
        else:
            self._redirect(self.owner.offer(found.tarball(self.owner.repository)))

    def _redirect(self, target: str) -> None:
        self.owner.used += 1
        self.answer(302, b"", {"Location": target, **self._limits()})

    def _json(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        if self.headers.get("If-None-Match") == etag:
            self.answer(304, b"", {"ETag": etag, **self._limits()})
            return
        self.owner.used += 1
        shown = {"Content-Type": "application/json; charset=utf-8", "ETag": etag, **(headers or {})}
        self.answer(200, body, {**shown, **self._limits()})

    def _limits(self) -> dict[str, str]:
        owner = self.owner
        return {
            "x-ratelimit-limit": str(owner.quota),
            "x-ratelimit-remaining": str(max(0, owner.quota - owner.used)),
            "x-ratelimit-used": str(owner.used),
            "x-ratelimit-reset": str(owner.reset),
            "x-ratelimit-resource": "core",
        }

    def _error(self, status: int, message: str, docs: str = "") -> None:
        body = json.dumps(
            {"message": message, "documentation_url": f"{DOCS}{docs}", "status": str(status)}
        ).encode()
        self.answer(status, body, {"Content-Type": "application/json; charset=utf-8", **self._limits()})

    def _fail(self, fault: Fault) -> None:
        if fault.kind == "status":
            self._error(fault.value, fault.text or ("Server Error" if fault.value >= 500 else "Forbidden"))
        elif fault.kind in ("retry-after", "maintenance"):
            body = json.dumps({"message": "You have exceeded a secondary rate limit."}).encode()
            headers = {"Retry-After": fault.text or str(fault.value), "Content-Type": "application/json"}
            self.answer(429 if fault.kind == "retry-after" else 503, body, headers)
        elif fault.kind == "json":
            self.answer(200, fault.content, {"Content-Type": "application/json"})
        elif fault.kind == "redirect":
            self.answer(302, b"", {"Location": fault.text or self.path})
        else:
            body = b"<html>not json" if fault.kind == "garbage" else b'{"unexpected": [1, 2]}'
            self.answer(200, body, {"Content-Type": "application/json"})


class _Download(_Handler):
    def do_GET(self) -> None:
        owner = self.owner
        content = owner.content(parse_qs(urlsplit(self.path).query).get("key", [""])[0])
        if content is None:
            self.answer(404, b"404: Not Found", {"Content-Type": "text/plain"})
            return
        if fault := owner.fault("download", "status"):
            self.answer(fault.value, b"", {})
            return
        if fault := owner.fault("download", "body"):
            content = fault.content
        no_range = owner.fault("download", "no-range", "no-etag")
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"Content-Type": "application/x-gzip", "Date": formatdate(usegmt=True)}
        if not (no_range and no_range.kind == "no-etag"):
            headers["ETag"] = etag
        if extra := owner.fault("download", "extra"):
            self.answer(200, content + bytes(extra.value), {**headers, "Connection": "close"})
            return
        start = self._start(etag) if no_range is None else None
        if start is not None and start >= len(content):
            self.answer(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
            return
        status = 200 if start is None else 206
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start or 0 :]
        if fault := owner.fault("download", "cut"):
            self.answer(status, body, headers, cut=fault.value)
        elif fault := owner.fault("download", "stall"):
            self.answer(status, body, headers, stall=fault.value)
        else:
            self.answer(status, body, headers)

    def _start(self, etag: str) -> int | None:
        """Where to begin (RFC 9110, section 14.2); None: from the beginning, because it is not asked or not the same."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or self.headers.get("If-Range") not in (None, etag):
            return None
        return int(match[1])
