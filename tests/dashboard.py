"""`updater serve` as a real process, and clients of it: one with the token, one that logs in like a browser."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from examples.release_server import Release, ReleaseServer
from tests.site import REPOSITORY, Site, eventually

Json = Any
PATIENCE = 60.0
"""Seconds in which every answer must have come; the machine may be busy."""


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    kind: str
    id: str
    data: Json


class Stream:
    """A listener. Iterating gives the events; ``text`` is everything received so far."""

    def __init__(self, answer: requests.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines(chunk_size=1)
        self.text = next(self._lines).decode() + "\n"
        assert self.text == "retry: 2000\n"  # from here on everything is told

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for raw in self._lines:
            line = raw.decode()
            self.text += line + "\n"
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                if "data" in fields:
                    yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
                fields = {}

    def until(self, kind: str, /, **data: Any) -> list[Event]:
        """The events up to the first of that kind with these data."""
        found = []
        for event in self:
            found.append(event)
            if event.kind == kind and data.items() <= event.data.items():
                return found
        raise AssertionError(f"the stream ended before {kind} {data}: {self.text[-2000:]}")

    def close(self) -> None:
        self.answer.close()


class Browser:
    """A browser that logs in with the token."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.url = dashboard.url
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=PATIENCE, **more)

    def post(self, path: str, fields: dict[str, str] | None = None, **more: Any) -> requests.Response:
        more.setdefault("allow_redirects", False)
        return self.session.post(self.url + path, data=fields or {}, timeout=PATIENCE, **more)

    def log_in(self, token: str) -> Browser:
        answer = self.post("/login", {"token": token})
        assert answer.status_code == 303, answer.text
        return self

    def csrf(self) -> str:
        """The token against forged forms, as the page has it."""
        page = self.get("/releases").text
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
        assert found, page
        return found[1]


class Dashboard:
    """A running server. ``url`` is without the slash at its end."""

    def __init__(self, site: Site, *arguments: str) -> None:
        self.site = site
        self.log = site.place / "serve.log"
        self._start(arguments)
        self.session = requests.Session()
        self.session.trust_env = False

    def _start(self, arguments: tuple[str, ...]) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.site.command("--json", "serve", *(arguments or ("--port", "0"))), env=self.site.env(), cwd=self.site.place,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout
        said = ""
        for line in self.process.stdout:
            said += line
            if line.startswith("}"):
                break
        else:
            self.process.wait()
            raise AssertionError(f"it does not serve: {said}{self.log.read_text()}")
        self.url = str(json.loads(said)["url"]).rstrip("/")

    def token(self) -> str:
        """As the command line shows it."""
        done = self.site.updater("--json", "serve", "--show-token")
        assert done.code == 0, done.text
        return str(done.json["token"])

    @property
    def known_token(self) -> str:
        """The same, read from its file: a command takes a second."""
        return self.site.layout.token.read_text().strip()

    def authorized(self) -> dict[str, str]:
        """The header that lets a program in."""
        return {"Authorization": f"Bearer {self.known_token}"}

    @property
    def port(self) -> int:
        return int(urlsplit(self.url).port or 0)

    def call(self, method: str, path: str, body: Json = None, **more: Any) -> requests.Response:
        """Ask as a client with the token; ``headers`` are added to its own."""
        more["headers"] = {**self.authorized(), **more.get("headers", {})}
        if body is not None:
            more["json"] = body
        return self.session.request(method, self.url + path, timeout=PATIENCE, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.call("GET", path, **more)

    def post(self, path: str, body: Json = None, **more: Any) -> requests.Response:
        return self.call("POST", path, body, **more)

    def apart(self, method: str, path: str, body: Json = None, **more: Any) -> requests.Response:
        """Ask on a connection of its own: beside another request, or without a token unless ``headers`` has one."""
        if body is not None:
            more["json"] = body
        return requests.request(method, self.url + path, timeout=PATIENCE, **more)

    def told(self, path: str, **more: Any) -> Json:
        """What a GET that must succeed answers."""
        answer = self.get(path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def listen(self, query: str = "", **headers: str) -> Stream:
        answer = requests.get(
            f"{self.url}/api/update/events{query}", stream=True, timeout=PATIENCE,
            headers={"Authorization": f"Bearer {self.known_token}", **{it.replace("_", "-"): headers[it] for it in headers}},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        return Stream(answer)

    def browser(self) -> Browser:
        return Browser(self)

    def ended(self, identifier: str) -> Json:
        """Wait for a deployment's end; its progress."""

        def over() -> Json:
            found = self.told("/api/update/progress")["deployment"]
            return found if found and found["id"] == identifier and found["outcome"] else None

        return eventually(over, f"{identifier} ends", 60)

    def raw(self, sent: bytes) -> socket.socket:
        """A connection on which these bytes were sent."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        made.sendall(sent)
        return made

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE)
        if self.process.stdout:
            self.process.stdout.close()
        return code

    def end(self) -> None:
        self.session.close()
        if self.process.poll() is None:
            self.kill(signal.SIGTERM)
        elif self.process.stdout:
            self.process.stdout.close()

    def is_quiet(self) -> None:
        """It printed no traceback and no secret."""
        text = self.log.read_text()
        assert "Traceback" not in text, text[-5000:]
        assert self.known_token not in text


def whole(connection: socket.socket) -> bytes:
    """All that comes until the other side ends the connection."""
    found = b""
    while chunk := connection.recv(65536):
        found += chunk
    return found


def raw_request(
    path: str, *headers: str, method: str = "GET", host: str | None = "127.0.0.1", body: str = ""
) -> bytes:
    """An HTTP request as bytes, with exactly these headers; it asks for the connection's end."""
    named = [f"Host: {host}"] if host is not None else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", *named, "Connection: close", *headers, "", body]).encode(
        "latin-1"
    )


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def names_outside(place: Path, root: Path) -> set[str]:
    """What lies beside the root, to show that nothing was made or removed there."""
    return {str(path) for path in place.iterdir() if path != root}


@contextlib.contextmanager
def world(place: Path, *deployed: str, **settings: Any) -> Iterator[Dashboard]:
    """A release server, a root with these releases deployed, and its dashboard; for a whole module of tests."""
    releases: list[Release] = []
    with ReleaseServer(REPOSITORY, releases) as server:
        site = Site(place, server, releases)
        site.configure(**settings)
        try:
            site.deployed(*deployed)
            dashboard = Dashboard(site)
            try:
                yield dashboard
            finally:
                dashboard.end()
        finally:
            site.end()
