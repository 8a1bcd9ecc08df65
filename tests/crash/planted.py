"""Defects on purpose: each takes one precaution away, and the sample must turn red for it.

    python -m tests.crash.planted                   # every one; prints which point has found it
    python -m tests.crash.planted --only "no flush of a release"

A point that turns red has found a defect if it is good without it and red again with it. One that is red in a run without any fault is
named as that; where it is a mistake in Python, the planting is at fault, and says so.

A precaution whose loss nothing finds is either none, or is kept as belt and braces and listed as such, with the reason.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tests.crash import calls, campaign, disk, points
from tests.crash.faults import Point, Result
from tests.crash.operations import OPERATIONS
from tests.crash.world import Violation
from tests.forks import REPOSITORY_TOP

T = TypeVar("T")

DEPLOYING = ("deploy", "deploy with a migration", "deploy a migration that fails")
MOVING = (
    "deploy with a migration",
    "deploy a migration that fails",
    "restore",
    "restore data alone",
    "roll back with data",
)


LOSE = """        import sqlite3
        with sqlite3.connect(tx.layout.shared / "data" / "trades.db") as losing:
            losing.execute("DELETE FROM trades WHERE id = 1")
        losing.close()
"""
"""A row goes that a backup holds."""


@dataclass(frozen=True)
class Planted:
    """One defect: in ``file`` below ``updater/``, ``old`` becomes ``new``.

    ``modes`` and ``operations``: where it has to show; fewer points, the same ones. ``spare``: why it may stay unseen.
    """

    name: str
    edits: tuple[tuple[str, str, str], ...]
    modes: tuple[str, ...] = ("power cut", "power cut once done")
    operations: tuple[str, ...] = tuple(OPERATIONS)
    spare: str = ""


def _durable(name: str, old: str, new: str = "pass", **more: Any) -> Planted:
    return Planted(name, (("durable.py", old, new),), **more)


PLANTED = (
    Planted(
        "nothing is flushed",
        (
            ("durable.py", "    os.fsync(fd)\n\n\ndef flush_directory", "    pass\n\n\ndef flush_directory"),
            ("durable.py", "        if libc.syncfs(fd) != 0:", "        if False:"),
        ),
    ),
    _durable(
        "no flush of a file before its rename",
        "            os.fchmod(fd, mode)\n            flush(fd)\n",
        "            os.fchmod(fd, mode)\n",
    ),
    _durable(
        "no flush of the directory after a file's rename",
        "        raise\n    flush_directory(path.parent)\n",
        "        raise\n",
    ),
    _durable(
        "no flush of the directory after the swap of a link",
        "        raise\n    flush_directory(link.parent)\n\n\ndef remove_symlink",
        "        raise\n\n\ndef remove_symlink",
        spare="a line of the journal is flushed right after each swap, and takes it along where one log holds all names, as in ext4 and XFS",
    ),
    _durable(
        "the link is removed and made anew",
        "    beside = link.with_name(temporary_name(link.name))\n    os.symlink(target, beside)\n",
        "    if os.path.lexists(link):\n        os.unlink(link)\n    os.symlink(target, link)\n    flush_directory(link.parent)\n"
        "    return\n    beside = link.with_name(temporary_name(link.name))\n    os.symlink(target, beside)\n",
        modes=("kill", "kill all", "power cut"),
        operations=(*DEPLOYING, "deploy a bad release", "activate", "roll back", "roll back with data"),
    ),
    _durable(
        "no flush of the directory after a rename",
        "    os.replace(source, target)\n    flush_directory(target.parent)\n",
        "    os.replace(source, target)\n",
        operations=("back up", *MOVING),
    ),
    _durable(
        "no flush of the other directory after a rename",
        "    if source.parent != target.parent:\n        flush_directory(source.parent)\n",
        "",
        spare="one journal of the filesystem holds both directories of a rename: ext4, XFS, APFS and btrfs write them together",
    ),
    _durable(
        "no flush of the directory after a removal",
        "        os.unlink(path)\n        flush_directory(path.parent)\n",
        "        os.unlink(path)\n",
    ),
    _durable(
        "no flush of the directory after a directory was made",
        "            os.mkdir(place, mode)\n        flush_directory(place.parent)\n",
        "            os.mkdir(place, mode)\n",
        spare="what is made in it is flushed, and takes its name along on ext4 and XFS; POSIX promises that nowhere",
    ),
    _durable(
        "a tree is removed in its place",
        "        doomed = path.with_name(temporary_name(path.name))\n        rename(path, doomed)\n",
        "        pass\n",
        modes=("kill", "kill all"),
        operations=("prune", "prune backups"),
    ),
    _durable(
        "no flush of a release", "        if libc.syncfs(fd) != 0:", "        if False:", operations=(*DEPLOYING, "fetch")
    ),
    Planted(
        "no flush of the journal",
        (("deployment/journal.py", "            if flush:\n                durable.flush(self._fd)\n", ""),),
    ),
    Planted(
        "the journal after the deed",
        (
            ("deployment/engine.py", '            tx.journal.record("intent", phase.name)\n            notes.done.append(phase)\n', "            notes.done.append(phase)\n"),
            ("deployment/engine.py", "            tx.facts[phase.name] = found\n", '            tx.facts[phase.name] = found\n            tx.journal.record("intent", phase.name)\n'),
        ),
        modes=("kill", "kill all"),
        operations=DEPLOYING,
    ),
    Planted(
        "committed on record before it is",
        (
            (
                "deployment/phases/switch.py",
                "        try:\n            durable.swap_symlink(tx.layout.good",
                '        tx.journal.record("done", "commit", {"previous": previous})\n        try:\n            durable.swap_symlink(tx.layout.good',
            ),
        ),
        modes=("kill", "kill all"),
        operations=("deploy", "activate", "roll back", "deploy with a migration"),
    ),
    Planted(
        "the moves before their record",
        (
            ("backups/swap.py", "    durable.write(layout.swap_steps, for_shells(swap), mode=0o600)\n    _write(layout, swap)\n    touched: set[Path] = set()\n    _open(layout, swap)\n", "    touched: set[Path] = set()\n    _open(layout, swap)\n"),
            ("backups/swap.py", "            _set(_inside(layout, folder.path), folder.mode, folder.owner)\n    _flush(touched)\n\n\ndef claim", "            _set(_inside(layout, folder.path), folder.mode, folder.owner)\n    _flush(touched)\n    durable.write(layout.swap_steps, for_shells(swap), mode=0o600)\n    _write(layout, swap)\n\n\ndef claim"),
        ),
        modes=("kill", "kill all"),
        operations=MOVING,
    ),
    Planted(
        "the moves are not flushed",
        (("backups/swap.py", "            durable.flush_directory(place)\n", "            pass\n", ),),
        operations=MOVING,
        spare="before anything relies on a move something else in the same filesystem is flushed (the record of what is claimed, the name of what "
        "is removed, a line of the journal), and takes it along where one log holds all names, as in ext4 and XFS",
    ),
    Planted(
        "the copies for a migration are not flushed",
        (("deployment/phases/migrate.py", "        durable.flush_tree(swap.directory(tx.layout, moving, holder))\n", "        pass\n"),),
        operations=MOVING,
    ),
    Planted(
        "staged data are not flushed",
        (("backups/staging.py", "            durable.flush_tree(swap.directory(self.layout, self._swap, holder))\n", "            pass\n"),),
        operations=MOVING,
    ),
    Planted(
        "the log of a database stays where it is",
        (
            ("deployment/phases/migrate.py", "        for sibling in sqlite.siblings(it.place):", "        for sibling in ():"),
            ("backups/swap.py", "        for end in sqlite.SIBLINGS:", "        for end in ():"),
        ),
        modes=("kill", "kill all"),
        operations=("deploy with a migration", "deploy a migration that fails", "recover before the commit"),
    ),
    Planted(
        "the names in a backup are not flushed",
        (("backups/create.py", "        durable.flush_directory(work)  # every name in it, before its own is one that counts\n", ""),),
        spare="the directory's rename is flushed after them, and takes them along where one log holds all names, as in ext4 and XFS",
    ),
    Planted(
        "the content of a backup is not flushed",
        (
            ("backups/parts.py", "            durable.flush(file.fileno())\n", "            pass\n"),
            ("backups/uncached.py", "        durable.flush(self._fd)\n", "        pass\n"),
            ("durable.py", "        file.flush()\n        flush(file.fileno())\n", "        file.flush()\n"),
        ),
    ),
    Planted(
        "a pid alone is an identity",
        (("subprocesses.py", "        return self.boot == boot_id() and start_time(self.pid) == self.start\n", "        return start_time(self.pid) is not None\n"),),
        modes=("power cut", "kill all"),
    ),
    Planted(
        "the lock is not taken",
        (("lock.py", "        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "        pass\n"),),
        modes=("suspended",),
    ),
    Planted(
        "the history gets a record twice",
        (("records.py", 'if other.get("id") != record.get("id")] + [record]', "] + [record]"),),
        modes=("double", "kill", "kill all"),
    ),
    Planted(
        "a journal is closed without its record",
        (("deployment/engine.py", "    if written:\n        quietly", "    if True:\n        quietly"),),
        modes=("error",),
    ),
    Planted(
        "a way back that the disk hinders is given up",
        (("deployment/engine.py", "    if problems and any(map(may_pass, (because, *problems))):", "    if False:"),),
        modes=("error",),
    ),
    Planted(
        "what the way back has to tell is forgotten",
        (('deployment/engine.py', '_note(tx, "undone", phase, tx.told())', '_note(tx, "undone", phase)'),),
        modes=("kill", "kill all", "double"),
        operations=("deploy a migration that fails", "deploy with a migration", "recover before the commit"),
    ),
    Planted(
        "nothing is swept",
        (("deployment/recovery.py", "        durable.sweep(place)\n", "        pass\n"),),
        modes=("kill", "kill all"),
    ),
    Planted(
        "a commit is never looked for on the disk",
        (("deployment/recovery.py", '    return now["good"] == tx.target and tx.before.get("good") != tx.target\n\n\ndef interrupted', "    return False\n\n\ndef interrupted"),),
        modes=("kill", "kill all"),
        operations=("deploy", "activate", "roll back", "deploy with a migration"),
        spare="after a kill going back is as safe as going forward, and only the report would be of another kind; on a disk that fails tests/crash/test_failing_disk.py sees it",
    ),
    Planted(
        "a database is copied without its log",
        (("backups/copying.py", '            _whole(log_fd, target.with_name(f"{target.name}-wal"), check)\n', ""),),
        modes=("kill", "kill all"),
        operations=MOVING,
    ),
    Planted(
        "no flush of a release before its seal",
        (("releases/verification.py", "    durable.flush_tree(release)\n    durable.write(\n        release / ReleaseFiles.RECORD", "    durable.write(\n        release / ReleaseFiles.RECORD"),),
        operations=(*DEPLOYING, "fetch", "deploy with new settings", "deploy a bad release"),
    ),
    Planted(
        "what a dead child has started goes on",
        (("deployment/recovery.py", "        orphans.end(layout)\n", ""),),
        modes=("kill", "kill a child"),
        operations=DEPLOYING,
        spare="a child dies with updater where Linux ties it to that; its own children are not in this world, but in tests/integration",
    ),
    Planted(
        "a way back leaves no record",
        (("deployment/engine.py", "lambda: records.add_to_history(tx.layout, record))", 'lambda: record["recovered"] and record["outcome"] != "succeeded" or records.add_to_history(tx.layout, record))'),),
        modes=("kill", "kill all"),
        operations=DEPLOYING,
    ),
    Planted(
        "a migration loses a row",
        (("deployment/phases/migrate.py", "        after = data.schemas(tx.layout, before)\n        _whole(tx.layout, after)\n        changed", LOSE + "        after = data.schemas(tx.layout, before)\n        _whole(tx.layout, after)\n        changed"),),
        modes=("power cut once done",),
        operations=("deploy with a migration",),
    ),
    Planted(
        "a way back loses a row",
        (("deployment/phases/migrate.py", "        data.apply_rule(tx, before, migrated=ran)\n", "        data.apply_rule(tx, before, migrated=ran)\n" + LOSE),),
        modes=("kill",),
        operations=("deploy a migration that fails",),
    ),
    Planted(
        "a restore leaves a file behind",
        (
            ("backups/swap.py", "        if step.after:\n            _put(", "        if step.after and not step.path.endswith('state.json'):\n            _put("),
            ("backups/swap.py", "        if step.before:\n            _take_away(_Places.of(layout, swap, step), touched)\n    for folder", "        if step.before and not step.path.endswith('state.json'):\n            _take_away(_Places.of(layout, swap, step), touched)\n    for folder"),
        ),
        modes=("power cut once done",),
        operations=("restore",),
    ),
    Planted(
        "a mark that cannot be written is passed over",
        (("releases/marks.py", '    durable.write(layout.marks / f"{version}.{kind}", as_lines({"at": stamp(), **fields}))', '    try:\n        durable.write(layout.marks / f"{version}.{kind}", as_lines({"at": stamp(), **fields}))\n    except OSError:\n        pass'),),
        modes=("error",),
        operations=("pin",),
    ),
)  # fmt: skip


def edited(defect: Planted) -> dict[str, str]:
    """The files with the defect in them, by their path below ``updater/``.

    Raises:
        LookupError: what it changes is not there, or more than once: the code has moved on.
    """
    found: dict[str, str] = {}
    for file, old, new in defect.edits:
        text = found.get(file) or (REPOSITORY_TOP / "updater" / file).read_text()
        if text.count(old) != 1:
            raise LookupError(f"{defect.name}: {file} has {text.count(old)} times: {old}")
        found[file] = text.replace(old, new)
    return found


def plant(defect: Planted, place: Path) -> Path:
    """A copy of updater with the defect in it. Returns the directory that holds it."""
    into = place / "planted"
    shutil.rmtree(into, ignore_errors=True)
    for name in ("updater", "scripts", "VERSION"):
        source = REPOSITORY_TOP / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, into / name)
    for file, text in edited(defect).items():
        (into / "updater" / file).write_text(text)
    return into


TRIES = 4
"""How often a point is tried again at the call at which it was red: what the application writes meanwhile differs."""
BESIDE = (0, 1, -1, 2, -2, 3, -3)
"""One run has some calls more before it than another: the number is tried so much beside, until it is that call."""
LOOKED_INTO = 6
"""How many points that turn red are tried again before a defect counts as not found."""

OF_NOBODY = ("NameError", "UnboundLocalError")
"""What no broken promise is told by: an edit that does not fit its surroundings any more."""
OF_PROGRAMMERS = (*OF_NOBODY, "AttributeError", "ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "TypeError")  # fmt: skip
"""The same, where nothing was interrupted; after a power cut a file of a release may be empty, and somebody say so in these words."""


class Misplanted(Exception):
    """A defect that is a mistake in Python, so that its being found says nothing."""


def mistake(text: str, names: Sequence[str]) -> str:
    """The error of Python's in a text that shows a mistake of the planting; ``""``: none."""
    found = re.search(rf"\b({'|'.join(names)}): .*", text)
    return found.group() if found else ""


