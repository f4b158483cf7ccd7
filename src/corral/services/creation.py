"""Making a VM: everything that can be wrong is found before anything is written, then one transaction writes it all."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from corral.errors import CorralError
from corral.model.answers import VmPreview
from corral.model.base import DEFAULT_PROJECT
from corral.model.image import Image, ImageFacts
from corral.model.operation import CreateVm, Operation
from corral.model.os import OsInfo
from corral.model.requests import CreateVmRequest
from corral.model.vm import DAC_UID_ANNOTATION, DAC_UID_FIRST, Firmware, NicSpec, Placement, Power, Vm, VmSpec
from corral.model.volume import Volume
from corral.names import parse_name
from corral.scheduler.admission import Capacity, Demand, admit, admit_disk, full_demand
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import ATTEMPTS_MAX, Mutation, new_operation, repeated, submit, too_busy
from corral.services.context import Context
from corral.services.disks import Disks, new_files, plan_disks
from corral.services.documents import without_vm_secrets
from corral.services.domain_name import check_domain_name_free
from corral.services.hardware import check_spec
from corral.services.media import find_media, ready_image
from corral.services.nics import Allocated, allocate_nics, authorize_networks, claim_identity, find_networks, groups_of
from corral.services.os import apply_os, find_os, warnings_of
from corral.services.promises import check_cards
from corral.services.rules import check_system_hypervisor
from corral.services.seeds import plan_cloud_init
from corral.services.volume import free_volume
from corral.store.objects import claim_key, name_claim

Draw = Callable[[Vm, Sequence[Volume]], Awaitable[str]]
"""What the hypervisor's document of a VM would be."""


@dataclass(frozen=True)
class PlannedVm:
    """What the request comes to, but for what is allocated at each attempt. `request` is complete: what its user left
    open was chosen for `system`."""

    request: CreateVmRequest
    system: OsInfo | None
    image: Image | None
    media: Mapping[str, Image]
    disks: Disks
    spec: VmSpec
    capacity: Capacity
    asked: str

    @property
    def demand(self) -> Demand:
        return full_demand(self.spec)

    @property
    def images(self) -> tuple[Image, ...]:
        return (*(() if self.image is None else (self.image,)), *self.media.values())


async def create_vm(
    context: Context, caller: Caller, project: str, request: CreateVmRequest
) -> tuple[Vm | None, Operation]:
    """The new VM and the operation that makes it."""
    mutation = Mutation(caller, project, "vm.create", request.name, request)
    await authorize(context, caller, project, mutation.action, request.name)
    async with audited(context, caller, project, mutation.action, request.name):
        parse_name(request.name)
        check_system_hypervisor(context.settings, request.name)
        await authorize_host(context, caller, request)
        async with context.ledger.name(project, request.name):
            if (known := await repeated(context, mutation)) is not None:
                return await context.objects.get(Vm, known.spec.target_uid), known
            await check_name_free(context, project, request.name)
            await check_domain_name_free(context, project, request.name, f"create VM {request.name!r}")
            return await _create(context, mutation, request)


class PreviewService:
    """Dry runs, and what a VM's user should know."""

    def __init__(self, context: Context, draw: Draw) -> None:
        self._context = context
        self._draw = draw

    async def create(self, caller: Caller, project: str, request: CreateVmRequest) -> VmPreview:
        """What the same request would make now. Nothing is made; everything that would be refused is refused."""
        context, asked = self._context, f"create VM {request.name!r}"
        await authorize(context, caller, project, "vm.create", request.name)
        parse_name(request.name)
        await authorize_host(context, caller, request)
        await check_name_free(context, project, request.name)
        await check_domain_name_free(context, project, request.name, asked)
        plan = await _admitted(context, project, request, asked)
        admit(plan.demand, Demand(), plan.capacity, asked)
        with _promised(context, plan), Allocated(context.ledger) as allocated:
            networks = await find_networks(context, project, plan.request)
            await groups_of(context, project, networks, plan.request)
            nics = allocate_nics(allocated, networks, plan.request)
            await check_cards(context, networks, nics, asked)
            vm = _vm(context, project, plan, nics, allocated)
            document = await self._draw(vm, plan.disks.volumes)
        return VmPreview(vm=without_vm_secrets(vm), document=document, warnings=warnings_of(vm.spec, plan.system))

    def warnings(self, vm: Vm) -> tuple[str, ...]:
        """What the user of a VM that was just made should know. Its system was looked up when it was made."""
        return warnings_of(vm.spec, self._context.systems.find(vm.spec.os) if vm.spec.os else None)


