"""Graphical consoles that are open to more people than this host's."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from corral.model.doctor import Finding, Level
from corral.model.vm import Vm

SHOWN_MAX: Final = 10


def check_consoles(vms: Sequence[Vm]) -> Finding:
    """A console on an address has no password: who reaches it, sits before the VM's keyboard."""
    open_to = sorted(
        f"{vm.name} ({vm.spec.graphics} on {vm.spec.graphics_listen})"
        for vm in vms
        if _is_reachable(vm.spec.graphics_listen)
    )
    if not open_to:
        return Finding(id="open-consoles", level=Level.OK, found="no graphical console is reachable over the network")
    more = f" and {len(open_to) - SHOWN_MAX} more" if len(open_to) > SHOWN_MAX else ""
    return Finding(
        id="open-consoles",
        level=Level.WARNING,
        found=f"consoles without a password are open to the network: {', '.join(open_to[:SHOWN_MAX])}{more}",
        action="let a firewall guard their ports, or make these VMs without `listen`: `corral vnc` opens their screens",
    )


def _is_reachable(listen: str) -> bool:
    return bool(listen) and not ipaddress.ip_address(listen).is_loopback
