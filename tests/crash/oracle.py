"""What must be true after every crash, looked at through the command line, the disk, the databases and the processes."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.operations import DEFAULTS, MERGED, SCHEMAS, SETTINGS, Operation, anything
from tests.crash.world import LATER_STATE, STATE, Violation, World
from tests.forks import REPOSITORY_TOP
from tests.site import eventually
from updater import durable

SLOWEST = 10.0
"""Seconds that a recovery may take."""


@dataclass
class Verdict:
    """``state``: ``old`` or ``new``, or ``held`` where updater holds still and its instructions led out of that.

    ``seconds``: how long the recovery took."""

    state: str
    seconds: float


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


def judge(
    world: World,
    operation: Operation,
    choice: random.Random,
    *,
    known: int,
    dead: bool,
    code: int | None = None,
    may_hold: bool = False,
) -> Verdict:
    """Recover, and look at everything.

    ``known``: records that the history had before. ``dead``: the machine was off, the application with it, and its start is asked
    for. ``code``: the exit status with which it had ended; None: it was killed. ``may_hold``: the fault was such that going back may
    have failed; then what updater advises must lead out of it.

    Raises:
        Violation: what is not as it must be.
    """
    begun = journals(world)
    began = time.monotonic()
    first = "recover" if dead or choice.random() < 0.7 else choice.choice(["start", "pin"])
    done = world.command(*(["pin", operation.old] if first == "pin" else [first]))
    seconds = time.monotonic() - began
    held = False
    if (
        done.code == 5 and may_hold
    ):  # the end was on record already, but not in the history: it is told again, once
        done = world.command("recover")
    _must(done.code in (0, 4), f"{first}: exit {done.code}\n{done.text}")
    _must(seconds < SLOWEST, f"{first} took {seconds:.1f} s")
    begun |= journals(world)
    record = _own_record(world, known)
    _must(begun <= {it["id"] for it in world.site.history()}, "a deployment that began is not in the history")
    if may_hold and record and record["outcome"] == "rollback-failed":
        held = True
        _follow(world, record)
    if may_hold and not dead and not held:
        _must(
            _runs(world) or "not started again" in json.dumps(record),
            "the application does not run, and nobody has said so",
        )
    if dead or may_hold:
        done = world.command("start")
        _must(done.code == 0, f"start after the recovery: exit {done.code}\n{done.text}")
    version = in_service(world)
    _must(version in (operation.old, operation.new), f"{version} is in service")
    _data(world, operation, version, record, held=held)
    _settings(world, operation, version)
    _elsewhere(world, operation, record)
    _telling(world, operation, version, record, held=held)
    if not held:
        _kept_its_word(operation, version, record, code)
    _is_whole(world, backups=dead or may_hold or choice.random() < 0.5)
    _changes_nothing_more(world)
    _must(held or _own_record(world, known) == record, "a second recovery changed the record")
    _data(world, operation, version, record, held=held)
    return Verdict("held" if held else _state(world, operation, version, record), seconds)


def _state(world: World, operation: Operation, version: str, record: Any) -> str:
    """In which of the two states it is: by the release in service, by what was to be done, or, for data, by the record."""
    if operation.old != operation.new:
        return "new" if version == operation.new else "old"
    if operation.done is not anything:
        return "new" if operation.done(world) else "old"
    return "new" if record and record["outcome"] == "succeeded" else "old"


def _follow(world: World, record: Any) -> None:
    """What updater advises where it holds still leads out of it: the commands that it names are typed."""
    advice = str(record["error"]["advice"])
    named = re.findall(r"`updater ([^`]+)`", advice)
    _must(bool(named), f"held still, and no command is advised: {advice}")
    for words in named:
        done = world.command(*words.split(), *(["--yes"] if "restore" in words else []))
        _must(done.code == 0, f"held still, and {words!r} does not lead out: {done.code}\n{done.text}")


def _kept_its_word(operation: Operation, version: str, record: Any, code: int | None) -> None:
    """The exit status is still true after the recovery: what ended with 0 stays done, what was called failed is not done later."""
    if operation.what != "worker" or code is None:
        return
    _must(record is not None or code != 0, f"exit {code}, and no record of it")
    if record is None:  # it could not even begin its journal
        return
    good = record["outcome"] in ("succeeded", "nothing-to-do")
    _must(good == (code == 0), f"exit {code}, and the history says {record['outcome']}")
    _must(code != 0 or operation.codes != (0,) or version == operation.new, f"exit 0, and then {version}")


def _is_whole(world: World, *, backups: bool = True) -> None:
    """Every release, every backup and every script is what it was made as. ``backups``: whether these are read."""
    for words in (("verify", "--all"), ("backup", "verify", "--all"))[: 1 + backups]:
        done = world.command(*words)
        _must(done.code == 0, f"{' '.join(words)}: exit {done.code}\n{done.text}")
    _scripts(world)
    _releases(world)
    _nothing_of_what_has_gone(world)


def _changes_nothing_more(world: World) -> None:
    """A second recovery has nothing to do, and nothing is left over."""
    before = _listing(world.site.root)
    done = world.command("recover")
    _must(
        done.code == 0 and done.out == "nothing to recover\n", f"a second recovery: {done.code} {done.text}"
    )
    _must(before == (after := _listing(world.site.root)), f"a second recovery changed {before ^ after}")
    nothing_left(world)


def _runs(world: World) -> bool:
    """Whether status tells of every process that it runs."""
    return all(it["state"] == "running" for it in json.loads(world.must("status", "--json").out)["processes"])


def _releases(world: World) -> None:
    """No half of a release is left, no half of a mark either."""
    layout = world.site.layout
    for it in layout.releases.iterdir():
        _must((it / ".release" / "release.json").is_file(), f"half of a release: {it.name}")
    for it in (*layout.marks.iterdir(), *([layout.hold] if layout.hold.exists() else [])):
        text = it.read_text()
        _must("at" in text and text.endswith("\n"), f"half of a mark: {it.name}: {text!r}")


def _nothing_of_what_has_gone(world: World) -> None:
    """A release that has gone has left no mark: installed again it is not good before it has run, and no secret of it stays."""
    layout = world.site.layout
    names = [it.stem for it in (*layout.marks.glob("*.good"), *layout.configurations.glob("*.toml"))]
    for name in (*names, *(it.name for it in layout.launchers.iterdir())):
        _must(layout.release(name).is_dir(), f"{name} has gone and has left something")


def _scripts(world: World) -> None:
    """The emergency scripts are there, whole."""
    for it in (REPOSITORY_TOP / "scripts").glob("*.sh"):
        mine = world.site.layout.scripts / it.name
        _must(mine.is_file() and mine.read_bytes() == it.read_bytes(), f"scripts/{it.name} is not whole")


def said(world: World, operation: Operation, known: int, code: int) -> None:
    """The exit code is true, before anybody recovers anything: what has said that it is done has done it."""
    if code == 0:
        _must(operation.done(world), "exit 0, and what was to be done is not there")
    if operation.what != "worker":
        return
    record = _own_record(world, known)
    fitting = {
        0: ("succeeded", "nothing-to-do"), 3: ("failed",), 4: ("rolled-back", "failed"), 5: ("rollback-failed",), 7: ("failed",),
        8: ("failed",), 9: ("failed", "rolled-back"),  # that somebody uses its database shows once it has stopped, too
    }  # fmt: skip
    # a journal that stays open has its record later
    if record is not None and code in fitting:
        _must(record["outcome"] in fitting[code], f"exit {code}, and the history says {record['outcome']}")
    _must(
        record is not None or code != 0 or bool(list(world.site.layout.journal.glob("*.jsonl"))),
        "exit 0, and no record",
    )


def is_done(world: World, operation: Operation, known: int) -> None:
    """What it has said it had done is there, whatever became of the machine since."""
    _must(operation.done(world), "what was done is not there")
    if operation.what == "worker":
        record = _own_record(world, known)
        _must(record is not None and not record["recovered"], f"it had ended, and the history says {record}")
        if operation.codes == (0,):
            _must(
                record["outcome"] == "succeeded" and in_service(world) == operation.new,
                f"it is {record['outcome']} now",
            )


def deploys_next(world: World, operation: Operation) -> None:
    """The next deployment succeeds with no step by hand, and costs no row either."""
    missing = world.missing()
    done = world.work("deploy", operation.follows)
    _must(done.code == 0, f"the next deployment: exit {done.code}\n{done.text}\n{world.last_words()}")
    _must(in_service(world) == operation.follows, "the next deployment is not in service")
    after = world.missing()
    _must(after == missing, f"the next deployment lost rows: {_few(after)}")
    _must(world.schema() == SCHEMAS.get(operation.follows, 1), "the next deployment has not migrated")
    nothing_left(world)


def in_service(world: World) -> str:
    """The one release by every fact there is: link, its files, good, VERSION, status, processes, what answers."""
    site = world.site
    version = site.current()
    _must(version is not None, "`current` is gone")
    assert version is not None
    tree = site.layout.release(version)
    _must(
        (tree / "serve.py").is_file() and (tree / ".release" / "release.json").is_file(),
        f"{version} is not whole",
    )
    _must((site.root / "VERSION").read_text().strip() == version[1:], "VERSION is another one")
    good = site.layout.good.readlink().name if site.layout.good.is_symlink() else None
    _must(good == version, f"`current` is {version}, good {good}")
    found = json.loads(world.must("status", "--json").out)
    _must(found["in_service"]["version"] == version, f"status tells {found['in_service']}")
    seen = [(it["name"], it["state"], it["release"]) for it in found["processes"]]
    _must(seen == [("web", "running", version)], f"status tells of processes {seen}")
    _must(found["deployment"] is None, f"status tells of {found['deployment']}")
    eventually(lambda: (site.answer() or "").startswith(f"{version[1:]} "), f"{version} answers", 10)
    return version


def _own_record(world: World, known: int) -> Any:
    """The record of the operation; None if it had not begun, or leaves none."""
    found = world.site.history()
    ids = [it["id"] for it in found]
    _must(len(ids) == len(set(ids)), "a deployment is recorded twice")
    new = found[known:]
    _must(len(new) <= 1, f"{len(new)} records of one operation: {[it['outcome'] for it in new]}")
    return new[0] if new else None


def _data(world: World, operation: Operation, version: str, record: Any, *, held: bool) -> None:
    _must(world.schema() == SCHEMAS.get(version, 1), f"{version} with schema {world.schema()}")
    missing = world.missing()
    if not missing:
        return
    _must(operation.takes_data_back and record is not None, f"rows are lost: {_few(missing)}")
    if record["outcome"] == "succeeded":
        _must(operation.puts_data_back, f"it succeeded, and rows are gone: {_few(missing)}")
    else:
        _only_of_the_new(world, operation, missing, held=held)
    _kept_somewhere(world, missing, record)


def _only_of_the_new(
    world: World, operation: Operation, missing: dict[str, set[str]], *, held: bool = False
) -> None:
    """Where the way back was gone, only what ran on trial may have lost rows: the new release, and in a restore the one that was
    started over the data of the backup."""
    mine = f"{operation.old[1:]}/"
    old = {what for rows in missing.values() for what in rows if what.startswith(mine)}
    if operation.old == operation.new and operation.puts_data_back:
        old = {what for what in old if what.split("/")[1] in world.writers}
    _must(not old or held, f"rows of the release before are lost: {sorted(old)[:3]}")


def journals(world: World) -> set[str]:
    """Every deployment that has begun, by its journal."""
    layout = world.site.layout
    return {it.stem for place in (layout.journal, layout.journal / "closed") for it in place.glob("*.jsonl")}


def _kept_somewhere(world: World, missing: dict[str, set[str]], report: Any) -> None:
    """What is in the databases no more is in a backup, or a directory, that the report names."""
    text = json.dumps(report, ensure_ascii=False)
    names = dict.fromkeys(re.findall(r"backup_\d{8}_\d{6}(?:_\d+)?", text))
    elsewhere = world.in_backups(it for it in names if (world.site.layout.backups / it).is_dir())
    for kept in world.site.layout.shared.glob(".updater-kept-*"):
        if kept.name in text:
            elsewhere.append(_kept(world, kept))
    for name, rows in missing.items():
        left = rows.difference(*(it.get(name, set()) for it in elsewhere))
        _must(not left, f"rows are in nothing that the report names ({', '.join(names)}): {sorted(left)[:3]}")


def _kept(world: World, place: Path) -> dict[str, set[str]]:
    """What the databases hold that were kept aside, under the numbers that ``PATHS`` explains, or the record of the move."""
    found: dict[str, set[str]] = {}
    if (place / "PATHS").exists():
        paths = dict(line.split("  ", 1) for line in (place / "PATHS").read_text().splitlines())
    else:
        records = [json.loads(it.read_text()) for it in world.site.layout.own.glob("swap-*.kept.json")]
        paths = {
            str(step["number"]): step["path"]
            for it in records
            if it["id"] in place.name
            for step in it["steps"]
        }
    for side in ("old", "new"):
        into = world.place / "kept"
        shutil.rmtree(into, ignore_errors=True)
        (into / "data").mkdir(parents=True)
        for number, path in paths.items():
            if (place / side / number).is_file() and path.startswith("data/"):
                shutil.copy(place / side / number, into / path)
        for name, rows in world.held(into / "data", some=True).items():
            found[name] = found.get(name, set()) | rows
    return found


def _settings(world: World, operation: Operation, version: str) -> None:
    """As the release needs them: the user's own, with what the new one brings."""
    place = world.site.layout.shared / "config" / "app.toml"
    if not operation.has_settings:
        _must(not place.exists(), "there are settings that nobody wrote")
        return
    _must(place.exists(), "the settings are gone")
    text = place.read_text()
    wanted = {DEFAULTS["v1.0.0"]: SETTINGS, DEFAULTS["v1.3.0"]: MERGED}[
        DEFAULTS.get(version, DEFAULTS["v1.3.0"])
    ]
    _must(text == wanted, f"{version} with the settings {text!r}")


