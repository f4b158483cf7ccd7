"""Pools as they are: measured now and then and after each change, with a word at each threshold that is crossed."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from corral.agent.cache import Cache
from corral.clock import Clock
from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.event import Event, EventLevel
from corral.model.pool import Pool, PoolLevel, PoolSpec, PoolStatus
from corral.model.volume import Volume
from corral.names import MIB, format_bytes, new_uid
from corral.settings import Settings
from corral.storage.base import VolumeStore
from corral.store.objects import Objects, Transaction
from corral.store.spare import Spare

SETTLE_S: Final = 1.0
"""What changes together is measured together."""
BACK_PERCENT: Final = 2.0
"""So far below a threshold a pool is back: one that hovers about it says so once."""
ROUNDED_PARTS: Final = 1000
"""A pool's figures move all the time, and each write is a revision for every watcher: to a thousandth of it."""
ALLOCATED_STEP_BYTES: Final = 4 * MIB
_EVENTS: Final = {
    PoolLevel.OK: ("PoolRelieved", EventLevel.INFO),
    PoolLevel.WARNING: ("PoolFilling", EventLevel.WARNING),
    PoolLevel.CRITICAL: ("PoolNearlyFull", EventLevel.ERROR),
}
_ORDER: Final = tuple(PoolLevel)


@contextlib.contextmanager
def _lost_races_forgiven() -> Iterator[None]:
    """Somebody else was first: the next look tells again."""
    try:
        yield
    except CorralError as error:
        if error.code != "precondition-failed":
            raise


@dataclass
class PoolKeeper:
    """Keeps the Pool objects current, and what each volume takes."""

    objects: Objects
    cache: Cache
    volumes: VolumeStore
    settings: Settings
    clock: Clock
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Something was made, or removed."""
        self._wanted.set()

    async def run(self) -> None:
        while True:
            self._wanted.clear()
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.relist_interval_s):
                    await self._wanted.wait()
            await asyncio.sleep(SETTLE_S)

    async def look(self) -> None:
        """Every pool that has an object or a place."""
        if self.settings.database.exists():
            await asyncio.to_thread(Spare(self.settings.spare).ensure)
        known = {pool.name: pool for pool in await self.objects.list(Pool)}
        places = self.volumes.pools()
        for name in sorted(known.keys() | places.keys()):
            pool = known.get(name)
            volumes = [volume for volume in self.cache.volumes.values() if volume.spec.pool == name]
            allocated: dict[str, int] = {}
            try:
                async with asyncio.timeout(self.settings.hypervisor_timeout_s):
                    usage = await self.volumes.usage(name)
                    allocated = await self.volumes.allocations(name)
                status = self._status(usage.total_bytes, usage.free_bytes, allocated, volumes, pool)
            except (CorralError, TimeoutError) as error:
                reason = error.reason if isinstance(error, CorralError) else "it does not answer"
                old = pool.status if pool is not None else PoolStatus()
                status = old.model_copy(update={"available": False, "level": PoolLevel.CRITICAL, "reason": reason})
            await self._write(name, str(places.get(name, "")), pool, status)
            await self._write_volumes(volumes, allocated)

    def _status(
        self, total: int, free: int, allocated: dict[str, int], volumes: Iterable[Volume], pool: Pool | None
    ) -> PoolStatus:
        sizes = [volume.spec.size_bytes for volume in volumes]
        used_percent = 100 * (total - free) / total if total else 100.0
        before = pool.status.level if pool is not None else PoolLevel.OK
        level = self._level(used_percent, before)
        reason = "" if level is PoolLevel.OK else f"{used_percent:.0f} % are used, {format_bytes(free)} are free"
        step = max(MIB, total // ROUNDED_PARTS // MIB * MIB)
        return PoolStatus(
            level=level,
            reason=reason,
            total_bytes=total,
            free_bytes=free // step * step,
            used_bytes=total - free // step * step,
            allocated_bytes=sum(allocated.values()) // MIB * MIB,
            logical_bytes=sum(sizes),
            volumes=len(sizes),
        )

    def _level(self, used_percent: float, before: PoolLevel) -> PoolLevel:
        thresholds = (
            (PoolLevel.CRITICAL, self.settings.pool_critical_percent),
            (PoolLevel.WARNING, self.settings.pool_warn_percent),
        )
        for level, percent in thresholds:
            back = BACK_PERCENT if _ORDER.index(before) >= _ORDER.index(level) else 0.0
            if used_percent >= percent - back:
                return level
        return PoolLevel.OK

    async def _write(self, name: str, path: str, pool: Pool | None, status: PoolStatus) -> None:
        """Not durable: the next look finds the same."""
        transaction = self.objects.transaction()
        if pool is None:
            made = Pool(name=name, uid=new_uid(), created_at=self.clock.now(), spec=PoolSpec(path=path), status=status)
            transaction.create(made)
        elif pool.status == status:
            return
        else:
            made = pool.model_copy(update={"status": status})
            transaction.update(made)
        if status.level is not (pool.status.level if pool is not None else PoolLevel.OK):
            self._say(transaction, made)
        with _lost_races_forgiven():
            await transaction.commit(durable=pool is None)

    async def _write_volumes(self, volumes: Iterable[Volume], allocated: dict[str, int]) -> None:
        for volume in volumes:
            taken = allocated.get(volume.head_uid, 0)
            if abs(taken - volume.status.allocated_bytes) < ALLOCATED_STEP_BYTES or not volume.status.ready:
                continue
            current = self.cache.volumes.get(volume.uid)
            if current is None:
                continue
            changed = current.model_copy(
                update={"status": current.status.model_copy(update={"allocated_bytes": taken})}
            )
            transaction = self.objects.transaction()
            transaction.update(changed)
            with _lost_races_forgiven():
                committed = await transaction.commit(durable=False)
                self.cache.put(changed.model_copy(update={"revision": committed.revision}))

    def _say(self, transaction: Transaction, pool: Pool) -> None:
        reason, level = _EVENTS[pool.status.level]
        transaction.event(
            Event(
                time=self.clock.now(),
                project=DEFAULT_PROJECT,
                level=level,
                reason=reason,
                message=f"pool {pool.name}: {pool.status.reason or 'there is room again'}",
                object_kind="pool",
                object_uid=pool.uid,
                object_name=pool.name,
                source="agent",
            )
        )
