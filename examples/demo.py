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
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CLONE = HERE.parent
UPDATER = Path(sys.executable).with_name("updater")
PROCESSES = """
[shared]
"config/settings.toml" = "config/settings.toml"
"data" = "data"

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
        self._configure(api_url)
        self.updater("preflight")

        self.updater("deploy", "v1.0.0")
        self.in_service("v1.0.0")

        self.updater("check")
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

        self.updater("verify", "--all")
        self.updater("history")

    def _configure(self, api_url: str) -> None:
        """Point the configuration that `init` wrote at the server, and describe the processes."""
        file = self.root / "updater.toml"
        text = file.read_text(encoding="utf-8")
        text = text.replace('# api_url = "https://api.github.com"', f'api_url = "{api_url}"')
        lines = [line for line in text.splitlines() if line not in ("[shared]", "[health]")]
        file.write_text(
            "\n".join(lines) + PROCESSES.format(port=self.port, watch=self.watch), encoding="utf-8"
        )
        settings = (HERE / "tradebot" / "app" / "config" / "settings.toml").read_text(encoding="utf-8")
        place = self.root / "shared" / "config" / "settings.toml"
        place.write_text(settings.replace("port = 8080", f"port = {self.port}"), encoding="utf-8")


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
    print("\nAll of it was so. Look around: .venv/bin/updater --root .demo releases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