def _elsewhere(world: World, operation: Operation, record: Any) -> None:
    """What is in no database is of the same state as the data: files, and the database elsewhere."""
    restored = operation.kind == "restore" and record is not None and record["outcome"] == "succeeded"
    loaded = restored and operation.name == "restore"
    wanted = {"": "", "old": "old", "later": "old" if loaded else "later"}[world.saved_elsewhere]
    _must(
        world.elsewhere.read_text() == wanted, f"elsewhere is {world.elsewhere.read_text()!r}, not {wanted!r}"
    )
    if not operation.name.startswith("restore"):
        return
    data = world.site.layout.shared / "data"
    state = (data / "state.json").read_text()
    _must(
        state == (STATE if restored else LATER_STATE), f"state.json is {state!r} after {wanted!r} elsewhere"
    )
    _must((data / "later.json").exists() != restored, "later.json is of another state than the rest")
    for name, rows in world.held(data).items():
        _must((world.last_row in rows) != restored, f"{name}.db is of another state than the rest")


def _telling(world: World, operation: Operation, version: str, record: Any, *, held: bool) -> None:
    """The report is true."""
    succeeded = record is not None and record["outcome"] == "succeeded"
    if operation.codes == (4,) or operation.name == "recover before the commit":
        _must(not succeeded, "it could not succeed, and the history says that it did")
    if operation.name == "recover after the commit":
        _must(succeeded, f"it was committed, and the history says {record and record['outcome']}")
    if operation.name == "fetch" and succeeded:
        _must(operation.done(world), "fetched, the history says, and it is not there")
    if operation.old != operation.new:
        _must(
            record is not None or version == operation.old,
            f"{version} is in service, and the history knows nothing of it",
        )
        if record is not None and not held:
            outcome = record["outcome"]
            _must(
                (outcome == "succeeded") == (version == operation.new),
                f"a false report: {outcome}, and {version} is in service",
            )
    if record is not None and record["outcome"] == "failed":
        _must(
            "stop" not in [it["name"] for it in record["phases"]],
            "it is called untouched, and it was stopped",
        )
    if record is not None and record["outcome"] in ("rolled-back", "failed"):
        _must(bool(record["error"] and record["error"]["message"]), "a failure without a reason")


