"""`drift accept`: what other tools changed of a VM's definition becomes its spec, in whole or not at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.base import DomainDescription, DomainDisk
from corral.hypervisor.targets import disk_targets, slot_of
from corral.model.base import DEFAULT_PROJECT
from corral.model.hardware import HardwareSpec
from corral.model.network import Network
from corral.model.operation import Operation, UpdateVm
from corral.model.requests import UpdateVmRequest
from corral.model.vm import DiskSpec, Firmware, NicSpec, Vm, VmSpec
from corral.model.volume import Volume
from corral.network.addresses import address6_of
from corral.scheduler.admission import further_demand
from corral.services import rules
from corral.services.access import audited, authorize
from corral.services.changes import Decision, Mutation, change, repeated
from corral.services.context import Context
from corral.services.drift import (
    Surroundings,
    as_found,
    boot_names,
    boot_order,
    differences,
    disks_in_order,
    is_drifted,
    look_around,
)
from corral.services.nics import Allocated, card_claims
from corral.store.objects import Transaction, claim_key

REFUSALS_SHOWN: Final = 8

GiveAddress = Callable[[Network, str], str]
"""Of a network and a card's MAC: the address that the card gets."""


@dataclass(frozen=True)
class _Taken:
    """A VM as the domain has it, and what else changes with it."""

    vm: Vm
    volumes: tuple[Volume, ...]
    released: frozenset[str]
    claimed: frozenset[str]

    def write(self, transaction: Transaction) -> None:
        for volume in self.volumes:
            transaction.update(volume)
        for key in sorted(self.released):
            transaction.release(key)
        for key in sorted(self.claimed):
            transaction.claim(key, self.vm.uid)


async def accept_drift(context: Context, mutation: Mutation) -> Operation:
    """One transaction writes it all; the agent then finds the domain as it is wished and touches nothing of it."""
    await authorize(context, mutation.caller, mutation.project, mutation.action, mutation.target)
    async with audited(context, mutation.caller, mutation.project, mutation.action, mutation.target):
        if (known := await repeated(context, mutation)) is not None:
            return known
        if mutation.parameters != UpdateVmRequest(accept_drift=True):
            raise CorralError(
                "invalid-argument",
                f"accept the drift of VM {mutation.target!r}",
                "other changes come with it",
                "ask for them by themselves",
            )
        vm = await context.objects.require(Vm, mutation.project, mutation.target)
        rules.check_revision(vm, mutation.if_revision)
        rules.check_accept_drift(vm)
        around = await look_around(context, vm)
        _check_acceptable(vm, around)
    if any(around.volumes.get(disk.path) is None for disk in _new_disks(vm, around)):
        await authorize(context, mutation.caller, DEFAULT_PROJECT, "host.use-path", mutation.target)
    with Allocated(context.ledger) as allocated:
        given: dict[str, str] = {}

        def address(network: Network, mac: str) -> str:
            if mac not in given:  # a lost race decides anew, with the same address
                given[mac] = allocated.address(network, None)
            return given[mac]

        def decide(now: Vm) -> Decision:
            rules.check_accept_drift(now)
            if now.spec != vm.spec:
                raise CorralError(
                    "precondition-failed",
                    f"accept the drift of VM {now.name!r}",
                    "somebody changed its spec meanwhile",
                    f"corral drift show {now.name}",
                )
            taken = _taken(now, around, address)
            return Decision(UpdateVm(), taken.vm, further_demand(now, taken.vm), also=taken.write, lost=_lost)

        operation = (await change(context, mutation, Vm, decide))[1]
        allocated.keep()
    return operation


def _check_acceptable(vm: Vm, around: Surroundings) -> None:
    items = differences(vm, around)
    asked = f"accept the drift of VM {vm.name!r}"
    if not items and is_drifted(vm):
        reason = "what was changed is a knob of the hardware, which is not taken over"
        raise CorralError("unsupported", asked, reason, f"corral drift reset {vm.name}, then set it with Corral")
    if not items:
        raise CorralError("wrong-state", asked, "its definition is as Corral wants it", f"corral drift show {vm.name}")
    refused = [f"{item.field}: {item.refusal}" for item in items if item.refusal]
    if refused:
        shown = "; ".join(refused[:REFUSALS_SHOWN]) + ("; …" if len(refused) > REFUSALS_SHOWN else "")
        hint = f"change that back with virsh, or all of it: corral drift reset {vm.name}"
        raise CorralError("unsupported", asked, f"not everything can be taken over: {shown}", hint)


def _lost(key: str) -> CorralError | None:
    if key.startswith(Volume.prefix()):
        return CorralError("precondition-failed", "accept drift", "a volume of it was changed meanwhile", "try again")
    if not key.startswith(claim_key("mac", "host", "")):
        return None
    mac = key.rpartition("/")[2]
    return CorralError("address-taken", "accept drift", f"another VM has the MAC {mac}", "give the card another one")


