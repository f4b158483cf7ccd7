"""Addresses that routers hold: kept from everybody else by the DHCP of their networks."""

import hashlib

from corral.model.network import Network, Reservation
from corral.names import port_name
from corral.network.joints import Joints
from corral.network.router_wish import router_address6


def router_reservations(joints: Joints, network: Network) -> tuple[Reservation, ...]:
    """The addresses that routers hold in `network`, so that nobody else is given them. One that is on its way out holds none:
    the claim in the store keeps them from VMs until it is gone."""
    ports = [
        Reservation(
            mac=port.mac,
            address=port.address,
            hostname=port_name(router.uid, network.uid),
            vm_uid=router.uid,
            address6=router_address6(network.spec, port),
        )
        for router, port in joints.all_on.get(network.uid, ())
    ]
    floating = [
        Reservation(mac=_pretended_mac(one.uid), address=one.spec.address, hostname=f"crf{one.uid[:8]}", vm_uid=one.uid)
        for one in joints.floating.get(network.uid, ())
    ]
    return (*ports, *floating)


def _pretended_mac(uid: str) -> str:
    """DHCP keeps addresses for MACs: one that no card has (locally administered, and not of QEMU's range)."""
    return "02:" + ":".join(f"{byte:02x}" for byte in hashlib.sha256(uid.encode()).digest()[:5])
