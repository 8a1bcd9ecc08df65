"""Stop processes, whole: the polite signal, then the firm one, to everything that belongs to them. Called under the lock,
except for the forced stop.

A leader that runs as another user is refused before anything is touched. What a leader has started as another user
(``sudo -u``) bars nobody's way: it mostly ends with its leader, and what does not is told.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from updater import records
from updater.config import Config
from updater.errors import PreflightFailed, ProcessFailed
from updater.layout import Layout
from updater.processes import bound, family, state
from updater.processes.state import Running
from updater.subprocesses import Identity

KILL_TIMEOUT = 10.0
"""Seconds within which a killed process must be gone."""

GRACE = 1.0
"""Seconds that what may not be signalled has to end after its leader."""

Warn = Callable[[str], None]


def adopt(layout: Layout) -> list[Running]:
    """Give processes that live without a pid file theirs back. Returns those."""
    found = state.strays(layout)
    for stray in found:
        with contextlib.suppress(OSError):  # a full disk: it is found by its marks again
            state.write(layout, stray)
    return found


def present(layout: Layout, config: Config) -> list[str]:
    """The names of which anything lives, a leader or what one left behind, in the order of the configuration."""
    living = [one.name for one in state.running(layout)] + [it.name for it in family.marked(layout)]
    order = [name for name in config.processes if name in living]
    return list(dict.fromkeys([*order, *living]))


class _Group(NamedTuple):
    """One process by its name, and everything that belongs to it."""

    name: str
    leader: Running | None
    members: frozenset[Identity]
    """The leader too."""


def _gather(layout: Layout, name: str, release: str | None) -> _Group:
    """Its session, its children wherever they went, and all that carries its marks, also after its leader's death.

    ``release``: only what runs from that one; None: from any.
    """
    rows, spared = family.table(), family.updaters_own(layout)
    fields = state.record(layout, name)
    recorded = Identity.parse(fields) if release in (None, fields.get("release")) else None
    leader = state.find(layout, name) if recorded else None
    pids = {it.row.pid for it in family.marked(layout) if it.name == name and release in (None, it.release)}
    if leader is not None:
        pids |= family.session(layout, rows, leader.identity.pid)
    elif recorded is not None:
        pids |= family.remains(layout, rows, recorded)
    pids |= family.below(layout, rows, pids, spared)
    if leader is not None:
        spared.discard(leader.identity.pid)
    found = (rows[pid].identity() for pid in pids - spared if pid in rows)
    return _Group(name, leader, frozenset(identity for identity in found if identity))


def stop(
    layout: Layout,
    config: Config,
    names: Sequence[str],
    *,
    release: str | None = None,
    warn: Warn | None = None,
) -> list[str]:
    """Stop processes: the polite signal to each, then the firm one to whatever is left of it. Returns what was stopped.

    ``release``: only what runs from that one. ``warn`` is told what runs as another user and stays; without it the log is.

    Raises:
        PreflightFailed: one belongs to another user; nothing was signalled.
        ProcessFailed: something of it is still there.
    """
    adopt(layout)
    groups = [group for name in names if (group := _gather(layout, name, release)).members]
    _refuse_leaders_of_others(groups)
    mine = [group for group in groups if any(member.permitted() for member in group.members)]
    begun = time.monotonic()
    for group in mine:
        _ask(layout, config, group)
    for group in mine:
        _, patience = _manner(layout, config, group)
        _finish(layout, config, group, release, begun + patience)
    _tell_what_stays(layout, groups, warn)
    return [group.name for group in mine]


def _manner(layout: Layout, config: Config, group: _Group) -> tuple[int, float]:
    """The polite signal, as it was when the process was started; and how long to wait, in seconds, as it is now."""
    version = group.leader.release if group.leader else ""
    then = bound.configuration(layout, config, version, [group.name]).processes.get(group.name)
    now = config.processes.get(group.name) or then
    number = getattr(signal, f"SIG{then.stop_signal}") if then else signal.SIGTERM
    return int(number), now.stop_timeout if now else 20.0


def _ask(layout: Layout, config: Config, group: _Group) -> None:
    """The polite signal. It is noted before and after: whoever finds the process later must not take it for one that stays,
    and must not ask it twice (to some programs the second time means: at once)."""
    number, _ = _manner(layout, config, group)
    if group.leader is None:
        _signal(group.members, number)
    elif group.leader.stopping != "sent":
        _note(layout, group.leader, "asked")
        group.leader.identity.signal(number)
        _note(layout, group.leader, "sent")


def _note(layout: Layout, leader: Running, how_far: str) -> None:
    with contextlib.suppress(OSError):  # going back on a full disk must stop what failed, noted or not
        state.write(layout, leader._replace(stopping=how_far))


def _finish(layout: Layout, config: Config, group: _Group, release: str | None, until: float) -> None:
    """Wait for a leader, then for what it left behind, which is asked in its turn; kill what is there after that."""
    leader = group.leader
    if leader and state.wait_until(lambda: not leader.identity.alive(), until - time.monotonic()):
        number, _ = _manner(layout, config, group)
        _signal(left := _left(layout, group, release), number)
        state.wait_until(lambda: not any(member.alive() for member in left), until - time.monotonic())
    elif leader is None:
        state.wait_until(
            lambda: not any(it.alive() and it.permitted() for it in group.members), until - time.monotonic()
        )
    _kill(layout, group, release)
    if state.record(layout, group.name).get("release") == release or release is None:
        layout.pid_file(group.name).unlink(missing_ok=True)


def _left(layout: Layout, group: _Group, release: str | None) -> list[Identity]:
    """Those gathered before that live, and those that have come since, as far as they may be signalled."""
    now = _gather(layout, group.name, release).members
    return [member for member in {*group.members, *now} if member.alive() and member.permitted()]


def _signal(members: Iterable[Identity], number: int) -> None:
    for member in members:
        with contextlib.suppress(PermissionError):  # another user's; told in the end
            member.signal(number)


def _kill(layout: Layout, group: _Group, release: str | None) -> None:
    """Kill until nothing is left; what is killed may just have started another."""
    deadline = time.monotonic() + KILL_TIMEOUT
    while left := _left(layout, group, release):
        if time.monotonic() >= deadline:
            raise ProcessFailed(
                f"{group.name} could not be stopped: pid {', '.join(str(it.pid) for it in left)} is still there after SIGKILL",
                advice="it hangs in the kernel (a failing disk, a dead network mount): see `ps` and `dmesg`.",
            )
        _signal(left, signal.SIGKILL)
        state.wait_until(lambda it=left: not any(member.alive() for member in it), 1.0)


def _tell_what_stays(layout: Layout, groups: Iterable[_Group], warn: Warn | None) -> None:
    """Name what runs as another user and has not ended with its leader: nobody looks after it any more."""
    others = [(group.name, it) for group in groups for it in group.members if not it.permitted()]
    state.wait_until(lambda: not any(it.alive() for _, it in others), GRACE)
    for name, it in sorted(others):
        if it.alive():
            user, command = family.who(it.pid)
            (warn or (lambda text: records.log(layout, f"warning: {text}")))(
                f"{name}: pid {it.pid} ({command}) runs as {user}, so it could not be stopped and still runs: sudo kill {it.pid}"
            )


def stop_release(layout: Layout, config: Config, version: str, *, warn: Warn | None = None) -> list[str]:
    """Stop everything that runs from a release; ``warn`` as for :func:`stop`."""
    adopt(layout)
    names = [one.name for one in state.running(layout) if one.release == version]
    names += [it.name for it in family.marked(layout) if it.release == version]
    names += [name for name in config.processes if state.record(layout, name).get("release") == version]
    return stop(layout, config, list(dict.fromkeys(names)), release=version, warn=warn)


def force_stop(
    layout: Layout, *, before: Callable[[], None] | None = None, warn: Warn | None = None
) -> list[str]:
    """Kill everything of this root at once, without asking it. Returns the names.

    ``before`` is called when it is sure that everything may be killed, and nothing has been yet. ``warn`` as for
    :func:`stop`.

    Raises:
        PreflightFailed: one belongs to another user; nothing was killed.
    """
    names = [*state.recorded(layout), *(it.name for it in family.marked(layout))]
    groups = [group for name in dict.fromkeys(names) if (group := _gather(layout, name, None)).members]
    _refuse_leaders_of_others(groups)
    mine = [group for group in groups if any(member.permitted() for member in group.members)]
    if before:
        before()
    for group in mine:
        _signal(group.members, signal.SIGKILL)
    for group in mine:
        _kill(layout, group, None)
        with contextlib.suppress(OSError):  # a read-only disk: it names nothing that lives
            layout.pid_file(group.name).unlink(missing_ok=True)
    _tell_what_stays(layout, groups, warn)
    return [group.name for group in mine]


def _refuse_leaders_of_others(groups: Iterable[_Group]) -> None:
    for group in groups:
        if group.leader and not group.leader.identity.permitted():
            raise PreflightFailed(
                f"{group.name} (pid {group.leader.identity.pid}) belongs to another user, and you may not end it",
                state="Nothing was stopped.",
                advice="run the command as the user that started the application, or with sudo.",
            )