def nothing_left(world: World) -> None:
    """No lock, journal, temporary name or process is left over."""
    layout = world.site.layout
    told = layout.history.read_text() if layout.history.exists() else ""
    for directory, names, files in os.walk(layout.root):
        for name in (*names, *files):
            _must(not durable.is_temporary(name), f"left over: {directory}/{name}")
            _must(
                not name.startswith(".updater-") or name.startswith(".updater-kept-"),
                f"left over: {directory}/{name}",
            )
            if name.startswith(".updater-kept-"):
                _must(name in told, f"kept aside, and no report names it: {directory}/{name}")
    _must(list(layout.journal.glob("*.jsonl")) == [], "a journal is left open")
    for name in ("trial", "swap", "swapped", "swap_steps", "emergency", "drained"):
        _must(not os.path.lexists(getattr(layout, name)), f"left over: {name}")
    _must(not (layout.run / "child").exists(), "a child is told of")
    with open(layout.lock, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            raise Violation("the lock is held") from failure
    eventually(lambda: len(world.forks.family()) == 1, f"one process, not {_processes(world)}", 10)


def _processes(world: World) -> list[str]:
    found = []
    for pid in world.forks.family():
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[-120:])
        except OSError:
            continue
    return found


VOLATILE = re.compile(r"shared/(data|logs)/|\.updater/(lock|cache/|room)")


