"""What is interrupted: each operation with the state in which it begins and the two states in which it may end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.crash import calls
from tests.crash.world import DUMPED, LATER_STATE, MIGRATE, Saved, Violation, World


def anything(_: World) -> bool:
    return True


SCHEMAS = {"v1.2.0": 2, "v1.2.1": 2, "v1.2.2": 2, "v2.1.0": 2}
"""The schema that a release needs; 1 for all others."""

SETTINGS = "# mine\na = 7\n"
DEFAULTS = {"v1.0.0": "a = 1\n", "v1.3.0": "a = 1\n# new\nb = 2\n"}
MERGED = "# mine\na = 7\n# new\nb = 2\n"


@dataclass(frozen=True)
class Operation:
    """``old`` and ``new``: the release in service before and after; the same for a release that is bad, or for data.

    ``codes``: how it ends when nothing is interrupted. ``takes_data_back``: rows may go from the database, into the backup that the
    report names. ``dead``: when it is killed the application may be down, and nothing but its own start brings it back.
    ``follows``: the deployment that must succeed afterwards. ``weight``: its share of a sample. ``done``: whether what it was to do
    is there, once it has said so.
    """

    name: str
    state: Callable[[World], Saved]
    arguments: Callable[[World], list[str]]
    what: str = "worker"
    old: str = "v1.0.0"
    new: str = "v1.0.0"
    codes: tuple[int, ...] = (0,)
    takes_data_back: bool = False
    dead: bool = False
    follows: str = "v2.0.0"
    weight: float = 1.0
    done: Callable[[World], bool] = anything

    @property
    def puts_data_back(self) -> bool:
        """Whether older data take the place of the present ones when it succeeds."""
        return self.name in ("restore", "restore data alone", "roll back with data")

    @property
    def has_settings(self) -> bool:
        """Whether the application has settings of its user's."""
        return self.state is with_settings

    @property
    def kind(self) -> str:
        """As the history calls it."""
        return {"roll back": "rollback", "roll back with data": "rollback"}.get(
            self.name, self.name.split()[0]
        )


def request(kind: str, wanted: str | None = None, **more: object) -> Callable[[World], list[str]]:
    return lambda _: [json.dumps({"kind": kind, "wanted": wanted, **more})]


def typed(*words: str) -> Callable[[World], list[str]]:
    return lambda _: list(words)


def _saved(world: World, name: str, make: Callable[[], None], *, running: bool = True) -> Saved:
    if name not in world.saved:
        make()
        world.save(name, running=running)
    return world.saved[name]


def _publish_all(world: World) -> None:
    for tag in ("v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0", "v1.4.0", "v2.0.0", "v2.1.0"):
        defaults = DEFAULTS.get(tag, DEFAULTS["v1.3.0"])
        world.publish(tag, schema=SCHEMAS.get(tag, 1), files={"config/app.toml": defaults})
    world.publish("v1.1.1", "crash")
    world.publish("v1.2.1", "dies", schema=2)
    world.publish("v1.2.2", "migrates and dies", schema=2)


def plain(world: World) -> Saved:
    """v1.0.0 is in service and writes."""

    def make() -> None:
        world.back_to(world.first)
        _publish_all(world)
        world.site.configure(extra="")
        world.make_databases()
        world.must_work("deploy", "v1.0.0")

    return _saved(world, "plain", make)


def migrating(world: World) -> Saved:
    """The same, with a migration configured."""

    def make() -> None:
        world.back_to(plain(world))
        world.site.configure(extra=MIGRATE)

    return _saved(world, "migrating", make)


def watched(world: World) -> Saved:
    """The same, with a watch window in which a release may die."""

    def make() -> None:
        world.back_to(migrating(world))
        world.site.configure(watch=1)

    return _saved(world, "watched", make)


def watched_only(world: World) -> Saved:
    """A watch window, and no migration configured: a release changes the schema itself, when it starts."""

    def make() -> None:
        world.back_to(plain(world))
        world.site.configure(watch=1)

    return _saved(world, "watched only", make)


