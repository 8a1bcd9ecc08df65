"""Crashes everything, everywhere, and looks whether anybody would be stuck.

    python -m tests.crash                                  # the full run: some 25,500 points, two hours
    python -m tests.crash --points 500 --seed 7            # a sample, in the proportions of the full run
    python -m tests.crash --budget 10m                     # as far as ten minutes go
    python -m tests.crash --mode "power cut" --points 200
    python -m tests.crash --seed 7 --note FILE             # the same again goes on with a run that was stopped
    python -m tests.crash --only "deploy/kill/217"         # one point again, as a failure names it

Exit status: 0 no promise was broken and every fault happened; 1 one was, or one did not; 3 something could not be tried here
(no root, no loop devices), although nothing else failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tests.crash import calls, campaign, points
from tests.crash.faults import MODES, parsed
from tests.crash.operations import OPERATIONS


def seconds(text: str) -> float:
    """``90``, ``90s``, ``10m``, ``2h`` in seconds."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    return float(text[:-1]) * unit if unit else float(text)


def main(arguments: list[str] | None = None) -> int:
    words = argparse.ArgumentParser(prog="python -m tests.crash", description="Crash updater at many points.")
    words.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    words.add_argument("--points", type=int, help="how many in all (default: the full run)")
    words.add_argument("--budget", type=seconds, help="seconds, or 10m, 2h")
    words.add_argument("--mode", action="append", choices=MODES, help="may be given again")
    words.add_argument("--operation", action="append", choices=OPERATIONS, help="may be given again")
    words.add_argument("--jobs", type=int, default=3 * (os.cpu_count() or 1))
    words.add_argument("--deploy-every", type=int, default=5, help="another deployment after each n-th point")
    words.add_argument(
        "--package", type=Path, help="a directory with another updater in it, for planted defects"
    )
    words.add_argument(
        "--note",
        type=Path,
        help="a file for every result, as lines of JSON; if it is there, that run goes on",
    )
    words.add_argument("--json", type=Path, help="a file for the summary")
    words.add_argument("--table", type=Path, help="a file for the table, as Markdown")
    words.add_argument("--stop", action="store_true", help="end at the first promise that is broken")
    words.add_argument(
        "--only", action="append", default=[], help="OPERATION/MODE/NUMBER..., may be given again"
    )
    given = words.parse_args(arguments)
    if why := calls.missing():
        print(f"SKIPPED, not passed: everything: {why}")
        return 3
    if given.only:
        return again(given.only, given.seed, given.package)
    counts = {it: points.FULL[it] for it in given.mode or MODES}
    if given.points:
        counts = points.shares(given.points, counts)
    run = campaign.Run(
        given.seed,
        counts,
        given.operation or tuple(OPERATIONS),
        given.jobs,
        given.deploy_every,
        given.package,
        given.budget,
        given.stop,
    )
    run.points = given.points
    print(f"seed {given.seed}, {given.jobs} jobs", file=sys.stderr)
    run.go(given.note)
    return report(run, given.table, given.json)


def report(run: campaign.Run, table: Path | None, summary: Path | None) -> int:
    text = campaign.table(run.results)
    print(text)
    if table:
        table.write_text(page(run, text))
    found = Counter(it.outcome for it in run.results)
    for mode, why in run.left_out.items():
        print(f"SKIPPED, not passed: {mode}: {why}")
    for mode, how_many in run.fewer.items():
        print(f"fewer than asked for: {mode}: {how_many}, there are no more places")
    failed = [it for it in run.results if it.outcome in ("violation", "harness")]
    for it in failed[:40]:
        print(campaign.told(it)[:3000])
    print(f"{len(run.results)} points with seed {run.seed} in {run.seconds / 60:.1f} min: {dict(found)}")
    if summary:
        about = {
            "seed": run.seed, "seconds": run.seconds, "points": len(run.results), "outcomes": dict(found), "left_out": run.left_out,
            "slowest": max((it.seconds for it in run.results), default=0.0), "failed": [it.as_json() for it in failed],
        }  # fmt: skip
        summary.write_text(json.dumps(about, indent=2) + "\n")
    return 1 if failed or not run.results else 3 if run.left_out else 0


def page(run: campaign.Run, text: str) -> str:
    """The page that shows a run."""
    found = Counter(it.outcome for it in run.results)
    modes = Counter(it.point.mode for it in run.results)
    slowest = max((it.seconds for it in run.results), default=0.0)
    kills = sum(modes[it] for it in ("kill", "kill all", "kill a child", "script"))
    cuts = modes["power cut"] + modes["power cut once done"]
    told = Counter(what for it in run.results for what in it.told)
    earlier = sum(it.asked != it.point.named() for it in run.results)
    others = {what: number for what, number in told.items() if what.startswith("no ")}
    lines = [
        "# The last run of the crash tests",
        "",
        f"{f'A sample of the full run: `python -m tests.crash --points {run.points}' if run.points else '`python -m tests.crash'} "
        f"--seed {run.seed}`, {datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.release()}, "
        f"{os.cpu_count()} processors, Python {platform.python_version()}, {run.seconds / 60:.0f} minutes"
        f"{f' in {run.sittings} sittings' if run.sittings > 1 else ''}; the next deployment after every {run.deploy_every}th point of a process.",
        "",
    ]
    if len(run.results) < run.planned:
        lines += [f"It was stopped before its end: {len(run.results):,} of {run.planned:,} points.", ""]
    lines += [
        f"- **{len(run.results):,} crashes**: {kills:,} kills, {cuts:,} power cuts, {modes['error'] + modes['full disk'] + modes['network']:,} errors (full disks and lost networks with them), "
        f"{modes['double']:,} double faults, {modes['suspended'] + modes['clock']:,} others.",
        f"- **{found['violation']} broken promises**, {found['harness']} points that were not reached; {found['held']} held still, and what they advised led out of it.",
        f"- The slowest recovery took {slowest:.2f} s.",
        f"- {earlier:,} of them some calls before their number, since the run that was to be hit there had fewer.",
        f"- {told['bystander']:,} times somebody else's process had the application's number; {sum(others.values()):,} times it had not "
        f"({', '.join(f'{number:,} {what}' for what, number in others.items()) or 'never'}).",
        f"- {told['nothing for a script to do yet']:,} times the emergency script refused since nothing had been touched yet; updater recovered.",
        *(f"- Fewer than asked for: {mode}: {how_many}." for mode, how_many in run.fewer.items()),
        *(f"- Left out: {mode}: {why}." for mode, why in run.left_out.items()),
        "",
        "What the words mean, and how it is done: [crashes.md](crashes.md).",
        "",
        text,
    ]
    return "\n".join(lines) + "\n"


def again(names: list[str], seed: int, package: Path | None) -> int:
    """Points that a run has named, one after the other, with all that is told of them."""
    code = 0
    with campaign.workplace() as place:
        campaign.begin_job(place, package)
        try:
            for name in names:
                result = campaign.try_point(parsed(name, seed))
                print(campaign.told(result))
                code |= result.outcome in ("violation", "harness")
        finally:
            campaign.end_worlds()
    return code


if __name__ == "__main__":
    sys.exit(main())
