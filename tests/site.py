"""A whole world for a test: a release server, a root, an application that really runs, and the real command line."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from examples.release_server import Release, ReleaseServer
from tests import warm
from tests.forks import Done as Done
from updater.cli.app import EXITS, exit_codes
from updater.deployment.transaction import Request
from updater.layout import Layout
from updater.operations import beginning

UPDATER = Path(sys.executable).with_name("updater")
REPOSITORY = "example/app"

SERVE = """
import os, signal, socket, sys, threading, time  # not pathlib: it takes half as long to start as all of this
def told(name):
    with open(os.path.join(os.path.dirname(__file__), name)) as file:
        return file.read().strip()
VERSION, BEHAVIOUR = told("VERSION"), told("behaviour")
if BEHAVIOUR == "crash":
    raise KeyError("exchange")
if BEHAVIOUR == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if BEHAVIOUR == "dies":
    threading.Timer(0.9, lambda: os._exit(7)).start()
if BEHAVIOUR == "mute":
    time.sleep(3600)
if BEHAVIOUR == "family":
    import subprocess
    subprocess.Popen(["sleep", "3600"])
    subprocess.Popen(["sleep", "3600"], start_new_session=True)
def answer(connection):
    with connection:
        if connection.recv(65536):
            status = "500 Internal Server Error" if BEHAVIOUR == "sick" else "200 OK"
            body = f"{VERSION} {os.environ.get('UPDATER_TRIAL', 'no')} says 'the exchange is down'".encode()
            connection.sendall(f"HTTP/1.0 {status}\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n".encode() + body)
print("serving", VERSION, flush=True)
listening = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))  # http.server takes three times as long to start
while True:
    threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()
"""

CONFIGURATION = """
[app]
name = "app"
[source]
{source}
[releases]
keep = {keep}
min_free = {min_free}
[shared]
"data" = "data"
[processes.web]
command = ["python", "serve.py"]
env = {{ PORT = "{port}" }}
stop_timeout = {stop_timeout}
[[processes.web.probes]]
type = "http"
url = "http://127.0.0.1:{port}/"
timeout = 2
[health]
successes = 2
interval = {interval}
timeout = {timeout}
watch = {watch}
"""


def free_port() -> int:
    """A port that nobody listens on, below those that systems give to outgoing connections: none of these takes it meanwhile. Each
    process that runs tests has its own: two that draw the same one would only meet when both listen."""
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 32
    while True:
        port = random.SystemRandom().randrange(10_000, 31_968, 32) + mine
        with socket.socket() as listening, contextlib.suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port


def eventually(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Wait for a condition and return its value; fail the test if it does not come true."""
    deadline = (asked := time.monotonic()) + seconds
    while not (found := condition()):
        answered = time.monotonic()
        assert answered < deadline, f"not within {seconds} s: {what}"
        time.sleep(max(0.02, min(answered - asked, 0.2)))  # what is waited for needs the processor as well
        asked = time.monotonic()
    return found


def tree(version: str, behaviour: str = "good", **more: str) -> dict[str, tuple[bytes, str]]:
    """The files of a release of the application."""
    files = {
        "serve.py": SERVE,
        "behaviour": f"{behaviour}\n",
        "VERSION": f"{version.removeprefix('v')}\n",
        **more,
    }
    return {name: (content.encode(), "100644") for name, content in files.items()}


def documented(arguments: Sequence[str], code: int) -> bool:
    """Whether a command may end with this exit code, by its own --help. Killed it may be at any time."""
    words = [word for word in arguments if not word.startswith("-")]
    names = [" ".join(words[at : at + many]) for at in range(len(words)) for many in (2, 1)]
    command = next((name for name in names if name in EXITS), None)
    return code < 0 or command is None or code in exit_codes(command)