def with_both(world: World) -> Saved:
    """v1.1.0 is in service, v1.0.0 was before."""

    def make() -> None:
        world.back_to(plain(world))
        world.must_work("deploy", "v1.1.0")

    return _saved(world, "with both", make)


def gone_back(world: World) -> Saved:
    """v1.0.0 is in service again, v1.1.0 is installed and good."""

    def make() -> None:
        world.back_to(with_both(world))
        world.must_work("rollback")

    return _saved(world, "gone back", make)


def migrated(world: World) -> Saved:
    """v1.2.0 is in service, with a schema that v1.0.0 before it cannot read."""

    def make() -> None:
        world.back_to(migrating(world))
        world.must_work("deploy", "v1.2.0")

    return _saved(world, "migrated", make)


def with_backups(world: World) -> Saved:
    """Two backups, and rows after each; a database elsewhere has changed as well."""

    def make() -> None:
        world.back_to(plain(world))
        world.site.configure(extra=DUMPED.format(place=world.elsewhere))
        world.elsewhere.write_text("old")
        for _ in range(2):
            world.must("backup", "create")
            _more_rows(world)
        world.elsewhere.write_text("later")
        (world.site.layout.shared / "data" / "state.json").write_text(LATER_STATE)
        (world.site.layout.shared / "data" / "later.json").write_text("{}\n")

    return _saved(world, "with backups", make)


def pinned(world: World) -> Saved:
    """v1.0.0 is pinned."""

    def make() -> None:
        world.back_to(plain(world))
        world.must("pin", "v1.0.0")

    return _saved(world, "pinned", make)


def crowded(world: World) -> Saved:
    """More releases and backups than are kept."""

    def make() -> None:
        world.back_to(with_both(world))
        for tag in ("v1.3.0", "v1.4.0"):
            world.must_work("deploy", tag)
            world.must("backup", "create")
        world.site.configure(keep=2, extra="[backup]\nkeep = 2\n")

    return _saved(world, "crowded", make)


def with_settings(world: World) -> Saved:
    """Settings of the user's own, and a release that brings a new key."""

    def make() -> None:
        world.back_to(world.first)
        _publish_all(world)
        text = world.site.layout.config.read_text()
        links = '"data" = "data"\n"config/app.toml" = "config/app.toml"'
        world.site.layout.config.write_text(text.replace('"data" = "data"', links))
        (world.site.layout.shared / "config" / "app.toml").write_text(SETTINGS)
        world.make_databases()
        world.must_work("deploy", "v1.0.0")

    return _saved(world, "with settings", make)


def interrupted(name: str, before: Callable[[World], Saved], tag: str, at: str) -> Callable[[World], Saved]:
    """The machine stopped in the middle of a deployment: before the call that renames something to the path ``at``."""

    def state(world: World) -> Saved:
        def make() -> None:
            world.back_to(before(world))
            came: list[calls.Call] = []

            def act(call: calls.Call) -> int | None:
                if not came and call.name.startswith("rename") and call.paths[-1] == at:
                    came.append(call)
                    os.kill(call.pid, signal.SIGKILL)
                return -1 if came and call.pid == came[0].pid else None

            watched_run(world, "worker", request("deploy", tag)(world), lambda _: act)
            if not came:
                raise Violation(f"nothing was renamed to {at}")

        return _saved(world, name, make, running=False)

    return state


def watched_run(
    world: World,
    what: str,
    arguments: list[str],
    fault: calls.Fault | None,
    *,
    keep: bool = False,
    reads: bool = False,
) -> tuple[int, str, calls.Watch]:
    """Run something of updater's under a watch. Returns its exit status, its output and the watch, which goes on for the
    application that it started."""
    listening = calls.Listening(world.place / "listener")
    running = world.start(what, arguments, partial(calls.trap, str(listening.place), reads=reads))
    watch = calls.Watch(
        listening.accept(), world.site.root, running.pid, fault(running.pid) if fault else None, keep=keep
    )
    done = running.wait()
    if watch.failure:
        raise RuntimeError("the watch failed") from watch.failure
    return done.code, done.text, watch


