"""Runs the commands of one dump (``[backup.dumps.NAME]``): to write it, to check it, to put it back.

What they say may hold what their environment holds: no message of ours shows a value of that.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from updater.config import Config, DumpConfig
from updater.errors import DumpFailed
from updater.layout import Layout
from updater.piping import Finished
from updater.processes import commands
from updater.releases import service

Check = Callable[[], None] | None
Tell = Callable[[int], None] | None
"""Gets the bytes done so far."""

SAID = 12
"""Lines that are kept of what a command says."""

_HIDDEN_FROM = 4
"""Letters; shorter values are in every text by chance."""

_CHUNK = 1024**2


class Written(NamedTuple):
    """A dump as its command wrote it: bytes, their SHA-256, and what the command said."""

    size: int
    sha256: str
    said: str


@dataclass(frozen=True)
class Commands:
    """The commands of one dump, run in the release in service, or in the root when none is."""

    layout: Layout
    config: Config
    how: DumpConfig
    check: Check = None
    keep_fds: Sequence[int] = ()
    record: Path | None = None

    def dump(self, place: Path, tell: Tell = None) -> Written:
        """Write the dump into the new file ``place``, for us alone to read, and have it checked.

        Raises:
            DumpFailed: a command cannot be started, fails, does not end in time, or writes nothing.
            OSError: ``place`` cannot be written.
        """
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0) as file:
            spool = _Spool(file.fileno(), tell)
            done = self._run("dump", self.how.dump, on_output=spool.write)
        self._judge("dump", done)
        if not spool.size:
            raise self._failed("dump", "it wrote nothing", done)
        self._accept(place, spool.size)
        said = hide(" | ".join(done.tail(SAID).splitlines()), self.how.env)
        return Written(spool.size, spool.digest.hexdigest(), said)

    def _accept(self, place: Path, size: int) -> None:
        if not self.how.check:
            return
        done = self._feed("check", self.how.check, place, None)
        self._judge("check", done)
        if not done.taken:
            raise self._failed("check", f"it read nothing of the {size:,} bytes", done)

    def restore(self, place: Path, size: int, tell: Tell = None) -> None:
        """Put the dump in the file ``place`` of ``size`` bytes back.

        Raises:
            DumpFailed: the command cannot be started, fails, does not end in time, or leaves a part of it unread.
        """
        done = self._feed("restore", self.how.restore, place, tell)
        self._judge("restore", done)
        if done.taken < size:
            left = f"it exited with 0 but left {size - done.taken:,} of {size:,} bytes unread"
            raise self._failed("restore", left, done)

    def _feed(self, purpose: str, command: Sequence[str], place: Path, tell: Tell) -> Finished:
        with open(place, "rb", buffering=0) as file:
            return self._run(purpose, command, feed=_pieces(file.fileno(), tell))

    def _run(
        self,
        purpose: str,
        command: Sequence[str],
        *,
        on_output: Callable[[bytes], None] | None = None,
        feed: Iterator[bytes] | None = None,
    ) -> Finished:
        try:
            return commands.run(
                self.layout, service.in_service(self.layout).release, command,
                timeout=self.how.timeout, env=self.how.env, secrets=self.config.own_variables,
                keep_fds=self.keep_fds, record=self.record, on_output=on_output, feed=feed, check=self.check,
            )  # fmt: skip
        except OSError as failure:
            if failure.filename is None:
                raise  # the spool could not be written; a command that cannot be started has a name
            raise self._failed(purpose, f"{command[0]} cannot be started: {failure.strerror}") from failure

    def _judge(self, purpose: str, done: Finished) -> None:
        if done.timed_out:
            raise self._failed(purpose, f"it did not end within {self.how.timeout:g} s and was ended", done)
        if done.status < 0:
            raise self._failed(purpose, f"it was ended by signal {-done.status}", done)
        if done.status:
            raise self._failed(purpose, f"it exited with {done.status}", done)

    def _failed(self, purpose: str, why: str, done: Finished | None = None) -> DumpFailed:
        what = {
            "dump": "could not be made",
            "check": "was refused by its check command",
            "restore": "could not be put back",
        }[purpose]
        said = hide(done.tail(SAID), self.how.env) if done else ""
        return DumpFailed(
            f"the dump {self.how.name} {what}: {why}",
            details=[said] if said else [],
            advice=f"see {purpose} in [backup.dumps.{self.how.name}] of {self.config.file.name}, and run it by hand; "
            "it runs in the release in service, as the user that runs updater.",
        )


class _Spool:
    """Takes a dump: counted, hashed, and in a file."""

    def __init__(self, fd: int, tell: Tell) -> None:
        self._fd, self._tell = fd, tell
        self.size, self.digest = 0, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.size += len(data)
        left = memoryview(data)
        while left:
            left = left[os.write(self._fd, left) :]
        if self._tell:
            self._tell(self.size)


def _pieces(fd: int, tell: Tell) -> Iterator[bytes]:
    done = 0
    while piece := os.read(fd, _CHUNK):
        yield piece
        done += len(piece)
        if tell:
            tell(done)


def hide(text: str, env: Mapping[str, str]) -> str:
    """A text without the values of ``env``, the passwords in their addresses, and any other password in an address."""
    for name, value in sorted(env.items(), key=lambda it: len(it[1]), reverse=True):
        if len(value) >= _HIDDEN_FROM:
            text = text.replace(value, f"${name}")
        for password in _PASSWORD.findall(value):
            for it in (password, unquote(password)):
                text = text.replace(it, "***") if len(it) >= _HIDDEN_FROM else text
    return _PASSWORD_IN.sub(r"\1***@", text)


_PASSWORD = re.compile(r"://[^:/@\s]*:([^@\s]+)@")
_PASSWORD_IN = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")
