"""Making a VM: everything that can be wrong is found before anything is written, then one transaction writes it all."""

from dataclasses import dataclass

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.image import Image, ImageFacts, ImageState
from corral.model.operation import CreateVm, Operation
from corral.model.requests import CreateVmRequest
from corral.model.vm import DAC_UID_ANNOTATION, DAC_UID_FIRST, Firmware, Placement, Power, Vm, VmSpec
from corral.names import parse_image_name, parse_name
from corral.scheduler.admission import Capacity, Demand, admit, admit_disk
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import ATTEMPTS_MAX, Mutation, new_operation, repeated, submit, too_busy
from corral.services.context import Context
from corral.services.disks import Disks, plan_disks
from corral.services.domain_name import check_domain_name_free
from corral.services.nics import Allocated, allocate_nics, find_networks
from corral.services.seeds import plan_cloud_init
from corral.store.objects import claim_key, name_claim


@dataclass(frozen=True)
class _Plan:
    """What the request comes to, but for what is allocated at each attempt."""

    request: CreateVmRequest
    image: Image | None
    disks: Disks
    spec: VmSpec
    capacity: Capacity
    asked: str


async def create_vm(
    context: Context, caller: Caller, project: str, request: CreateVmRequest
) -> tuple[Vm | None, Operation]:
    """The new VM and the operation that makes it."""
    mutation = Mutation(caller, project, "vm.create", request.name, request)
    await authorize(context, caller, project, mutation.action, request.name)
    async with audited(context, caller, project, mutation.action, request.name):
        parse_name(request.name)
        if any(disk.path is not None for disk in request.disks):
            await authorize(context, caller, DEFAULT_PROJECT, "host.use-path", request.name)
        async with context.ledger.name(project, request.name):
            if (known := await repeated(context, mutation)) is not None:
                return await context.objects.get(Vm, known.spec.target_uid), known
            await _check_name_free(context, project, request.name)
            await check_domain_name_free(context, project, request.name, f"create VM {request.name!r}")
            return await _create(context, mutation, request)


async def _create(context: Context, mutation: Mutation, request: CreateVmRequest) -> tuple[Vm | None, Operation]:
    asked = f"create VM {request.name!r}"
    for _ in range(ATTEMPTS_MAX):
        plan = await _plan(context, mutation, request, asked)
        demand = Demand(request.vcpus, request.memory_mib)
        admit(demand, Demand(), plan.capacity, asked)  # more than the host has is refused for a VM that stays off too
        wanted = demand if request.start else Demand()
        try:
            with context.ledger.promise(wanted, plan.capacity, asked):
                if plan.image is None:
                    return await _attempt(context, mutation, plan)
                with context.ledger.using_image(plan.image.uid, asked):
                    return await _attempt(context, mutation, plan)
        except CorralError as error:
            if error.code != "precondition-failed":
                raise
            _check_macs(request, str(error.context.get("key", "")), asked)
        if (known := await repeated(context, mutation)) is not None:
            return await context.objects.get(Vm, known.spec.target_uid), known
        await _check_name_free(context, mutation.project, request.name)
    raise too_busy(mutation)


async def _plan(context: Context, mutation: Mutation, request: CreateVmRequest, asked: str) -> _Plan:
    image = await _ready_image(context, mutation.project, request.image) if request.image else None
    facts = image.status.facts if image is not None else None
    if facts is not None and request.memory_mib < facts.memory_min_mib:
        raise CorralError(
            "invalid-argument",
            asked,
            f"image {request.image} needs at least {facts.memory_min_mib} MiB of memory, not {request.memory_mib}",
            f"ask for {facts.memory_min_mib} MiB or more",
        )
    disks = plan_disks(context, mutation.project, request, image, asked)
    if not request.force:
        usage = await context.volumes.usage()
        admit_disk(disks.new_bytes, usage.free_bytes, context.settings.disk_reserve_mib * 2**20, asked)
    spec = VmSpec(
        power=Power.ON if request.start else Power.OFF,
        run_policy=request.run_policy,
        boot=request.boot,
        vcpus=request.vcpus,
        memory_mib=request.memory_mib,
        cpu_shares=request.cpu_shares,
        firmware=_firmware(request, facts, asked),
        image=image.name if image is not None else None,
        image_uid=image.uid if image is not None else None,
        disks=disks.specs,
        cloud_init=await plan_cloud_init(context, request, facts, asked),
        graphics=request.graphics,
        description=request.description,
        protected=request.protected,
    )
    return _Plan(request, image, disks, spec, await context.capacity(), asked)