def _new_disks(vm: Vm, around: Surroundings) -> list[DomainDisk]:
    known = {around.path_of(disk) for disk in vm.spec.disks}
    return [disk for disk in around.found.disks if disk.path not in known]


def _taken(vm: Vm, around: Surroundings, address: GiveAddress) -> _Taken:
    spec, found = vm.spec, around.found
    nics = tuple(_nics(vm, around, address))
    disks, volumes = _disks(vm, around)
    changed = VmSpec.model_validate(
        {
            **dict(spec),
            "vcpus": found.vcpus,
            "memory_mib": found.memory_mib,
            "firmware": Firmware(found.firmware),
            "description": found.description,
            "graphics": found.graphics,
            "graphics_listen": found.graphics_listen,
            "disks": disks,
            "nics": nics,
        }
    )
    changed = changed.model_copy(update={"hardware": _hardware(changed, found)})
    if changed.weight != found.cpu_shares:
        changed = changed.model_copy(update={"cpu_shares": found.cpu_shares})
    before, after = card_claims(spec.nics), card_claims(nics)
    return _Taken(vm.changed(spec=changed), volumes, before - after, after - before)


def _hardware(spec: VmSpec, found: DomainDescription) -> HardwareSpec:
    most = found.vcpus_max if found.vcpus_max not in (0, found.vcpus) else None
    hardware = spec.hardware.model_copy(update={"cpu": spec.hardware.cpu.model_copy(update={"vcpus_max": most})})
    if found.boot is None:
        return hardware
    names = boot_names(spec)
    order = tuple(names[device] for device in found.boot if device in names)
    if order != boot_order(spec):
        hardware = hardware.model_copy(update={"boot_devices": order})
    return hardware


def _nics(vm: Vm, around: Surroundings, address: GiveAddress) -> Iterator[NicSpec]:
    """A card keeps its name and, in the same network, its address, also where its MAC alone was changed."""
    cards = around.found.nics
    there = {card.mac.lower() for card in cards}
    known = {nic.mac: nic for nic in vm.spec.nics}
    changed = {index: nic for index, nic in enumerate(vm.spec.nics) if nic.mac not in there}
    names = {nic.name for nic in vm.spec.nics}
    for index, card in enumerate(cards):
        mac, network = card.mac.lower(), around.networks[card.network]
        old = known.get(mac) or changed.get(index)
        name = old.name if old is not None else _free_name("net", names)
        names.add(name)
        kept = old.address if old is not None and old.network_uid == network.uid else None
        given = address(network, mac) if kept is None else kept
        update = {
            "name": name,
            "network": network.name,
            "network_uid": network.uid,
            "mac": mac,
            "address": given,
            "address6": address6_of(network.spec, given, mac),
            "model": card.model,
            "link_up": card.link_up,
            "queues": card.queues,
        }
        yield NicSpec.model_validate({**dict(old), **update} if old is not None else update)


def _disks(vm: Vm, around: Surroundings) -> tuple[tuple[DiskSpec, ...], tuple[Volume, ...]]:
    """The disks, and the volumes that come to the VM or leave it; one that leaves is kept, one that comes is not lost
    with the VM."""
    known = {around.path_of(disk): disk for disk in vm.spec.disks if disk.device == "disk"}
    names = {disk.name for disk in vm.spec.disks}
    disks: list[DiskSpec] = []
    volumes: list[Volume] = []
    places: list[tuple[str, int | None]] = []
    for entry in disks_in_order(vm, around):
        old, found, slot = entry.wished, entry.found, entry.slot
        if found is not None and disk_targets([*places, (found.bus, slot)])[-1] != found.name:
            slot = slot_of(found.name, found.bus)
        places.append((entry.bus, slot))
        if found is None:
            disks += [old] if old is not None else []
            continue
        known.pop(found.path, None)
        if old is not None:
            disks.append(as_found(old, found).model_copy(update={"slot": slot}))
            continue
        volume = around.volumes.get(found.path)
        if volume is not None:
            volumes.append(_given(volume, vm.uid))
        name = _free_name("disk", names)
        names.add(name)
        new = DiskSpec(
            name=name,
            slot=slot,
            path=found.path if volume is None else None,
            volume_uid=None if volume is None else volume.uid,
        )
        disks.append(as_found(new, found))
    volumes += [_given(volume, None) for path in known if (volume := around.volumes.get(path)) is not None]
    return tuple(disks), tuple(volumes)


def _given(volume: Volume, vm_uid: str | None) -> Volume:
    spec = volume.spec.model_copy(update={"vm_uid": vm_uid, "delete_with_vm": False})
    return volume.model_copy(update={"spec": spec, "generation": volume.generation + 1})


def _free_name(stem: str, taken: set[str]) -> str:
    return next(name for number in count() if (name := f"{stem}{number}") not in taken)
