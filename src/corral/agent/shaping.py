"""Bandwidth: what the specs of VMs and networks say, kept so on the devices of this host."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from corral.agent.cache import Cache
from corral.model.bandwidth import Bandwidth
from corral.model.network import Network
from corral.model.vm import Vm
from corral.names import tap_name
from corral.network.base import NetworkDriver
from corral.network.shaping import Queue, Shape, Share


class ShapingKeeper:
    """A device may be new whenever it is woken: a guest has started, a bridge came back."""

    name = "bandwidth"

    def __init__(self, cache: Cache, networks: NetworkDriver) -> None:
        self._cache = cache
        self._networks = networks

    async def sync(self) -> None:
        vms, networks = self._cache.vms.values(), self._cache.networks
        await self._networks.shape(tuple(wished_shapes(vms, networks)), devices_of(vms, networks.values()))


def devices_of(vms: Iterable[Vm], networks: Iterable[Network]) -> frozenset[str]:
    """All that are this installation's: taps of guests, bridges of its own."""
    taps = {tap_name(vm.uid, nic.name) for vm in vms for nic in vm.spec.nics}
    return frozenset(taps | {network.spec.bridge for network in networks if network.spec.ours})


def wished_shapes(vms: Iterable[Vm], networks: Mapping[str, Network]) -> Iterator[Shape]:
    """What leaves the host at a guest's tap comes in at the guest; so it is with a bridge and all guests on it."""
    coming: defaultdict[str, list[Share]] = defaultdict(list)
    leaving: defaultdict[str, list[Share]] = defaultdict(list)
    for vm in vms:
        for nic in vm.spec.nics:
            into, out = nic.bandwidth_in, nic.bandwidth_out
            if into.average_bytes_per_s or out.average_bytes_per_s:
                yield Shape(tap_name(vm.uid, nic.name), leaving=Queue(_own(into)), coming=Queue(_own(out)))
            if into.floor_bytes_per_s:
                leaving[nic.network_uid].append(Share(nic.mac, into.floor_bytes_per_s))
            if out.floor_bytes_per_s:
                coming[nic.network_uid].append(Share(nic.mac, out.floor_bytes_per_s))
    for uid, network in networks.items():
        spec = network.spec
        if spec.ours and (spec.bandwidth_in.average_bytes_per_s or spec.bandwidth_out.average_bytes_per_s):
            yield Shape(
                spec.bridge,
                leaving=Queue(spec.bandwidth_in, _in_order(leaving[uid])),
                coming=Queue(spec.bandwidth_out, _in_order(coming[uid])),
            )


def _own(bandwidth: Bandwidth) -> Bandwidth:
    """The limit alone: a promise is kept where the network's traffic is queued."""
    return bandwidth.model_copy(update={"floor_bytes_per_s": 0})


def _in_order(shares: Iterable[Share]) -> tuple[Share, ...]:
    return tuple(sorted(shares, key=lambda share: share.mac))
