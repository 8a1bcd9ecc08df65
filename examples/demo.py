"""The demo: a real application goes from release to release, meets a broken one, and comes back by itself.

Everything goes through the command line, over HTTP to a release server on loopback; what each step must show is checked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CLONE = HERE.parent
UPDATER = Path(sys.executable).with_name("updater")
PROCESSES = """
[shared]
"config/settings.toml" = "config/settings.toml"
"data" = "data"

[gate]
sqlite = {{ path = "data/trades.db", busy_if = "SELECT group_concat(symbol) FROM trades WHERE status = 'open'" }}
on_busy = "wait"
wait = 120
drain = ["python", "-m", "bot.pause"]
resume = ["python", "-m", "bot.pause", "--over"]

[processes.bot]
command = ["python", "-m", "bot"]
stop_timeout = 10
[[processes.bot.probes]]
type = "file"
path = "data/heartbeat"
max_age = 10

[processes.dashboard]
command = ["python", "-m", "dashboard"]
stop_timeout = 10
[[processes.dashboard.probes]]
type = "http"
url = "http://127.0.0.1:{port}/health"

[health]
successes = 3
interval = 0.3
watch = {watch}
"""


class NotSo(Exception):
    """The demo did not show what it should."""


def must(fact: object, text: str) -> None:
    if not fact:
        raise NotSo(text)
    print(f"\033[32m  ✓ {text}\033[0m" if sys.stdout.isatty() else f"  ✓ {text}", flush=True)


class Demo:
    def __init__(self, root: Path, watch: float) -> None:
        self.root = root
        self.port = _free_port()
        self.watch = watch
        self.settings = root / "shared" / "config" / "settings.toml"
        self.environment = {**os.environ, "UPDATER_ROOT": str(root)}

    def updater(self, *arguments: str, expect: int = 0) -> str:
        """Run a command as a person would, show it, and hold its exit code against the documented one."""
        print(f"\n$ updater {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [UPDATER, *arguments], env=self.environment, cwd=CLONE, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        print("\n".join(f"  {line}" for line in done.stdout.splitlines()), flush=True)
        if done.returncode != expect:
            raise NotSo(f"updater {' '.join(arguments)} exited with {done.returncode} and not with {expect}")
        return done.stdout

    def status(self) -> Any:
        done = subprocess.run(
            [UPDATER, "--json", "status"], env=self.environment, stdout=subprocess.PIPE, check=True
        )
        return json.loads(done.stdout)

    def page(self) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/", timeout=10) as answer:
            return str(answer.read().decode())

    def in_service(self, version: str) -> None:
        """What is in service, by the link, by the processes, and by what the page answers."""
        found = self.status()
        must(found["in_service"]["version"] == version == found["good"], f"{version} is in service, and good")
        releases = {it["name"]: it["release"] for it in found["processes"] if it["state"] == "running"}
        must(releases == {"bot": version, "dashboard": version}, f"bot and dashboard run from {version}")
        must(
            f"<small>{version.removeprefix('v')}</small>" in self.page(),
            f"the page on port {self.port} answers with {version}",
        )

    def run(self, api_url: str) -> None:
        self.updater("init", str(self.root), "--repo", "example/tradebot")
        self.configure(api_url)
        self.updater("preflight")

        self.updater("deploy", "v1.0.0")
        self.in_service("v1.0.0")

        self.updater("check")
        self._refused_while_a_trade_is_open()

        print("\nOnce it is closed, the bot is told to open no more, and its own are waited for:")
        self._trade("UPDATE trades SET status = 'closed' WHERE symbol = 'ETH/EUR'")
        self.updater("deploy", "v1.1.0")
        self.updater("status")
        self.in_service("v1.1.0")
        must("Profit of the trades" in self.page(), "the page shows what is new in v1.1.0")

        print("\nA release that crashes at its start:")
        said = self.updater("deploy", "v1.2.0", expect=4)
        must("KeyError: 'exchange'" in said, "the reason is told: KeyError: 'exchange'")
        self.in_service("v1.1.0")

        print("\nA release that is healthy at first, and dies in its watch window:")
        said = self.updater("deploy", "v1.3.0", expect=4)
        must("MemoryError" in said, "the reason is told: MemoryError")
        self.in_service("v1.1.0")

        print("\nBack to an older release and forward again, without the network:")
        self.updater("activate", "v1.0.0")
        self.in_service("v1.0.0")
        self.updater("activate", "v1.1.0")
        self.in_service("v1.1.0")

        print("\nA release with a new setting, and back:")
        before = self.settings.read_text(encoding="utf-8")
        said = self.updater("deploy", "v1.4.0")
        self.in_service("v1.4.0")
        must("added: exchange.name" in said, "the new setting is told")
        after = self.settings.read_text(encoding="utf-8")
        must(
            after.startswith(before) and "[exchange]" in after, "it is in the file, below all that was there"
        )
        self.updater("rollback")
        self.in_service("v1.1.0")
        must(self.settings.read_text(encoding="utf-8") == before, "v1.1.0 has its own settings again")

        self.updater("verify", "--all")
        self.updater("history")

        self._a_backup_behind_each()
        self._over_http()

    def _a_backup_behind_each(self) -> None:
        print("\nBehind each of them there is a backup:")
        last = self.history()[-1]
        must(
            f"{last['backup']}" in self.updater("backup", "list"),
            "the backup that the history names is there",
        )
        self.updater("backup", "verify", last["backup"])
        out = self.root / "out"
        self.updater("backup", "restore", last["backup"], "--to", str(out))
        with contextlib.closing(sqlite3.connect(out / "data" / "trades.db")) as kept:
            found = kept.execute("SELECT symbol, status FROM trades ORDER BY id").fetchall()
        must(("ETH/EUR", "closed") in found, f"it holds the {len(found)} trades of that moment")

    def _over_http(self) -> None:
        print("\nThe same from a browser, or from any program:")
        with self.dashboard() as call:
            must(
                call("GET", "system/status")["in_service"]["version"] == "v1.1.0",
                "the API tells what is in service",
            )
            begun = call("POST", "update/start", {"tag": "v1.4.0", "reason": "from the demo"})
            last = ""
            while (found := call("GET", "update/progress")["deployment"])["outcome"] is None:
                if found["phase"] not in (None, last):
                    print(f"  {found['phase']}", flush=True)
                last = found["phase"]
                time.sleep(0.1)
            must(
                found["id"] == begun["id"] and found["outcome"] == "succeeded",
                "a deployment was started and watched over HTTP",
            )
            self.in_service("v1.4.0")

    @contextlib.contextmanager
    def dashboard(self) -> Iterator[Callable[..., Any]]:
        """`updater serve` as long as it is needed; yields what calls its API."""
        command = [UPDATER, "--json", "serve", "--port", "0"]
        print("\n$ updater serve --port 0", flush=True)
        with subprocess.Popen(
            command, env=self.environment, cwd=CLONE, stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                text = ""
                while not text.rstrip().endswith("}"):
                    if not (line := server.stdout.readline()):
                        raise NotSo("the dashboard did not start")
                    text += line
                url = json.loads(text)["url"]
                shown = subprocess.run(
                    [UPDATER, "--json", "serve", "--show-token"],
                    env=self.environment,
                    stdout=subprocess.PIPE,
                    check=True,
                )
                print(f"  dashboard  {url}", flush=True)
                yield partial(_call, url, json.loads(shown.stdout)["token"])
            finally:
                server.terminate()

    def history(self) -> Any:
        return json.loads((self.root / "shared" / "logs" / "update_history.json").read_bytes())

    def _refused_while_a_trade_is_open(self) -> None:
        print("\nNobody is interrupted in the middle of a trade:")
        self._trade(
            "INSERT INTO trades (opened_at, symbol, side, quantity, price, status)"
            " VALUES ('by hand', 'ETH/EUR', 'buy', 1, 2500, 'open')"
        )
        before = {it["name"]: it["pid"] for it in self.status()["processes"]}
        self._set('on_busy = "wait"', 'on_busy = "refuse"')
        said = self.updater("deploy", "v1.1.0", expect=9)
        must("ETH/EUR" in said, "the open trade is named")
        must({it["name"]: it["pid"] for it in self.status()["processes"]} == before, "nothing was stopped")
        self.in_service("v1.0.0")
        self._set('on_busy = "refuse"', 'on_busy = "wait"')

    def _trade(self, statement: str) -> None:
        """What a person does by hand, past the bot."""
        with (
            contextlib.closing(sqlite3.connect(self.root / "shared" / "data" / "trades.db")) as trades,
            trades,
        ):
            trades.execute(statement)

    def _set(self, old: str, new: str) -> None:
        file = self.root / "updater.toml"
        file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")

    def configure(self, api_url: str) -> None:
        """Point the configuration that `init` wrote at the server, and describe the processes."""
        file = self.root / "updater.toml"
        text = file.read_text(encoding="utf-8")
        text = text.replace('# api_url = "https://api.github.com"', f'api_url = "{api_url}"')
        lines = [line for line in text.splitlines() if line not in ("[shared]", "[gate]", "[health]")]
        file.write_text(
            "\n".join(lines) + PROCESSES.format(port=self.port, watch=self.watch), encoding="utf-8"
        )
        settings = (HERE / "tradebot" / "app" / "config" / "settings.toml").read_text(encoding="utf-8")
        self.settings.write_text(settings.replace("port = 8080", f"port = {self.port}"), encoding="utf-8")


def _call(url: str, token: str, method: str, path: str, body: Any = None) -> Any:
    """One request to the API."""
    request = urllib.request.Request(
        f"{url}api/{path}", method=method, data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )  # fmt: skip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def release_server() -> Iterator[str]:
    """The release server, as a process; yields the address of its API."""
    command = [
        sys.executable,
        "-m",
        "examples.release_server",
        "--dist",
        HERE / "tradebot" / "dist",
        "--repo",
        "example/tradebot",
    ]
    with subprocess.Popen(command, cwd=CLONE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def stop(root: Path) -> None:
    """Stop what an earlier demo may have left running."""
    if (root / "updater.toml").is_file():
        subprocess.run([UPDATER, "--root", root, "-q", "force-stop", "--yes"], check=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./demo", description=__doc__)
    parser.add_argument(
        "--root",
        type=Path,
        default=CLONE / ".demo",
        help="where (default: .demo in the clone); it is removed first",
    )
    parser.add_argument(
        "--keep-running", action="store_true", help="leave the application running at the end"
    )
    parser.add_argument(
        "--watch", type=float, default=8, help="seconds of the watch window (default: %(default)s)"
    )
    given = parser.parse_args()
    root: Path = given.root.absolute()
    stop(root)
    if root.exists() and not (root / "updater.toml").is_file() and any(root.iterdir()):
        parser.error(f"{root} is not empty and no root of an earlier demo")
    shutil.rmtree(root, ignore_errors=True)
    demo = Demo(root, given.watch)
    try:
        with release_server() as api_url:
            demo.run(api_url)
    except NotSo as failure:
        print(f"\nthe demo FAILED: {failure}", file=sys.stderr)
        stop(root)
        return 1
    if given.keep_running:
        print(f"\nThe application runs: http://127.0.0.1:{demo.port}/  Stop it: updater --root {root} stop")
    else:
        stop(root)
    shown = root.relative_to(CLONE) if root.is_relative_to(CLONE) else root
    print(f"\nAll of it was so. Look around: .venv/bin/updater --root {shown} releases")
    print(f"The dashboard: .venv/bin/updater --root {shown} serve, then http://127.0.0.1:5000/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
