"""Those who look on while deployments run: readers of `current`, and listeners of the event stream. A process of its own.

    python -m tests.crash.bystanders ROOT URL URL

It prints what it finds wrong, a line each, as it happens. Told the id of the last event on standard input, it waits until each
listener has had that, and prints what it has seen as JSON.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

READERS, LISTENERS = 20, 10
PAUSE = 0.008
"""Seconds between two reads of a reader: the deployments need the processor as well."""
ASLEEP = 45
"""Deployments that a listener sleeps through; fewer than the journals that the server keeps."""
PATIENCE = 60.0

_said = threading.Lock()


def wrong(text: str) -> None:
    with _said:
        print(text, flush=True)


@dataclass
class Reader:
    """Reads what is in service, by each way there is, and compares."""

    root: str
    reads: int = 0
    releases: set[str] = field(default_factory=set)

    def run(self, over: threading.Event) -> None:
        number = 0
        while not over.wait(PAUSE):
            number += 1
            try:
                self._through_the_link() if number % 2 else self._by_the_directory()
                self.reads += 1
            except OSError as failure:
                wrong(f"reader: {failure}")

    def _through_the_link(self) -> None:
        for name in ("current/VERSION", "VERSION"):
            text = _read(f"{self.root}/{name}")
            if not text.startswith("1.") or not text.endswith("\n"):
                wrong(f"reader: {name} is {text!r}")

    def _by_the_directory(self) -> None:
        """Two files of one release: by the directory that the link leads to, and by the name that it has."""
        release = os.open(f"{self.root}/current", os.O_RDONLY | os.O_DIRECTORY)
        try:
            opened = [_read(name, release) for name in ("VERSION", "stamp")]
        finally:
            os.close(release)
        named = os.readlink(f"{self.root}/current")
        again = [_read(f"{self.root}/{named}/{name}") for name in ("VERSION", "stamp")]
        for version, stamp in (opened, again):
            if not version or version != stamp:
                wrong(f"reader: VERSION is {version!r} and another file of the release is of {stamp!r}")
        if named != f"releases/v{again[0].strip()}":
            wrong(f"reader: `current` names {named}, which holds {again[0]!r}")
        self.releases.add(named)


def _read(path: str, directory: int | None = None) -> str:
    fd = os.open(path, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(fd, 4096).decode()
    finally:
        os.close(fd)


@dataclass
class Listener:
    """Listens, and comes back with its Last-Event-ID whenever it is sent away."""

    name: str
    url: str
    token: str
    sleepy: Listener | None = None
    """Another one, by which one that sleeps now and then knows when to wake up."""
    last: str = ""
    lines: int = 0
    others: int = 0
    connections: int = 0
    sent_away: int = 0
    ended: list[str] = field(default_factory=list)
    """Deployments of which it has had every line from the first to the end."""
    begun: threading.Event = field(default_factory=threading.Event)

    def run(self, over: threading.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                self._listen(over)
            over.wait(0.05)

    def _listen(self, over: threading.Event) -> None:
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.sock = socket.socket()
            if self.sleepy:  # else the system takes in for it what it does not read
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sock.settimeout(PATIENCE)
            connection.sock.connect((place.hostname, place.port))
            headers = {"Authorization": f"Bearer {self.token}"}
            if self.last:
                headers["Last-Event-ID"] = self.last
            connection.request("GET", "/api/update/events", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                wrong(f"{self.name}: the stream answers {answer.status}: {answer.read(500)!r}")
                return
            self.connections += 1
            for fields in _events(answer):
                if over.is_set():
                    return
                self._take(fields)
                if self.sleepy and fields["event"] == "line" and '"kind": "end"' in fields["data"]:
                    self._sleep(self.sleepy, over)
            self.sent_away += 1

    def _take(self, fields: dict[str, str]) -> None:
        self.begun.set()
        if fields["event"] != "line":
            self.others += 1
            return
        deployment, _, number = fields["id"].partition(":")
        before, _, seen = self.last.partition(":")
        kind = json.loads(fields["data"])["kind"]
        if deployment == before:
            if int(number) != int(seen) + 1:
                wrong(f"{self.name}: {fields['id']} came after {self.last}")
        elif number != "0" or (before and (deployment < before or self.ended[-1:] != [before])):
            wrong(f"{self.name}: {fields['id']} came after {self.last}, which is not its end")
        self.last = fields["id"]
        self.lines += 1
        if kind == "end":
            self.ended.append(deployment)

    def _sleep(self, by: Listener, over: threading.Event) -> None:
        """Read nothing for a long time: what waits must be there afterwards, or be told again."""
        if len(self.ended) % (ASLEEP + 5) == 5:
            until = len(by.ended) + ASLEEP
            while len(by.ended) < until and not over.wait(0.1) and not _ending.is_set():
                pass


_ending = threading.Event()
"""No deployment follows: nobody may sleep any more."""


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, str]]:
    """Whole events only: one that a killed server has begun does not count."""
    fields: dict[str, str] = {}
    while raw := answer.readline():
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield fields
            fields = {}


def main() -> None:
    root, *urls = sys.argv[1:]
    token = (Path(root) / ".updater/token").read_text().strip()
    over = threading.Event()
    readers = [Reader(root) for _ in range(READERS)]
    listeners = [
        Listener(f"listener {number}", urls[number % len(urls)], token) for number in range(LISTENERS)
    ]
    listeners[0].sleepy = listeners[1]
    running = [it.run for it in readers] + [it.run for it in listeners]
    threads = [threading.Thread(target=it, args=(over,), daemon=True) for it in running]
    for thread in threads:
        thread.start()
    for it in listeners:
        if not it.begun.wait(PATIENCE):  # the present state is the first that each is told
            wrong(f"{it.name}: it was told nothing")
    wrong("ready")
    last = sys.stdin.readline().strip()
    _ending.set()
    deadline = time.monotonic() + PATIENCE
    while last and time.monotonic() < deadline and any(it.last != last for it in listeners):
        time.sleep(0.05)
    for it in listeners:
        if last and it.last != last:
            wrong(f"{it.name}: its last event is {it.last or 'none'}, not {last}")
    over.set()
    shown = ("name", "last", "lines", "others", "connections", "sent_away", "ended")
    found = {
        "reads": [it.reads for it in readers],
        "releases": sorted(set().union(*(it.releases for it in readers))),
        "listeners": [{name: getattr(it, name) for name in shown} for it in listeners],
    }
    with _said:
        print(json.dumps(found), flush=True)
    os._exit(0)  # streams that say nothing are not waited for


if __name__ == "__main__":
    main()