def _listing(root: Path) -> set[tuple[str, int, int]]:
    """Every name with its size and date, but for what the application writes and the log."""
    found = set()
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            place = os.path.join(directory, name)
            inside = os.path.relpath(place, root)
            if VOLATILE.match(inside):
                continue
            about = os.lstat(place)
            date = 0 if os.path.isdir(place) and not os.path.islink(place) else about.st_mtime_ns
            found.add((inside, about.st_size if date else 0, date))
    return found


def _few(missing: dict[str, set[str]]) -> str:
    return "; ".join(f"{name}: {len(rows)}, {sorted(rows)[:3]}" for name, rows in missing.items())


def refused(world: World, operation: Operation) -> None:
    """The emergency script has said that there is nothing to go back to: true only where nothing has touched what runs."""
    for it in world.site.layout.journal.glob("*.jsonl"):
        lines = it.read_text().splitlines()
        if any('"kind":"end"' in line for line in lines):  # it waits for the history alone
            continue
        stopped = [line for line in lines if '"intent"' in line and '"stop"' in line]
        _must(not stopped, "the script has refused, and the release had been stopped")
    _must(operation.old == world.site.current(), "the script has refused, and another release is in service")
    eventually(lambda: (world.site.answer() or "").startswith(f"{operation.old[1:]} "), "it answers", 10)


