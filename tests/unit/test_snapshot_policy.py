"""Which snapshots a policy asks for, and which it keeps."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.model.snapshot_policy import SnapshotPolicy, expired, is_due, period_start

NOW = datetime(2026, 3, 18, 14, 30, tzinfo=UTC)  # a Wednesday
EVERY_HOUR = {f"s{number:04}": NOW - timedelta(hours=number) for number in range(24 * 90)}


def test_the_beginnings_of_periods() -> None:
    assert period_start("hourly", NOW) == datetime(2026, 3, 18, 14, tzinfo=UTC)
    assert period_start("daily", NOW) == datetime(2026, 3, 18, tzinfo=UTC)
    assert period_start("weekly", NOW) == datetime(2026, 3, 16, tzinfo=UTC)
    assert period_start("monthly", NOW) == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("policy", "last", "due"),
    [
        (SnapshotPolicy(hourly=1), None, True),
        (SnapshotPolicy(hourly=1), NOW - timedelta(minutes=29), False),
        (SnapshotPolicy(hourly=1), NOW - timedelta(minutes=31), True),
        (SnapshotPolicy(hourly=1, monthly=1), NOW - timedelta(hours=5), True),  # missed, and caught up once
        (SnapshotPolicy(daily=7), NOW - timedelta(hours=14), False),
        (SnapshotPolicy(daily=7), NOW - timedelta(hours=15), True),
        (SnapshotPolicy(weekly=2), NOW - timedelta(days=2), False),
        (SnapshotPolicy(weekly=2), NOW - timedelta(days=3), True),
        (SnapshotPolicy(), None, False),
    ],
)
def test_when_one_is_due(policy: SnapshotPolicy, last: datetime | None, due: bool) -> None:
    assert is_due(policy, {} if last is None else {"last": last}, NOW) is due


def test_of_each_period_the_newest_is_kept() -> None:
    policy = SnapshotPolicy(hourly=3, daily=2, weekly=2, monthly=2)
    gone = expired(policy, EVERY_HOUR)
    kept = sorted(EVERY_HOUR[uid] for uid in EVERY_HOUR.keys() - set(gone))
    assert kept == [
        datetime(2026, 2, 28, 23, 30, tzinfo=UTC),
        datetime(2026, 3, 15, 23, 30, tzinfo=UTC),
        datetime(2026, 3, 17, 23, 30, tzinfo=UTC),
        *(NOW - timedelta(hours=hours) for hours in (2, 1, 0)),
    ]
    assert list(gone) == sorted(gone, key=lambda uid: EVERY_HOUR[uid])


counts = st.integers(0, 5)
times = st.lists(st.integers(0, 60 * 24 * 400), max_size=60, unique=True)


@given(hourly=counts, daily=counts, weekly=counts, monthly=counts, minutes=times)
def test_no_more_are_kept_than_asked_and_the_newest_always_is(
    hourly: int, daily: int, weekly: int, monthly: int, minutes: list[int]
) -> None:
    policy = SnapshotPolicy(hourly=hourly, daily=daily, weekly=weekly, monthly=monthly)
    taken = {f"s{minute}": NOW - timedelta(minutes=minute) for minute in minutes}
    kept = taken.keys() - set(expired(policy, taken))
    assert len(kept) <= policy.total
    if taken and policy.total:
        assert max(taken, key=lambda uid: taken[uid]) in kept
    # What is kept today is not missed tomorrow only because it was looked at today.
    assert expired(policy, {uid: taken[uid] for uid in kept}) == ()
