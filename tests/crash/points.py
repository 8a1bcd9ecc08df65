"""Chooses where to crash: from the calls of each operation so many points for each mode, the same ones for the same seed."""

from __future__ import annotations

import itertools
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.crash import disk as disks
from tests.crash.calls import Call
from tests.crash.faults import CAN_FAIL, ERRORS, NEED_ROOM, Point
from tests.crash.operations import OPERATIONS

FULL = {
    "kill": 6100, "kill all": 3300, "kill a child": 200, "script": 500, "power cut": 5950, "power cut once done": 84, "error": 5700, "full disk": 250,
    "network": 150, "double": 3050, "suspended": 100, "clock": 150,
}  # fmt: skip
"""How many points of each mode a full run tries: 10,000 kills, 6,000 power cuts, 6,000 errors, 3,000 double faults."""

SAMPLE = {
    "kill": 5, "kill all": 1, "power cut": 2.5, "power cut once done": 1.2, "error": 2, "kill a child": 0.3, "full disk": 0.2, "double": 0.7,
    "suspended": 0.3, "script": 0.6, "network": 0.5, "clock": 0.2,
}  # fmt: skip
"""How many points of each mode and operation the tests try, times the operation's weight."""
SAMPLE_SEED = 1
DISKS = ("power cut", "power cut once done", "full disk")
"""Modes that need a filesystem of their own."""

KINDS = (
    (r"\.updater/journal/", "journal"),
    (r"(.* )?(current|VERSION|\.updater/(good|previous))$", "link"),
    (r"(.* )?\.updater/swap", "moved data"),
    (r"shared/(\.updater-[^/]*|data)(/|$)", "data"),
    (r"releases/[^/]*/\.release(/|$)", "seal"),
    (r"releases(/|$)", "release"),
    (r"shared/backups(/|$)", "backup"),
    (r"(.* )?shared/logs/update_history", "history"),
    (r"shared/logs(/|$)", "log"),
    (r"\.updater/(run|launchers)(/|$)", "process"),
    (r"\.updater/marks(/|$)", "mark"),
    (r"\.updater/cache(/|$)", "cache"),
    (r"", "other"),
)
"""What a path is about."""
BULK = {"log", "cache", "release", "backup"}
"""Where calls are many and alike."""
DECIDING = {"link", "moved data", "data", "history"}
"""What decides what a crash means."""
REMOVED = {"release", "backup"}
"""What is removed piece by piece."""


def kind(call: Call) -> str:
    """What a call is about: journal, link, data, seal ..."""
    text = " ".join(call.paths)
    return next(name for pattern, name in KINDS if re.match(pattern, text))


def stratified(calls: Sequence[Call], count: int, choice: random.Random) -> list[Call]:
    """Some of these calls, as far as ``count`` goes: in turn one that gives something else its name and decides what a crash means,
    and one that is the first or the last of its kind on its kind of thing; then the rest, what is bulk last."""
    groups: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        groups[kind(call), call.name].append(call)
    deciding = [
        it
        for (about, name), group in groups.items()
        if about in DECIDING and name.startswith(("rename", "unlink", "symlink"))
        for it in group
    ]
    removed = [it for about in sorted(REMOVED) for it in groups.get((about, "unlinkat"), [])]
    deciding += choice.sample(removed, min(4, len(removed)))
    ends = [it for group in groups.values() for it in dict.fromkeys((group[-1], group[0]))]
    choice.shuffle(deciding)
    ends.sort(key=lambda it: (kind(it) in BULK, choice.random()))
    rest = list(calls)
    choice.shuffle(rest)
    rest.sort(key=lambda it: kind(it) in BULK)
    mixed = itertools.chain.from_iterable(itertools.zip_longest(deciding, ends))
    order = dict.fromkeys([*(it for it in mixed if it), *rest])
    return sorted(itertools.islice(order, count))


@dataclass
class Plan:
    """What a run tries, and what it leaves out, with the reason. ``fewer``: modes that had not enough places for what was wanted."""

    points: list[Point] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    fewer: dict[str, str] = field(default_factory=dict)


