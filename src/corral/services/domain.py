"""Domains that Corral did not make: listed beside ours, and taken over without a restart."""

from corral.errors import CorralError
from corral.hypervisor.base import DomainDescription, ObservedDomain
from corral.model import limits
from corral.model.answers import UnmanagedDomain
from corral.model.base import DEFAULT_PROJECT
from corral.model.network import Network
from corral.model.operation import AdoptVm, Operation
from corral.model.vm import Bus, DiskSpec, Firmware, NicSpec, Placement, Power, Vm, VmSpec, VmState
from corral.names import parse_name
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Mutation, new_operation, repeated, submit
from corral.services.context import Context
from corral.store.objects import claim_key, name_claim


class DomainService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller) -> tuple[UnmanagedDomain, ...]:
        """Every domain of the hypervisor that is not one of our VMs, nor waits to become one."""
        await authorize(self._context, caller, DEFAULT_PROJECT, "domain.read")
        observed = await self._context.hypervisor.observe_all()
        return tuple(self._unmanaged(domain) for domain in observed if not self._is_ours(domain) and not domain.waiting)

    async def adopt(self, caller: Caller, project: str, name: str) -> tuple[Vm | None, Operation]:
        """Take the domain `name` over, as it is and as it runs."""
        mutation = Mutation(caller, project, "domain.adopt", name)
        await authorize(self._context, caller, project, mutation.action, name)
        async with (
            audited(self._context, caller, project, mutation.action, name),
            self._context.ledger.name(project, name),
        ):
            if (known := await repeated(self._context, mutation)) is not None:
                return await self._context.objects.get(Vm, known.spec.target_uid), known
            domain = await self._foreign(name)
            description = await self._context.hypervisor.describe(domain.uid)
            vm = await self._vm(project, domain, description)
            return await self._write(mutation, vm, description)

    async def _foreign(self, name: str) -> ObservedDomain:
        observed = await self._context.hypervisor.observe_all()
        domain = next((domain for domain in observed if domain.name == name), None)
        asked = f"adopt {name[:64]!r}"
        if domain is None:
            raise CorralError("domain-not-found", asked, "the hypervisor has no such domain", "corral list --all")
        if self._is_ours(domain):
            raise CorralError("name-taken", asked, "it is one of Corral's VMs already", f"corral info {name}")
        if domain.metadata is not None and domain.metadata.installation_id != self._context.installation_id:
            raise CorralError(
                "domain-not-ours", asked, "it belongs to another Corral daemon on this host", "ask that one"
            )
        if not domain.persistent:
            raise CorralError(
                "unsupported",
                asked,
                "it is transient: nothing is left of it once it stops",
                "make it persistent (virsh define)",
            )
        parse_name(name)
        return domain

    async def _vm(self, project: str, domain: ObservedDomain, description: DomainDescription) -> Vm:
        power = {VmState.RUNNING: Power.ON, VmState.PAUSED: Power.PAUSED}.get(domain.state, Power.OFF)
        return Vm(
            project=project,
            name=domain.name,
            uid=domain.uid,
            created_at=self._context.clock.now(),
            spec=VmSpec(
                power=power,
                vcpus=min(description.vcpus, limits.VCPUS_MAX),
                memory_mib=max(limits.MEMORY_MIN_MIB, description.memory_mib),
                firmware=Firmware(description.firmware),
                disks=tuple(
                    DiskSpec(
                        name=f"disk{index}",
                        path=disk.path,
                        format=disk.format,
                        bus=Bus(disk.bus),
                        read_only=disk.read_only,
                    )
                    for index, disk in enumerate(description.disks[: limits.DISKS_MAX])
                ),
                nics=await self._nics(description),
                graphics="none",
                adopted=True,
            ),
            placement=Placement(host_uid=self._context.host_uid),
        )

    async def _nics(self, description: DomainDescription) -> tuple[NicSpec, ...]:
        """The cards on networks of ours; others stay as they are, unknown to Corral."""
        networks = {
            self._context.networks.driver_name(network): network
            for network in await self._context.objects.list(Network)
        }
        return tuple(
            NicSpec(name=f"net{index}", network=network.name, network_uid=network.uid, mac=nic.mac.lower(), address="")
            for index, nic in enumerate(description.nics[: limits.NICS_MAX])
            if (network := networks.get(nic.network)) is not None
        )

    async def _write(self, mutation: Mutation, vm: Vm, description: DomainDescription) -> tuple[Vm, Operation]:
        transaction = self._context.objects.transaction()
        transaction.create(vm)
        for mac in sorted({nic.mac.lower() for nic in description.nics}):
            if await self._context.objects.owner(claim_key("mac", "host", mac)) is None:
                transaction.claim(claim_key("mac", "host", mac), vm.uid)
        operation = new_operation(self._context, mutation, vm, AdoptVm(), vm.generation)
        try:
            revision = await submit(self._context, mutation, transaction, operation)
        except CorralError as error:
            key = error.context.get("key")
            if error.code != "precondition-failed" or key not in (vm.key, name_claim(Vm.KIND, vm.project, vm.name)):
                raise
            raise CorralError(
                "name-taken",
                f"adopt {vm.name!r}",
                "there is a VM of this name",
                "rename the domain first (virsh domrename)",
            ) from error
        vm = vm.model_copy(update={"revision": revision})
        self._context.ledger.observe(vm)
        return vm, operation.model_copy(update={"revision": revision})

    def _is_ours(self, domain: ObservedDomain) -> bool:
        """One of the VMs that the store knows; a domain of ours that it does not know shows, so that it can be saved."""
        return self._context.ledger.known(domain.uid) is not None

    def _unmanaged(self, domain: ObservedDomain) -> UnmanagedDomain:
        metadata = domain.metadata
        return UnmanagedDomain(
            name=domain.name,
            uid=domain.uid,
            state=domain.state.value,
            vcpus=domain.vcpus,
            memory_mib=domain.memory_mib,
            persistent=domain.persistent,
            autostart=domain.autostart,
            other_installation=metadata is not None and metadata.installation_id != self._context.installation_id,
        )
