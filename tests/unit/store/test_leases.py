"""Deadlines of leases, and what happens when the end of one cannot be written."""

import asyncio

from corral.clock import ManualClock
from corral.errors import CorralError
from corral.store.leases import RETRY_S, LeaseTimers


def test_a_lease_whose_end_cannot_be_written_is_tried_again_later():
    async def scenario() -> None:
        clock = ManualClock()
        asked: list[int] = []
        full = True

        async def expire(lease: int) -> None:
            asked.append(lease)
            if full:
                raise CorralError("disk-full", "write", "no space")

        timers = LeaseTimers(clock, expire)
        timers.start(1, 10)
        timers.start(2, 1000)
        clock.advance(10)
        await timers.expire_due()
        await timers.expire_due()
        assert asked == [1]
        full = False
        clock.advance(RETRY_S)
        await timers.expire_due()
        await timers.expire_due()
        assert asked == [1, 1]
        await timers.close()

    asyncio.run(scenario())
