"""What routers do to packets on their way, which is none of the host's doing: who is met under which address, and where. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from corral.names import tap_name
from corral.network.joints import Joints, joints_of
from corral.network.paths import Layout, address_behind
from corral.network.router_wish import router_address6


@dataclass(frozen=True)
class Outside:
    """How a router shows somebody behind it, on the network that its uplink is on."""

    network: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Ways:
    masked: Mapping[str, Outside] = field(default_factory=dict)
    """By network: whose guests leave under their router's address."""
    floating: Mapping[str, Outside] = field(default_factory=dict)
    """By the card's port: who is reached by an address of the router's."""


NO_WAYS: Final = Ways()


def ways_of(layout: Layout) -> Ways:
    joints = joints_of(layout)
    masked = ((uid, _masked(uid, layout, joints)) for uid in layout.networks)
    return Ways({uid: found for uid, found in masked if found is not None}, dict(_floating(layout)))


def _masked(uid: str, layout: Layout, joints: Joints) -> Outside | None:
    """As DHCP tells the guests which router leads out."""
    spec, on_it = layout.networks[uid].spec, joints.on(uid)
    if not on_it or (spec.hosted and spec.mode != "isolated"):
        return None
    gateway = spec.router_address or on_it[0][1].address
    router = next((router for router, port in on_it if port.address == gateway), None)
    uplink = router.spec.uplink_port if router is not None and router.spec.uplink == "nat" else None
    outer = layout.networks.get(uplink.network_uid) if uplink is not None else None
    if uplink is None or outer is None:
        return None
    six = router_address6(outer.spec, uplink)
    return Outside(outer.uid, (uplink.address, *([six] if six else [])))


def _floating(layout: Layout) -> Iterator[tuple[str, Outside]]:
    for one in layout.addresses.values():
        router, vm = layout.routers.get(one.spec.router_uid or ""), layout.vms.get(one.spec.vm_uid or "")
        uplink = router.spec.uplink_port if router is not None else None
        found = address_behind(vm, router) if vm is not None and router is not None else None
        if vm is not None and found is not None and uplink is not None:
            yield tap_name(vm.uid, found[0]), Outside(uplink.network_uid, (one.spec.address,))