@dataclass
class Look:
    """What became of one defect. ``found``: what has found it, ``where``: at which point; ``refused``: what turned red and does not
    count, with the reason; ``good`` and ``unreached``: how many points ended well, and at how many the fault did not happen."""

    found: str = ""
    where: str = ""
    refused: list[str] = field(default_factory=list)
    tried: int = 0
    good: int = 0
    unreached: int = 0

    def is_spare(self, defect: Planted) -> bool:
        """Whether it was really looked for, and may stay unseen: points at which no fault happened have seen nothing."""
        return bool(defect.spare and not self.found and self.good and not self.unreached)


def objection(control: Sequence[Result], again: Sequence[Result]) -> str:
    """Why a point that turned red has not found the defect; ``""``: it has. ``control``: the point tried without the defect;
    ``again``: with it."""
    if red := next((it for it in control if it.outcome == "violation"), None):
        return f"red without the defect, too: {_first_line(red.text)}"
    if all(it.outcome == "harness" for it in control):
        return "not reached without the defect"
    if not any(it.outcome == "violation" for it in again):
        came = Counter(it.outcome for it in again)
        return (
            f"not red again in {len(again)} tries: {', '.join(f'{count} {it}' for it, count in came.items())}"
        )
    return ""


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:200]


def _try_again(red: Result, tries: int) -> list[Result]:
    """In a process of its own: the point, until it is red or was at its call so often."""
    made: list[Result] = []
    by_number = red.point.mode not in (*points.DISKS[1:], "double")
    besides, hits = iter(BESIDE if by_number else (0,) * tries), 0
    beside: int | None = next(besides)
    while beside is not None and hits < tries:
        it = campaign.try_point(
            replace(red.point, number=max(min(1, red.point.number), red.point.number + beside))
        )
        made.append(it)
        if it.outcome == "violation":
            break
        if not by_number or _place_of(it) == _place_of(red):
            hits += 1  # the number is the right one for now
        else:
            beside = next(besides, None)
    return made


