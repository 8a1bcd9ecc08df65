"""When is the next look for a new release, and may one be deployed now without anybody asking? Pure.

The window is what the clock on the wall shows: where clocks go forward an hour of it may be missing, or the whole window, which
is then left out on that day; where they go back, an hour of it comes twice. Seconds between two looks are real seconds.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo

from updater.config import ScheduleConfig
from updater.configkeys import DAY, DAYS

SOON = 300.0
"""Seconds until an update that could not begin (the application was busy, somebody was at work) is tried again in its window."""


def next_check(
    now: datetime,
    last: datetime | None,
    config: ScheduleConfig,
    random: float,
    *,
    waiting: bool = False,
    zone: tzinfo | None = None,
) -> datetime | None:
    """When to look next, in UTC and never before ``now``; None: never.

    ``last``: the last look, None if there was none; one in the future is none (the clock was set back). ``random``: from 0 up to 1,
    drawn once for each look; it spreads many machines over the jitter. ``waiting``: an update is wanted that could not begin.
    ``zone``: the one of the window; None: the machine's. All moments are aware.
    """
    now = now.astimezone(UTC)
    if not config.check_every:
        return None
    if last is None or last > now:
        return now
    last = last.astimezone(UTC)
    wait = config.check_every * (1 + config.jitter * (2 * random - 1))
    due = max(now, last + timedelta(seconds=wait))
    if not config.update:
        return due
    opened, opens = _openings(now, config, zone)
    if opened is not None and last < opened:  # nobody has looked in this window yet
        return min(due, max(now, _spread(opened, config, random, zone)))
    if opened is not None and waiting:
        return min(due, max(now, last + timedelta(seconds=SOON)))
    return due if opens is None else min(due, _spread(opens, config, random, zone))


def may_update_now(now: datetime, config: ScheduleConfig, zone: tzinfo | None = None) -> bool:
    """Whether a release may be deployed at ``now`` (aware) without anybody asking. ``zone``: as in :func:`next_check`."""
    if not config.update or config.window is None:
        return False
    local = now.astimezone(zone)
    minute = local.hour * 60 + local.minute
    begin, end = config.window
    if begin < end:
        return begin <= minute < end and _named(local, config)
    if minute >= begin:
        return _named(local, config)
    return minute < end and _named(local - timedelta(days=1), config)


def _openings(
    now: datetime, config: ScheduleConfig, zone: tzinfo | None
) -> tuple[datetime | None, datetime | None]:
    """When the window opened that is open now, and when the next one opens, in UTC."""
    opened = None
    today = now.astimezone(zone).date()
    for ahead in range(-1, 3 * len(DAYS)):  # on its only day of a week there may be no such time
        opening = _opening(today + timedelta(days=ahead), config, zone)
        if opening is not None and opening > now:
            return opened, opening
        if opening is not None and may_update_now(now, config, zone):
            opened = opening
    return opened, None


def _opening(day: date, config: ScheduleConfig, zone: tzinfo | None) -> datetime | None:
    """When the window opens on a day; where clocks go forward then, the first minute of it that there is."""
    begin, end = config.window or (0, 0)
    midnight = datetime.combine(day, time())
    for minute in range(begin, begin + (end - begin) % DAY or DAY):
        wall = midnight + timedelta(minutes=minute)
        moment = (wall if zone is None else wall.replace(tzinfo=zone)).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == wall:
            return moment if may_update_now(moment, config, zone) else None
    return None


def _named(local: datetime, config: ScheduleConfig) -> bool:
    return DAYS[local.weekday()] in config.days


def _spread(opening: datetime, config: ScheduleConfig, random: float, zone: tzinfo | None) -> datetime:
    """Not every machine in the very second in which the window opens: somewhere in the first part of it, by the jitter."""
    begin, end = config.window or (0, 0)
    later = opening + timedelta(minutes=((end - begin) % DAY or DAY) * config.jitter * random)
    return later if may_update_now(later, config, zone) else opening
