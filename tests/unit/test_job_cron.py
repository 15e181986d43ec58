"""Times of schedules: in a time zone, over its changes, and after the service was down."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import InvalidInput
from casemate.jobs.cron import SKIP, check_times, next_after, turn_at
from casemate.model.units import SECOND_US

MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND_US


def shown(at_us: int | None) -> str:
    assert at_us is not None
    return datetime.fromtimestamp(at_us // SECOND_US, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("cron", "zone", "expected"),
    [
        ("* * * * *", "UTC", "2030-06-01 12:01"),
        ("30 2 * * *", "UTC", "2030-06-02 02:30"),
        ("30 2 * * *", "Europe/Berlin", "2030-06-02 00:30"),
        ("0 0 1 * *", "America/New_York", "2030-07-01 04:00"),
        ("0 9 * * 1-5", "Asia/Tokyo", "2030-06-03 00:00"),
        ("@daily", "UTC", "2030-06-02 00:00"),
        ("0 0 29 2 *", "UTC", "2032-02-29 00:00"),
    ],
)
def test_the_next_time_is_that_of_its_zone(cron: str, zone: str, expected: str) -> None:
    assert shown(next_after(cron, zone, at("2030-06-01 12:00:30"))) == expected


def test_a_time_that_the_clock_passes_over_comes_once_and_one_that_it_repeats_not_twice() -> None:
    zone = "Europe/Berlin"
    spring = next_after("30 2 * * *", zone, at("2030-03-30 12:00", zone))
    assert shown(spring) in {"2030-03-31 01:00", "2030-03-31 01:30"}
    autumn = next_after("30 2 * * *", zone, at("2030-10-26 12:00", zone))
    assert autumn is not None
    after = next_after("30 2 * * *", zone, autumn)
    assert after is not None
    assert after - autumn >= 24 * HOUR_US


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "* * * * * *", "61 * * * *", "0 0 30 2 *", "never", "* * * * *\n", "x" * 300, "@often"]
)
def test_a2_9_what_is_no_schedule_is_refused(cron: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_times(cron, "UTC")
    assert caught.value.field == "schedule.cron"


@pytest.mark.parametrize("zone", ["", "Nowhere/At", "../../etc/passwd", "/etc/localtime", "UTC\0", "Europe", "a" * 300])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_times("* * * * *", zone)
    assert caught.value.field == "schedule.zone"


@given(st.text(), st.text())
def test_any_text_is_taken_or_refused(cron: str, zone: str) -> None:
    for times in ((cron, "UTC"), ("* * * * *", zone)):
        try:
            check_times(*times)
        except InvalidInput as error:
            assert error.field in {"schedule.cron", "schedule.zone"}


def test_what_is_on_time_is_made_and_what_is_not_due_is_not() -> None:
    due = at("2030-06-01 12:00")
    turn = turn_at("0 * * * *", "UTC", SKIP, due, due + SECOND_US)
    assert (turn.fire_us, turn.next_us) == (due, due + HOUR_US)
    early = turn_at("0 * * * *", "UTC", SKIP, due, due - 1)
    assert (early.fire_us, early.next_us) == (None, due)


def test_missed_times_are_skipped_or_made_once() -> None:
    due = at("2030-06-01 12:00")
    late = due + 3 * HOUR_US + 30 * MINUTE_US
    skipped = turn_at("0 * * * *", "UTC", SKIP, due, late)
    assert (skipped.fire_us, shown(skipped.next_us)) == (None, "2030-06-01 16:00")
    once = turn_at("0 * * * *", "UTC", "once", due, late)
    assert (shown(once.fire_us), shown(once.next_us)) == ("2030-06-01 15:00", "2030-06-01 16:00")


def test_of_missed_times_the_one_that_is_merely_late_is_made() -> None:
    due = at("2030-06-01 12:00")
    turn = turn_at("0 * * * *", "UTC", SKIP, due, due + 3 * HOUR_US + 5 * SECOND_US)
    assert shown(turn.fire_us) == "2030-06-01 15:00"


@given(
    st.sampled_from(["* * * * *", "*/7 3 * * *", "30 2 * * *", "0 0 1 * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.sampled_from([SKIP, "once"]),
    st.integers(0, 60 * 365 * DAY_US // 2),
    st.integers(0, 40 * DAY_US),
)
def test_no_time_is_made_twice_or_ahead(cron: str, zone: str, missed: str, due_us: int, passed_us: int) -> None:
    due = next_after(cron, zone, due_us)
    assert due is not None
    turn = turn_at(cron, zone, missed, due, due + passed_us)
    assert turn.next_us is not None
    assert turn.next_us > due + passed_us
    if turn.fire_us is not None:
        assert due <= turn.fire_us <= due + passed_us
    if missed == "once":
        assert turn.fire_us is not None
