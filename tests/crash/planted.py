"""Defects on purpose: each takes one precaution away, and the sample must turn red for it.

    python -m tests.crash.planted                   # every one; prints which point has found it
    python -m tests.crash.planted --only "no flush of a release"

A precaution whose loss nothing finds is either none, or is kept as belt and braces and listed as such, with the reason.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.crash import calls, campaign, disk, points
from tests.crash.operations import OPERATIONS
from tests.crash.world import Violation
from tests.forks import REPOSITORY_TOP

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
        modes=("kill",),
        operations=("deploy", "activate", "roll back"),
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
                '        durable.swap_symlink(tx.layout.good, f"../releases/{target}")\n',
                '        tx.journal.record("done", "commit", {"previous": previous})\n        durable.swap_symlink(tx.layout.good, f"../releases/{target}")\n',
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
        spare="the next line of the journal is flushed before anything relies on a move, and takes it along where one log holds all names",
    ),
    Planted(
        "staged data are not flushed",
        (
            ("backups/staging.py", "            durable.flush_tree(swap.directory(self.layout, self._swap, holder))\n", "            pass\n"),
            ("deployment/phases/migrate.py", "        durable.flush_tree(swap.directory(tx.layout, moving, holder))\n", "        pass\n"),
        ),
        operations=MOVING,
        spare="the backup before the stop flushes the whole filesystem, staged data with it; what is staged after that is flushed by this alone",
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
        spare="going back is as safe as going forward there; only the report would be of another kind",
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


def caught(defect: Planted, seed: int, jobs: int) -> tuple[str, int, float]:
    """Run the sample's points where the defect has to show. Returns what has found it (``""``: nothing), how many points were
    tried, and the seconds."""
    began = time.monotonic()
    counts = {mode: number for mode, number in points.SAMPLE.items() if mode in defect.modes}
    with campaign.workplace() as place:
        run = campaign.Run(
            seed, counts, defect.operations, jobs, 3, plant(defect, place), stop=True, each=True
        )
        try:
            run.go()
        except Violation as failure:  # it does not even come through a run without a fault
            return f"{type(failure).__name__}: {failure}", 0, time.monotonic() - began
    found = next((it for it in run.results if it.outcome == "violation"), None)
    return campaign.told(found) if found else "", len(run.results), time.monotonic() - began


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
    missed = spare = 0
    print("\n".join(lines), flush=True)
    for defect in wanted:
        found, tried, seconds = caught(defect, given.seed, given.jobs)
        spare += bool(not found and defect.spare)
        missed += bool(not found and not defect.spare)
        lines.append(_row(defect, found, tried))
        print(lines[-1], flush=True)
        print(f"{defect.name}: {seconds:.0f} s", file=sys.stderr)
    lines.append("")
    lines.append(
        f"{len(wanted)} defects: {len(wanted) - missed - spare} found, {spare} not found and kept as belt and braces, {missed} missed. "
        f"Seed {given.seed}, {datetime.now(UTC):%Y-%m-%d}."
    )
    print(lines[-1])
    if given.table:
        given.table.write_text(PAGE + "\n".join(lines) + "\n")
    return 1 if missed else 0


PAGE = """# Planted defects

Each takes one precaution away; the sample of [crashes](crashes.md) that runs with every change must turn red. Made by `python -m tests.crash.planted --table`.

"""


def _row(defect: Planted, found: str, tried: int) -> str:
    if not found:
        return f"| {defect.name} | {f'belt and braces: {defect.spare}' if defect.spare else '**nothing**'} | {tried} points |"
    result = re.match(r"VIOLATION at '([^']*)'(?: before .*?)?: (.*)", found.splitlines()[0])
    where, what = result.groups() if result else ("a run without a fault", found.splitlines()[0])
    what = re.sub(r"/\S*/the root/|\d{8}[T_]\d{6}\S*|-\d+-[0-9a-f]{8}|[\d.]+/\d+/[\d.]+/\d+", "…", what)[:110]
    return f"| {defect.name} | {where} | {what.replace('|', '/')} |"


if __name__ == "__main__":
    sys.exit(main())
