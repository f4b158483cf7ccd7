"""Disks, drives and cards of a VM that is there: added, changed and removed, while it runs or for its next start."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.hardware_rules import check_hardware
from corral.hypervisor.support import HardwareSupport
from corral.model import limits
from corral.model.base import DEFAULT_POOL, DEFAULT_PROJECT, Model
from corral.model.image import Image
from corral.model.network import Network
from corral.model.operation import Operation, UpdateVm
from corral.model.requests import AttachDiskRequest, ChangeDiskRequest, ChangeNicRequest, NicRequest
from corral.model.vm import DiskSpec, NicSpec, Vm
from corral.model.volume import Volume
from corral.names import format_bytes
from corral.scheduler.admission import admit_disk
from corral.services import rules
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Decision, Extra, Mutation, change, repeated
from corral.services.context import Context
from corral.services.device_parts import (
    changed_disk,
    changed_volume,
    disk_of,
    free_name,
    kept_or_made,
    lost_meaning,
    nic_of,
    same_vm,
    with_slots,
    written,
)
from corral.services.disks import (
    NewFile,
    check_disk,
    kept_disk,
    new_files,
    new_volume,
    plan_drive,
    user_disk,
    with_knobs,
)
from corral.services.hardware import read_support
from corral.services.media import ready_image
from corral.services.nics import (
    Allocated,
    authorize_networks,
    card_claims,
    check_filtered,
    check_host_name,
    mac_of,
    moved_card,
    network_of,
    with_address6,
)
from corral.services.promises import check_card, check_cards
from corral.services.security_group import NO_GROUPS, FoundGroups, find_groups
from corral.services.volume import free_volume
from corral.store.objects import Transaction

_NIC_KNOBS: Final = ("model", "link_up", "queues", "pxe", "bandwidth_in", "bandwidth_out", "groups")


class _Detached(Model):
    """What is removed: tells one request from another under one Idempotency-Key."""

    device: str


@dataclass(frozen=True)
class _Target:
    """One device of one VM, and what is asked of it."""

    caller: Caller
    project: str
    vm: str
    asked: str
    request: Model
    if_revision: int | None

    @property
    def mutation(self) -> Mutation:
        return Mutation(self.caller, self.project, "vm.update", self.vm, self.request, self.if_revision)


class DeviceService:
    """Each verb writes the new spec and an operation that ends when the guest has it, or is known to need a restart."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # ---- disks and drives ------------------------------------------------------------------------------------------

    async def attach_disk(
        self, caller: Caller, project: str, name: str, request: AttachDiskRequest, *, if_revision: int | None = None
    ) -> Operation:
        """A new volume, one that no VM has, a file of the user's (administrators), or a drive for CDs."""
        context = self._context
        target = _Target(caller, project, name, f"attach a disk to VM {name!r}", request, if_revision)
        await authorize(context, caller, project, "vm.update", name)
        if request.path is not None:
            await authorize(context, caller, DEFAULT_PROJECT, "host.use-path", name)
        async with audited(context, caller, project, "vm.update", name):
            if (known := await repeated(context, target.mutation)) is not None:
                return known
            found = await context.objects.require(Vm, project, name)
            media = await self._media(project, request.image)
            stem = "cd" if request.device == "cdrom" else "disk"
            label = request.name or free_name(stem, (disk.name for disk in found.spec.disks))
            if request.volume is not None:
                there = await free_volume(context, project, request.volume, target.asked)
                volume: Volume | None
                files: Sequence[NewFile] = ()
                spec, volume = kept_disk(request, label, there, found.uid, target.asked)
            else:
                spec, volume, files = self._new_disk(found, request, label, media, target.asked)
                if volume is not None and not request.force:
                    await self._admit(volume.spec.size_bytes, target.asked, volume.spec.pool)
                elif volume is not None:
                    context.volumes.check_pool(volume.spec.pool)
            support = await read_support(context)

        def decide(now: Vm) -> Decision:
            rules.check_devices(now, "attach a disk to")
            same_vm(found, now, target.asked)
            taken = {disk.name for disk in now.spec.disks}
            if request.name in taken:
                raise CorralError(
                    "name-taken", target.asked, f"it has a disk {label!r}", "choose another name, or none"
                )
            # Another request may have got the name that was chosen for this one.
            own = spec if label not in taken else spec.model_copy(update={"name": free_name(stem, taken)})
            if spec.volume_uid in {disk.volume_uid for disk in now.spec.disks} - {None}:
                raise CorralError(
                    "volume-in-use", target.asked, "it has the volume already", f"corral disk list {name}"
                )
            disks = (*with_slots(now.spec.disks), own)
            if len(disks) > limits.DISKS_MAX:
                reason = f"it has {limits.DISKS_MAX} disks, the most that a VM can have"
                raise CorralError("wrong-state", target.asked, reason, f"corral disk remove {name} DISK")
            return _decision(now, {"disks": disks}, support, target.asked, also=kept_or_made(volume))

        with self._using(media, target.asked):
            async with new_files(files, target.asked):
                return (await change(context, target.mutation, Vm, decide))[1]

    async def change_disk(
        self,
        caller: Caller,
        project: str,
        name: str,
        disk: str,
        request: ChangeDiskRequest,
        *,
        if_revision: int | None = None,
    ) -> Operation:
        """Grow it, limit it, or change the medium of a drive."""
        context = self._context
        target = _Target(caller, project, name, f"change disk {disk!r} of VM {name!r}", request, if_revision)
        await authorize(context, caller, project, "vm.update", name)
        async with audited(context, caller, project, "vm.update", name):
            if (known := await repeated(context, target.mutation)) is not None:
                return known
            found = await context.objects.require(Vm, project, name)
            media = await self._media(project, request.image)
            grown = await self._grown(disk_of(found, disk, target.asked), request, target.asked)
            support = await read_support(context)

        def decide(now: Vm) -> Decision:
            rules.check_devices(now, "change a disk of")
            same_vm(found, now, target.asked)
            changed = changed_disk(disk_of(now, disk, target.asked), request, media, target.asked)
            if grown is not None and changed.volume_uid != grown.uid:
                raise CorralError("precondition-failed", target.asked, "it is another disk since", "try again")
            disks = tuple(changed if each.name == disk else each for each in now.spec.disks)
            also = written(grown) if grown is not None else None
            return _decision(now, {"disks": disks}, support, target.asked, also=also)

        with self._using(media, target.asked):
            return (await change(context, target.mutation, Vm, decide))[1]

    async def detach_disk(
        self, caller: Caller, project: str, name: str, disk: str, *, if_revision: int | None = None
    ) -> Operation:
        """Nothing is deleted: the volume stays, and is free for another VM once the guest has let it go."""
        context, asked = self._context, f"remove disk {disk!r} from VM {name!r}"
        target = _Target(caller, project, name, asked, _Detached(device=disk), if_revision)
        await authorize(context, caller, project, "vm.update", name)
        async with audited(context, caller, project, "vm.update", name):
            if (known := await repeated(context, target.mutation)) is not None:
                return known
            found = await context.objects.require(Vm, project, name)
            volume_uid = disk_of(found, disk, asked).volume_uid
            volume = await context.objects.get(Volume, volume_uid) if volume_uid is not None else None
            own = volume is not None and not volume.spec.shared
            kept = changed_volume(volume, delete_with_vm=False) if volume is not None and own else None
            support = await read_support(context)

        def decide(now: Vm) -> Decision:
            rules.check_devices(now, "remove a disk from")
            same_vm(found, now, asked)
            if disk_of(now, disk, asked).volume_uid != volume_uid:
                raise CorralError("precondition-failed", asked, "it is another disk since", "try again")
            disks = tuple(each for each in with_slots(now.spec.disks) if each.name != disk)
            also = written(kept) if kept is not None else None
            return _decision(now, {"disks": disks}, support, asked, also=also)

        return (await change(context, target.mutation, Vm, decide))[1]

    def _new_disk(
        self, vm: Vm, request: AttachDiskRequest, label: str, media: Mapping[str, Image], asked: str
    ) -> tuple[DiskSpec, Volume | None, Sequence[NewFile]]:
        if request.device == "cdrom":
            return plan_drive(request, label, media, asked), None, ()
        check_disk(request, label, asked)
        if request.path is not None:
            spec, file = user_disk(self._context, request, request.path, label, request.force, asked)
            return spec, None, () if file is None else (file,)
        volume = new_volume(vm.project, vm.name, request, label, vm.uid, None, asked)
        volume = volume.model_copy(update={"created_at": self._context.clock.now()})
        return with_knobs(DiskSpec(name=label, volume_uid=volume.uid), request), volume, ()

    async def _grown(self, disk: DiskSpec, request: ChangeDiskRequest, asked: str) -> Volume | None:
        if request.size_bytes is None:
            return None
        if disk.volume_uid is None:
            raise CorralError("unsupported", asked, "it is no volume of Corral's", "grow it with its own tools")
        volume = await self._context.objects.get(Volume, disk.volume_uid)
        if volume is None:
            raise CorralError("volume-not-found", asked, "its volume is gone", "corral volume list")
        if volume.spec.shared:
            reason = f"volume {volume.name} may be other guests' too, which would not hear of it"
            raise CorralError("unsupported", asked, reason, f"detach it, then corral volume resize {volume.name}")
        if request.size_bytes < volume.spec.size_bytes:
            raise CorralError(
                "invalid-size",
                asked,
                f"it has {format_bytes(volume.spec.size_bytes)}; a smaller one would cut off what lies behind",
                f"ask for more than {format_bytes(volume.spec.size_bytes)}",
                {"wanted_bytes": request.size_bytes, "size_bytes": volume.spec.size_bytes},
            )
        if request.size_bytes == volume.spec.size_bytes:
            return None
        if not request.force:
            await self._admit(request.size_bytes - volume.spec.size_bytes, asked, volume.spec.pool)
        return changed_volume(volume, size_bytes=request.size_bytes)

    async def _admit(self, new_bytes: int, asked: str, pool: str = DEFAULT_POOL) -> None:
        usage = await self._context.volumes.usage(pool)
        admit_disk(new_bytes, usage.free_bytes, self._context.settings.disk_reserve_mib * 2**20, asked)

    async def _media(self, project: str, name: str | None) -> dict[str, Image]:
        return {name: await ready_image(self._context, project, name, "iso")} if name else {}

    @contextmanager
    def _using(self, media: Mapping[str, Image], asked: str) -> Iterator[None]:
        """The images are not deleted before the VM that uses them is written."""
        with ExitStack() as stack:
            for image in media.values():
                stack.enter_context(self._context.ledger.using_image(image.uid, asked))
            yield

    # ---- cards -----------------------------------------------------------------------------------------------------

    async def attach_nic(
        self, caller: Caller, project: str, name: str, request: NicRequest, *, if_revision: int | None = None
    ) -> Operation:
        """One more card, with a MAC and an address of its own."""
        context, asked = self._context, f"attach a card to VM {name!r}"
        target = _Target(caller, project, name, asked, request, if_revision)
        await authorize(context, caller, project, "vm.update", name)
        with Allocated(context.ledger) as allocated:
            async with audited(context, caller, project, "vm.update", name):
                await context.objects.require(Vm, project, name)
                if request.bridge is not None:
                    await authorize(context, caller, DEFAULT_PROJECT, "host.use-bridge", name)
                network = await network_of(context, project, request)
                await authorize_networks(context, caller, (network,), name)
                check_filtered(network, request.groups)
                check_host_name(network, name)
                groups = await find_groups(context, project, request.groups)
                support = await read_support(context)
                address = allocated.address(network, request.address)
                knobs = {knob: getattr(request, knob) for knob in _NIC_KNOBS} | {"mac": mac_of(request)}
                made = NicSpec(name="new", network=network.name, network_uid=network.uid, address=address, **knobs)
                await check_cards(context, (network,), (made,), asked)

            def decide(now: Vm) -> Decision:
                rules.check_devices(now, "attach a card to")
                if len(now.spec.nics) >= limits.NICS_MAX:
                    reason = f"it has {limits.NICS_MAX} cards, the most that a VM can have"
                    raise CorralError("wrong-state", asked, reason, f"corral nic remove {name} CARD")
                label = free_name("net", (nic.name for nic in now.spec.nics))
                added = with_address6(made.model_copy(update={"name": label}), network)
                return _nic_decision(now, (*now.spec.nics, added), support, asked, made=network, groups=groups)

            operation = (await change(context, target.mutation, Vm, decide))[1]
            allocated.keep()
        return operation

    async def change_nic(
        self,
        caller: Caller,
        project: str,
        name: str,
        nic: str,
        request: ChangeNicRequest,
        *,
        if_revision: int | None = None,
    ) -> Operation:
        """Pull or plug its cable, move it to another network, or change the card itself."""
        context, asked = self._context, f"change card {nic!r} of VM {name!r}"
        target = _Target(caller, project, name, asked, request, if_revision)
        await authorize(context, caller, project, "vm.update", name)
        with Allocated(context.ledger) as allocated:
            async with audited(context, caller, project, "vm.update", name):
                found = nic_of(await context.objects.require(Vm, project, name), nic, asked)
                moved = await moved_card(context, target.mutation, found, request, allocated)
                groups = await find_groups(context, project, request.groups or ())
                support = await read_support(context)
                given = {knob: value for knob in _NIC_KNOBS if (value := getattr(request, knob)) is not None}
                await check_card(context, NicSpec.model_validate({**dict(found), **moved, **given}), asked)

            def decide(now: Vm) -> Decision:
                rules.check_devices(now, "change a card of")
                changed = NicSpec.model_validate({**dict(nic_of(now, nic, asked)), **moved, **given})
                nics = tuple(changed if each.name == nic else each for each in now.spec.nics)
                return _nic_decision(now, nics, support, asked, groups=groups)

            operation = (await change(context, target.mutation, Vm, decide))[1]
            allocated.keep()
        return operation

    async def detach_nic(
        self, caller: Caller, project: str, name: str, nic: str, *, if_revision: int | None = None
    ) -> Operation:
        """Its MAC and its address are free for others at once: the cable is pulled before the card is."""
        context, asked = self._context, f"remove card {nic!r} from VM {name!r}"
        target = _Target(caller, project, name, asked, _Detached(device=nic), if_revision)
        await authorize(context, caller, project, "vm.update", name)
        support = await read_support(context)

        def decide(now: Vm) -> Decision:
            rules.check_devices(now, "remove a card from")
            nic_of(now, nic, asked)
            return _nic_decision(now, tuple(each for each in now.spec.nics if each.name != nic), support, asked)

        return (await change(context, target.mutation, Vm, decide))[1]


# ---- what a VM becomes -----------------------------------------------------------------------------------------


def _decision(
    now: Vm,
    update: Mapping[str, object],
    support: HardwareSupport,
    asked: str,
    *,
    also: Extra | None = None,
) -> Decision:
    changed = now.changed(spec=now.spec.model_copy(update=dict(update)))
    check_hardware(asked, changed.spec, support)
    return Decision(UpdateVm(), changed, also=also, lost=lambda key: lost_meaning(key, asked))


def _nic_decision(
    now: Vm,
    nics: tuple[NicSpec, ...],
    support: HardwareSupport,
    asked: str,
    *,
    made: Network | None = None,
    groups: FoundGroups = NO_GROUPS,
) -> Decision:
    before, after = card_claims(now.spec.nics), card_claims(nics)

    def claims(transaction: Transaction) -> None:
        groups.hold(transaction)
        if made is not None and not made.revision:
            transaction.create(made)
        for key in sorted(before - after):
            transaction.release(key)
        for key in sorted(after - before):
            transaction.claim(key, now.uid)

    return _decision(now, {"nics": nics}, support, asked, also=claims)