async def authorize_host(context: Context, caller: Caller, request: CreateVmRequest) -> None:
    """What reaches beyond the VM into the host is for those who own the host."""
    hardware = request.hardware
    if (
        any(disk.path is not None for disk in request.disks)
        or hardware.kernel is not None
        or hardware.shares
        or hardware.host_devices
    ):
        await authorize(context, caller, DEFAULT_PROJECT, "host.use-path", request.name)
    if any(card.bridge is not None for card in request.nics or ()):
        await authorize(context, caller, DEFAULT_PROJECT, "host.use-bridge", request.name)
    if request.graphics_listen:
        await authorize(context, caller, DEFAULT_PROJECT, "host.open-port", request.name)


async def _create(context: Context, mutation: Mutation, request: CreateVmRequest) -> tuple[Vm | None, Operation]:
    asked = f"create VM {request.name!r}"
    for _ in range(ATTEMPTS_MAX):
        plan = await _admitted(context, mutation.project, request, asked)
        admit(plan.demand, Demand(), plan.capacity, asked)  # more than the host has: refused also if it stays off
        try:
            with _promised(context, plan):
                async with new_files(plan.disks.files, asked):
                    return await _attempt(context, mutation, plan)
        except CorralError as error:
            if error.code != "precondition-failed":
                raise
            _check_macs(request, str(error.context.get("key", "")), asked)
        if (known := await repeated(context, mutation)) is not None:
            return await context.objects.get(Vm, known.spec.target_uid), known
        await check_name_free(context, mutation.project, request.name)
    raise too_busy(mutation)


@contextmanager
def _promised(context: Context, plan: PlannedVm) -> Iterator[None]:
    """What the VM takes is kept for it, and its images from being deleted."""
    wanted = plan.demand if plan.request.start else Demand()
    with ExitStack() as stack:
        stack.enter_context(context.ledger.promise(wanted, plan.capacity, plan.asked))
        for image in plan.images:
            stack.enter_context(context.ledger.using_image(image.uid, plan.asked))
        yield


async def _admitted(context: Context, project: str, request: CreateVmRequest, asked: str) -> PlannedVm:
    plan = await plan_vm(context, project, request, asked)
    await admit_disks(context, plan)
    return plan


async def plan_vm(
    context: Context,
    project: str,
    request: CreateVmRequest,
    asked: str,
    unmade: Image | None = None,
    volumes: Mapping[str, Volume] | None = None,
) -> PlannedVm:
    """Everything that can be known of the VM before it is made. `unmade`: what its image, which is not there yet, will be;
    `volumes`: what the volumes that it names are, or will be, where that is known already."""
    image = unmade
    if image is None and request.image:
        image = await ready_image(context, project, request.image, "disk")
    media = await find_media(context, project, request)
    facts = image.status.facts if image is not None else None
    os_id, system = await _system(context, request, facts, media, asked)
    if system is not None:
        request = apply_os(request, system, installed=image is not None)
    if facts is not None and request.memory_mib < facts.memory_min_mib:
        raise CorralError(
            "invalid-argument",
            asked,
            f"image {request.image} needs at least {facts.memory_min_mib} MiB of memory, not {request.memory_mib}",
            f"ask for {facts.memory_min_mib} MiB or more",
        )
    there = dict(volumes or {})
    for name in sorted({disk.volume for disk in request.disks if disk.volume is not None} - there.keys()):
        there[name] = await free_volume(context, project, name, asked)
    disks = plan_disks(context, project, request, image, media, there, asked)
    spec = VmSpec(
        power=Power.ON if request.start else Power.OFF,
        run_policy=request.run_policy,
        boot=request.boot,
        vcpus=request.vcpus,
        memory_mib=request.memory_mib,
        cpu_shares=request.cpu_shares,
        firmware=_firmware(request, facts, media, asked),
        image=image.name if image is not None else None,
        image_uid=image.uid if image is not None else None,
        disks=disks.specs,
        cloud_init=await plan_cloud_init(context, request, facts, asked),
        graphics=request.graphics,
        graphics_listen=request.graphics_listen,
        os=os_id,
        hardware=request.hardware,
        description=request.description,
        protected=request.protected,
    )
    await check_spec(context, spec, asked)
    return PlannedVm(request, system, image, media, disks, spec, await context.capacity(), asked)


async def admit_disks(context: Context, plan: PlannedVm) -> None:
    """Its new disks fit, filled to the brim, unless it said that they need not."""
    if not plan.request.force:
        for pool, new_bytes in plan.disks.new_bytes.items():
            usage = await context.volumes.usage(pool)
            admit_disk(new_bytes, usage.free_bytes, context.settings.disk_reserve_mib * 2**20, plan.asked)


