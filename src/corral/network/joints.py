"""What all routers together are to each network: gathered once for whoever asks about many of them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from corral.model.address import FloatingAddress
from corral.model.router import Router, RouterPort
from corral.network.paths import Layout
from corral.network.realms import leaders

Joint: TypeAlias = tuple[Router, RouterPort]


@dataclass(frozen=True)
class Joints:
    """Each by the network's uid. Routers that are being deleted are on none."""

    all_on: Mapping[str, Sequence[Joint]]
    """Uplinks, too; the way out first."""
    floating: Mapping[str, Sequence[FloatingAddress]]
    """Held there by routers besides their own."""
    leaders: Mapping[str, Router]
    """By whom the host leads to it."""

    def on(self, network_uid: str) -> list[Joint]:
        """Without uplinks."""
        return [(router, port) for router, port in self.all_on.get(network_uid, ()) if port in router.spec.ports]


def joints_of(layout: Layout) -> Joints:
    all_on: dict[str, list[Joint]] = {}
    for router in sorted(layout.routers.values(), key=lambda one: (one.spec.uplink == "none", one.created_at, one.uid)):
        for port in router.spec.all_ports if not router.being_deleted else ():
            all_on.setdefault(port.network_uid, []).append((router, port))
    floating: dict[str, list[FloatingAddress]] = {}
    for address in layout.addresses.values():
        holder = layout.routers.get(address.spec.router_uid or "")
        if holder is not None and holder.spec.uplink_port is not None:
            floating.setdefault(holder.spec.uplink_port.network_uid, []).append(address)
    return Joints(all_on, floating, leaders(layout.networks, layout.routers.values()))
