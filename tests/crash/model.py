"""What the model test needs: commands in forks of a process that has everything loaded, and what a root should be like.

``Forks`` runs the whole command line, or a deployment's worker, in a child of its own session, with its own environment, directory
and output; from the fork on everything is as in the real one. A worker, or a command, can kill itself at its n-th call that
changes the disk: the calls are the operating system's own (``os.fsync``, ``os.replace`` ...), nothing of updater is replaced.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.site import Done
from tests.warm import LOADED

REPOSITORY_TOP = Path(__file__).resolve().parents[2]
Json = dict[str, Any]


@dataclass
class Running:
    """A command that runs in a fork."""

    words: tuple[str, ...]
    pid: int
    _out: IO[bytes]
    _err: IO[bytes]
    _status: IO[bytes]

    def wait(self) -> Done:
        """Its end. A negative code is the signal that killed it."""
        status = self._status.readline()
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode())
            file.close()
        self._status.close()
        assert status, f"the process of {self.words} was lost"
        return Done(os.waitstatus_to_exitcode(int(status)), *texts)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


CALLS = ("fsync", "replace", "symlink", "unlink", "mkdir", "link", "write")


def arm(name: str, number: int) -> list[int]:
    seen = [0]
    real = getattr(os, name)

    def call(*arguments: Any, **more: Any) -> Any:
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)

    setattr(os, name, call)
    return seen


class Forks:
    """A process without threads that has loaded everything and forks for each command."""

    def __init__(self) -> None:
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.model", str(there.fileno())],
                cwd=REPOSITORY_TOP, pass_fds=(there.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        self._here.close()
        self._server.wait()

    def start(
        self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], request: Json | None = None,
        call: str = "", number: int = 0,
    ) -> Running:  # fmt: skip
        """Run ``updater WORDS``; with a request the worker that these words would start. It dies at the n-th ``call``, if given."""
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        reader, writer = os.pipe()
        job = {
            "words": list(words),
            "cwd": str(cwd),
            "env": dict(env),
            "request": request,
            "call": call,
            "number": number,
        }
        socket.send_fds(self._here, [json.dumps(job).encode()], [out.fileno(), err.fileno(), writer])
        os.close(writer)
        status = open(reader, "rb")  # noqa: SIM115
        return Running(tuple(words), int(status.readline()), out, err, status)


def _serve(connection: socket.socket) -> None:
    while True:
        text, fds, _flags, _address = socket.recv_fds(connection, 1 << 16, 3)
        if not text:
            return
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        if os.fork() == 0:
            connection.close()
            _watch(json.loads(text), *fds)
        for fd in fds:
            os.close(fd)


def _watch(job: Json, out: int, err: int, status: int) -> NoReturn:
    """The parent of the command: tells its pid and how it ended."""
    child = os.fork()
    if child == 0:
        os.close(status)
        _work(job, out, err)
    os.close(out)
    os.close(err)
    os.write(status, f"{child}\n".encode())
    os.write(status, f"{os.waitpid(child, 0)[1]}\n".encode())
    os._exit(0)


def _work(job: Json, out: int, err: int) -> NoReturn:
    code = 70
    try:
        os.setsid()
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["env"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        for mine, standard in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(mine, standard)
        os.closerange(3, 1024)
        if job["number"]:
            arm(job["call"], job["number"])
        if job["request"] is None:
            from updater.cli import app

            sys.argv = ["updater", *job["words"]]
            app.run()
        else:
            from updater.deployment import worker

            os.environ["UPDATER_WORKER"] = "1"
            root = os.environ["UPDATER_ROOT"]
            os.chdir(root)
            answers = os.dup(1)
            log = os.open(
                os.path.join(root, ".updater", "worker.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644
            )
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            code = worker.main([root, str(answers), json.dumps(job["request"])])
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


@dataclass(frozen=True)
class Published:
    """A release of the application: how it behaves, and which schema its migration makes (0: it has none)."""

    tag: str
    behaviour: str = "good"
    schema: int = 0
    writes: bool = False

    @property
    def viable(self) -> bool:
        """Whether it is healthy whenever it is started."""
        return self.behaviour in ("good", "breaks")

    @property
    def place(self) -> int:
        return int(self.tag.split(".")[1])


@dataclass
class Kept:
    """A backup: the rows in it, and the release whose data they are."""

    rows: frozenset[str]
    release: str | None
    label: bool = False


@dataclass
class Model:
    """What a root should be like, in the words of the design page."""

    published: dict[str, Published] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)
    bad: set[str] = field(default_factory=set)
    pinned: set[str] = field(default_factory=set)
    order: dict[str, int] = field(default_factory=dict)
    """Good releases, and their place in the order in which they were good."""
    current: str | None = None
    """What the link names, whether that is there or not."""
    good: str | None = None
    previous: str | None = None
    up: str | None = None
    """The release that the process runs from."""
    held: bool = False
    rows: set[str] = field(default_factory=set)
    ever: set[str] = field(default_factory=set)
    """Every row ever committed, but for those that somebody has pruned with their backups."""
    backups: dict[str, Kept] = field(default_factory=dict)
    """In the order in which they were made."""
    edited: dict[str, set[str]] = field(default_factory=dict)
    version_link: bool = True
    dates: list[str] = field(default_factory=list)
    """Installed releases, in the order in which they were installed."""

    @property
    def here(self) -> str | None:
        """The release in service; none where the link names nothing that is there."""
        return self.current if self.current in self.installed else None

    def viable(self, version: str | None) -> bool:
        return version is not None and self.published[version].viable

    def mend(self) -> None:
        """What a deployment does first with a link to nothing."""
        if self.current is not None and self.here is None:
            self.current = next((it for it in (self.up, self.good) if it in self.installed), self.current)

    def newest(self, *, force: bool) -> str | None:
        usable = [it for it in self.published if force or it not in self.bad]
        return max(usable, key=lambda it: self.published[it].place, default=None)

    def back(self, here: str | None) -> str | None:
        """Where a rollback leads: the last good one before, else the latest good of the others."""
        others = {
            v: at for v, at in self.order.items() if v in self.installed and v not in self.bad and v != here
        }
        mine = self.order.get(here) if here else None
        earlier = {v: at for v, at in others.items() if mine is not None and at < mine}
        return max(earlier or others, key=lambda v: others[v], default=None)

    def commit(self, kind: str, target: str) -> None:
        """A release has become good."""
        leaving = self.here
        places = [*self.order.values(), 0]
        if kind != "rollback" or target not in self.order:
            self.order[target] = max(places) + 1
        elif leaving in self.order and leaving is not None:
            self.order[leaving] = min(places) - 1
        self.bad.discard(target)
        self.current = self.good = self.up = target
        self.previous = self.back(target)
        self.version_link = True

    def install(self, version: str) -> None:
        if version not in self.installed:
            self.installed.add(version)
            self.dates.append(version)

    def remove(self, version: str) -> None:
        """Its directory has gone."""
        self.installed.discard(version)
        self.dates.remove(version)
        self.edited.pop(version, None)

    def prune(self, keep: int) -> set[str]:
        """Which releases may go, and do."""
        good = sorted(
            (v for v in self.installed if v in self.order and v not in self.bad), key=lambda v: -self.order[v]
        )
        bad = [v for v in reversed(self.dates) if v in self.bad]
        fetched = [v for v in reversed(self.dates) if v not in self.order and v not in self.bad]
        stays = {self.current, self.good, self.previous, self.up} | self.pinned
        gone = {v for v in (*good[keep:], *bad[1:], *fetched[keep:]) if v not in stays}
        for version in gone:
            self.remove(version)
            self.order.pop(version, None)
            self.pinned.discard(version)
        return gone

    def prune_backups(self, keep: int) -> set[str]:
        stays = set([*self.backups][-keep:]) | {name for name, it in self.backups.items() if it.label}
        for version in self.installed:
            own = [name for name, it in self.backups.items() if it.release == version]
            stays |= set(own[-1:])
        gone = set(self.backups) - stays
        for name in gone:
            del self.backups[name]
        return gone


if __name__ == "__main__":
    from updater.cli import app

    for name in (*LOADED, *(f"updater.cli.{it}" for it in sorted({*app.MODULES.values()} - {"serve"}))):
        importlib.import_module(name)
    _serve(socket.socket(fileno=int(sys.argv[1])))
