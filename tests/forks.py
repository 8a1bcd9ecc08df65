"""Runs parts of updater in forks of a process that has everything loaded: some milliseconds instead of half a second each.

From the fork on everything is as in the real thing: its session, directory, environment, descriptors and output. What a fork does is
a list of steps, functions that can be pickled; those before the last one prepare it.

    forks = Forks(COMMANDS)
    done = forks.run(partial(command, ["status", "--json"]), cwd=root, env=env)
    forks.end()
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from updater.cli import app

REPOSITORY_TOP = Path(__file__).resolve().parents[1]

WORKER = (
    "http.client", "psutil", "requests", "ssl", "tests.forks", "updater.deployment.phases.fetching", "updater.deployment.worker",
    "updater.environments.building", "updater.gate", "updater.health.http", "updater.health.probes", "updater.sources.github",
)  # fmt: skip
"""What a deployment loads when it needs it."""

COMMANDS = (
    *WORKER, *(f"updater.cli.{it}" for it in sorted({*app.MODULES.values()} - {"serve"})),
    "encodings.ascii", "encodings.utf_8_sig", "sqlite3", "updater.backups.create", "updater.configfile", "updater.configkeys",
    "updater.operations.backing", "updater.operations.deploying", "updater.operations.keeping", "updater.operations.looking",
    "updater.operations.running",
)  # fmt: skip
"""What the command line loads besides; not the dashboard, which is not run in forks."""

Step = Callable[[], int | None]
"""Something that a fork does. The last one's result is the exit status."""


# what can be done in a fork


def command(words: Sequence[str]) -> int:
    """The whole command line."""
    from updater import cli

    sys.argv = ["updater", *words]
    cli.main()
    return 0


def worker(root: str, request: str, *, log: bool = True) -> int:
    """A deployment's process, as ``updater.operations.deploying`` starts it; its answers are the output. ``log``: what else it says goes
    to its log, not to the output as well."""
    from updater.deployment import worker

    os.environ["UPDATER_WORKER"] = "1"
    answers = os.dup(1)
    if log:
        place = os.path.join(root, ".updater", "worker.log")
        file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for standard in (1, 2):
            os.dup2(file, standard)
        os.close(file)
    return worker.main([root, str(answers), request])


def program(words: Sequence[str]) -> NoReturn:
    """Any other program."""
    os.execvp(words[0], list(words))


# who asks for it


@dataclass
class Done:
    """How a command ended. ``code``: its exit status, negative for the signal that killed it."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Running:
    """A fork at work. It has to be waited for, once."""

    pid: int
    _number: int
    _forks: Forks
    _ending: int
    """A descriptor of the process: its pid may be another one's after its end."""
    _outputs: tuple[int, int]

    def wait(self) -> Done:
        poll = select.poll()
        poll.register(self._ending, select.POLLIN)
        poll.poll()  # not in the process that forks: others may ask it meanwhile
        code = self._forks.ask("wait", self._number)
        out, err = (os.pread(it, os.fstat(it).st_size, 0).decode(errors="replace") for it in self._outputs)
        for fd in (self._ending, *self._outputs):
            os.close(fd)
        return Done(code, out, err)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._ending, signal.SIGKILL)


class Forks:
    """A process without threads that has loaded these modules, and forks. It can be asked by several threads.

    ``package``: a directory whose ``updater`` is run instead of ours. ``family``: whatever is started in a fork stays below this process,
    can be found and killed, and goes with it, also when whoever asked is killed; otherwise it outlives all this, as in the real thing.
    """

    def __init__(self, modules: Sequence[str], *, package: Path | None = None, family: bool = False) -> None:
        path = os.pathsep.join(str(it) for it in (package, REPOSITORY_TOP) if it)
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", str(there.fileno()), "family" if family else "", *modules],
                cwd=package or REPOSITORY_TOP, env={**os.environ, "UPDATER_WORKER": "1", "PYTHONPATH": path},
                pass_fds=(there.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._numbers = itertools.count(1)
        self._asking = threading.RLock()

    @property
    def living(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._here.close()
        self._process.wait()

    def start(self, *steps: Step, cwd: Path, env: Mapping[str, str]) -> Running:
        number = next(self._numbers)
        outputs = os.memfd_create("out"), os.memfd_create("err")
        with self._asking:  # it is reaped at a question, and its pid is free from then on
            pid = self.ask("start", number, str(cwd), dict(env), steps, fds=outputs)
            return Running(pid, number, self, os.pidfd_open(pid), outputs)

    def run(self, *steps: Step, cwd: Path, env: Mapping[str, str]) -> Done:
        return self.start(*steps, cwd=cwd, env=env).wait()

    def family(self) -> list[int]:
        """Every process that was started in a fork and still lives, however it detached itself."""
        self.ask("reap")
        return below(self._process.pid)

    def kill_family(self) -> None:
        """Kill all of these, and wait until none is left."""
        self.ask("kill")

    def ask(self, *question: Any, fds: Sequence[int] = ()) -> int:
        with self._asking:
            try:
                socket.send_fds(self._here, [pickle.dumps(question)], fds)
                said = self._here.recv(100)
            except BaseException:
                self.end()  # the answer must not be taken for that to the next question
                raise
        if not said:
            raise RuntimeError("the process that forks has died")
        return int(said)


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


# the process that forks


class _Server:
    def __init__(self, asker: socket.socket) -> None:
        self.asker = asker
        self.running: dict[int, int] = {}
        """Forks by their pid. A pid comes again, also as an orphan's, whose end is nobody's business; a fork's number does not."""
        self.ended: dict[int, int] = {}
        """Exit statuses by number."""

    def serve(self) -> None:
        """Answer until whoever asks has closed the socket, or died."""
        while True:
            text, fds, *_ = socket.recv_fds(self.asker, 1 << 20, 2)
            if not text:
                return
            what, *about = pickle.loads(text)
            self.reap()
            answer = 0
            if what == "start":
                answer = self.fork(fds, *about)
            elif what == "wait":
                while about[0] not in self.ended:  # traced, it is told of later
                    time.sleep(0.001)
                    self.reap()
                answer = self.ended.pop(about[0])
            elif what == "kill":
                self.kill_all()
            self.asker.send(str(answer).encode())

    def fork(
        self, outputs: Sequence[int], number: int, cwd: str, env: dict[str, str], steps: Sequence[Step]
    ) -> int:
        child = os.fork()
        if child == 0:
            _work(outputs, cwd, env, steps)
        for fd in outputs:
            os.close(fd)
        self.running[child] = number
        return child

    def reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                if pid in self.running:
                    self.ended[self.running.pop(pid)] = os.waitstatus_to_exitcode(status)

    def kill_all(self) -> None:
        while living := below(os.getpid()):
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.reap()
            time.sleep(0.001)


def _work(outputs: Sequence[int], cwd: str, env: Mapping[str, str], steps: Sequence[Step]) -> NoReturn:
    code: int | None = 1
    try:
        os.setsid()
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for standard, mine in enumerate((nothing, *outputs)):
            os.dup2(mine, standard)
        os.closerange(3, 1024)
        for step in steps:
            code = step()
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        os._exit(code or 0)


def _main(fd: str, family: str, *modules: str) -> None:
    server = _Server(socket.socket(fileno=int(fd)))
    if family:
        # PR_SET_CHILD_SUBREAPER: whatever a fork leaves behind becomes our child
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.disable()  # a fork lives too short for it
    gc.freeze()  # what is loaded is touched by no fork's collection, so its memory stays shared
    server.serve()
    if family:
        server.kill_all()


if __name__ == "__main__":
    _main(*sys.argv[1:])
