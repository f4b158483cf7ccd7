"""Domains that wait for a hot template's state, so that a fork need not wait for its QEMU: made ahead, in the background.

A slot is on record before there is anything of it, and whoever changes the record first has it: a fork's own transaction
deletes it, or it is marked as rubbish here, and only then its domain and files go. So a crash at any instant leaves slots that
are ready, which are kept, and others, which are thrown away. They go first where the host is short of memory.
"""

import asyncio
import contextlib
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from corral.agent.cache import Cache
from corral.agent.definition import Places, build_definition
from corral.agent.executor import Drivers, remove_traces
from corral.agent.fork import template_files
from corral.clock import Clock
from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, ObservedDomain
from corral.hypervisor.forking import Fork
from corral.log import logger
from corral.model import limits
from corral.model.layer import Layer
from corral.model.operation import CreateVm
from corral.model.slot import SlotDisk, SlotSpec, SlotStatus, WarmSlot
from corral.model.template import Template
from corral.model.vm import DAC_UID_ANNOTATION, DAC_UID_FIRST, Vm, VmSpec
from corral.model.volume import Volume, VolumeSpec
from corral.names import NAME_MAX_CHARS, new_uid
from corral.network.ipam import NumberPool
from corral.scheduler.admission import Capacity, demand_of_vm, held_mib
from corral.storage.layers import Backing
from corral.store.objects import Objects, claim_key

AGAIN_S: Final = 5.0
AGAIN_MAX_S: Final = 300.0
SETTLE_S: Final = 0.1
"""What changes together is looked at together."""
FORKS_FIRST_S: Final = 60.0
"""While VMs are forked, none is made ready for later; one that hangs for longer holds nobody up."""
MEMINFO: Final = Path("/proc/meminfo")

log = logger("agent.warm")


def available_memory_mib() -> int:
    """What the host could give at once, by the kernel's own estimate; plenty where it tells none."""
    for line in MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return limits.MEMORY_MAX_MIB


