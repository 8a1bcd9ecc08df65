"""What goes wrong at a point: each mode interrupts an operation there, and brings the world back to where it can be judged."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from tests.crash import calls, oracle
from tests.crash.disk import Disk
from tests.crash.operations import OPERATIONS, Operation, watched_run
from tests.crash.pids import start_as
from tests.crash.world import Violation, World
from tests.site import eventually
from updater.subprocesses import read_fields

ERRORS = ("ENOSPC", "EIO", "EACCES", "EMFILE", "EROFS")
OPENING = ("open", "openat", "creat")
WRITING = ("write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "sendfile", "copy_file_range")
FLUSHING = ("fsync", "fdatasync", "syncfs")
NAMING = (*calls.BY_PATH, *calls.BELOW_DIRECTORY)
MAKING = ("mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "rename", "renameat", "renameat2")
NEED_ROOM = (*OPENING, *WRITING, *MAKING)
CAN_FAIL = {
    "ENOSPC": (*OPENING, *WRITING, *FLUSHING, *MAKING),
    "EIO": (*OPENING, *WRITING, *FLUSHING, *NAMING),
    "EACCES": (*OPENING, *NAMING),
    "EMFILE": OPENING,
    "EROFS": (*OPENING, *NAMING, "fchmod", "fchown"),
}
"""Which calls the kernel lets fail with what."""


class NotReached(Exception):
    """The fault did not happen: an error of the harness, never a success."""


@dataclass(frozen=True)
class Point:
    """Where and how: the ``number`` of the call; ``more``: the filesystem, the model, the error, the second number."""

    operation: str
    mode: str
    number: int
    more: tuple[str | int, ...] = ()
    seed: int = 0

    def named(self) -> str:
        """As it is given to ``--only``."""
        return "/".join(map(str, (self.operation, self.mode, self.number, *self.more)))


def parsed(name: str, seed: int) -> Point:
    """The point of that name."""
    operation, mode, number, *more = name.split("/")
    return Point(
        operation, mode, int(number), tuple(int(it) if it.lstrip("-").isdigit() else it for it in more), seed
    )


@dataclass
class Result:
    """What became of a point. ``outcome``: ``old``, ``new``, ``held``, or ``violation``, ``harness``. ``told``: what else a run
    counts. ``asked``: the name of the point that was asked for, where the one that was reached is another."""

    point: Point
    outcome: str
    seconds: float = 0.0
    call: str = ""
    path: str = ""
    text: str = ""
    told: tuple[str, ...] = ()
    asked: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(found: dict[str, Any]) -> Result:
        """What :meth:`as_json` made."""
        point = {**found["point"], "more": tuple(found["point"]["more"])}
        return Result(**{**found, "point": Point(**point), "told": tuple(found["told"])})


@dataclass
class Case:
    """What a mode is given: where, what and how. ``came`` gets the call at which the fault happened, ``told`` what a run counts."""

    world: World
    disk: Disk | None
    operation: Operation
    point: Point
    choice: random.Random
    came: list[calls.Call]
    told: list[str] = field(default_factory=list)


EARLIER = (0, 4, 12, 40)
"""Rounds differ by some calls: a number that lies beyond the end of one is tried so much before it, and told as that. Recoveries differ
by more; of these the number is tried at so many fortieths less."""


def run(world: World, disk: Disk | None, asked: Point, *, deploy: bool = True) -> Result:
    """Try one point."""
    found = _run(world, disk, asked, deploy=deploy)
    found.asked = asked.named()
    return found


def _run(world: World, disk: Disk | None, asked: Point, *, deploy: bool) -> Result:
    point = asked
    told: list[str] = []
    operation = OPERATIONS[point.operation]
    choice = random.Random(f"{point.named()}/{point.seed}")
    came: list[calls.Call] = []
    try:
        for earlier in EARLIER:
            came.clear()
            told.clear()
            point = _before(asked, earlier)
            try:
                verdict = MODES[point.mode](Case(world, disk, operation, point, choice, came, told))
                break
            except NotReached:
                if earlier == EARLIER[-1]:
                    raise
        if deploy and operation.follows:
            oracle.deploys_next(world, operation)
    except NotReached as failure:
        return Result(point, "harness", text=f"the fault did not happen: {failure}")
    except Violation as failure:
        return Result(point, "violation", 0.0, *_where(came), text=f"{failure}\n{world.last_words()}")
    except (AssertionError, OSError, subprocess.SubprocessError) as failure:
        return Result(point, "violation", 0.0, *_where(came), text=f"{type(failure).__name__}: {failure}")
    return Result(point, verdict.state, verdict.seconds, *_where(came), told=tuple(told))


def _before(asked: Point, earlier: int) -> Point:
    if asked.mode == "double":
        second = int(asked.more[0])
        return replace(asked, more=(max(1, second - second * earlier // 40),))
    return replace(asked, number=max(min(1, asked.number), asked.number - earlier))


def _where(came: list[calls.Call]) -> tuple[str, str]:
    return (came[0].name, " ".join(came[0].paths)) if came else ("", "")


def golden(world: World, operation: Operation, *, reads: bool = False) -> list[calls.Call]:
    """Every call of one run without a fault."""
    world.back_to(operation.state(world))
    code, text, watch = watched_run(
        world, operation.what, operation.arguments(world), None, keep=True, reads=reads
    )
    if code not in operation.codes:
        raise Violation(
            f"{operation.name} ends with {code} when nothing is wrong: {text}\n{world.last_words()}"
        )
    return watch.seen


def begin(world: World, operation: Operation) -> int:
    """The state from which it starts. Returns how many records the history has."""
    world.back_to(operation.state(world))
    return len(world.site.history())


def killing(number: int, came: list[calls.Call]) -> calls.Fault:
    """Kill updater's process before the call with that number is made, whichever of its processes makes it."""

    def fault(pid: int) -> calls.Act:
        def act(call: calls.Call) -> int | None:
            if call.number < number:
                return None
            if not came:
                came.append(call)
                os.kill(pid, signal.SIGKILL)
            return -1 if call.pid == pid else None

        return act

    return fault