async def _system(
    context: Context, request: CreateVmRequest, facts: ImageFacts | None, media: Mapping[str, Image], asked: str
) -> tuple[str, OsInfo | None]:
    """The guest's system: what was said, else what its image is, else what the first medium installs."""
    if request.os:
        system = await find_os(context.systems, request.os, asked)
        return system.id, system
    known = [facts, *(medium.status.facts for medium in media.values())]
    os_id = next((found.os_id for found in known if found is not None and found.os_id), "")
    return os_id, await asyncio.to_thread(context.systems.find, os_id) if os_id else None


async def _attempt(context: Context, mutation: Mutation, plan: PlannedVm) -> tuple[Vm, Operation]:
    """Allocate, write, commit. What was allocated is let go on failure; on success the claims hold it."""
    networks = await find_networks(context, mutation.project, plan.request)
    await authorize_networks(context, mutation.caller, networks, plan.request.name)
    groups = await groups_of(context, mutation.project, networks, plan.request)
    with Allocated(context.ledger) as allocated:
        nics = allocate_nics(allocated, networks, plan.request)
        await check_cards(context, networks, nics, f"create VM {plan.request.name!r}")
        vm = _vm(context, mutation.project, plan, nics, allocated)
        transaction = context.objects.transaction()
        transaction.create(vm)
        for volume in plan.disks.volumes:
            transaction.create(volume.model_copy(update={"created_at": vm.created_at}))
        for volume in plan.disks.kept:
            if volume.spec.shared:
                transaction.require(volume)
            else:
                transaction.update(volume)
        claim_identity(transaction, vm)
        groups.hold(transaction)
        for network in {network.uid: network for network in networks}.values():
            if network.revision:
                transaction.require(network)  # it is not deleted meanwhile
            else:
                transaction.create(network)
        for image in plan.images:
            transaction.require(image)
        operation = new_operation(context, mutation, vm, CreateVm(), vm.generation)
        revision = await submit(context, mutation, transaction, operation)
        allocated.keep()
        vm = vm.model_copy(update={"revision": revision})
        context.ledger.observe(vm)
    return vm, operation.model_copy(update={"revision": revision})


def _vm(context: Context, project: str, plan: PlannedVm, nics: tuple[NicSpec, ...], allocated: Allocated) -> Vm:
    dac = allocated.dac_uid() if context.own_dac_uids else None
    return Vm(
        project=project,
        name=plan.request.name,
        uid=plan.disks.vm_uid,
        created_at=context.clock.now(),
        labels=plan.request.labels,
        annotations={} if dac is None else {DAC_UID_ANNOTATION: str(DAC_UID_FIRST + dac)},
        spec=plan.spec.model_copy(update={"nics": nics}),
        placement=Placement(host_uid=context.host_uid),
    )


def _check_macs(request: CreateVmRequest, lost_claim: str, asked: str) -> None:
    """A MAC that was drawn by lot is drawn again; one that somebody asked for is refused."""
    for nic in request.nics or ():
        if nic.mac is not None and lost_claim == claim_key("mac", "host", nic.mac):
            raise CorralError(
                "address-taken", asked, f"another VM has the MAC {nic.mac}", "choose another one, or none"
            )


async def check_name_free(context: Context, project: str, name: str) -> None:
    if await context.objects.owner(name_claim(Vm.KIND, project, name)) is not None:
        raise CorralError(
            "name-taken",
            f"create VM {name!r}",
            f"project {project!r} has a VM of this name",
            f"choose another name, or delete it first (corral delete {name})",
        )


def _firmware(request: CreateVmRequest, facts: ImageFacts | None, media: Mapping[str, Image], asked: str) -> Firmware:
    """What was asked for, if the image boots by it; BIOS where it can. A medium that knows one way alone decides."""
    if facts is None and request.firmware is None:
        first = next((found for image in media.values() if (found := image.status.facts) is not None), None)
        return Firmware.UEFI if first is not None and first.uefi and not first.bios else Firmware.BIOS
    if facts is None or facts.has_kernel:
        return request.firmware or Firmware.BIOS
    wanted = request.firmware or (Firmware.BIOS if facts.bios else Firmware.UEFI)
    if not (facts.bios if wanted is Firmware.BIOS else facts.uefi):
        other = Firmware.UEFI if wanted is Firmware.BIOS else Firmware.BIOS
        raise CorralError(
            "unsupported", asked, f"image {request.image} does not boot by {wanted.value}", f"--firmware {other.value}"
        )
    return wanted
