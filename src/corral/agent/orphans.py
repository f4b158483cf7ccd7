"""Domains, disks and seeds that no object refers to. Removed only with proof; reported otherwise.

The proof is an operation on record that ended without its VM: a create that was undone, or a deletion. It exists only
where a call outlived its time-out. A database that was lost, or restored from an older day, holds no such record, so
nothing that it forgot is ever removed: `corral recover` finds it all.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from corral.agent.cache import Cache
from corral.agent.executor import Drivers
from corral.agent.view import ACTIVE
from corral.clock import Clock
from corral.hypervisor.base import ObservedDomain
from corral.log import logger
from corral.model.event import Event, EventLevel
from corral.model.layer import Layer
from corral.model.operation import CreateVm, DeleteVm, Operation, OperationState
from corral.storage.base import FoundVolume
from corral.storage.layers import FoundLayer
from corral.store.objects import Objects

log = logger("agent.orphans")

_WITHOUT: Final = (OperationState.FAILED, OperationState.CANCELLED, OperationState.SUPERSEDED)
HINT: Final = "`corral recover` can take it back; nothing was touched"


def removed_vms(operations: Iterable[Operation]) -> dict[str, bool]:
    """VM uid to `its disks went too`, for VMs that are provably gone. Pure."""
    gone: dict[str, bool] = {}
    for operation in operations:
        intent, state = operation.spec.intent, operation.status.state
        if isinstance(intent, DeleteVm) and state is OperationState.SUCCEEDED:
            gone[operation.spec.target_uid] = not intent.keep_disks
        elif isinstance(intent, CreateVm) and state in (OperationState.FAILED, OperationState.CANCELLED):
            gone.setdefault(operation.spec.target_uid, True)
    return gone


@dataclass
class OrphanHunt:
    """Looks at each relist; says each thing once in a process."""

    objects: Objects
    cache: Cache
    drivers: Drivers
    installation_id: str
    clock: Clock
    _said: set[tuple[str, str]] = field(default_factory=set)

    async def run(self, domains: Iterable[ObservedDomain]) -> None:
        suspects = [found for found in domains if self._ours(found) and not self._is_known(found.uid)]
        volumes = [found for found in await self.drivers.volumes.found() if found.uid not in self.cache.volumes]
        seeds = [uid for uid in await self.drivers.volumes.found_seeds() if not self._is_known(uid)]
        layers = [found for found in await self.drivers.volumes.layers.found() if not self._is_layer(found.uid)]
        if not (suspects or volumes or seeds or layers):
            return
        # Read anew: between the pool's listing and now an object may have come, or an operation ended.
        await self.cache.load()
        operations = await self.objects.list(Operation)
        gone = removed_vms(operations)
        for domain in suspects:
            if not self._is_known(domain.uid):
                # One that still waits for its memory was never anybody's.
                await self._domain(domain, proven=domain.uid in gone or domain.waiting)
        for volume in volumes:
            if volume.uid not in self.cache.volumes:
                vm_uid, removable = _sidecar(volume.uid, volume.document)
                await self._volume(volume, proven=removable and gone.get(vm_uid, False))
        for layer in layers:
            if not self._is_layer(layer.uid):
                await self._layer(layer, operations, gone)
        for uid in seeds:
            if not self._is_known(uid):
                await self._seed(uid, proven=uid in gone)

    def _is_known(self, uid: str) -> bool:
        return uid in self.cache.vms or uid in self.cache.slots

    def _is_layer(self, uid: str) -> bool:
        """On record, or what a slot's fork will write to."""
        slots = self.cache.slots.values()
        return uid in self.cache.layers or any(uid == disk.volume_uid for slot in slots for disk in slot.spec.disks)

    def _ours(self, domain: ObservedDomain) -> bool:
        return domain.metadata is not None and domain.metadata.installation_id == self.installation_id

    async def _domain(self, domain: ObservedDomain, *, proven: bool) -> None:
        if not proven:
            return await self._say("OrphanDomain", domain.uid, f"domain {domain.name} has no VM; {HINT}")
        if domain.state in ACTIVE:
            await self.drivers.hypervisor.destroy(domain.uid)
        await self.drivers.hypervisor.undefine(domain.uid)
        log.info("removed what a late call had left", domain=domain.name, uid=domain.uid)
        return None

    async def _volume(self, volume: FoundVolume, *, proven: bool) -> None:
        uid = volume.uid
        if not proven:
            return await self._say("OrphanVolume", uid, f"disk {uid} has no volume object; {HINT}")
        await self.drivers.volumes.remove(uid, volume.pool)
        log.info("removed what a late call had left", volume=uid)
        return None

    async def _layer(self, found: FoundLayer, operations: Iterable[Operation], gone: dict[str, bool]) -> None:
        """Made for an operation that ended without it, or for a VM that went with its disks."""
        try:
            layer = Layer.model_validate_json(found.document)
        except ValidationError:
            return await self._say("OrphanLayer", found.uid, f"layer {found.uid} has no object; {HINT}")
        given_up = any(o.uid == layer.spec.operation_uid and o.status.state in _WITHOUT for o in operations)
        if not (given_up or gone.get(layer.spec.vm_uid or "", False)) or self._stood_on(found.uid):
            return await self._say("OrphanLayer", found.uid, f"layer {found.uid} has no object; {HINT}")
        await self.drivers.volumes.layers.remove(found.uid, layer.spec.pool)
        log.info("removed what a late call had left", layer=found.uid)
        return None

    def _stood_on(self, uid: str) -> bool:
        return any(layer.spec.parent_uid == uid for layer in self.cache.layers.values())

    async def _seed(self, uid: str, *, proven: bool) -> None:
        if not proven:
            return await self._say("OrphanSeed", uid, f"seed {uid} has no VM; {HINT}")
        await self.drivers.volumes.remove_seed(uid)
        return None

    async def _say(self, reason: str, uid: str, message: str) -> None:
        if (reason, uid) in self._said:
            return
        self._said.add((reason, uid))
        log.warning("orphan", reason=reason, uid=uid)
        transaction = self.objects.transaction()
        transaction.event(
            Event(
                time=self.clock.now(),
                project="default",
                level=EventLevel.WARNING,
                reason=reason,
                message=message,
                object_kind="host",
                object_uid=uid,
                object_name=uid,
                source="agent",
            )
        )
        await transaction.commit(durable=False)


def _sidecar(uid: str, document: bytes | None) -> tuple[str, bool]:
    """The VM that a volume belonged to, and whether it went with it; a sidecar that is not this volume's says nothing."""
    try:
        kept = json.loads(document or b"")
        if kept["uid"] != uid:
            return "", False
        return str(kept["spec"].get("vm_uid") or ""), bool(kept["spec"].get("delete_with_vm", False))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", False
