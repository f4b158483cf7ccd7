"""Hosts: what they have, what is promised, and what `doctor` finds on this one."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from corral.errors import CorralError
from corral.host.doctor import Subject, examine
from corral.host.secrets import KeptMemory
from corral.hypervisor.capabilities import MATRIX
from corral.model.answers import Incapability
from corral.model.base import DEFAULT_PROJECT
from corral.model.doctor import Finding
from corral.model.host import Host
from corral.model.network import Network
from corral.model.pool import Pool
from corral.model.requests import ListRequest
from corral.model.snapshot import Snapshot
from corral.model.template import Template
from corral.model.vm import Vm
from corral.services import listing
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.documents import Document, Listing, document_of

SELF: Final = "self"


class HostService:
    """Hosts belong to no tenant: they are read with a role in the project `default`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._examining = asyncio.Lock()  # an examination starts processes: one at a time, whoever asks how often

    async def list(self, caller: Caller, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, DEFAULT_PROJECT, Host, request)

    async def get(self, caller: Caller, name: str) -> Document:
        """By name; `self` is the one that answers."""
        if name != SELF:
            return await listing.get_object(self._context, caller, DEFAULT_PROJECT, Host, name)
        await authorize(self._context, caller, DEFAULT_PROJECT, "host.read", name)
        stored = await self._context.objects.store.get(f"{Host.prefix()}{self._context.host_uid}")
        if stored is None:
            raise CorralError("host-not-found", "host 'self'", "it has not been measured yet", "try again in a second")
        return document_of(stored)

    async def incapabilities(self, caller: Caller) -> tuple[Incapability, ...]:
        """What this host cannot do: by measurement, and what does not go together on its hypervisor."""
        await authorize(self._context, caller, DEFAULT_PROJECT, "host.read")
        host = await self._context.objects.get(Host, self._context.host_uid)
        accelerators = host.status.accelerators if host is not None else ()
        measured = [
            Incapability(what=f"acceleration by {found.name}", reason=found.reason)
            for found in accelerators
            if not found.usable
        ]
        pairs = [Incapability(what=" with ".join(sorted(pair)), reason=why) for pair, why in MATRIX.items()]
        return (*measured, *pairs)

    async def doctor(self, caller: Caller) -> tuple[Finding, ...]:
        """Examine this host, as far as its hypervisor answers."""
        await authorize(self._context, caller, DEFAULT_PROJECT, "host.doctor")
        async with self._examining:
            return await self._examine()

    async def _examine(self) -> tuple[Finding, ...]:
        settings, hypervisor = self._context.settings, self._context.hypervisor
        facts = await hypervisor.facts()
        try:
            domains = await hypervisor.observe_all() if facts.connected else ()
        except CorralError:  # that it does not answer is a finding, which `facts` brings
            domains = ()
        host = await self._context.objects.get(Host, self._context.host_uid)
        vms = tuple(await self._context.objects.list(Vm))
        templates = tuple(await self._context.objects.list(Template))
        return await examine(
            Subject(
                state_dir=settings.state_dir,
                facts=facts,
                status=host.status if host is not None else None,
                domains=domains,
                networks=tuple(await self._context.objects.list(Network)),
                vms=vms,
                pools=tuple(await self._context.objects.list(Pool)),
                templates=templates,
                firewall=await self._context.firewall.state(),
                memories=tuple(self._memories(vms, templates, await self._context.objects.list(Snapshot))),
            )
        )

    def _memories(
        self, vms: Sequence[Vm], templates: Sequence[Template], snapshots: Sequence[Snapshot]
    ) -> Iterator[KeptMemory]:
        """All that is kept of guests' memory. Where libvirt keeps that of a saved VM is its own affair."""
        layers, kept = self._context.volumes.layers, self._context.settings.state_dir / "templates"
        for template in templates:
            if template.spec.hot and template.status.ready:
                directory = kept / template.uid
                files = (directory, directory / "memory", directory / "state")
                yield KeptMemory(f"template {template.name}", files, template.status.stored_bytes)
        names = {vm.uid: vm.name for vm in vms}
        for snapshot in snapshots:
            if snapshot.spec.with_memory and snapshot.status.ready:
                what = f"snapshot {snapshot.name} of {names.get(snapshot.spec.vm_uid, 'a VM that is gone')}"
                memory = layers.point_dir(snapshot.uid) / "memory"
                yield KeptMemory(what, (memory,), snapshot.status.memory_bytes)
        for vm in vms:
            if vm.status.has_saved_memory:
                yield KeptMemory(f"saved memory of {vm.name}", ())
