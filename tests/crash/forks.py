"""Runs parts of updater in forks of a process that has everything loaded: some milliseconds instead of half a second each.

From the fork on everything is as in the real thing: its session, directory, environment, descriptors and output. A fork can be put
under a watch (:mod:`tests.crash.calls`) before it begins.

    with Forks() as forks:
        running = forks.start(root, "command", ["status", "--json"], env)
        running.wait()                      # exit status and output
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

REPOSITORY_TOP = Path(__file__).resolve().parents[2]


@dataclass
class Ended:
    """How a fork ended. ``code``: its exit status, negative for the signal that killed it."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Running:
    """A fork at work."""

    def __init__(self, server: Forks, pid: int, outputs: tuple[Path, Path]) -> None:
        self.server, self.pid, self.outputs = server, pid, outputs

    def wait(self) -> Ended:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            ending = os.pidfd_open(self.pid)
            try:
                poll = select.poll()
                poll.register(ending, select.POLLIN)
                poll.poll()
            finally:
                os.close(ending)
        code = self.server.ask({"wait": self.pid})["code"]
        out, err = (it.read_text(errors="replace") for it in self.outputs)
        return Ended(code, out, err)


class Forks:
    """The process that forks. ``place``: where outputs lie; ``package``: a directory whose ``updater`` is run instead of ours. ``days``: by
    how many the clock is wrong in what is started from now on."""

    def __init__(self, place: Path, package: Path | None = None) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.place = place
        top = str(REPOSITORY_TOP)
        path = os.pathsep.join([str(package), top]) if package else top
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forks"], cwd=package or top,
            env={**os.environ, "UPDATER_WORKER": "1", "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.days = 0
        self._number = 0
        self._asking = threading.Lock()

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate()

    def family(self) -> list[int]:
        """Every process that was started in a fork and still lives, however it detached itself; zombies are reaped first."""
        self.ask({"reap": True})
        return below(self.process.pid)

    def kill_family(self) -> None:
        """Kill all of these, and wait until none is left."""
        while living := self.family():
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    def ask(self, question: Mapping[str, Any]) -> Any:
        assert self.process.stdin and self.process.stdout
        with self._asking:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            said = self.process.stdout.readline()
        if not said:
            raise RuntimeError("the process that forks has died")
        return json.loads(said)

    def start(
        self, root: Path, what: str, arguments: Sequence[str], env: Mapping[str, str], *, trap: Path | None = None,
        reads: bool = False,
    ) -> Running:  # fmt: skip
        """Begin ``what``: ``worker`` with a request, ``command`` with the command line's words, or any other ``program``; ``trap``:
        under a watch."""
        self._number += 1
        outputs = (self.place / f"out-{self._number % 8}", self.place / f"err-{self._number % 8}")
        asked = {
            "root": str(root), "what": what, "arguments": list(arguments), "env": dict(env), "reads": reads, "days": self.days,
            "trap": str(trap) if trap else None, "outputs": [str(it) for it in outputs],
        }  # fmt: skip
        return Running(self, self.ask(asked)["pid"], outputs)

    def run(self, root: Path, what: str, arguments: Sequence[str], env: Mapping[str, str]) -> Ended:
        return self.start(root, what, arguments, env).wait()


def _serve() -> None:
    ctypes.CDLL(None).prctl(
        36, 1, 0, 0, 0
    )  # PR_SET_CHILD_SUBREAPER: whatever a fork leaves behind becomes our child
    ended: dict[int, int] = {}
    forked: set[int] = set()  # numbers come again: how an orphan with the same one ended is nobody's business
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            while asked["wait"] not in ended:
                pid, status = os.waitpid(-1, 0)
                if pid in forked:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            forked.discard(asked["wait"])
            print(json.dumps({"code": ended.pop(asked["wait"])}), flush=True)
            continue
        if "reap" in asked:
            with contextlib.suppress(ChildProcessError):
                while (found := os.waitpid(-1, os.WNOHANG))[0]:
                    if found[0] in forked:
                        ended[found[0]] = os.waitstatus_to_exitcode(found[1])
            print("{}", flush=True)
            continue
        child = os.fork()
        if child == 0:
            _work(asked)
        forked.add(child)
        print(json.dumps({"pid": child}), flush=True)
    kill_below(os.getpid())  # whoever asked has ended, or died


def below(pid: int) -> list[int]:
    """Every process that descends from this one."""
    found, look = [], [pid]
    while look:
        pid = look.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                look += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
        found.append(pid)
    return found[1:]


def kill_below(pid: int) -> None:
    """Kill all of them, and wait until none is left."""
    while living := below(pid):
        for it in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(it, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.001)


def _work(asked: Mapping[str, Any]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.chdir(asked["root"])
        os.environ.clear()
        os.environ.update(asked["env"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        made = [
            os.open(it, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644) for it in asked["outputs"]
        ]
        for mine, standard in ((nothing, 0), (made[0], 1), (made[1], 2)):
            os.dup2(mine, standard)
        os.closerange(3, 1024)
        _wrong_clock(asked["days"])
        if asked["trap"]:
            from tests.crash import calls

            calls.trap(asked["trap"], reads=asked["reads"])
        code = _run(asked["what"], asked["root"], asked["arguments"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wrong_clock(days: int) -> None:
    """Have this process's clock be wrong by so many days; SIGUSR1 and SIGUSR2 let it jump by a year. It costs nothing until then."""

    def jump(number: int, _: object) -> None:
        _travel(365 if number == signal.SIGUSR1 else -365)

    signal.signal(signal.SIGUSR1, jump)
    signal.signal(signal.SIGUSR2, jump)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.siginterrupt(number, False)  # a clock that jumps interrupts no call
    if days:
        _travel(days)


def _travel(days: int) -> None:
    import time_machine

    time_machine.travel(datetime.now(UTC) + timedelta(days=days), tick=True).start()


def _run(what: str, root: str, arguments: list[str]) -> int:
    if what == "worker":
        from updater.deployment import worker

        answers = os.dup(1)
        return worker.main([root, str(answers), *arguments])
    if what == "program":
        os.execvpe(arguments[0], arguments, dict(os.environ))
    from updater import cli

    sys.argv = ["updater", *arguments]
    cli.main()
    return 0


LOADED = (
    "click", "http.client", "psutil", "pyseccomp", "requests", "ssl", "sqlite3", "tests.crash.calls", "time_machine", "updater.backups.create",
    "updater.cli.app", "updater.cli.backup", "updater.cli.deploy", "updater.cli.keep", "updater.cli.look", "updater.cli.run", "updater.cli.status",
    "updater.configfile", "updater.configkeys", "updater.deployment.phases.fetching",
    "updater.deployment.worker", "updater.environments.building", "updater.gate", "updater.health.http", "updater.health.probes",
    "updater.operations.backing", "updater.operations.deploying", "updater.operations.keeping", "updater.operations.looking", "updater.operations.running", "encodings.ascii", "encodings.utf_8_sig", "updater.sources.github",
)  # fmt: skip
"""What is loaded before anything is forked."""

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is loaded is touched by no fork's collection, so its memory stays shared
    _serve()
