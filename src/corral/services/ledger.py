"""What is promised and what is given out: capacity, addresses, uids. Kept in memory beside the store's claims.

The store alone decides who owns an address (by claims); the ledger makes the first guess the right one and keeps two
requests under way from promising the same memory. One daemon owns a store, so the check and the promise are one
uninterrupted stretch of code, and the watch brings in what the agent changes.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from corral.errors import CorralError
from corral.log import logger
from corral.model.network import Network
from corral.model.slot import WarmSlot
from corral.model.template import Template
from corral.model.vm import Vm
from corral.network import ipam
from corral.scheduler.admission import NOTHING, Capacity, Demand, admit, demand_of, demand_of_vm, held_mib
from corral.store.base import Change, Record
from corral.store.objects import Objects

CLAIMS: Final = "/claims/"
_ADDRESSES: Final = "/claims/address/"
_DAC_UIDS: Final = "/claims/dac-uid/host/"

# How many uids there are for QEMUs, up to the 10^9 of system containers. Each installation on a machine begins at a
# random place of its own: that two with a hundred guests each meet has a chance of three in a million.
DAC_UIDS: Final = 2**26

_log = logger("ledger")


@dataclass(slots=True)
class KnownVm:
    """What the ledger remembers of a VM."""

    revision: int
    demand: Demand
    project: str
    name: str
    vcpus: int
    template_uid: str = ""
    """What it was made of: it may share its memory with others of that."""


@dataclass(frozen=True, slots=True)
class TemplateMemory:
    """What the memory of a template takes while it is held for VMs of it."""

    uid: str
    memory_mib: int


@dataclass
class _NameLock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Ledger:
    """`prime` once, then `run` for as long as the daemon lives."""

    def __init__(self, objects: Objects, dac_uid_start: int = 0) -> None:
        self._objects = objects
        self._entries: dict[str, KnownVm] = {}
        self._pending = Demand()
        self._total = Demand()
        self._of_template: Counter[str] = Counter()
        """By template: VMs of it that take something."""
        self._templates: dict[str, TemplateMemory] = {}
        self._addresses: dict[str, set[str]] = {}
        self._pools: dict[str, tuple[str, ipam.NumberPool]] = {}
        self._names: dict[str, _NameLock] = {}
        self._image_users: Counter[str] = Counter()
        self._images_going: set[str] = set()
        self._handed: set[str] = set()
        self.dac_uids = ipam.NumberPool(DAC_UIDS, dac_uid_start)

    # ---- capacity ----

    @property
    def committed(self) -> Demand:
        """What runs or should run, what requests under way were promised, and the memory of templates for their VMs."""
        return self._total + self._pending + Demand(memory_mib=self._held_mib)

    @property
    def _held_mib(self) -> int:
        used = (self._templates.get(uid) for uid, number in self._of_template.items() if number > 0)
        return sum(template.memory_mib for template in used if template is not None)

    def held_for(self, template_uid: str | None) -> Demand:
        """What the first VM of a template takes beyond its own memory: that of the template."""
        found = self._templates.get(template_uid or "")
        taken = found is None or self._of_template[found.uid] > 0
        return NOTHING if taken or found is None else Demand(memory_mib=found.memory_mib)

    @contextmanager
    def promise(self, wanted: Demand, capacity: Capacity, asked: str) -> Iterator[None]:
        """Admit `wanted` and keep it promised until the request has ended; `insufficient-*` otherwise."""
        if wanted.further != NOTHING:
            admit(wanted, self.committed, capacity, asked)
        self._pending += wanted
        try:
            yield
        finally:
            self._pending -= wanted

    def observe(self, vm: Vm) -> None:
        """A VM as it was just committed: the promise becomes an entry before the watch tells."""
        demand, template_uid = demand_of_vm(vm), vm.spec.template_uid or ""
        self._enter(vm.uid, KnownVm(vm.revision, demand, vm.project, vm.name, vm.spec.vcpus, template_uid))

    def known(self, uid: str) -> KnownVm | None:
        return self._entries.get(uid)

    def _enter(self, uid: str, vm: KnownVm) -> None:
        entry = self._entries.get(uid)
        if entry is None or entry.revision < vm.revision:
            self._entries[uid] = vm
            self._total += vm.demand if entry is None else vm.demand - entry.demand
            self._count(vm, 1)
            if entry is not None:
                self._count(entry, -1)

    def _count(self, vm: KnownVm, number: int) -> None:
        if vm.template_uid and vm.demand != NOTHING:
            self._of_template[vm.template_uid] += number

    # ---- addresses and uids ----

    def addresses(self, network: Network) -> ipam.NumberPool:
        subnet = network.spec.subnet
        given_out = ipam.given_out(subnet, network.spec.dhcp_first, network.spec.dhcp_last)
        known = self._pools.get(network.uid)
        if known is not None and known[0] == subnet:
            known[1].given_out = given_out
            return known[1]
        pool = ipam.NumberPool(ipam.address_count(subnet), given_out=given_out)
        taken = (ipam.number_of(subnet, address) for address in self._addresses.get(network.uid, ()))
        pool.taken = {number for number in taken if number is not None}
        self._pools[network.uid] = (subnet, pool)
        return pool

    # ---- slots, names and images under way ----

    @contextmanager
    def handing(self, slots: deque[WarmSlot]) -> Iterator[WarmSlot | None]:
        """The first that no other request under way has; None: there is none."""
        found = None
        while slots and found is None:
            first = slots.popleft()
            found = None if first.uid in self._handed else first
        if found is None:
            yield None
            return
        self._handed.add(found.uid)
        try:
            yield found
        finally:
            self._handed.discard(found.uid)

    @asynccontextmanager
    async def name(self, project: str, name: str) -> AsyncIterator[None]:
        """One create of a name at a time: those who wait find it taken, instead of asking for memory they never get."""
        key = f"{project}/{name}"
        entry = self._names.setdefault(key, _NameLock())
        entry.users += 1
        async with AsyncExitStack() as stack:
            stack.callback(self._leave_name, key, entry)
            await stack.enter_async_context(entry.lock)
            yield

    def _leave_name(self, key: str, entry: _NameLock) -> None:
        entry.users -= 1
        if not entry.users:
            self._names.pop(key, None)

    @contextmanager
    def using_image(self, uid: str, asked: str) -> Iterator[None]:
        """Keep an image from being deleted until the VM that is made from it is written."""
        if uid in self._images_going:
            raise CorralError("image-not-ready", asked, "it is being deleted", "corral image list")
        self._image_users[uid] += 1
        try:
            yield
        finally:
            self._image_users[uid] -= 1
            if not self._image_users[uid]:
                del self._image_users[uid]

    @contextmanager
    def deleting_image(self, uid: str, asked: str) -> Iterator[None]:
        """Keep new VMs from an image while it is looked for users and its deletion is written."""
        if self._image_users[uid]:
            raise CorralError("image-in-use", asked, "a VM is being made from it right now", "delete that VM first")
        self._images_going.add(uid)
        try:
            yield
        finally:
            self._images_going.discard(uid)

    # ---- following the store ----

    async def prime(self) -> int:
        """Read everything; returns the revision that `run` goes on from."""
        vms = await self._objects.store.range(Vm.prefix())
        claims = await self._objects.store.range(CLAIMS, revision=vms.revision)
        templates = await self._objects.store.range(Template.prefix(), revision=vms.revision)
        records, claimed = list(vms.records), list(claims.records)
        while vms.more:
            vms = await self._objects.store.range(Vm.prefix(), after=records[-1].key, revision=vms.revision)
            records += vms.records
        while claims.more:
            claims = await self._objects.store.range(CLAIMS, after=claimed[-1].key, revision=vms.revision)
            claimed += claims.records
        self._entries, self._total, self._of_template = {}, Demand(), Counter()
        self._templates = {found.uid: found for found in map(_template_memory, templates.records)}
        for record in records:
            self._see_vm(record)
        self._addresses, self._pools, self.dac_uids.taken = {}, {}, set()
        for record in claimed:
            self._see_claim(record.key, there=True)
        return vms.revision

    async def run(self, since: int) -> None:
        """Follow the store for ever; read it anew where its history is gone."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow(Vm.prefix(), since))
                    group.create_task(self._follow(CLAIMS, since))
                    group.create_task(self._follow(Template.prefix(), since))
            except* CorralError as errors:
                _log.info("reading anew", reason=str(errors.exceptions[0]))
                await asyncio.sleep(1)  # a store that is away is asked again, slowly
                since = await self._primed_or(since)

    async def _primed_or(self, since: int) -> int:
        try:
            return await self.prime()
        except CorralError as error:
            _log.warning("the store does not answer", code=error.code)
            return since

    async def _follow(self, prefix: str, since: int) -> None:
        async for change in self._objects.store.watch(prefix, since):
            if prefix == CLAIMS:
                self._see_claim(change.key, there=change.value is not None)
            elif prefix == Template.prefix():
                self._see_template(change)
            else:
                self._see_change(change)

    def _see_change(self, change: Change) -> None:
        if change.value is not None:
            self._see_vm(Record(change.key, change.value, change.revision, 0))
        elif (entry := self._entries.pop(change.key.removeprefix(Vm.prefix()), None)) is not None:
            self._total -= entry.demand
            self._count(entry, -1)

    def _see_template(self, change: Change) -> None:
        if change.value is None:
            self._templates.pop(change.key.removeprefix(Template.prefix()), None)
        else:
            found = _template_memory(Record(change.key, change.value, change.revision, 0))
            self._templates[found.uid] = found

    def _see_vm(self, record: Record) -> None:
        document: dict[str, Any] = json.loads(record.value)
        spec = document["spec"]
        demand = demand_of(spec["power"], document["status"]["state"], _full_demand(spec))
        made_of = spec.get("template_uid") or ""
        known = KnownVm(record.revision, demand, document["project"], document["name"], spec["vcpus"], made_of)
        self._enter(document["uid"], known)

    def _see_claim(self, key: str, *, there: bool) -> None:
        if key.startswith(_ADDRESSES):
            network_uid, _, address = key.removeprefix(_ADDRESSES).partition("/")
            known = self._addresses.setdefault(network_uid, set())
            (known.add if there else known.discard)(address)
            subnet, pool = self._pools.get(network_uid, ("", None))
            number = ipam.number_of(subnet, address) if pool is not None else None
            if pool is not None and number is not None:
                (pool.taken.add if there else pool.taken.discard)(number)
        elif key.startswith(_DAC_UIDS):
            number = int(key.removeprefix(_DAC_UIDS))
            (self.dac_uids.taken.add if there else self.dac_uids.taken.discard)(number)


def _full_demand(spec: dict[str, Any]) -> Demand:
    """`full_demand` of a spec as it is stored: models are not built for each change of a thousand VMs."""
    hardware = spec.get("hardware") or {}
    reserved_percent = hardware.get("cpu", {}).get("reserved_percent", 0)
    return Demand(
        spec["vcpus"], spec["memory_mib"], reserved_percent, hardware.get("memory", {}).get("reserved_mib", 0)
    )


def _template_memory(record: Record) -> TemplateMemory:
    document: dict[str, Any] = json.loads(record.value)
    return TemplateMemory(document["uid"], held_mib(document["status"]["stored_bytes"]))