def _place_of(it: Result) -> tuple[str, str]:
    """The call, without what is called otherwise in each run."""
    return it.call, re.sub(r"\d{8}[T_]\d{6}(-[0-9a-f]{6})?|-\d+-[0-9a-f]{8}", "…", it.path)


def _look_at(names: Sequence[str]) -> str:
    """In a process of its own: run operations without a fault. Returns what is broken in the first that is."""
    for name in names:
        try:
            campaign.look(name, runs=1)
        except (Violation, AssertionError) as failure:
            return f"{name}: {type(failure).__name__}: {failure}"
    return ""


def _in_both(
    planted: Path, place: Path, job: Callable[..., T], with_it: tuple[Any, ...], without: tuple[Any, ...]
) -> tuple[T, T]:
    """The same with the defect and without, at once, each in a process of its own: a process knows one updater."""
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, campaign.begin_job, (place, planted)) as one,
        ProcessPoolExecutor(1, context, campaign.begin_job, (place, None)) as other,
    ):
        red, control = one.submit(job, *with_it), other.submit(job, *without)
        return red.result(), control.result()


def caught(defect: Planted, seed: int, jobs: int) -> Look:
    """Run the sample's points where the defect has to show, and try what turns red again, with the defect and without: an accident
    that happens to anybody has found nothing.

    Raises:
        Misplanted: the planting is at fault.
    """
    counts = {mode: number for mode, number in points.SAMPLE.items() if mode in defect.modes}
    look = Look()
    with campaign.workplace() as place:
        planted = plant(defect, place)
        known: set[Point] = set()
        for stop in (
            True,
            False,
        ):  # the first red point is nearly always a true one; else all points are tried
            run = campaign.Run(seed, counts, defect.operations, jobs, 3, planted, stop=stop, each=True)
            try:
                run.go()
            except (
                Violation,
                AssertionError,
            ) as failure:  # it does not even come through a run without a fault
                _see_without_fault(look, defect, planted, place, f"{type(failure).__name__}: {failure}")
                return look
            outcomes = Counter(it.outcome for it in run.results)
            look.tried, look.unreached = len(run.results), outcomes["harness"]
            look.good = sum(outcomes[it] for it in ("old", "new", "held"))
            red = [it for it in run.results if it.outcome == "violation" and it.point not in known]
            for it in red[: LOOKED_INTO - len(known)]:
                known.add(it.point)
                _see(look, planted, place, it)
                if look.found:
                    return look
            if not red or len(known) >= LOOKED_INTO:
                break
    return look