def _interrupted(
    world: World, operation: Operation, fault: calls.Fault, came: list[calls.Call]
) -> tuple[int, str]:
    """Run it with that fault, which notes in ``came`` where it happened. Returns the exit status and the output.

    Raises:
        NotReached: it has not happened.
        Violation: nor was all well without it.
    """
    code, text, _ = watched_run(world, operation.what, operation.arguments(world), fault)
    if not came:
        not_reached(code, text, operation.codes)
    return code, text


def not_reached(code: int, text: str, codes: Sequence[int]) -> NoReturn:
    """The fault has not happened; then it must have ended as it does without one."""
    if code not in codes:
        raise Violation(f"it ended with {code} although nothing had happened to it yet: {text}")
    raise NotReached(f"it ended with {code} before: {text[-500:]}")


def _killed(world: World, operation: Operation, number: int, came: list[calls.Call]) -> None:
    code, _ = _interrupted(world, operation, killing(number, came), came)
    if code != -signal.SIGKILL:
        raise NotReached(f"it was to be killed and ended with {code}")


def kill(case: Case) -> oracle.Verdict:
    """kill -9 of updater's process."""
    known = begin(case.world, case.operation)
    _killed(case.world, case.operation, case.point.number, case.came)
    return oracle.judge(case.world, case.operation, case.choice, known=known, dead=case.operation.dead)


def kill_all(case: Case) -> oracle.Verdict:
    """kill -9 of everything there is at once: updater, its children, the application."""
    known = begin(case.world, case.operation)
    _killed(case.world, case.operation, case.point.number, case.came)
    case.world.forks.kill_family()
    with bystander(case):
        return oracle.judge(case.world, case.operation, case.choice, known=known, dead=True)


def child(case: Case) -> oracle.Verdict:
    """kill -9 of a child that works for updater: what writes the files, a launcher."""
    known = begin(case.world, case.operation)

    def fault(pid: int) -> calls.Act:
        def act(call: calls.Call) -> int | None:
            if case.came and call.pid == case.came[0].pid:
                return -1
            if not case.came and call.number >= case.point.number and call.pid != pid:
                case.came.append(call)
                os.kill(call.pid, signal.SIGKILL)
                return -1
            return None

        return act

    code, text = _interrupted(case.world, case.operation, fault, case.came)
    return _after_error(case, known, code, text)


