"""When leases end: deadlines in monotonic time, so that a jumping wall clock ends none."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from corral.clock import Clock
from corral.errors import CorralError
from corral.store import rules

# How long to leave a lease alone whose end could not be written (disk full); events drive everything else.
RETRY_S: Final = 5.0


class LeaseTimers:
    """Deadlines of the leases that are alive, and one timer for the earliest. `expire` revokes one in the store."""

    def __init__(self, clock: Clock, expire: Callable[[int], Awaitable[None]]) -> None:
        self._clock = clock
        self._expire = expire
        self._ttl_s: dict[int, float] = {}
        self._deadline_s: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self, lease: int, ttl_s: float) -> None:
        self._ttl_s[lease] = ttl_s
        self._deadline_s[lease] = self._clock.monotonic_s() + ttl_s
        self._arm()

    def keep_alive(self, lease: int) -> None:
        """Give the lease its whole time again. Raises `lease-not-found` for one that has ended."""
        if lease not in self._ttl_s or self._deadline_s[lease] <= self._clock.monotonic_s():
            raise rules.lease_not_found(lease)
        self._deadline_s[lease] = self._clock.monotonic_s() + self._ttl_s[lease]

    def stop(self, lease: int) -> None:
        self._ttl_s.pop(lease, None)
        self._deadline_s.pop(lease, None)

    async def expire_due(self) -> None:
        """Revoke every lease whose time is over; one that cannot be written now is tried again later."""
        now = self._clock.monotonic_s()
        for lease in [lease for lease, deadline in self._deadline_s.items() if deadline <= now]:
            try:
                await self._expire(lease)
            except CorralError:
                if lease in self._deadline_s:
                    self._deadline_s[lease] = now + RETRY_S
            else:
                self.stop(lease)
        self._arm()

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _arm(self) -> None:
        """Have the timer fire at the earliest deadline; a later keep-alive makes it fire for nothing, which is cheap."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadline_s and not self._closed:
            delay_s = max(0.0, min(self._deadline_s.values()) - self._clock.monotonic_s())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self.expire_due())