def judge_script(world: World, operation: Operation, *, known: int, begun: set[str]) -> str:
    """After an emergency script: a release that was good is in service with its data, and the history says who did it.

    ``begun``: the deployments that had begun before."""
    version = in_service(world)
    _must(world.schema() == SCHEMAS.get(version, 1), f"{version} with schema {world.schema()}")
    found = world.site.history()
    ids = [it["id"] for it in found]
    _must(len(ids) == len(set(ids)), "a deployment is recorded twice")
    _must(len(found) > known, "nothing is in the history")
    ended = (
        found[known]["kind"] == operation.kind
        and not found[known]["recovered"]
        and bool(found[known]["phases"])
    )
    last = found[-1]
    _must(last["origin"] == "script" or ended, "the script is not in the history")
    if last["origin"] == "script":
        there = {"succeeded": last["to"], "rolled-back": last["from"]}.get(last["outcome"])
        _must(
            there == version,
            f"the script is told as {last['outcome']}, to {last['to']}; {version} is in service",
        )
    _must(begun <= set(ids), "a deployment that began is not in the history")
    missing = world.missing()
    if missing:
        _must(operation.takes_data_back, f"rows are lost: {_few(missing)}")
        _only_of_the_new(world, operation, missing)
        _kept_somewhere(world, missing, found[known:])
    _settings(world, operation, version)
    _elsewhere(world, operation, None)
    _is_whole(world)
    nothing_left(world)
    return "new" if version == operation.new != operation.old else "old"