def power(case: Case) -> oracle.Verdict:
    """The power goes at that call."""
    disk = case.disk
    assert disk is not None
    known = begin(case.world, case.operation)
    os.sync()

    def fault(pid: int) -> calls.Act:
        def act(call: calls.Call) -> int | None:
            if call.number < case.point.number:
                return None
            if not case.came:
                case.came.append(call)
                stand_still(case.world)
                disk.cut(str(case.point.more[1]))
                os.kill(pid, signal.SIGKILL)
            return -1

        return act

    code, text, _ = watched_run(case.world, case.operation.what, case.operation.arguments(case.world), fault)
    case.world.forks.kill_family()
    if case.came or not os.access(case.world.site.root, os.W_OK):
        disk.again()
    if not case.came:
        not_reached(code, text, case.operation.codes)
    with bystander(case):
        return oracle.judge(case.world, case.operation, case.choice, known=known, dead=True)


def stand_still(world: World) -> None:
    """Stop every process before its disk goes: a power cut lets nobody run on. One that did could be told by XFS that a directory
    was flushed although it never will be, and would note a row as committed."""
    moving = world.forks.family()
    for pid in moving:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 1
    while moving and time.monotonic() < deadline:
        moving = [it for it in moving if _state(it) in "RS"]


def _state(pid: int) -> str:
    """``T``: stopped; ``D``: in a call that it does not come out of before that; ``Z``: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def power_once_done(case: Case) -> oracle.Verdict:
    """The power goes as soon as updater has said that it is done: then it is."""
    assert case.disk is not None
    known = begin(case.world, case.operation)
    os.sync()
    done = case.world.start(case.operation.what, case.operation.arguments(case.world)).wait()
    stand_still(case.world)
    case.disk.cut(str(case.point.more[1]))
    case.came.append(calls.Call(0, 0, "nothing: it had ended", ()))
    case.world.forks.kill_family()
    case.disk.again()
    if done.code not in case.operation.codes:
        raise Violation(f"exit {done.code}: {done.text}")
    with bystander(case):
        verdict = oracle.judge(
            case.world, case.operation, case.choice, known=known, dead=True, code=done.code
        )
    oracle.is_done(case.world, case.operation, known)
    return verdict


@contextlib.contextmanager
def bystander(case: Case) -> Iterator[None]:
    """After a start of the machine, or much later, somebody else's process has the number of the application's: it must be let be.

    There is none where no process is on record, or where another one has got its number already; each is told."""
    fields = read_fields(case.world.site.layout.pid_file("web"))
    number = int(fields["pid"]) if fields.get("pid", "").isdigit() else 0
    made = start_as(number, ["sleep", "3600"]) if number > 1 else False
    case.told.append(
        "bystander" if made else "no bystander: its number is taken" if number else "no pid on record"
    )
    try:
        yield
        if made and os.waitpid(number, os.WNOHANG) != (0, 0):
            made = False
            raise Violation("somebody else's process that had got the application's old number was ended")
    finally:
        if made:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)


def error(case: Case) -> oracle.Verdict:
    """A call fails, once or from then on."""
    return failing(case, lambda call: call.number >= case.point.number)


def failing(case: Case, begins: Callable[[calls.Call], bool]) -> oracle.Verdict:
    """The same from the first call on that ``begins`` names and that can fail so."""
    known = begin(case.world, case.operation)
    name, often = str(case.point.more[0]), str(case.point.more[1])
    number = getattr(errno, name)

    def fault(pid: int) -> calls.Act:
        def act(call: calls.Call) -> int | None:
            if case.came and often == "once":
                return None
            if not (begins(call) or case.came) or call.name not in CAN_FAIL[name]:
                return None
            if not case.came:
                case.came.append(call)
            return int(number)

        return act

    code, text = _interrupted(case.world, case.operation, fault, case.came)
    return _after_error(case, known, code, text, lasts=often != "once")


def _after_error(
    case: Case, known: int, code: int, text: str, *, lasts: bool = False, dead: bool = False
) -> oracle.Verdict:
    """``lasts``: what went wrong was wrong on the way back as well; else that must have come to its end. ``dead``: the application
    may have ended by itself, for the same reason."""
    if code not in (0, 3, 4, 5, 7, 8, 9):
        raise Violation(f"exit {code}\n{text}")
    if "unforeseen: " in text or (case.operation.what == "command" and "Traceback" in text):
        raise Violation(f"not explained: {text}")
    oracle.said(case.world, case.operation, known, code)
    dead = dead or case.operation.dead
    return oracle.judge(
        case.world, case.operation, case.choice, known=known, dead=dead, code=code, may_hold=lasts
    )


def double(case: Case) -> oracle.Verdict:
    """kill -9 of updater, and of the recovery as well at its own point."""
    known = begin(case.world, case.operation)
    _killed(case.world, case.operation, case.point.number, [])
    code, text, _watch = watched_run(
        case.world, "command", ["recover"], killing(int(case.point.more[0]), case.came)
    )
    if not case.came:
        not_reached(code, text, (0, 4))
    if code != -signal.SIGKILL:
        raise NotReached(f"the recovery was to be killed and ended with {code}")
    return oracle.judge(case.world, case.operation, case.choice, known=known, dead=case.operation.dead)


def recovery_calls(world: World, operation: Operation, number: int) -> list[calls.Call]:
    """Every call of the recovery after a kill at that point."""
    begin(world, operation)
    _killed(world, operation, number, [])
    _, _, watch = watched_run(world, "command", ["recover"], None, keep=True)
    return watch.seen


def suspended(case: Case) -> oracle.Verdict:
    """Updater stands still at that call (SIGSTOP, a suspended machine) while somebody starts a second one; then it goes on."""
    known = begin(case.world, case.operation)
    second: list[tuple[int, str]] = []

    def fault(pid: int) -> calls.Act:
        def act(call: calls.Call) -> int | None:
            if case.came or call.number < case.point.number:
                return None
            case.came.append(call)
            os.kill(pid, signal.SIGSTOP)
            done = case.world.command("restart")
            second.append((done.code, done.text))
            os.kill(pid, signal.SIGCONT)
            return None

        return act

    code, text = _interrupted(case.world, case.operation, fault, case.came)
    if second[0][0] not in (0, 6):
        raise Violation(f"the second updater: exit {second[0]}")
    if second[0][0] == 6 and code not in case.operation.codes:
        raise Violation(f"it stood still for a while and ended with {code}: {text}")
    if code not in (*case.operation.codes, 3, 4, 6):
        raise Violation(f"exit {code}: {text}")
    if code != 6:
        oracle.said(case.world, case.operation, known, code)
    return oracle.judge(
        case.world, case.operation, case.choice, known=known, dead=case.operation.dead,
        code=None if code == 6 else code,
    )  # fmt: skip


def network(case: Case) -> oracle.Verdict:
    """The network goes away at that call and comes back afterwards."""
    from examples.release_server import Fault

    known = begin(case.world, case.operation)

    def fault(pid: int) -> calls.Act:
        def act(call: calls.Call) -> int | None:
            if not case.came and call.number >= case.point.number:
                case.came.append(call)
                case.world.server.faults += [
                    Fault("", "cut", 0, times=10_000),
                    Fault("", "status", 502, times=10_000),
                ]
            return None

        return act

    try:
        code, text = _interrupted(case.world, case.operation, fault, case.came)
        asked = sum(it.seen for it in case.world.server.faults)
    finally:
        case.world.server.faults.clear()
    if not asked:
        raise NotReached(f"nothing was asked of the network any more, and it ended with {code}")
    return _after_error(case, known, code, text)


def clock(case: Case) -> oracle.Verdict:
    """The clock jumps by a year at that call; it stays there, or comes back before the next command."""
    known = begin(case.world, case.operation)
    days = int(case.point.more[0])

    def fault(pid: int) -> calls.Act:
        def act(call: calls.Call) -> int | None:
            if not case.came and call.number >= case.point.number:
                case.came.append(call)
                os.kill(pid, signal.SIGUSR1 if days > 0 else signal.SIGUSR2)
            return None

        return act

    code, text = _interrupted(case.world, case.operation, fault, case.came)
    if code not in case.operation.codes:
        raise Violation(f"the clock jumped, and it ended with {code}: {text}")
    oracle.said(case.world, case.operation, known, code)
    if case.choice.random() < 0.5:
        case.world.days = days
    return oracle.judge(
        case.world, case.operation, case.choice, known=known, dead=case.operation.dead, code=code
    )


def script(case: Case) -> oracle.Verdict:
    """kill -9, and then the emergency script instead of updater, without any Python on the PATH."""
    from tests.shells import tools

    known = begin(case.world, case.operation)
    _killed(case.world, case.operation, case.point.number, case.came)
    path = case.world.place / "tools"
    if not path.exists():
        tools(path)
    began, begun = time.monotonic(), oracle.journals(case.world)
    words = ["sh", str(case.world.site.layout.scripts / "emergency_rollback.sh"), "--yes"]
    done = case.world.start("program", words, env={"PATH": str(path), "HOME": "/"}).wait()
    took = time.monotonic() - began
    if done.code == 2 and "name no good release to go back to" in done.out + done.err:
        # The first release of all is in service, and nothing had touched it yet.
        oracle.refused(case.world, case.operation)
        case.told.append("nothing for a script to do yet")
        return oracle.judge(case.world, case.operation, case.choice, known=known, dead=case.operation.dead)
    if done.code == 5 and "--restore-data" in done.err and case.operation.takes_data_back:
        # It was committed: going back from there leaves the data alone, unless it is told otherwise.
        back = [*words, case.operation.old, "--restore-data"]
        done = case.world.start("program", back, env={"PATH": str(path), "HOME": "/"}).wait()
    if done.code != 0:
        raise Violation(f"emergency_rollback.sh: exit {done.code}\n{done.text}")
    again = case.world.command("recover")
    if again.code != 0 or "nothing to recover" not in again.out:
        raise Violation(f"recover after the script: exit {again.code}\n{again.text}")
    if case.world.site.history()[-1]["origin"] == "script" and "emergency_rollback.sh" not in again.text:
        raise Violation(f"recover after the script tells nothing of it: {again.text}")
    return oracle.Verdict(oracle.judge_script(case.world, case.operation, known=known, begun=begun), took)


def full(case: Case) -> oracle.Verdict:
    """At that call something else fills the disk, but for so many KB: it comes to its end at a later call that needs a block."""
    assert case.disk is not None
    known = begin(case.world, case.operation)
    filler = case.disk.place / "filler"

    def fault(pid: int) -> calls.Act:
        def act(call: calls.Call) -> int | None:
            if call.number >= case.point.number and not filler.exists():
                _fill(filler, int(case.point.more[1]) * 1024)
            if filler.exists() and not case.came and call.name in NEED_ROOM and _free(filler) < 4096:
                case.came.append(call)
            return None

        return act

    try:
        code, text, _ = watched_run(
            case.world, case.operation.what, case.operation.arguments(case.world), fault
        )
    finally:
        filler.unlink(missing_ok=True)
    _come_round(case.world)
    noticed = next((who for said, who in NO_ROOM.items() if said in text), "")
    if not case.came and noticed and code not in case.operation.codes:
        case.came.append(calls.Call(0, 0, noticed, ()))
    if not case.came:
        not_reached(code, text, case.operation.codes)
    return _after_error(case, known, code, text, lasts=True, dead=True)


def _come_round(world: World) -> None:
    """There is room again: the application writes on, or has died of it by now."""
    on = world.writes(world.rows.stat().st_size)
    eventually(lambda: on() or not world.forks.family(), "the application writes on or has ended", 10)


NO_ROOM = {
    "disk is full": "a commit of the application", "0 MB free": "preflight", "No space left on device": "more than a block",
}  # fmt: skip
"""Who else notices that there is no room, by what it says."""


def _free(place: Path) -> int:
    """Bytes that can still be allocated on its filesystem."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def _fill(filler: Path, left: int) -> None:
    """Take all of the disk but ``left`` bytes."""
    with open(filler, "wb") as file:
        end, step = 0, 1 << 30
        while step >= 4096:
            step = min(step, (_free(filler) - left) // 4096 * 4096)
            if step < 4096:
                return
            try:
                os.posix_fallocate(file.fileno(), end, step)
                end += step
            except OSError:  # the list of what belongs to the file needs a block as well
                os.ftruncate(file.fileno(), end)
                step //= 2


MODES = {
    "kill": kill,
    "kill all": kill_all,
    "kill a child": child,
    "power cut": power,
    "power cut once done": power_once_done,
    "error": error,
    "double": double,
    "suspended": suspended,
    "network": network,
    "clock": clock,
    "script": script,
    "full disk": full,
}