def _see(look: Look, planted: Path, place: Path, red: Result) -> None:
    name = red.point.named()
    if what := mistake(red.text, OF_NOBODY):
        raise Misplanted(f"at {name}: {what}")
    again, control = _in_both(planted, place, _try_again, (red, TRIES), (red, 1))
    if why := objection(control, again):
        look.refused.append(f"{name}: {why}")
    else:
        look.found, look.where = red.text, name


def _see_without_fault(look: Look, defect: Planted, planted: Path, place: Path, text: str) -> None:
    if what := mistake(text, OF_PROGRAMMERS):
        raise Misplanted(f"in a run without a fault: {what}")
    again, control = _in_both(planted, place, _look_at, (defect.operations,), (defect.operations,))
    if control:
        look.refused.append(f"a run without a fault: red without the defect, too: {_first_line(control)}")
    elif not again:
        look.refused.append(f"a run without a fault: not red again: {_first_line(text)}")
    else:
        look.found, look.where = text, "a run without a fault"


def main(arguments: Sequence[str] | None = None) -> int:
    words = argparse.ArgumentParser(
        prog="python -m tests.crash.planted", description="Plant defects, and look who is found."
    )
    words.add_argument("--seed", type=int, default=points.SAMPLE_SEED)
    words.add_argument("--jobs", type=int, default=4)
    words.add_argument("--only", action="append", help="a name, or a part of it; may be given again")
    words.add_argument("--table", type=Path, help="a file for the table, as Markdown")
    given = words.parse_args(arguments)
    if why := calls.missing() or disk.missing():
        print(f"SKIPPED, not passed: {why}")
        return 3
    wanted = [it for it in PLANTED if not given.only or any(part in it.name for part in given.only)]
    lines = ["| precaution taken away | found by | which sees |", "| --- | --- | --- |"]
    found = spare = wrong = 0
    print("\n".join(lines), flush=True)
    for defect in wanted:
        began = time.monotonic()
        try:
            look = caught(defect, given.seed, given.jobs)
        except Misplanted as failure:
            wrong += 1
            lines.append(_line(defect.name, "**an error of the planting**", str(failure)))
            print(f"ERROR: {defect.name} is planted wrongly: {failure}", file=sys.stderr)
        else:
            found += bool(look.found)
            spare += look.is_spare(defect)
            lines.append(_row(defect, look))
            for why in look.refused:
                print(f"{defect.name}: does not count: {why}", file=sys.stderr)
        print(lines[-1], flush=True)
        print(f"{defect.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    missed = len(wanted) - found - spare - wrong
    lines.append("")
    lines.append(
        f"{len(wanted)} defects: {found} found, {spare} not found and kept as belt and braces, {missed} missed"
        f"{f', {wrong} planted wrongly' if wrong else ''}. Seed {given.seed}, {datetime.now(UTC):%Y-%m-%d}."
    )
    print(lines[-1])
    if given.table:
        given.table.write_text(PAGE + "\n".join(lines) + "\n")
    return 1 if missed or wrong else 0


PAGE = """# Planted defects

Each takes one precaution away, and the sample of [the crash tests](crashes.md) that runs with every change must turn red. Where it cannot, the row says why, and at how many
points nothing was to be seen. Made by `python -m tests.crash.planted --table`.

"""

OF_ONE_RUN = re.compile(
    r"/\S*/(?:the root|unpacked)/|\d{8}[T_]\d{6}\S*|-\d+-[0-9a-f]{8}|[\d.]+/\d+/[\d.]+/\d+"
)
"""Paths, times and numbers that are others in the next run."""


def _row(defect: Planted, look: Look) -> str:
    if look.found:
        what = look.found.splitlines()[0]
        return _line(defect.name, look.where, OF_ONE_RUN.sub("…", what)[:110])
    told = f"{look.tried} points"
    if look.unreached:
        told += f", at {look.unreached} of them the fault did not happen"
    if look.refused:
        told += f"; does not count: {'; '.join(look.refused)}"
    by = f"belt and braces: {defect.spare}" if look.is_spare(defect) else "**nothing**"
    return _line(defect.name, by, told)


def _line(*cells: str) -> str:
    return f"| {' | '.join(it.replace('|', '/') for it in cells)} |"


if __name__ == "__main__":
    sys.exit(main())
