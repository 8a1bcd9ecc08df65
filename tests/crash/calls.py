"""Every call to the kernel that changes the filesystem, seen before it is made, counted over all processes of updater, and
let through, failed, or never answered because its process is killed right there.

The kernel hands them over (seccomp_unotify(2)): :func:`trap` is run by the process that is to be watched, :class:`Watch` by the one
that watches. Against ``strace -e inject`` this has one count for all processes and all kinds of calls, leaves the application that
updater starts out of it, and holds the call while the disk is taken away under it. ``test_calls.py`` compares both.

    socket at a path  <-  trap(path)          in a forked child, before it does its work
    Watch(listener, root, pid, act)           in the harness
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

OPENS = {"open": 1, "openat": 2}
"""The argument that holds the flags; openat2 has them in memory, and nothing here calls it."""
WRITES = os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC

BY_DESCRIPTOR = (
    "write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate", "fchmod", "fchown", "fsync", "fdatasync",
    "syncfs", "fsetxattr", "fremovexattr", "sync_file_range",
)  # fmt: skip
"""The descriptor is the first argument."""
INTO_DESCRIPTOR = {"sendfile": 0, "copy_file_range": 2, "splice": 2}
"""Which argument is the descriptor that is written to."""
BY_PATH = {
    "truncate": (0,), "rename": (0, 1), "link": (0, 1), "symlink": (1,), "unlink": (0,), "rmdir": (0,), "mkdir": (0,), "chmod": (0,),
    "chown": (0,), "lchown": (0,), "utimes": (0,), "utime": (0,), "setxattr": (0,), "lsetxattr": (0,), "removexattr": (0,),
    "lremovexattr": (0,), "creat": (0,), "mknod": (0,),
}  # fmt: skip
"""Which arguments are paths."""
BELOW_DIRECTORY = {
    "renameat": ((0, 1), (2, 3)), "renameat2": ((0, 1), (2, 3)), "linkat": ((0, 1), (2, 3)), "symlinkat": ((1, 2),),
    "unlinkat": ((0, 1),), "mkdirat": ((0, 1),), "fchmodat": ((0, 1),), "fchownat": ((0, 1),), "utimensat": ((0, 1),),
    "mknodat": ((0, 1),), "fchmodat2": ((0, 1),), "futimesat": ((0, 1),),
}  # fmt: skip
"""Pairs of a directory's descriptor and a path."""

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_CONTINUE = 1
_CURRENT_DIRECTORY = -100


class Call(NamedTuple):
    """One call. ``number`` counts from 1 over all processes of one run; ``paths`` are relative to the root."""

    number: int
    pid: int
    name: str
    paths: tuple[str, ...]


Act = Callable[[Call], int | None]
"""Called before a call is made; returns an errno to fail it with, None to let it through, or -1 to never answer it."""

Fault = Callable[[int], Act]
"""Given the process that was started, what happens at its calls."""


@functools.cache
def missing() -> str | None:
    """Why nothing can be watched here; None: it can."""
    if not sys.platform.startswith("linux"):
        return "the kernel hands calls over on Linux only"
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as failure:
        return f"libseccomp: {failure}"
    child = os.fork()
    if child == 0:
        try:
            made = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
            made.add_rule(pyseccomp.NOTIFY, "mkdirat")
            made.load()
            os._exit(0 if pyseccomp._libseccomp.seccomp_notify_fd(made._filter) >= 0 else 1)
        finally:
            os._exit(1)
    return (
        "this kernel, or this container, hands no calls over (seccomp)" if os.waitpid(child, 0)[1] else None
    )


