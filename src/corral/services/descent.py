"""A new VM from another one's: its hardware, an identity of its own, its disks on frozen layers or copied from them.
Clones come about so, and VMs from templates."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.image import Image
from corral.model.layer import Layer
from corral.model.network import Network
from corral.model.operation import CreateVm, Intent, Operation
from corral.model.requests import CloneVmRequest
from corral.model.slot import WarmSlot
from corral.model.template_requests import ForkRequest, LiveForkRequest
from corral.model.vm import (
    DAC_UID_ANNOTATION,
    DAC_UID_FIRST,
    CloudInitSpec,
    DiskSpec,
    NicSpec,
    Placement,
    Power,
    Vm,
    VmSpec,
)
from corral.model.volume import Volume, VolumeSpec
from corral.names import new_mac, new_uid, parse_name
from corral.scheduler.admission import Demand, admit, admit_disk, full_demand
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import (
    ATTEMPTS_MAX,
    CLIENT_KEY_MAX_CHARS,
    Mutation,
    new_operation,
    put_operation,
    repeated,
    submit,
    too_busy,
)
from corral.services.context import Context
from corral.services.creation import check_name_free
from corral.services.disks import volume_name
from corral.services.documents import without_vm_secrets
from corral.services.domain_name import check_domain_name_free
from corral.services.hardware import check_spec
from corral.services.nics import Allocated, claim_cards, claim_identity, with_address6
from corral.services.rules import check_system_hypervisor
from corral.services.security_group import find_groups
from corral.storage.layers import NVRAM_FILE, TPM_DIR


@dataclass(frozen=True)
class Origin:
    """What a new VM comes from: a spec, and the frozen layer of each disk that was in the point in time."""

    name: str
    spec: VmSpec
    cloud_init: CloudInitSpec | None
    layers: Mapping[str, Layer]
    labels: Mapping[str, str] = field(default_factory=dict)
    beside: Path | None = None
    """Where its UEFI variables and its TPM's state are kept."""
    slots: deque[WarmSlot] = field(default_factory=deque)
    """Domains that wait to become its VMs, of which each VM takes one while there is any."""
    intent: Intent | None = None
    """How VMs come about of it, where that is known only once it is there."""


@dataclass(frozen=True)
class Descendant:
    """What is wished of the new VM."""

    name: str = ""
    start: bool = False
    full: bool = False
    """Its disks stand alone, instead of lying on the origin's."""
    keep_identity: bool = False
    """The guest goes on being who it is. MAC, address and UUID are new all the same: two VMs cannot have one."""
    force: bool = False
    part_of: Callable[[Vm, Operation], tuple[Mutation, Operation]] | None = None
    """The request that the VM is only a part of, and its operation: told of with the VM's own."""


Descendants = tuple[tuple[Vm, ...], tuple[Operation, ...]]


async def create_descendant(
    context: Context, mutation: Mutation, origin: Origin, wish: Descendant, intent: Intent | None = None
) -> tuple[Vm | None, Operation]:
    """The new VM and the operation that makes it. `mutation` is of its name; everything is checked before anything is
    written."""
    caller, project, asked = mutation.caller, mutation.project, f"create VM {wish.name!r}"
    await authorize(context, caller, project, mutation.action, wish.name)
    async with audited(context, caller, project, mutation.action, wish.name):
        parse_name(wish.name)
        check_system_hypervisor(context.settings, wish.name)
        if _reaches_into_host(origin.spec):
            await authorize(context, caller, DEFAULT_PROJECT, "host.use-path", wish.name)
        async with context.ledger.name(project, wish.name):
            if (known := await repeated(context, mutation)) is not None:
                return await context.objects.get(Vm, known.spec.target_uid), known
            await check_name_free(context, project, wish.name)
            await check_domain_name_free(context, project, wish.name, asked)
            return await _create(context, mutation, origin, wish, intent or CreateVm(made_of="vm"), asked)


async def create_all(
    context: Context,
    caller: Caller,
    project: str,
    request: CloneVmRequest | ForkRequest | LiveForkRequest,
    origin: AbstractAsyncContextManager[Origin],
    spec: VmSpec,
    wish: Descendant,
    asked: str,
    intent: Intent | None = None,
) -> Descendants:
    """A VM for each of the request's names, all from `origin`, which is entered only if there is any to be made: those
    that an earlier try of the same request made are not made again. None fails once the first is made."""
    if len(set(request.names)) != len(request.names):
        raise CorralError("invalid-argument", asked, "a name is given twice", "give each VM its own")
    made: dict[str, tuple[Vm | None, Operation]] = {}
    fresh: list[Mutation] = []
    for name in request.names:
        mutation = Mutation(_with_own_key(caller, parse_name(name)), project, "vm.create", name, request)
        if (known := await repeated(context, mutation)) is not None:
            made[name] = await context.objects.get(Vm, known.spec.target_uid), known
        else:
            await check_name_free(context, project, name)
            fresh.append(mutation)
    if fresh and wish.start:
        wanted = sum((full_demand(spec) for _ in fresh), context.ledger.held_for(spec.template_uid))
        admit(wanted, context.ledger.committed, await context.capacity(), asked)
    if fresh:
        async with origin as found:
            for mutation in fresh:
                one = replace(wish, name=mutation.target)
                made[mutation.target] = await create_descendant(context, mutation, found, one, found.intent or intent)
    vms = (made[name][0] for name in request.names)
    return tuple(without_vm_secrets(vm) for vm in vms if vm is not None), tuple(made[n][1] for n in request.names)