def _more_rows(world: World) -> None:
    from tests.site import eventually

    size = world.rows.stat().st_size
    eventually(
        world.writes(size + 100), "the application writes a row to both databases", 20
    )  # of some 40 bytes each


def _backups(world: World) -> int:
    return len([it for it in world.site.layout.backups.iterdir() if it.name.startswith("backup_")])


def _is_pinned(world: World) -> bool:
    return (world.site.layout.marks / "v1.0.0.pinned").is_file()


def _is_fetched(world: World) -> bool:
    return (world.site.layout.release("v1.1.0") / ".release" / "release.json").is_file()


def _is_held(world: World) -> bool:
    place = world.site.layout.hold
    return place.exists() and "a long weekend" in place.read_text()


def _first_by_hand(world: World, **more: object) -> list[str]:
    """The older of the two backups; the deployment before them made one as well."""
    names = sorted(it.name for it in world.site.layout.backups.iterdir() if it.name.startswith("backup_"))
    return [json.dumps({"kind": "restore", "wanted": names[1], **more})]


OPERATIONS = {
    it.name: it
    for it in (
        Operation("deploy", plain, request("deploy", "v1.1.0"), new="v1.1.0"),
        Operation("deploy a bad release", plain, request("deploy", "v1.1.1"), codes=(4,)),
        Operation(
            "deploy with a migration", migrating, request("deploy", "v1.2.0"), new="v1.2.0", takes_data_back=True, follows="v2.1.0", weight=2),
        Operation(
            "deploy a migration that fails", watched, request("deploy", "v1.2.1"), codes=(4,), takes_data_back=True, follows="v2.1.0", weight=2),
        Operation("deploy a release that migrates itself and dies", watched_only, request("deploy", "v1.2.2"), codes=(4,), takes_data_back=True),
        Operation("deploy with new settings", with_settings, request("deploy", "v1.3.0"), new="v1.3.0", weight=0.5),
        Operation("fetch", plain, request("fetch", "v1.1.0"), weight=0.7, done=_is_fetched),
        Operation("activate", gone_back, request("activate", "v1.1.0"), new="v1.1.0"),
        Operation("roll back", with_both, request("rollback"), old="v1.1.0", new="v1.0.0"),
        Operation(
            "roll back with data", migrated, request("rollback", restore_data=True), old="v1.2.0", new="v1.0.0", takes_data_back=True,
            follows="v2.1.0",
        ),
        Operation("back up", plain, typed("backup", "create"), what="command", weight=0.5, done=lambda it: _backups(it) == 2),
        Operation("pin", plain, typed("pin", "v1.0.0"), what="command", weight=0.5, done=_is_pinned),
        Operation("unpin", pinned, typed("unpin", "v1.0.0"), what="command", weight=0.5, done=lambda it: not _is_pinned(it)),
        Operation("hold", plain, typed("hold", "--reason", "a long weekend"), what="command", weight=0.5, done=_is_held, follows=""),
        Operation("restore", with_backups, _first_by_hand, takes_data_back=True, weight=1.5),
        Operation(
            "restore data alone", with_backups, lambda it: _first_by_hand(it, parts=["data"]), takes_data_back=True, weight=0.5,
        ),
        Operation("prune", crowded, typed("prune", "--yes"), what="command", old="v1.4.0", new="v1.4.0", done=lambda it: not it.site.layout.release("v1.0.0").exists()),
        Operation("prune backups", crowded, typed("backup", "prune", "--yes"), what="command", old="v1.4.0", new="v1.4.0", weight=0.5, done=lambda it: _backups(it) == 4),
        Operation("restart", plain, typed("restart"), what="command", dead=True, weight=0.5),
        Operation(
            "recover before the commit", interrupted("before the commit", migrating, "v1.2.0", ".updater/good"), typed("recover"),
            what="command", codes=(0, 4), takes_data_back=True, dead=True, follows="v2.1.0",
        ),
        Operation(
            "recover after the commit", interrupted("after the commit", migrating, "v1.2.0", ".updater/swapped.json"), typed("recover"),
            what="command", old="v1.2.0", new="v1.2.0", dead=True, follows="v2.1.0", weight=0.5),
    )
}  # fmt: skip
