"""What was written between two points in time of a VM, or since one: by which layers hold something, and where."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from corral.errors import CorralError
from corral.model import limits
from corral.model.layer import Layer, chain_of
from corral.model.snapshot import Snapshot, snapshot_claim
from corral.model.snapshot_diff import NOW, DiskDiff, Extent, SnapshotDiff
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.services import rules
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.storage.layers import Run

AT_ONCE: Final = 2
"""They read tables of whole disks."""


class SnapshotDiffer:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def diff(self, caller: Caller, project: str, name: str, snapshot: str, to: str) -> SnapshotDiff:
        """Of each disk, where the two may differ: what was written there since they parted, also if it was the same again."""
        context = self._context
        await authorize(context, caller, project, "snapshot.read", name)
        vm = await context.objects.require(Vm, project, name)
        asked = f"compare {snapshot!r} with {to!r} of {name}"
        before = await self._heads(vm, snapshot, asked)
        after = await self._heads(vm, to, asked)
        layers = {layer.uid: layer for layer in await context.objects.list(Layer)}
        async with self._turns:
            if vm.status.seen_state in rules.HAS_MEMORY:
                await self._flush(vm, after if to == NOW else {})
            disks = [
                await self._disk(disk, before.get(disk), after.get(disk), layers)
                for disk in dict.fromkeys((*before, *after))
            ]
        return SnapshotDiff(vm=name, before=snapshot, after=to, disks=tuple(disks))

    async def _heads(self, vm: Vm, point: str, asked: str) -> Mapping[str, tuple[str, int]]:
        """By disk: the layer on top, and the disk's size."""
        found = await self._context.objects.find(Snapshot, vm.project, snapshot_claim(vm.uid, point))
        if found is not None and found.status.ready:
            return {disk.name: (disk.layer_uid, disk.size_bytes) for disk in found.spec.disks}
        if point != NOW:
            hint = f"corral snapshot list {vm.name}; {NOW} is what it is now"
            reason = f"it has no snapshot {point[:64]!r}" if found is None else f"{point} is being taken"
            raise CorralError("snapshot-not-found", asked, reason, hint)
        heads: dict[str, tuple[str, int]] = {}
        for disk in vm.spec.disks:
            volume = await self._context.objects.get(Volume, disk.volume_uid) if disk.volume_uid is not None else None
            if volume is not None and volume.spec.layer_uid is not None:
                heads[disk.name] = (volume.head_uid, volume.spec.size_bytes)
        return heads

    async def _flush(self, vm: Vm, disks: Iterable[str]) -> None:
        """QEMU keeps a disk's tables in its memory for a while."""
        for disk in disks:
            try:
                await self._context.hypervisor.points.flush(vm.uid, disk)
            except CorralError as error:
                if error.code != "wrong-state":  # it has stopped since
                    raise

    async def _disk(
        self,
        name: str,
        before: tuple[str, int] | None,
        after: tuple[str, int] | None,
        layers: Mapping[str, Layer],
    ) -> DiskDiff:
        if before is None or after is None:
            size_bytes = (before or after or ("", 0))[1]
            note = "it was there before only" if after is None else "it was not there before"
            return DiskDiff(disk=name, size_bytes=size_bytes, note=note)
        chains = [chain_of(layers, uid) for uid, _ in (before, after)]
        common = {layer.uid for layer in chains[0]} & {layer.uid for layer in chains[1]}
        if not common:
            return DiskDiff(disk=name, size_bytes=after[1], note="the two have nothing in common")
        runs: list[Run] = []
        for chain in chains:
            for layer in chain:
                if layer.uid in common:
                    break
                runs += await self._context.volumes.layers.runs(layer)
        return _told(name, after[1], merged(runs))


def merged(runs: Iterable[Run]) -> list[Run]:
    """Each byte once, in order. What is zeros in one layer and data in another counts as data."""
    edges: list[tuple[int, int, int]] = []
    for run in runs:
        data = 0 if run.zero else 1
        edges += [(run.start, 1, data), (run.start + run.length, -1, -data)]
    edges.sort()
    found: list[Run] = []
    depth = data = at = 0
    for place, step, written in edges:
        if depth and place > at:
            last = found[-1] if found else None
            if last is not None and last.start + last.length == at and last.zero == (data == 0):
                found[-1] = Run(last.start, last.length + place - at, last.zero)
            else:
                found.append(Run(at, place - at, data == 0))
        at, depth, data = place, depth + step, data + written
    return found


def _told(name: str, size_bytes: int, runs: list[Run]) -> DiskDiff:
    return DiskDiff(
        disk=name,
        size_bytes=size_bytes,
        changed_bytes=sum(run.length for run in runs),
        zero_bytes=sum(run.length for run in runs if run.zero),
        pieces=len(runs),
        extents=tuple(
            Extent(start=run.start, length=run.length, zero=run.zero) for run in runs[: limits.DIFF_EXTENTS_MAX]
        ),
    )