def _with_own_key(caller: Caller, name: str) -> Caller:
    """One Idempotency-Key for many VMs: each has its part of it."""
    if not caller.client_key:
        return caller
    return replace(caller, client_key=f"{caller.client_key[: CLIENT_KEY_MAX_CHARS - len(name) - 1]}:{name}")


def _reaches_into_host(spec: VmSpec) -> bool:
    by_path = any(disk.device == "disk" and disk.path is not None for disk in spec.disks)
    return by_path or spec.hardware.kernel is not None or bool(spec.hardware.shares)


async def _create(
    context: Context, mutation: Mutation, origin: Origin, wish: Descendant, intent: Intent, asked: str
) -> tuple[Vm, Operation]:
    images = await _images(context, origin.spec, asked)
    networks = [await _network(context, nic, asked) for nic in origin.spec.nics]
    wanted = full_demand(origin.spec)
    capacity = await context.capacity()
    admit(wanted, Demand(), capacity, asked)
    if not wish.force:
        sizes = sum(layer.spec.size_bytes for layer in origin.layers.values())
        usage = await context.volumes.usage()
        admit_disk(sizes, usage.free_bytes, context.settings.disk_reserve_mib * 2**20, asked)
    for _ in range(ATTEMPTS_MAX):
        with ExitStack() as stack:
            stack.enter_context(context.ledger.promise(wanted if wish.start else Demand(), capacity, asked))
            for image in images:
                stack.enter_context(context.ledger.using_image(image.uid, asked))
            allocated = stack.enter_context(Allocated(context.ledger))
            slot = stack.enter_context(context.ledger.handing(origin.slots))
            try:
                return await _attempt(context, mutation, origin, wish, intent, networks, images, allocated, slot)
            except CorralError as error:
                if error.code != "precondition-failed":
                    raise
                _check_layers(origin, str(error.context.get("key", "")), asked)
        await check_name_free(context, mutation.project, wish.name)
    raise too_busy(mutation)


async def _attempt(
    context: Context,
    mutation: Mutation,
    origin: Origin,
    wish: Descendant,
    intent: Intent,
    networks: Sequence[Network],
    images: Sequence[Image],
    allocated: Allocated,
    slot: WarmSlot | None,
) -> tuple[Vm, Operation]:
    uid = new_uid() if slot is None else slot.uid
    disks, volumes = _disks(context, mutation.project, origin, wish, uid, {} if slot is None else slot.volumes)
    nics = tuple(
        with_address6(
            nic.model_copy(
                update={"mac": new_mac(), "address": allocated.address(network, None) if nic.address else ""}
            ),
            network,
        )
        for nic, network in zip(origin.spec.nics, networks, strict=True)
    )
    vm = _vm(context, mutation.project, origin, wish, uid, disks, nics, _dac_number(context, allocated, slot))
    await check_spec(context, vm.spec, f"create VM {wish.name!r}")
    operation = new_operation(context, mutation, vm, intent, vm.generation)
    transaction = context.objects.transaction()
    (await find_groups(context, mutation.project, [name for nic in nics for name in nic.groups])).hold(transaction)
    transaction.create(vm)
    for disk, volume in volumes.items():
        transaction.create(volume)
        if not wish.full:
            head = origin.layers[disk].overlay(
                volume.uid,
                volume.uid,
                volume.created_at,
                project=volume.project,
                vm_uid=volume.spec.vm_uid,
                operation_uid=operation.uid,
            )
            transaction.create(head)
    for layer in origin.layers.values():
        transaction.require(layer)
    if slot is None:
        claim_identity(transaction, vm)
    else:  # its QEMU runs, under a uid of its own
        transaction.delete(slot)
        claim_cards(transaction, vm)
    for image in images:
        transaction.require(image)
    async with _inheriting(context, origin, wish, intent, uid):
        if wish.part_of is None:
            revision = await submit(context, mutation, transaction, operation)
        else:
            put_operation(mutation, transaction, operation)
            whole, leading = wish.part_of(vm, operation)
            revision = await submit(context, whole, transaction, leading)
    allocated.keep()
    vm = vm.model_copy(update={"revision": revision})
    context.ledger.observe(vm)
    return vm, operation.model_copy(update={"revision": revision})