def trap(place: str, *, reads: bool = False) -> None:
    """Have the calls of this process, and of everything that it starts, handed over to who listens at the socket ``place``.

    ``reads``: also every other opening of a file. Call it in a process with one thread.
    """
    import pyseccomp

    made = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    with contextlib.suppress(OSError):
        made.set_attr(
            4, 0
        )  # SCMP_FLTATR_CTL_NNP: root needs no such promise, and its children may want more rights
    for name, flags in OPENS.items():
        if reads:
            made.add_rule(pyseccomp.NOTIFY, name)
            continue
        for flag in WRITES:
            made.add_rule(pyseccomp.NOTIFY, name, pyseccomp.Arg(flags, pyseccomp.MASKED_EQ, flag, flag))
    for name in (*BY_DESCRIPTOR, *INTO_DESCRIPTOR, *BY_PATH, *BELOW_DIRECTORY):
        with contextlib.suppress(OSError, ValueError):  # not on this kind of processor
            made.add_rule(pyseccomp.NOTIFY, name)
    teller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    teller.connect(place)
    made.load()
    listener = pyseccomp._libseccomp.seccomp_notify_fd(made._filter)  # it has no name of its own for this
    teller.sendmsg([b"L"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    teller.recv(1)
    teller.close()
    os.close(listener)


class Listening:
    """A socket at which a process that traps itself hands over its listener."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        place.unlink(missing_ok=True)
        self._socket.bind(str(place))
        self._socket.listen(1)
        self._socket.settimeout(30)

    def accept(self) -> int:
        """The listener's descriptor."""
        connection, _ = self._socket.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(4))
            (found,) = array.array("i", ancillary[0][2][:4])
            connection.send(b"G")
        self._socket.close()
        self.place.unlink(missing_ok=True)
        return found


class Watch(threading.Thread):
    """Answers for the kernel as long as any process lives under the filter.

    ``seen``: every call of updater's own below the root, where they are kept; ``count``: how many there were.
    """

    def __init__(
        self, listener: int, root: Path, pid: int, act: Act | None = None, *, keep: bool = False
    ) -> None:
        super().__init__(daemon=True)
        self.listener, self.root, self.pid, self.act = listener, os.path.realpath(root), pid, act
        self.keep = keep
        self.seen: list[Call] = []
        self.count = 0
        self.failure: BaseException | None = None
        self._ours: dict[int, bool] = {pid: True}
        self.start()

    def run(self) -> None:
        try:
            self._serve()
        except (
            BaseException
        ) as failure:  # told by who waits for the outcome: a dead watch would hang its processes
            self.failure = failure
        finally:
            os.close(self.listener)

    def _serve(self) -> None:
        while True:
            buffer = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(self.listener, _RECEIVE, buffer)
            except OSError as failure:
                if failure.errno in (errno.EINTR, errno.ENOENT):
                    if failure.errno == errno.ENOENT and self._empty():
                        return
                    continue
                raise
            identifier, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
            answer = self._decide(thread, number, arguments)
            if answer == -1:
                continue
            response = (
                _RESPONSE.pack(identifier, 0, 0, _CONTINUE)
                if answer is None
                else _RESPONSE.pack(identifier, 0, -answer, 0)
            )
            with contextlib.suppress(OSError):  # it was killed meanwhile
                fcntl.ioctl(self.listener, _SEND, response)

    def _empty(self) -> bool:
        """Nobody lives under the filter any more: the kernel hangs up."""
        import select

        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    def _decide(self, thread: int, number: int, arguments: list[int]) -> int | None:
        name = _name(number)
        try:
            pid = self.pid if thread == self.pid else _process(thread)
            if not self._is_ours(pid):
                return None
            paths = self._paths(thread, name, arguments)
        except OSError:  # it was killed meanwhile
            return None
        if paths is None:
            return None
        self.count += 1
        call = Call(self.count, pid, name, paths)
        if self.keep:
            self.seen.append(call)
        return self.act(call) if self.act else None

    def _is_ours(self, pid: int) -> bool:
        """A call of updater itself: its process, a fork of it, and a launcher; not the application, nor tools that it runs."""
        if (known := self._ours.get(pid)) is not None:
            return known
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        mine = Path(f"/proc/{self.pid}/cmdline").read_bytes() if os.path.exists(f"/proc/{self.pid}") else b""
        if b"/.updater/launchers/" in words:
            return True
        if words == mine:  # a fork that may still run a program of its own
            return True
        self._ours[pid] = False
        return False

    def _paths(self, pid: int, name: str, arguments: list[int]) -> tuple[str, ...] | None:
        """What it is about, relative to the root; None: nothing below the root."""
        if name in BY_DESCRIPTOR or name in INTO_DESCRIPTOR:
            found = [os.readlink(f"/proc/{pid}/fd/{arguments[INTO_DESCRIPTOR.get(name, 0)]}")]
        elif name in OPENS:
            at = OPENS[name] - 1
            found = [_full(pid, arguments[0] if at else _CURRENT_DIRECTORY, _text(pid, arguments[at]))]
        elif name in BY_PATH:
            found = [_full(pid, _CURRENT_DIRECTORY, _text(pid, arguments[it])) for it in BY_PATH[name]]
        else:
            pairs = BELOW_DIRECTORY[name]
            found = [_full(pid, arguments[first], _text(pid, arguments[second])) for first, second in pairs]
        below = tuple(
            it[len(self.root) + 1 :] for it in found if it.startswith(self.root + "/") or it == self.root
        )
        return below or None


def _process(thread: int) -> int:
    """The process that a thread belongs to."""
    text = Path(f"/proc/{thread}/status").read_text()
    return int(text.partition("Tgid:")[2].split(None, 1)[0])


_names: dict[int, str] = {}


def _name(number: int) -> str:
    if number not in _names:
        import pyseccomp

        _names[number] = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number).decode()
    return _names[number]


def _text(pid: int, address: int) -> str:
    """A path in the memory of a process that waits for its call."""
    if not address:
        return ""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        try:
            raw = memory.read(4096)
        except OSError:  # it lies before the end of what can be read
            memory.seek(address)
            raw = memory.read(4096 - address % 4096)
    return os.fsdecode(raw.partition(b"\0")[0])


def _full(pid: int, directory: int, path: str) -> str:
    if os.path.isabs(path):
        return os.path.normpath(path)
    signed = ctypes.c_int32(directory & 0xFFFFFFFF).value
    place = f"/proc/{pid}/cwd" if signed == _CURRENT_DIRECTORY else f"/proc/{pid}/fd/{signed}"
    return os.path.normpath(os.path.join(os.readlink(place), path)) if path else os.readlink(place)