async def _attempt(context: Context, mutation: Mutation, plan: _Plan) -> tuple[Vm, Operation]:
    """Allocate, write, commit. What was allocated is let go on failure; on success the claims hold it."""
    request, now = plan.request, context.clock.now()
    networks = await find_networks(context, mutation.project, request)
    with Allocated(context.ledger) as allocated:
        nics = allocate_nics(allocated, networks, request)
        dac = allocated.dac_uid() if context.own_dac_uids else None
        vm = Vm(
            project=mutation.project,
            name=request.name,
            uid=plan.disks.vm_uid,
            created_at=now,
            labels=request.labels,
            annotations={} if dac is None else {DAC_UID_ANNOTATION: str(DAC_UID_FIRST + dac)},
            spec=plan.spec.model_copy(update={"nics": nics}),
            placement=Placement(host_uid=context.host_uid),
        )
        transaction = context.objects.transaction()
        transaction.create(vm)
        for volume in plan.disks.volumes:
            transaction.create(volume.model_copy(update={"created_at": now}))
        for nic in nics:
            transaction.claim(claim_key("mac", "host", nic.mac), vm.uid)
            if nic.address:
                transaction.claim(claim_key("address", nic.network_uid, nic.address), vm.uid)
        if dac is not None:
            transaction.claim(claim_key("dac-uid", "host", str(dac)), vm.uid)
        if plan.image is not None:
            transaction.require(plan.image)
        operation = new_operation(context, mutation, vm, CreateVm(), vm.generation)
        revision = await submit(context, mutation, transaction, operation)
        allocated.keep()
        vm = vm.model_copy(update={"revision": revision})
        context.ledger.observe(vm)
    return vm, operation.model_copy(update={"revision": revision})


def _check_macs(request: CreateVmRequest, lost_claim: str, asked: str) -> None:
    """A MAC that was drawn by lot is drawn again; one that somebody asked for is refused."""
    for nic in request.nics or ():
        if nic.mac is not None and lost_claim == claim_key("mac", "host", nic.mac):
            raise CorralError(
                "address-taken", asked, f"another VM has the MAC {nic.mac}", "choose another one, or none"
            )


async def _check_name_free(context: Context, project: str, name: str) -> None:
    if await context.objects.owner(name_claim(Vm.KIND, project, name)) is not None:
        raise CorralError(
            "name-taken",
            f"create VM {name!r}",
            f"project {project!r} has a VM of this name",
            f"choose another name, or delete it first (corral delete {name})",
        )


async def _ready_image(context: Context, project: str, name: str) -> Image:
    parse_image_name(name)
    image = await context.objects.find(Image, project, name)
    if image is None:
        known = any(entry.name == name for entry in context.library.catalogue())
        raise CorralError(
            "image-not-found",
            f"image {name!r}",
            "it is in the catalogue but not on this host" if known else "there is none of that name",
            f"corral image build {name}" if known else "corral image list shows what there is and what can be made",
        )
    if image.being_deleted or image.status.state is not ImageState.READY or image.status.facts is None:
        failed = image.status.state is ImageState.FAILED
        raise CorralError(
            "image-not-ready",
            f"image {name!r}",
            "it is being deleted"
            if image.being_deleted
            else image.status.last_error or f"it is {image.status.state.value}",
            f"corral image build {name}" if failed else "wait for its operation: corral operation list",
        )
    return image


def _firmware(request: CreateVmRequest, facts: ImageFacts | None, asked: str) -> Firmware:
    """What was asked for, if the image boots by it; BIOS where it can."""
    if facts is None or facts.has_kernel:
        return request.firmware or Firmware.BIOS
    wanted = request.firmware or (Firmware.BIOS if facts.bios else Firmware.UEFI)
    if not (facts.bios if wanted is Firmware.BIOS else facts.uefi):
        other = Firmware.UEFI if wanted is Firmware.BIOS else Firmware.BIOS
        raise CorralError(
            "unsupported", asked, f"image {request.image} does not boot by {wanted.value}", f"--firmware {other.value}"
        )
    return wanted