def _dac_number(context: Context, allocated: Allocated, slot: WarmSlot | None) -> int | None:
    if slot is not None:
        return slot.spec.dac_number
    return allocated.dac_uid() if context.own_dac_uids else None


@asynccontextmanager
async def _inheriting(
    context: Context, origin: Origin, wish: Descendant, intent: Intent, vm_uid: str
) -> AsyncIterator[None]:
    """UEFI variables (boot entries, secure boot's keys) come along. A TPM is who the guest is: its state does where the guest
    stays that one. What goes on from a template's memory has the variables from there."""
    forked = isinstance(intent, CreateVm) and intent.fork_of is not None
    layers = context.volumes.layers
    if origin.beside is not None and not forked:
        names = (NVRAM_FILE, TPM_DIR) if wish.keep_identity else (NVRAM_FILE,)
        await layers.inherit(vm_uid, origin.beside, names)
    try:
        yield
    except CorralError as error:
        if error.code == "precondition-failed":  # of any other, nobody knows whether the VM came about
            await layers.forget_inheritance(vm_uid)
        raise


def _disks(
    context: Context, project: str, origin: Origin, wish: Descendant, vm_uid: str, made: Mapping[str, str]
) -> tuple[tuple[DiskSpec, ...], dict[str, Volume]]:
    """Disks with volumes of their own, which are told by the disk's name; drives, and what many may read, as they are.
    `made`: the uids of those whose files are there."""
    specs: list[DiskSpec] = []
    volumes: dict[str, Volume] = {}
    for disk in origin.spec.disks:
        layer = origin.layers.get(disk.name)
        if layer is None:
            specs.append(disk)
            continue
        uid = made.get(disk.name) or new_uid()
        volumes[disk.name] = Volume(
            project=project,
            name=volume_name(wish.name, disk.name, uid),
            uid=uid,
            created_at=context.clock.now(),
            spec=VolumeSpec(
                pool=layer.spec.pool,
                size_bytes=layer.spec.size_bytes,
                image_uid=None if wish.full else layer.spec.image_uid,
                image_digest="" if wish.full else layer.spec.image_digest,
                copy_of_layer=layer.uid if wish.full else None,
                vm_uid=vm_uid,
            ),
        )
        specs.append(disk.model_copy(update={"volume_uid": uid}))
    return tuple(specs), volumes


def _vm(
    context: Context,
    project: str,
    origin: Origin,
    wish: Descendant,
    uid: str,
    disks: tuple[DiskSpec, ...],
    nics: tuple[NicSpec, ...],
    dac: int | None,
) -> Vm:
    # One device of the host's cannot be in two guests.
    hardware = origin.spec.hardware.model_copy(update={"host_devices": ()})
    spec = origin.spec.model_copy(
        update={
            "power": Power.ON if wish.start else Power.OFF,
            "disks": disks,
            "nics": nics,
            "cloud_init": _cloud_init(origin.cloud_init, wish),
            "hardware": hardware,
            "protected": False,
            "snapshot_uid": None,
            "snapshot_policy": None,
        }
    )
    return Vm(
        project=project,
        name=wish.name,
        uid=uid,
        created_at=context.clock.now(),
        labels=dict(origin.labels),
        annotations={} if dac is None else {DAC_UID_ANNOTATION: str(DAC_UID_FIRST + dac)},
        spec=spec,
        placement=Placement(host_uid=context.host_uid),
    )


def _cloud_init(seed: CloudInitSpec | None, wish: Descendant) -> CloudInitSpec | None:
    """With another instance id cloud-init gives the guest its name and SSH host keys anew, and our seed its machine id."""
    if seed is None or wish.keep_identity:
        return seed
    return seed.model_copy(
        update={"hostname": wish.name, "instance_id": f"iid-{new_uid()[:13]}", "new_machine_id": True}
    )


async def _images(context: Context, spec: VmSpec, asked: str) -> tuple[Image, ...]:
    """The image below, and those in its drives."""
    uids = {uid for uid in (spec.image_uid, *(disk.image_uid for disk in spec.disks)) if uid is not None}
    found = [await context.objects.get(Image, uid) for uid in sorted(uids)]
    if None in found:
        raise CorralError("image-not-found", asked, "an image of the original's is gone", "corral image list")
    return tuple(image for image in found if image is not None)


async def _network(context: Context, nic: NicSpec, asked: str) -> Network:
    network = await context.objects.get(Network, nic.network_uid)
    if network is None:
        raise CorralError("network-not-found", asked, f"network {nic.network} is gone", "corral network list")
    return network


def _check_layers(origin: Origin, lost_key: str, asked: str) -> None:
    """A layer that changed was merged or removed: the point in time that it belonged to is gone."""
    if any(layer.key == lost_key for layer in origin.layers.values()):
        raise CorralError(
            "snapshot-not-found", asked, f"what {origin.name} was is being removed in this instant", "try again"
        )
