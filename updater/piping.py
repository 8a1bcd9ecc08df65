"""What goes through the pipes of a child: what it is fed, what it writes, what it says, until it ends or its time is up."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import subprocess


class Finished(NamedTuple):
    """How a child ended: its exit status (negative: the signal) and what it said: its output with standard error, or standard
    error alone where ``on_output`` got the output. ``taken``: bytes of ``feed`` that it has read."""

    status: int
    output: str
    timed_out: bool = False
    taken: int = 0

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.output.rstrip().splitlines()[-lines:])


class Feed:
    """What a child reads on its standard input. The reading end stays open here too: so it can be told how much it has left."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")
        self._written = 0
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)

    def write(self) -> bool:
        """Write what fits; False when there is nothing left to write."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._left = memoryview(piece)
        with contextlib.suppress(BlockingIOError):
            count = os.write(self.writer, self._left[: 64 * 1024])
            self._written += count
            self._left = self._left[count:]
        return True

    def stop(self) -> None:
        """The child sees the end."""
        os.close(self.writer)
        self.writer = -1

    @property
    def taken(self) -> int:
        """Bytes that have been read."""
        import fcntl
        import struct
        import termios

        (unread,) = struct.unpack("i", fcntl.ioctl(self.reader, termios.FIONREAD, bytes(4)))
        return self._written - int(unread)

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)


@dataclass
class Talk:
    """Everything between the start of a child and its end."""

    child: subprocess.Popen[bytes]
    kill: Callable[[], None]
    """Ends the child with everything below it."""
    deadline: float | None
    """On the monotonic clock."""
    on_line: Callable[[str], None] | None
    on_output: Callable[[bytes], None] | None
    check: Callable[[], None] | None
    feed: Feed | None
    timed_out: bool = False
    _said: bytearray = field(default_factory=bytearray)
    _pending: bytes = b""

    def run(self) -> Finished:
        import subprocess

        self._pipes()
        if self.timed_out:
            self.kill()
            self.child.wait()
        while self.child.poll() is None:
            if self._is_late():
                self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(0.1)
        text = self._said.decode(errors="replace")
        return Finished(self.child.returncode, text, self.timed_out, self.feed.taken if self.feed else 0)

    def _is_late(self) -> bool:
        if self.check:
            self.check()
        self.timed_out = self.deadline is not None and time.monotonic() > self.deadline
        return self.timed_out

    def _pipes(self) -> None:
        import selectors

        output, errors = self.child.stdout, self.child.stderr
        assert output is not None
        with selectors.DefaultSelector() as selector:
            selector.register(errors or output, selectors.EVENT_READ, self._hear)
            if errors:
                selector.register(output, selectors.EVENT_READ, self._receive)
            if self.feed:
                selector.register(self.feed.writer, selectors.EVENT_WRITE, self._write)
            while selector.get_map() and not self._is_late():
                ready = selector.select(0.1)
                for key, _ in ready:
                    if not key.data():
                        selector.unregister(key.fileobj)
                        if self.feed and key.fd == self.feed.writer:
                            self.feed.stop()
                # What is said ends with the child: a grandchild may keep the pipe open for ever. Output that somebody wants
                # whole ends with its pipe.
                owed = errors is not None and output in selector.get_map()
                if not ready and not owed and self.child.poll() is not None:
                    return

    def _receive(self) -> bool:
        assert self.on_output is not None and self.child.stdout is not None
        chunk = os.read(self.child.stdout.fileno(), 256 * 1024)
        if chunk:
            self.on_output(chunk)
        return bool(chunk)

    def _write(self) -> bool:
        assert self.feed is not None
        return self.child.poll() is None and self.feed.write()

    def _hear(self) -> bool:
        pipe = self.child.stderr or self.child.stdout
        assert pipe is not None
        chunk = os.read(pipe.fileno(), 64 * 1024)
        self._said += chunk
        del self._said[: -256 * 1024]  # the end of an installer's output is what explains a failure
        if self.on_line:
            *lines, self._pending = (self._pending + chunk).split(b"\n")
            for line in lines:
                self.on_line(line.decode(errors="replace").rstrip())
        return bool(chunk)
