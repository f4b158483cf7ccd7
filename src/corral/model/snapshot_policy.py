"""When snapshots are taken by themselves, and which of them are kept. Pure; all times are UTC."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from corral.model import limits
from corral.model.base import Model

POLICY_ANNOTATION: Final = "corral/snapshot-policy"
"""On a snapshot that was taken by its VM's policy: the policy alone deletes it again."""

Period = Literal["hourly", "daily", "weekly", "monthly"]
Count = Annotated[int, Field(ge=0, le=limits.POLICY_SNAPSHOTS_MAX)]


class SnapshotPolicy(Model):
    """One snapshot at the beginning of each of the shortest periods that count; of each period so many are kept, the
    newest of each hour, day, week and month. One that was missed is taken as soon as may be, if its period still runs."""

    hourly: Count = 0
    daily: Count = 0
    weekly: Count = 0
    monthly: Count = 0
    quiesce: bool = True
    """Through the guest's agent, where it answers."""

    @property
    def counts(self) -> dict[Period, int]:
        """Of the periods that count, the shortest first."""
        found: dict[Period, int] = {
            "hourly": self.hourly, "daily": self.daily, "weekly": self.weekly, "monthly": self.monthly,
        }  # fmt: skip
        return {period: count for period, count in found.items() if count}

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def period_start(period: Period, at: datetime) -> datetime:
    """When the hour, day, week (from Monday) or month of `at` began."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "hourly":
            return at.replace(minute=0, second=0, microsecond=0)
        case "daily":
            return day
        case "weekly":
            return day - timedelta(days=day.weekday())
        case "monthly":
            return day.replace(day=1)


def is_due(policy: SnapshotPolicy, taken: Mapping[str, datetime], now: datetime) -> bool:
    """None was taken in the shortest period that runs."""
    shortest = next(iter(policy.counts), None)
    return shortest is not None and all(at < period_start(shortest, now) for at in taken.values())


def expired(policy: SnapshotPolicy, taken: Mapping[str, datetime]) -> tuple[str, ...]:
    """Those that no period keeps, the oldest first. `taken`: when, by uid."""
    newest_first = sorted(taken, key=lambda uid: (taken[uid], uid), reverse=True)
    kept: set[str] = set()
    for period, count in policy.counts.items():
        newest: dict[datetime, str] = {}
        for uid in newest_first:
            newest.setdefault(period_start(period, taken[uid]), uid)
        kept.update(list(newest.values())[:count])
    return tuple(uid for uid in reversed(newest_first) if uid not in kept)
