"""Who a process is, and how a child that changes things is run.

A pid alone names nobody: pids are recycled. An identity is pid, start time and boot id, and only a process that
still has all three is ever signalled.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from updater import durable

if TYPE_CHECKING:
    import subprocess

    from updater.piping import Finished


@functools.cache
def boot_id() -> str:
    """Identifies this boot of the machine; empty where the system has no such thing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip()
        return ""
    import subprocess

    done = subprocess.run(
        ["sysctl", "-n", "kern.bootsessionuuid"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()


def start_time(pid: int) -> str | None:
    """When a process started, as an opaque text that a shell can obtain as well; None if there is no such process.

    Linux: field 22 of ``/proc/<pid>/stat``, clock ticks since boot (man 5 proc). Elsewhere: ``ps -o lstart=``.
    A zombie counts as no process: it runs nothing and holds nothing.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if not fields or fields[0] in (b"Z", b"X") else fields[19].decode()
    import subprocess

    done = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    state, _, started = done.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else " ".join(started.split())


class Identity(NamedTuple):
    """One process, beyond doubt."""

    pid: int
    start: str
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        start = start_time(pid)
        return None if start is None else cls(pid, start, boot_id())

    @classmethod
    def mine(cls) -> Identity:
        me = cls.of(os.getpid())
        assert me is not None
        return me

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> Identity | None:
        """From a record (pid file, lock owner, journal); None if it is not one. Records are never trusted."""
        try:
            pid = int(str(fields["pid"]))
            start, boot = str(fields["start"]), str(fields["boot"])
        except (KeyError, ValueError):
            return None
        return cls(pid, start, boot) if pid > 1 and start else None

    def as_fields(self) -> dict[str, str]:
        return {"pid": str(self.pid), "start": self.start, "boot": self.boot}

    def alive(self) -> bool:
        return self.boot == boot_id() and start_time(self.pid) == self.start

    def age(self) -> float | None:
        """Seconds since it started, by a clock that never jumps; None where the system has no such thing."""
        if sys.platform != "linux" or not self.start.isdigit():
            return None
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(self.start) / os.sysconf("SC_CLK_TCK")

    def permitted(self) -> bool:
        """Whether we may signal it: not if it runs as another user."""
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            return False
        except ProcessLookupError:
            pass
        return True

    def signal(self, number: int) -> bool:
        """Send a signal if this very process still lives. Returns whether it was sent."""
        if not self.alive():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False


def read_fields(path: Path) -> dict[str, str]:
    """Read a file of ``key=value`` lines, the form that ``sh`` reads as well; {} if there is none. Rubbish is skipped."""
    try:
        text = durable.read(path, 64 * 1024).decode("utf-8", "replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value for key, sign, value in pairs if sign and key.isidentifier()}


def as_lines(fields: Mapping[str, object]) -> str:
    """The text that :func:`read_fields` reads; values are kept to one line."""
    return durable.encodable(
        "".join(f"{key}={' '.join(str(value).split())}\n" for key, value in fields.items())
    )


def _die_with_parent(parent: int) -> Callable[[], None]:
    import ctypes
    import signal

    libc = ctypes.CDLL(None)

    def arrange() -> None:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG, man 2 prctl
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return arrange


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    keep_fds: Sequence[int] = (),
    record: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    on_output: Callable[[bytes], None] | None = None,
    feed: Iterable[bytes] | None = None,
    check: Callable[[], None] | None = None,
) -> Finished:
    """Run a child in a session of its own, ended with everything below it if we stop waiting.

    ``timeout`` in seconds; ``keep_fds`` stay open in the child (the lock); ``record`` names a file that tells who it
    is while it lives, so that a recovery can end it where the system cannot tie it to a dead parent; ``on_line`` gets
    each line of what it says; ``on_output`` its whole standard output, up to the end of the pipe whoever holds it; ``feed`` is
    what it reads on its standard input; ``check`` is called several times a second and may raise to cancel.

    Raises:
        OSError: the command cannot be started.
    """
    import subprocess

    from updater import piping

    arrange = _die_with_parent(os.getpid()) if sys.platform == "linux" else None
    with contextlib.ExitStack() as stack:
        fed = None if feed is None else stack.enter_context(contextlib.closing(piping.Feed(feed)))
        child = subprocess.Popen(
            [os.fspath(word) for word in command],
            cwd=cwd, env=None if env is None else dict(env), stdin=fed.reader if fed else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE if on_output else subprocess.STDOUT,
            start_new_session=True, pass_fds=tuple(keep_fds), preexec_fn=arrange,
        )  # fmt: skip
        stack.callback(_end, child, record)
        if record is not None and (identity := Identity.of(child.pid)):
            record.write_text(as_lines(identity.as_fields()), encoding="utf-8")
        deadline = None if timeout is None else time.monotonic() + timeout
        kill = functools.partial(end_session, child.pid)
        return piping.Talk(child, kill, deadline, on_line, on_output, check, fed).run()


def _end(child: subprocess.Popen[bytes], record: Path | None) -> None:
    end_session(child.pid)
    child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe:
            pipe.close()
    if record is not None:
        record.unlink(missing_ok=True)


def let_children_hear() -> None:
    """Have what we start hear the signals that we were started to ignore (``nohup``, ``&`` in a script).

    An ignored signal stays ignored in what is started, whose polite signal it may be; one with a handler does not.
    """
    import signal

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(number, _ignore)


def _ignore(_number: int, _frame: object) -> None:
    pass


def end_session(leader: int) -> None:
    """Kill every process of a session that we started, its leader too, at once."""
    import signal

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