@dataclass
class Site:
    """One root, its source and its application."""

    place: Path
    server: ReleaseServer
    releases: list[Release]
    settings: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict)
    name: str = "the root"

    def __post_init__(self) -> None:
        self.root = self.place / self.name
        self.layout = Layout(self.root)
        beginning.init(self.root, name=None, repository=REPOSITORY, artifacts=None)  # as `updater init` does
        self.configure()

    def configure(self, **settings: Any) -> None:
        self.settings.update(settings)
        values = {
            "keep": 5,
            "min_free": 10**6,  # tests have small disks
            "stop_timeout": 5,
            "timeout": 6,
            "interval": 0.1,
            "watch": 0.3,
            "port": self.port,
            "extra": "",
            **self.settings,
        }
        values.setdefault(
            "source",
            f'repository = "{REPOSITORY}"\napi_url = "{self.server.api_url}"\nconnect_timeout = 2\nstall_timeout = 2',
        )
        self.layout.config.write_text(CONFIGURATION.format(**values) + values["extra"])

    def publish(
        self, tag: str, behaviour: str = "good", *, files: Mapping[str, str] | None = None, **about: Any
    ) -> Release:
        number = len(self.releases)
        when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
        release = Release(tag, tree(tag, behaviour, **(files or {})), published=when, **about)
        self.releases.append(release)
        return release

    def command(self, *arguments: str) -> list[str]:
        return [str(UPDATER), *arguments]

    def env(self) -> dict[str, str]:
        clean = {
            name: value for name, value in os.environ.items() if name not in ("UPDATER_ROOT", "GITHUB_TOKEN")
        }
        return {**clean, "UPDATER_ROOT": str(self.root), "NO_PROXY": "127.0.0.1", **self.environment}

    def updater(self, *arguments: str, timeout: float = 120) -> Done:
        """Run the real command line."""
        env = self.env()
        if arguments[0] == "init":
            env.pop("UPDATER_ROOT")
        done = subprocess.run(
            self.command(*arguments), env=env, cwd=self.place, capture_output=True, text=True, timeout=timeout,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert (
            "Traceback (most recent call last)" not in done.stderr
            or "-v" in arguments
            or "log:" in done.stderr
        ), done.stderr
        assert documented(arguments, done.returncode), (
            f"{arguments} ends with {done.returncode}: {done.stdout}{done.stderr}"
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the real command line and do not wait for it."""
        return subprocess.Popen(
            self.command(*arguments), env=self.env(), cwd=self.place, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def deployed(self, *tags: str) -> None:
        """Publish good releases and deploy them one after the other. What a deployment does, by its worker; the command line that
        starts it has its own tests."""
        for tag in tags:
            self.publish(tag)
            if sys.platform == "linux" and self.command() == [str(UPDATER)]:
                request = Request("deploy", tag, user=getpass.getuser())
                answer = warm.deploy(self.root, request.as_json(), self.env())
                assert answer.get("ended", {}).get("outcome") == "succeeded", json.dumps(answer)[:4000]
            else:
                done = self.updater("deploy", tag)
                assert done.code == 0, done.text

    def status(self) -> Any:
        done = self.updater("--json", "status")
        assert done.code == 0, done.text
        return done.json

    def current(self) -> str | None:
        return (
            os.readlink(self.layout.current).removeprefix("releases/")
            if self.layout.current.is_symlink()
            else None
        )

    def answer(self) -> str | None:
        """What the application answers; None if it does not."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/", timeout=5) as answered:
                return str(answered.read().decode())
        except urllib.error.HTTPError as failure:
            return f"HTTP {failure.code}"
        except OSError:
            return None

    def runs(self, version: str, processes: tuple[str, ...] = ("web",)) -> None:
        """The release is in service by every fact there is: link, VERSION, good, process, answer."""
        assert self.current() == version
        assert (self.root / "VERSION").read_text().strip() == version.removeprefix("v").split("+")[0]
        found = self.status()
        assert found["in_service"]["version"] == version
        seen = [(it["name"], it["state"], it["release"]) for it in found["processes"]]
        assert seen == [(name, "running", version) for name in processes], (seen, self.history()[-1:])
        assert (self.answer() or "").startswith(version.removeprefix("v").split("+")[0] + " ")

    def is_clean(self) -> None:
        """Nothing is left over: no lock holder, no open deployment, no temporary name, no stray process."""
        names = [path for path in self.root.rglob("*") if path.name.startswith(".tmp-")]
        assert names == []
        assert list(self.layout.journal.glob("*.jsonl")) == []
        assert not self.layout.trial.exists()
        assert not (self.layout.run / "child").exists()

    def processes(self, *, marked: bool = False) -> list[psutil.Process]:
        """Every process that has to do with this root by its directory or command; ``marked``: or by its environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = [process.cwd(), *process.cmdline()]
                if marked:
                    words.append(process.environ().get("UPDATER_ROOT", ""))
                if process.pid != os.getpid() and any(str(self.place) in word for word in words):
                    found.append(process)
        return found

    def running(self, word: str) -> list[psutil.Process]:
        """Those with a word in their command; one that ends meanwhile is none."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if word in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def history(self) -> list[Any]:
        return json.loads(self.layout.history.read_text()) if self.layout.history.exists() else []

    def end(self) -> None:
        """Kill everything that the test started, also what has only the root's mark in its environment."""

        def gone() -> bool:
            living = [it for it in self.processes(marked=True) if it.status() != psutil.STATUS_ZOMBIE]
            for process in living:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            return not living

        eventually(gone, "every process is gone")


def is_over(process: psutil.Process) -> bool:
    """Whether a process runs no more: a zombie runs nothing, and may go while it is looked at."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def plain(text: str) -> str:
    """Text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
