"""Deployments in processes that need not load anything: for what a test begins with, never for what it tests.

A process of its own has loaded the worker once, has no threads, and forks for each deployment; from there on everything is as
in the real one (``updater.deployment.worker``): its session, its directory, its environment, its descriptor, its log. Two
thirds of the time that a small deployment takes are the start of Python and the loading of modules, twice over.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from updater.deployment import worker

REPOSITORY_TOP = Path(__file__).resolve().parents[1]


@functools.cache
def _server() -> subprocess.Popen[str]:
    """One for each process that runs tests; it ends with it."""
    made = subprocess.Popen(
        [sys.executable, "-m", "tests.warm"], cwd=REPOSITORY_TOP, env={**os.environ, "UPDATER_WORKER": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    atexit.register(made.communicate)
    return made


def deploy(root: Path, request: Mapping[str, Any], env: Mapping[str, str]) -> Any:
    """Run a deployment to its end. Returns the worker's last answer: ``ended`` with its record, or ``error``."""
    server = _server()
    assert server.stdin and server.stdout
    said = ""
    try:
        server.stdin.write(json.dumps({"root": str(root), "request": request, "env": dict(env)}) + "\n")
        server.stdin.flush()
        said = server.stdout.readline()
    finally:
        if (
            not said
        ):  # it has died, or the test was broken off: the next one gets no answer that is not its own
            _server.cache_clear()
            server.kill()
            server.communicate()
    return json.loads(said)


def _serve() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _work(asked, writer)
        os.close(writer)
        with open(reader, encoding="utf-8") as pipe:
            said = pipe.read().splitlines()
        os.waitpid(child, 0)
        print(said[-1] if said else json.dumps({"error": "it died without a word"}), flush=True)


def _work(asked: Mapping[str, Any], writer: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.chdir(asked["root"])
        os.environ.clear()
        os.environ.update(asked["env"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(
            os.path.join(asked["root"], ".updater", "worker.log"),
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
            0o644,
        )
        for mine, standard in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(mine, standard)
        os.closerange(3, writer)
        os.closerange(writer + 1, 1024)
        code = worker.main([asked["root"], str(writer), json.dumps(asked["request"])])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


LOADED = (
    "http.client", "psutil", "requests", "ssl", "updater.deployment.phases.fetching", "updater.environments.building", "updater.gate",
    "updater.health.http", "updater.health.probes", "updater.sources.github",
)  # fmt: skip
"""What a deployment loads when it needs it."""

if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    _serve()