def shares(total: float, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide ``total`` in proportion to the sizes; at least one each."""
    whole = sum(sizes.values())
    return {name: max(1, round(total * size / whole)) for name, size in sizes.items()} if whole else {}


def weighted(each: float, names: Iterable[str], seed: str) -> dict[str, int]:
    """So many for each operation, times its weight; of a part of one some operations get one, by the seed."""
    found = {}
    for name in names:
        whole, part = divmod(each * OPERATIONS[name].weight, 1)
        found[name] = int(whole) + (random.Random(f"{seed}/{name}").random() < part)
    return {name: number for name, number in found.items() if number}


def plan(
    golden: Mapping[str, Sequence[Call]],
    recoveries: Mapping[tuple[str, int], int],
    counts: Mapping[str, float],
    seed: int,
    *,
    each: bool = False,
) -> Plan:
    """The points of a run. ``golden``: the calls of each operation; ``recoveries``: how many a recovery after a kill has.

    ``each``: the counts are for each operation, times its weight, and not for all of them together."""
    made = Plan()
    sizes = {name: len(calls) for name, calls in golden.items()}
    for mode, wanted in counts.items():
        if mode in DISKS and (why := disks.missing()):
            made.left_out[mode] = why
            continue
        many = divided(mode, wanted, sizes, seed, each=each)
        before = len(made.points)
        for name, share in many.items():
            choice = random.Random(f"{seed}/{mode}/{name}")
            if mode == "double":
                made.points += _doubles(name, recoveries, share, seed, choice)
                continue
            of_mode = CHOOSE.get(mode, _kills)(golden[name], share, choice)
            made.points += [Point(name, mode, number, more, seed) for number, more in of_mode]
        if (found := len(made.points) - before) < sum(many.values()):
            made.fewer[mode] = f"{found} of {sum(many.values())}"
    return made


def fits(mode: str, name: str) -> bool:
    """Whether a mode makes sense for an operation."""
    deployment = OPERATIONS[name].what == "worker"
    if mode == "network":
        return name in ("deploy", "fetch")
    if mode == "script":
        return deployment and name not in ("fetch", "restore", "restore data alone", "roll back with data")
    if mode == "kill a child":
        return deployment and name not in ("fetch", "restore", "restore data alone")
    return deployment or mode not in ("full disk", "double")


def divided(mode: str, wanted: float, sizes: Mapping[str, int], seed: int, *, each: bool) -> dict[str, int]:
    """How many points of a mode each operation gets. ``each`` as in :func:`plan`."""
    fitting = {
        name: 1 if mode == "power cut once done" else size for name, size in sizes.items() if fits(mode, name)
    }
    if not each:
        return shares(wanted, fitting)
    found = weighted(wanted, fitting, f"{seed}/{mode}")
    # what was said to be done is told by this mode alone, and by short commands best
    return {name: found.get(name, 1) for name in fitting} if mode == "power cut once done" else found


Chosen = Iterator[tuple[int, tuple[str | int, ...]]]
"""The number of a call, and what else there is to choose (:class:`tests.crash.faults.Point`)."""


def _once_done(calls: Sequence[Call], share: int, choice: random.Random) -> Chosen:
    pairs = [(it, "lost") for it in disks.FILESYSTEMS] + [(it, "kept") for it in disks.FILESYSTEMS]
    yield from ((0, it) for it in pairs[:share])


def _full_disks(calls: Sequence[Call], share: int, choice: random.Random) -> Chosen:
    """Late only with nothing left: what is left has to be used up by what follows."""
    last = max(it.number for it in calls if it.name in NEED_ROOM)
    before = [it for it in calls if it.number <= last]
    for call, left in zip(stratified(before, share, choice), itertools.cycle((0, 4, 16)), strict=False):
        yield call.number, ("ext4", left if call.number < 0.6 * len(calls) else 0)


def _networks(calls: Sequence[Call], share: int, choice: random.Random) -> Chosen:
    """Before the archive is there: nothing is asked of the network after that."""
    seal = next(it.number for it in calls if kind(it) == "seal")
    last = max(it.number for it in calls if kind(it) == "cache" and it.number < seal)
    yield from ((it.number, ()) for it in stratified(calls[:last], share, choice))


def _jumps(calls: Sequence[Call], share: int, choice: random.Random) -> Chosen:
    for call, days in zip(stratified(calls, share, choice), itertools.cycle((365, -365)), strict=False):
        yield call.number, (days,)


def _errors(calls: Sequence[Call], share: int, choice: random.Random) -> Chosen:
    kinds = [(name, often) for name in ERRORS for often in ("once", "from then on")]
    choice.shuffle(kinds)
    left = {}
    for it in kinds:
        fitting = [call for call in calls if call.name in CAN_FAIL[it[0]]]
        left[it] = stratified(fitting, max(8, share), choice)
        choice.shuffle(left[it])
    for it in itertools.islice(itertools.cycle(kinds), share):
        if left[it]:
            yield left[it].pop().number, it


def _cuts(calls: Sequence[Call], share: int, choice: random.Random) -> Chosen:
    kinds = disks.FILESYSTEMS if share >= 24 else (choice.choice(disks.FILESYSTEMS),)
    combinations = itertools.cycle(itertools.product(kinds, disks.MODELS))
    while share > 0 and (some := stratified(calls, share, choice)):
        yield from ((call.number, next(combinations)) for call in some)
        share -= len(some)  # all of them again, where there are more points than calls


def _kills(calls: Sequence[Call], share: int, choice: random.Random) -> Chosen:
    """As power cuts, without a disk."""
    yield from ((number, ()) for number, _ in _cuts(calls, share, choice))


def _children(calls: Sequence[Call], share: int, choice: random.Random) -> Chosen:
    some = [it for it in calls if it.pid != calls[0].pid]
    yield from ((it.number, ()) for it in stratified(some, share, choice))


CHOOSE = {
    "power cut once done": _once_done, "full disk": _full_disks, "clock": _jumps, "error": _errors, "power cut": _cuts,
    "kill a child": _children, "network": _networks,
}  # fmt: skip
"""How the points of one operation are chosen in a mode; in all others as for kills."""


def _doubles(
    name: str, recoveries: Mapping[tuple[str, int], int], wanted: int, seed: int, choice: random.Random
) -> list[Point]:
    every = [
        Point(name, "double", first, (second,), seed)
        for (operation, first), count in recoveries.items()
        if operation == name
        for second in range(1, count + 1)
    ]
    return sorted(choice.sample(every, min(wanted, len(every))), key=lambda it: (it.number, it.more))


def firsts(name: str, calls: Sequence[Call], wanted: int, seed: int) -> list[int]:
    """First deaths of an operation to choose second ones from; each is followed by a recovery of some dozen calls."""
    choice = random.Random(f"{seed}/first/{name}")
    late = [it.number for it in calls if kind(it) not in BULK and it.number > len(calls) // 4]
    return choice.sample(late, min(max(1, wanted // 25), len(late)))
