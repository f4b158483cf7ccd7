"""What passes the cards of running VMs and their networks: from two samples of counters, and the kernel's connections."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from corral.hypervisor.base import DomainUsage, NicCounters
from corral.model.network import Network
from corral.model.network_usage import NetworkUsage, NetworkUsageReport, NicUsage
from corral.model.vm import NicSpec, Vm
from corral.names import tap_name
from corral.security import policy
from corral.services.access import visible
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.usage import UsageMeter

_COUNTERS: Final = (
    "received_bytes",
    "sent_bytes",
    "received_packets",
    "sent_packets",
    "received_drops",
    "sent_drops",
    "errors",
)
_RATES: Final = _COUNTERS[:4]
ACTION: Final = "vm.usage"


@dataclass(frozen=True)
class _Card:
    vm: Vm
    nic: NicSpec


class NetworkUsageService:
    def __init__(self, context: Context, meter: UsageMeter) -> None:
        self._context = context
        self._meter = meter

    async def report(self, caller: Caller, project: str) -> NetworkUsageReport:
        """Of `project`; of all that the caller may see for an empty one."""
        context = self._context
        await visible(context, caller, project, ACTION)
        allowed = (project,) if project else policy.projects_of(caller.identity)
        sample = await self._meter.sample()
        tracked = await context.networks.connections()
        vms = {vm.uid: vm for vm in await context.objects.list(Vm)}
        networks = {network.uid: network for network in await context.objects.list(Network)}
        counts = _connections(vms.values(), tracked)
        before = dict(_counters(sample.before.values()))
        nics = []
        for usage in sample.newest.values():
            vm = vms.get(usage.uid)
            if vm is None or (allowed is not None and vm.project not in allowed):
                continue
            devices = {tap_name(vm.uid, nic.name): nic for nic in vm.spec.nics}
            for now in usage.nics:
                if (nic := devices.get(now.device)) is not None:
                    old = before.get(now.device)
                    nics.append(_nic(_Card(vm, nic), now, old, sample.interval_s, counts))
        nics.sort(key=lambda item: (item.project, item.vm, item.nic))
        seen = {nic.network_uid for nic in nics}
        shown = [
            network
            for network in networks.values()
            if allowed is None or network.project in allowed or network.uid in seen
        ]
        return NetworkUsageReport(
            time=context.clock.now(),
            interval_s=round(sample.interval_s, 3),
            nics=tuple(nics),
            networks=tuple(sorted(_totals(shown, nics), key=lambda item: (item.project, item.name))),
        )


def _counters(sample: Iterable[DomainUsage]) -> Iterator[tuple[str, NicCounters]]:
    for usage in sample:
        for nic in usage.nics:
            yield nic.device, nic


def _connections(vms: Iterable[Vm], tracked: Mapping[tuple[int, str], int] | None) -> Mapping[str, int]:
    """By address, of those that one card alone has: where tenants overlap nobody can tell whose connection it is."""
    if tracked is None:
        return {}
    owners = Counter(nic.address for vm in vms for nic in vm.spec.nics if nic.address)
    found: Counter[str] = Counter({address: 0 for address, number in owners.items() if number == 1})
    for (_, address), number in tracked.items():
        if address in found:
            found[address] += number
    return found


def _nic(
    card: _Card, now: NicCounters, before: NicCounters | None, interval_s: float, connections: Mapping[str, int]
) -> NicUsage:
    values: dict[str, Any] = {field: getattr(now, field) for field in _COUNTERS}
    # Counters start anew with the guest: a smaller one than before is no rate.
    if before is not None and interval_s > 0:
        for field in _RATES:
            passed = getattr(now, field) - getattr(before, field)
            values[f"{field}_per_s"] = round(max(0, passed) / interval_s, 1)
    return NicUsage(
        project=card.vm.project,
        vm=card.vm.name,
        vm_uid=card.vm.uid,
        nic=card.nic.name,
        network=card.nic.network,
        network_uid=card.nic.network_uid,
        address=card.nic.address,
        device=now.device,
        connections=connections.get(card.nic.address) if card.nic.address else None,
        **values,
    )


def _totals(networks: Iterable[Network], nics: Iterable[NicUsage]) -> Iterator[NetworkUsage]:
    on_it: dict[str, list[NicUsage]] = {}
    for nic in nics:
        on_it.setdefault(nic.network_uid, []).append(nic)
    for network in networks:
        cards = on_it.get(network.uid, [])
        fields = (*_COUNTERS, *(f"{field}_per_s" for field in _RATES))
        sums: dict[str, Any] = {field: round(sum(getattr(card, field) for card in cards), 1) for field in fields}
        sums = {field: int(value) if field in _COUNTERS else value for field, value in sums.items()}
        yield NetworkUsage(
            project=network.project,
            name=network.name,
            uid=network.uid,
            running=len(cards),
            connections=sum(card.connections or 0 for card in cards),
            **sums,
        )
