"""What other tools changed of a VM's definition: its spec beside the domain as it is."""

from collections.abc import Callable, Mapping

from corral.hypervisor.base import DomainDescription
from corral.model.answers import DriftAnswer, DriftItem
from corral.model.base import ConditionStatus
from corral.model.network import Network
from corral.model.vm import Vm
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context


async def find_drift(context: Context, caller: Caller, project: str, name: str) -> DriftAnswer:
    """Asked of the hypervisor now; the condition `Drifted` tells what the agent saw last."""
    await authorize(context, caller, project, "vm.document", name)
    vm = await context.objects.require(Vm, project, name)
    conditions = vm.status.conditions
    drifted = any(found.type == "Drifted" and found.status is ConditionStatus.TRUE for found in conditions)
    if vm.spec.adopted:
        return DriftAnswer(drifted=drifted)
    description = await context.hypervisor.describe(vm.uid)
    networks = {network.uid: network for network in await context.objects.list(Network)}
    items = _differences(vm, description, lambda uid: str(context.volumes.path(uid)), networks, context)
    return DriftAnswer(drifted=drifted or bool(items), items=items)


def _differences(
    vm: Vm,
    found: DomainDescription,
    volume_path: Callable[[str], str],
    networks: Mapping[str, Network],
    context: Context,
) -> tuple[DriftItem, ...]:
    spec = vm.spec
    wished = {
        "vcpus": str(spec.vcpus),
        "memory": f"{spec.memory_mib} MiB",
        "firmware": spec.firmware.value,
    }
    there = {"vcpus": str(found.vcpus), "memory": f"{found.memory_mib} MiB", "firmware": found.firmware}
    for disk in spec.disks:
        path = disk.path or (volume_path(disk.volume_uid) if disk.volume_uid else "")
        wished[f"disk {path}"] = _disk_words(disk.format, disk.bus.value, disk.read_only)
    for known in found.disks:
        there[f"disk {known.path}"] = _disk_words(known.format, known.bus, known.read_only)
    for nic in spec.nics:
        network = networks.get(nic.network_uid)
        name = context.networks.driver_name(network) if network is not None else nic.network
        wished[f"network card {nic.mac}"] = f"{name} ({nic.model})"
    for card in found.nics:
        there[f"network card {card.mac.lower()}"] = f"{card.network} ({card.model})"
    fields = dict.fromkeys((*wished, *there))
    return tuple(
        DriftItem(field=field, wished=wished.get(field, ""), found=there.get(field, ""))
        for field in fields
        if wished.get(field) != there.get(field)
    )


def _disk_words(format_: str, bus: str, read_only: bool) -> str:
    return f"{format_}, {bus}" + (", read-only" if read_only else "")
