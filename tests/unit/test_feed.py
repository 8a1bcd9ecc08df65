"""The feed below the stream of events: what a listener is given has no gap, whatever is put away or goes too fast meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from updater.deployment.journal import Journal
from updater.layout import Layout
from updater.web.feed import BEHIND, Event, Listener, Look, past, position

AHEAD = 20
"""Deployments; fewer than the ended journals that are kept."""


def deployment(layout: Layout) -> str:
    book = Journal.create(layout, {"request": {"kind": "deploy"}})
    book.record("end", None, {"outcome": "succeeded"}, flush=False)
    book.close()
    return book.id


def test_a_listener_that_lags_too_far_behind_is_sent_away_without_a_gap() -> None:
    """It comes back with the id of the last line that it had: one that was left out before that would be lost for ever."""
    listener = Listener()
    for number in range(BEHIND + 5):
        listener.give(Event("line", {}, f"20260101T000000-000000:{number}"))
    given = []
    while (event := listener.queue.get_nowait()) is not None:
        given.append(position(event.id))
    assert [it[1] for it in given if it] == list(range(len(given))), "the first ones, or none"


def test_a_look_tells_of_every_deployment_however_many_ended_since_the_last(tmp_path: Path) -> None:
    """The server may have been stopped (Ctrl-Z), or the machine busy."""
    layout = Layout(tmp_path)
    before = deployment(layout)
    look = Look(layout)
    look.changes()
    ended = [deployment(layout) for _ in range(5)]
    told = [it.id for it in look.changes() if it.kind == "line"]
    assert told == [f"{it}:{seq}" for it in ended for seq in (0, 1)] and before not in str(told)
    assert [it for it in look.changes() if it.kind == "line"] == []


def comes_back(layout: Layout, last: str) -> Callable[[], list[Event]]:
    """Somebody who asks anew each time for what came behind the last that he had."""
    seen = [position(last)]

    def more() -> list[Event]:
        found = list(past(layout, seen[0]))
        if found:
            seen[0] = position(found[-1].id)
        return found

    return more


def stays(layout: Layout, _last: str) -> Callable[[], list[Event]]:
    look = Look(layout)
    look.changes()
    return look.changes


@pytest.mark.parametrize("listening", [comes_back, stays])
def test_no_line_is_lost_or_told_twice_while_its_journal_is_put_away(
    tmp_path: Path, listening: Callable[[Layout, str], Callable[[], list[Event]]]
) -> None:
    layout, over, room = Layout(tmp_path), threading.Event(), threading.Semaphore(AHEAD)
    layout.logs.mkdir(parents=True)
    made = [deployment(layout)]
    more = listening(layout, f"{made[0]}:1")

    def deploy() -> None:
        while not over.is_set():
            room.acquire()
            made.append(deployment(layout))

    deploying, switch = threading.Thread(target=deploy), sys.getswitchinterval()
    deploying.start()
    told: list[str] = []
    try:
        sys.setswitchinterval(1e-6)
        while len(told) < 200:
            for identifier in lines(more()):
                told.append(identifier)
                if identifier.endswith(":1"):
                    room.release()
    finally:
        sys.setswitchinterval(switch)
        over.set()
        room.release()
        deploying.join()
    wanted = [f"{it}:{seq}" for it in made[1:] for seq in (0, 1)]
    assert told == wanted[: len(told)]


def lines(events: list[Event]) -> Iterator[str]:
    return (it.id for it in events if it.kind == "line")