@dataclass
class WarmKeeper:
    """Keeps as many slots as templates ask for and memory allows, one made at a time."""

    objects: Objects
    cache: Cache
    drivers: Drivers
    clock: Clock
    places: Callable[[], Places | None]
    """Known once the host has been looked at."""
    capacity: Callable[[], Capacity]
    budget_mib: int
    dac_numbers: NumberPool | None = None
    """Uids for QEMUs, where each has its own."""
    available_mib: Callable[[], int] = available_memory_mib
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _suspect: set[str] = field(default_factory=set)
    """Slots whose domain may wait no more: it is looked at before it is thrown away."""
    _failures: int = 0
    _not_before_s: float = 0.0

    def wake(self) -> None:
        self._wanted.set()

    def heard(self, uid: str) -> None:
        """A domain stopped."""
        if uid in self.cache.slots and self.cache.slots[uid].status.ready:
            self._suspect.add(uid)
            self.wake()

    def look(self, domains: Iterable[ObservedDomain]) -> None:
        """At each relist."""
        waiting = {domain.uid for domain in domains if domain.waiting}
        self._suspect |= {uid for uid, slot in self.cache.slots.items() if slot.status.ready and uid not in waiting}
        self.wake()

    async def run(self) -> None:
        while True:
            self._wanted.clear()
            pause_s = await self._turn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            await asyncio.sleep(SETTLE_S)

    async def _turn(self) -> float | None:
        """One thing at most is made; None: nothing is to be done until it is woken."""
        places = self.places()
        templates = self.cache.templates.values()
        if places is None or not (self.cache.slots or any(t.spec.warm or t.status.waiting for t in templates)):
            return None
        wait_s = self._not_before_s - self.clock.monotonic_s()
        if wait_s > 0:
            return wait_s
        try:
            pause_s = await self._keep(places)
            self._failures = 0
        except (CorralError, TimeoutError) as error:
            self._failures += 1
            pause_s = min(AGAIN_S * 2 ** (self._failures - 1), AGAIN_MAX_S)
            self._not_before_s = self.clock.monotonic_s() + pause_s
            log.warning("the warm pool waits", error=str(error) or "no answer in time", pause_s=pause_s)
        return pause_s

    async def _keep(self, places: Places) -> float | None:
        wanted = self._wishes(await self.drivers.hypervisor.forking.key(places.accelerator))
        kept: Counter[str] = Counter()
        for slot in sorted(self.cache.slots.values(), key=lambda slot: (not slot.status.ready, slot.created_at)):
            template = self.cache.templates.get(slot.spec.template_uid)
            room = template is not None and kept[template.uid] < wanted.get(template.uid, 0)
            if template is not None and room and await self._is_good(slot, template):
                kept[template.uid] += 1
            else:
                await self._discard(slot, places)
        if self._forking():
            return AGAIN_S  # and whenever one of them ends
        await self._tell(kept)
        missing = next((uid for uid in wanted if kept[uid] < wanted[uid]), None)
        if missing is None:
            return None
        await self._make(self.cache.templates[missing], places)
        self.wake()
        return None

    def _wishes(self, key: str) -> dict[str, int]:
        """How many for which template, the oldest first, as far as memory goes; of those frozen under this host's key."""
        capacity, committed = self.capacity(), sum(demand_of_vm(vm).memory_mib for vm in self.cache.vms.values())
        committed += sum(held_mib(template.status.stored_bytes) for template in self.cache.templates.values())
        free_mib = min(self.budget_mib, capacity.memory_limit_mib - committed)
        taken_mib = sum(slot.status.ready for slot in self.cache.slots.values()) * limits.WARM_SLOT_MIB
        free_mib = min(free_mib, self.available_mib() - capacity.reserved_memory_mib + taken_mib)
        room = max(0, free_mib) // limits.WARM_SLOT_MIB
        found = {}
        for template in sorted(self.cache.templates.values(), key=lambda template: template.created_at):
            if template.spec.warm and _is_usable(template, key):
                found[template.uid] = min(template.spec.warm, room)
                room -= found[template.uid]
        return found

    async def _is_good(self, slot: WarmSlot, template: Template) -> bool:
        if not slot.status.ready or slot.spec.digest != template.status.digest:
            return False
        if slot.uid not in self._suspect:
            return True
        domain = await self.drivers.hypervisor.observe(slot.uid)
        if domain is not None and domain.waiting:
            self._suspect.discard(slot.uid)
        return slot.uid not in self._suspect

    def _forking(self) -> bool:
        since = self.clock.now() - timedelta(seconds=FORKS_FIRST_S)
        intents = (o.spec.intent for o in self.cache.all_unfinished() if o.created_at > since)
        return any(isinstance(intent, CreateVm) and intent.fork_of is not None for intent in intents)

    async def _tell(self, kept: Counter[str]) -> None:
        """On the templates, for people. Not durable: the next look says it again."""
        for template in list(self.cache.templates.values()):
            if template.status.waiting != kept[template.uid]:
                status = template.status.model_copy(update={"waiting": kept[template.uid]})
                changed = template.model_copy(update={"status": status})
                transaction = self.objects.transaction()
                transaction.update(changed)
                try:
                    revision = (await transaction.commit(durable=False)).revision
                except CorralError as error:
                    if error.code != "precondition-failed":
                        raise
                    continue
                self.cache.put(changed.model_copy(update={"revision": revision}))

    # ---- made ----

    async def _make(self, template: Template, places: Places) -> None:
        slot = await self._recorded(template)
        volumes = self.drivers.volumes
        below_of = {disk.volume_uid: self.cache.layers[_below(template, disk)] for disk in slot.spec.disks}
        layers = {uid: below.overlay(uid, uid, slot.created_at) for uid, below in below_of.items()}
        for uid, layer in layers.items():
            below = below_of[uid]
            await volumes.layers.make_anew(layer, Backing(volumes.path(below.uid, below.spec.pool), below.spec.format))
        vm = _vm_of(slot, template)
        if vm.spec.cloud_init is not None:
            await volumes.write_seed(slot.uid, dict(self.drivers.seed_files(vm)))
        definition = self._definition(vm, layers, places)
        await self.drivers.hypervisor.forking.prepare(Fork(definition, template_files(template, places)))
        ready = slot.model_copy(update={"status": SlotStatus(ready=True)})
        transaction = self.objects.transaction()
        transaction.update(ready)
        self.cache.put(ready.model_copy(update={"revision": (await transaction.commit(durable=False)).revision}))

    async def _recorded(self, template: Template) -> WarmSlot:
        uid, number = new_uid(), None
        if self.dac_numbers is not None and (number := self.dac_numbers.hold_next()) is None:
            raise CorralError(
                "no-free-address", "a uid for QEMU", "all are given out", "delete a VM that is not needed"
            )
        pools = {disk.name: self.cache.layers[disk.layer_uid].spec.pool for disk in template.spec.disks}
        slot = WarmSlot(
            project=template.project,
            name=uid,
            uid=uid,
            created_at=self.clock.now(),
            spec=SlotSpec(
                template_uid=template.uid,
                digest=template.status.digest,
                disks=tuple(SlotDisk(name=name, volume_uid=new_uid(), pool=pool) for name, pool in pools.items()),
                dac_number=number,
            ),
        )
        transaction = self.objects.transaction()
        transaction.create(slot)
        if number is not None:
            transaction.claim(_claim(number), uid)
        try:
            revision = (await transaction.commit()).revision
            if self.dac_numbers is not None and number is not None:
                self.dac_numbers.taken.add(number)
        finally:
            if self.dac_numbers is not None and number is not None:
                self.dac_numbers.held.discard(number)
        slot = slot.model_copy(update={"revision": revision})
        self.cache.put(slot)
        return slot

    def _definition(self, vm: Vm, layers: dict[str, Layer], places: Places) -> DomainDefinition:
        """As the VM's that it will be, but for a mark that nobody can take for one."""
        around = self.cache.around
        volumes = {uid: _volume_on(layer) for uid, layer in layers.items()}
        known = replace(
            around,
            volumes=ChainMap(volumes, dict(around.volumes)),
            layers=ChainMap(layers, dict(around.layers)),
        )
        definition = build_definition(vm, known, places)
        return replace(definition, metadata=replace(definition.metadata, spec_json=""))

    # ---- thrown away ----

    async def _discard(self, slot: WarmSlot, places: Places) -> None:
        """First on record: a fork that takes it in this instant keeps it."""
        marked = slot.model_copy(update={"status": SlotStatus()})
        transaction = self.objects.transaction()
        transaction.update(marked)
        try:
            marked = marked.model_copy(update={"revision": (await transaction.commit()).revision})
        except CorralError as error:
            if error.code != "precondition-failed":
                raise
            await self.cache.refresh(WarmSlot, slot.uid)
            return
        self.cache.put(marked)
        domain = await self.drivers.hypervisor.observe(slot.uid)
        # A database that was restored from an older day may know as a slot what became a VM since.
        if domain is None or domain.waiting:
            await self._remove(slot, domain, places)
        transaction = self.objects.transaction()
        transaction.delete(marked)
        if slot.spec.dac_number is not None:
            transaction.release(_claim(slot.spec.dac_number))
        await transaction.commit()
        self._suspect.discard(slot.uid)
        self.cache.forget(WarmSlot, slot.uid)

    async def _remove(self, slot: WarmSlot, domain: ObservedDomain | None, places: Places) -> None:
        hypervisor, volumes = self.drivers.hypervisor, self.drivers.volumes
        if domain is not None:
            await hypervisor.destroy(slot.uid)
        await hypervisor.undefine(slot.uid)
        somebodys = {found.uid for found in await volumes.found()}
        for disk in slot.spec.disks:
            if disk.volume_uid not in somebodys:
                await volumes.layers.remove(disk.volume_uid, disk.pool)
        await volumes.remove_seed(slot.uid)
        await remove_traces(places, slot.uid)


