"""The schedule: real seconds between two looks, and a window by the clock on the wall."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updater import schedule
from updater.config import ScheduleConfig
from updater.configkeys import DAY, DAYS
from updater.schedule import may_update_now, next_check

BERLIN = ZoneInfo("Europe/Berlin")  # forward at 02:00 on 29 March 2026, back at 03:00 on 25 October 2026
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago"]
).map(ZoneInfo)
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))
MINUTES = st.integers(0, DAY - 1)
FRACTIONS = st.floats(0, 1, exclude_max=True)
WINDOWS = st.tuples(MINUTES, st.integers(0, DAY)).filter(lambda it: it[0] != it[1])
CONFIGS = st.builds(
    ScheduleConfig,
    check_every=st.floats(1, 30 * 86400),
    jitter=st.floats(0, 1),
    update=st.just(True),
    window=WINDOWS,
    days=st.sets(st.sampled_from(DAYS), min_size=1).map(tuple),
)


def hours(text: str, **more: object) -> ScheduleConfig:
    begin, end = (int(it[:2]) * 60 + int(it[3:]) for it in text.split("-"))
    return ScheduleConfig(update=True, window=(begin, end))._replace(**more)  # type: ignore[arg-type]


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


@given(MOMENTS, CONFIGS, ZONES)
def test_a_window_is_open_from_its_begin_to_its_end_on_the_days_on_which_it_begins(
    now: datetime, config: ScheduleConfig, zone: ZoneInfo
) -> None:
    wall = now.astimezone(zone).replace(tzinfo=None)
    begin, end = config.window or (0, 0)
    begun = [wall.date() - timedelta(days=ago) for ago in (0, 1)]
    open_now = any(
        DAYS[day.weekday()] in config.days
        and timedelta(minutes=begin)
        <= wall - datetime.combine(day, time())
        < timedelta(minutes=end if end > begin else end + DAY)
        for day in begun
    )
    assert may_update_now(now, config, zone) is open_now
    assert not may_update_now(now, config._replace(update=False), zone)


@given(MOMENTS, CONFIGS, ZONES, FRACTIONS, st.floats(0, 100 * 86400), st.booleans())
def test_looks_are_neither_late_nor_in_the_past_and_never_miss_a_window(
    now: datetime, config: ScheduleConfig, zone: ZoneInfo, random: float, ago: float, waiting: bool
) -> None:
    last = now - timedelta(seconds=ago)
    due = next_check(now, last, config, random, waiting=waiting, zone=zone)
    assert due is not None and due >= now
    latest = timedelta(seconds=config.check_every * (1 + config.jitter), milliseconds=1)
    assert due <= max(now, last + latest), "a window makes it sooner, never later"
    # The first minute of a window that nobody has looked in before is never slept over.
    opened, opens = schedule._openings(now, config, zone)
    assert opens is not None and opens > now and may_update_now(opens, config, zone)
    assert (opened is not None) == may_update_now(now, config, zone) or _repeated(now, zone, config)
    if due > opens:
        assert may_update_now(due, config, zone)
    if opened is not None and last < opened:
        assert due <= opens and may_update_now(due, config, zone)


def _repeated(now: datetime, zone: ZoneInfo, config: ScheduleConfig) -> bool:
    """Whether clocks have just gone back: a window may then be open a second time, or again for its rest."""
    return now.astimezone(zone).utcoffset() != (now - timedelta(days=2)).astimezone(zone).utcoffset()


@given(MOMENTS, st.floats(1, 30 * 86400), st.floats(0, 1), FRACTIONS, ZONES)
def test_without_a_window_real_seconds_pass_whatever_clocks_do(
    now: datetime, every: float, jitter: float, random: float, zone: ZoneInfo
) -> None:
    config = ScheduleConfig(check_every=every, jitter=jitter)
    due = next_check(now, now.astimezone(zone), config, random, zone=zone)
    assert due is not None
    passed = (due.astimezone(UTC) - now).total_seconds()
    assert every * (1 - jitter) - 1e-3 <= passed <= every * (1 + jitter) + 1e-3
    assert next_check(now, None, config, random) == now
    assert next_check(now, now + timedelta(days=400), config, random) == now, "the clock was set back"
    assert next_check(now, now, config._replace(check_every=0), random) is None


@pytest.mark.parametrize(
    ("window", "when", "is_open"),
    [
        ("02:00-03:00", berlin("2026-10-25T02:30", fold=0), True),
        ("02:00-03:00", berlin("2026-10-25T02:30", fold=1), True),
        ("02:00-03:00", berlin("2026-03-29T01:59"), False),
        ("02:00-03:00", berlin("2026-03-29T03:00"), False),
        ("22:00-04:00", berlin("2026-03-29T03:30"), True),
        ("22:00-04:00", berlin("2026-03-29T04:00"), False),
        ("22:00-04:00", berlin("2026-03-28T22:00"), True),
        ("00:00-24:00", berlin("2026-03-29T23:59"), True),
    ],
)
def test_when_clocks_change(window: str, when: datetime, is_open: bool) -> None:
    assert may_update_now(when, hours(window), BERLIN) is is_open


def test_a_window_across_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    config = hours("22:00-04:00", days=("sat",))
    assert may_update_now(berlin("2026-03-29T01:00"), config, BERLIN), "Saturday's, on Sunday morning"
    assert not may_update_now(berlin("2026-03-28T01:00"), config, BERLIN), "Friday's"
    assert not may_update_now(berlin("2026-03-29T23:00"), config, BERLIN)


def test_a_window_that_clocks_leave_out_is_left_out_and_one_that_they_cut_opens_later() -> None:
    evening = berlin("2026-03-28T20:00")
    config = hours("02:00-03:00", jitter=0.0, check_every=7 * 86400.0)
    assert next_check(evening, evening, config, 0.5, zone=BERLIN) == berlin("2026-03-30T02:00")
    config = hours("02:30-03:30", jitter=0.0, check_every=7 * 86400.0)
    assert next_check(evening, evening, config, 0.5, zone=BERLIN) == berlin("2026-03-29T03:00")


def test_what_could_not_begin_is_tried_again_soon_while_the_window_is_open() -> None:
    now = berlin("2026-05-04T02:10")
    config = hours("02:00-04:00")
    again = next_check(now, now, config, 0.5, waiting=True, zone=BERLIN)
    assert again == now + timedelta(seconds=schedule.SOON)
    assert next_check(now, now, config, 0.5, zone=BERLIN) == now + timedelta(hours=6)
    later = berlin("2026-05-04T04:01")
    assert next_check(later, later, config, 0.5, waiting=True, zone=BERLIN) == later + timedelta(hours=6)


def test_a_server_that_starts_in_the_window_looks_in_it() -> None:
    config = hours("02:00-04:00", jitter=0.5)
    now, last = berlin("2026-05-04T03:10"), berlin("2026-05-04T01:30")
    assert next_check(now, last, config, 0.1, zone=BERLIN) == now
    assert date(2026, 5, 4).weekday() == 0
