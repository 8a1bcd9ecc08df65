"""The stream of events: nothing twice, nothing missing, whoever listens and whatever happens to the journal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.dashboard import Dashboard, Event, Stream
from tests.site import Site, eventually
from updater.deployment import journal

Serve = Callable[..., Dashboard]


def lines(events: list[Event]) -> list[str]:
    return [it.id for it in events if it.kind == "line"]


def whole(identifier: str, count: int) -> list[str]:
    return [f"{identifier}:{seq}" for seq in range(count)]


class Listening:
    """A stream that is read while the test does something else."""

    def __init__(self, stream: Stream, **until: Any) -> None:
        self.events: list[Event] = []
        self._thread = threading.Thread(target=self._read, args=(stream, until))
        self._thread.start()

    def _read(self, stream: Stream, until: dict[str, Any]) -> None:
        for event in stream:
            self.events.append(event)
            if event.kind == "line" and until.items() <= event.data.items():
                break
        stream.close()

    def ended(self) -> list[Event]:
        self._thread.join(120)
        assert not self._thread.is_alive(), self.events[-5:]
        return self.events


def test_several_listeners_see_every_line_once_and_each_can_go_on_where_it_was(
    site: Site, serve: Serve
) -> None:
    dashboard = serve()
    site.publish("v1.0.0")
    listeners = [Listening(dashboard.listen(), kind="end") for _ in range(4)]
    started = dashboard.post("/api/update/start").json()["id"]
    for _ in range(6):  # somebody joins at any moment
        listeners.append(Listening(dashboard.listen(), kind="end"))
    assert dashboard.ended(started)["outcome"] == "succeeded"
    count = len(journal.read(journal.find(site.layout, started) or site.root).lines)
    for it in listeners:
        assert lines(it.ended()) == whole(started, count)
    events = listeners[0].events
    assert {it.kind for it in events} == {"line", "progress", "log"}
    assert events[-1].data["outcome"] == "succeeded" and events[-1].id == f"{started}:{count - 1}"
    assert [it.data["words"] for it in events if it.kind == "line" and it.data["phase"] == "backup"]
    assert dashboard.told("/api/update/progress")["last_event"] == f"{started}:{count - 1}"
    assert any("phase backup" in it.data.get("text", "") for it in events if it.kind == "log"), events

    # From any place, by the header and by the query, and by the next server.
    dashboard.kill()
    dashboard = serve()
    for seq in (0, 7, count - 2):
        for stream in (
            dashboard.listen(Last_Event_ID=f"{started}:{seq}"),
            dashboard.listen(f"?after={started}:{seq}"),
        ):
            assert lines(stream.until("line", kind="end")) == whole(started, count)[seq + 1 :]
            stream.close()
    # At the end nothing is left to be told; the next deployment is, from its beginning.
    late = Listening(dashboard.listen(Last_Event_ID=f"{started}:{count - 1}"), kind="end")
    nonsense = Listening(dashboard.listen(Last_Event_ID="20000101T000000-zzzzzz:1"), kind="end")
    site.publish("v1.1.0")
    assert site.updater("deploy", "v1.1.0").code == 0  # from a shell
    found = lines(late.ended())
    following = found[0].partition(":")[0]
    assert following > started and found == whole(following, len(found)) == lines(nonsense.ended())
    dashboard.is_quiet()


def test_a_listener_is_in_time_and_a_journal_cut_in_a_line_is_told_up_to_there(
    site: Site, serve: Serve
) -> None:
    dashboard = serve()
    stream = dashboard.listen()
    seen = Listening(stream, kind="end")
    open_one = journal.Journal.create(
        site.layout, {"request": {"kind": "deploy", "wanted": "v1.0.0"}, "before": {}}
    )
    open_one.record("intent", "fetch", {"say": "v1.0.0 is fetched"})
    eventually(lambda: lines(seen.events) == whole(open_one.id, 2), "both lines", 5)
    sound = open_one.path.read_bytes()
    torn = journal.encode(
        {"v": 1, "seq": 2, "kind": "done", "phase": "fetch", "at": "2026-01-01T00:00:00Z", "data": {}}
    )
    open_one.path.write_bytes(sound + torn[: len(torn) // 2])
    shown = dashboard.told("/api/update/progress")["deployment"]
    assert (shown["damaged"], shown["seq"], shown["phase"]) == (True, 1, "fetch")
    assert dashboard.browser().log_in(dashboard.known_token).get("/").status_code == 200
    late = dashboard.listen()
    assert lines(late.until("progress")) == whole(open_one.id, 2)
    late.close()
    with open_one.path.open("ab") as file:
        file.write(torn[len(torn) // 2 :])
    eventually(lambda: lines(seen.events) == whole(open_one.id, 3), "the rest of the line", 5)
    # The last line is written and the journal moved away in the same moment.
    open_one._seq, open_one._length = 3, open_one.path.stat().st_size
    open_one.record("end", None, {"outcome": "succeeded"})
    open_one.close()
    assert lines(seen.ended()) == whole(open_one.id, 4)
    # Nonsense instead of a journal.
    (site.layout.journal / "20990101T000000-abcdef.jsonl").write_bytes(b"\x00\xff\n{}\n" * 100)
    assert dashboard.get("/api/update/progress").status_code == 200
    assert dashboard.get("/api/system/status").status_code == 200
    dashboard.is_quiet()


def test_a_root_that_vanishes_and_a_log_that_is_none_end_no_stream_and_tell_nothing_twice(
    site: Site, serve: Serve
) -> None:
    site.deployed("v1.0.0")
    dashboard = serve()
    stream = dashboard.listen()
    seen = Listening(stream, kind="end")
    eventually(lambda: seen.events, "the present state")
    away, token = site.place / "away", dashboard.authorized()
    site.root.rename(away)
    assert dashboard.apart("GET", "/api/update/progress", headers=token).status_code == 503
    away.rename(site.root)
    with site.layout.update_log.open("ab") as file:
        file.write(b"half a l")
    with site.layout.update_log.open("ab") as file:
        file.write(b"ine \xff\xfe\r\nand a whole one\n")
    eventually(lambda: "and a whole one" in str(seen.events[-1]), "the log goes on")
    assert lines(seen.events) == [], "what has ended was not told again"
    logged = [it.data["text"] for it in seen.events if it.kind == "log"]
    assert logged == ["half a line \ufffd\ufffd", "and a whole one"]
    site.layout.update_log.rename(site.place / "log")
    (site.place / "log").rename(site.layout.update_log.with_suffix(".old"))
    site.layout.update_log.mkdir()
    open_one = journal.Journal.create(site.layout, {"request": {"kind": "deploy"}, "before": {}})
    eventually(lambda: lines(seen.events) == whole(open_one.id, 1), "the journal is told without the log")
    site.layout.update_log.rmdir()
    open_one.record("end", None, {"outcome": "succeeded"})
    open_one.close()
    assert lines(seen.ended()) == whole(open_one.id, 2)
    dashboard.is_quiet()