def _is_usable(template: Template, key: str) -> bool:
    status = template.status
    return template.spec.hot and status.ready and not template.being_deleted and status.key == key


def _claim(number: int) -> str:
    return claim_key("dac-uid", "host", str(number))


def _below(template: Template, disk: SlotDisk) -> str:
    return next(found.layer_uid for found in template.spec.disks if found.name == disk.name)


def _volume_on(layer: Layer) -> Volume:
    spec = VolumeSpec(
        pool=layer.spec.pool,
        size_bytes=layer.spec.size_bytes,
        image_uid=layer.spec.image_uid,
        image_digest=layer.spec.image_digest,
    )
    return Volume(project=layer.project, name=layer.uid, uid=layer.uid, created_at=layer.created_at, spec=spec)


def _vm_of(slot: WarmSlot, template: Template) -> Vm:
    """What it will be, without a name of its own. Its seed has room for the longest one."""
    spec, volumes = template.spec.vm_spec or VmSpec(), slot.volumes
    disks = tuple(
        disk.model_copy(update={"volume_uid": volumes.get(disk.name, disk.volume_uid)}) for disk in spec.disks
    )
    seed = template.spec.cloud_init
    if seed is not None:
        longest = {"hostname": "x" * NAME_MAX_CHARS, "instance_id": "x" * NAME_MAX_CHARS, "new_machine_id": True}
        seed = seed.model_copy(update=longest)
    hardware = spec.hardware.model_copy(update={"host_devices": ()})
    number = slot.spec.dac_number
    return Vm(
        project="default",
        name=f"corral-warm-{slot.uid[:8]}",
        uid=slot.uid,
        created_at=slot.created_at,
        annotations={} if number is None else {DAC_UID_ANNOTATION: str(DAC_UID_FIRST + number)},
        spec=spec.model_copy(update={"disks": disks, "nics": (), "cloud_init": seed, "hardware": hardware}),
    )
