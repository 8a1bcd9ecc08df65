"""A clock that is wrong, in one process and what it forks: the machine's own stays right."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta


def be_wrong(days: int) -> None:
    """Have this process's clock be wrong by so many days; SIGUSR1 and SIGUSR2 let it jump by a year. It costs nothing until then."""

    def jump(number: int, _: object) -> None:
        _travel(365 if number == signal.SIGUSR1 else -365)

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, jump)
        signal.siginterrupt(number, False)  # a clock that jumps interrupts no call
    if days:
        _travel(days)


def _travel(days: int) -> None:
    import time_machine

    time_machine.travel(datetime.now(UTC) + timedelta(days=days), tick=True).start()
