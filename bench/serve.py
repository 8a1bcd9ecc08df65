"""How quick and how small is `updater serve`? Against a bare Starlette application on uvicorn that answers with the same bytes.

    python -m bench.serve [--listeners 50] [--requests 300]

Progress is asked for while a deployment runs with all the listeners on the stream; then how late an event reaches them after its
line in the journal, and what the server uses when nothing happens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests

from bench.compare import Contender
from bench.start import UPDATER, make_root, updater

assert Contender  # its module makes sure that nothing runs uncompiled

BARE = """
import socket, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
body, kind = open(sys.argv[1], "rb").read(), sys.argv[2]
async def show(request):
    return Response(body, media_type=kind)
made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
made.bind(("127.0.0.1", int(sys.argv[3])))
uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/", show)]), access_log=False, log_level="warning")).run(sockets=[made])
"""

SLEEPER = """
[processes.app]
command = ["python", "-c", "import time; time.sleep(3600)"]
[health]
successes = 1
interval = 0.1
watch = {watch}
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def serving(root: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The server: its process, its address, its token."""
    server = subprocess.Popen(
        [UPDATER, "--root", root, "--json", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    text = ""
    while not text.rstrip().endswith("}"):
        text += server.stdout.readline()
    shown = subprocess.run(
        [UPDATER, "--root", root, "--json", "serve", "--show-token"],
        capture_output=True,
        text=True,
        check=True,
    )
    try:
        yield server, json.loads(text)["url"], json.loads(shown.stdout)["token"]
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def bare(body: bytes, kind: str, place: Path) -> Iterator[str]:
    """The peer."""
    port = free_port()
    (place / "body").write_bytes(body)
    peer = subprocess.Popen([sys.executable, "-c", BARE, str(place / "body"), kind, str(port)])
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(url, timeout=5)
                break
            time.sleep(0.05)
        yield url
    finally:
        peer.terminate()
        peer.wait()


def timed(session: requests.Session, url: str) -> float:
    begun = time.perf_counter()
    session.get(url, timeout=30).raise_for_status()
    return time.perf_counter() - begun


def race(name: str, ours: tuple[requests.Session, str], peer: str, times: int) -> None:
    """Both by turns, on connections that stay open."""
    other = requests.Session()
    mine, theirs = [], []
    for _ in range(times):
        mine.append(timed(*ours))
        theirs.append(timed(other, peer))
    ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
    print(
        f"| {name} | {1000 * statistics.median(mine):.1f} ms | {1000 * statistics.median(theirs):.1f} ms | "
        f"{statistics.median(ratios):.2f} [{ratios[len(ratios) // 20]:.2f}-{ratios[-len(ratios) // 20 - 1]:.2f}] |"
    )


LISTENERS = """
import asyncio, json, sys, time
host, port, token, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
async def listen(came):
    reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    writer.write(f"GET /api/update/events HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nAuthorization: Bearer {token}\\r\\n\\r\\n".encode())
    kind = b""
    while line := await reader.readline():
        if line.startswith(b"retry:"):
            print("listening", flush=True)
        elif line.startswith(b"event: "):
            kind = line[7:].strip()
        elif line.startswith(b"data: ") and kind == b"line":
            came.append((time.time(), line[6:]))
            if b'"kind": "end"' in line:
                break
    writer.close()
async def main():
    came = []
    await asyncio.gather(*(listen(came) for _ in range(count)))
    print(json.dumps([(at, json.loads(line)["at"]) for at, line in came]), flush=True)
asyncio.run(main())
"""
"""Many pages on the stream in a process of their own: what they cost must not count as the server's."""


class Listeners:
    def __init__(self, url: str, token: str, count: int) -> None:
        parts = urlsplit(url)
        self.process = subprocess.Popen(
            [sys.executable, "-c", LISTENERS, str(parts.hostname), str(parts.port), token, str(count)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        for _ in range(count):
            assert self.process.stdout.readline() == "listening\n"

    def delays(self) -> list[float]:
        """Seconds between each line of the journal and its arrival at each listener, sorted."""
        from updater.records import moment

        said, _ = self.process.communicate(timeout=120)
        return sorted(came - at.timestamp() for came, text in json.loads(said) if (at := moment(text)))


def at_rest(server: subprocess.Popen[str], seconds: float = 10) -> None:
    process = psutil.Process(server.pid)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    used = (after.user - before.user) + (after.system - before.system)
    print(
        f"\nAt rest: {process.memory_info().rss / 1e6:.0f} MB, {100 * used / seconds:.2f} % of one processor over {seconds:g} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listeners", type=int, default=50)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary directory)")
    given = parser.parse_args()
    os.environ.pop("UPDATER_ROOT", None)
    with tempfile.TemporaryDirectory(dir=given.dir) as name:
        place = Path(name)
        root = make_root(place)
        config = root / "updater.toml"
        text = config.read_text()
        config.write_text(
            text.replace("[health]", "[unused]").partition("[unused]")[0] + SLEEPER.format(watch=25)
        )
        try:
            with serving(root) as (server, url, token):
                at_rest(server)
                measure(root, url, token, given.listeners, given.requests, place)
        finally:
            updater(root, "-q", "stop")


def measure(root: Path, url: str, token: str, count: int, times: int, place: Path) -> None:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    listeners = Listeners(url, token, count)
    session.post(f"{url}api/releases/activate", json={"version": "1.0.0"}, timeout=30).raise_for_status()
    print(
        f"\n| with {count} listeners and a deployment | updater | bare Starlette | ratio |\n| --- | ---: | ---: | ---: |"
    )
    progress = f"{url}api/update/progress"
    with bare(session.get(progress, timeout=30).content, "application/json", place) as peer:
        race("`GET /api/update/progress`", (session, progress), peer, times)
    page = requests.Session()
    page.post(
        f"{url}login", data={"token": token}, headers={"Origin": url.rstrip("/")}, timeout=30
    ).raise_for_status()
    with bare(page.get(url, timeout=30).content, "text/html", place) as peer:
        race("the page", (page, url), peer, max(10, times // 10))
    found = listeners.delays()
    print(
        f"\nAn event reached {count} listeners after {statistics.median(found):.3f} s (median), "
        f"{found[int(0.95 * len(found))]:.3f} s (95 %), {found[-1]:.3f} s (latest), {len(found)} events."
    )


if __name__ == "__main__":
    main()
