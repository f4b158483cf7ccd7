"""The ports of bridges that bear other names than ours, by whose they are: libvirt gives a tap its guest's MAC, behind fe."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral.model.network import Network
from corral.model.vm import Vm
from corral.names import PORT_PREFIX, TAP_PREFIX, tap_name

SYS_NET: Final = Path("/sys/class/net")
_TAPS_FIRST_BYTE: Final = "fe"


@dataclass(frozen=True)
class BridgePorts:
    names: frozenset[str]
    strange: Mapping[str, str]
    """Ports that are named by others, by the MAC of a guest's without its first byte."""


def ports_of(bridge: str, sys_net: Path = SYS_NET) -> BridgePorts:
    """None, where there is no such bridge."""
    try:
        names = frozenset(path.name for path in (sys_net / bridge / "brif").iterdir())
    except OSError:
        return BridgePorts(frozenset(), {})
    strange = {}
    for name in sorted(names):
        if not name.startswith((TAP_PREFIX, PORT_PREFIX)) and (mac := _mac(sys_net / name)).startswith(
            _TAPS_FIRST_BYTE
        ):
            strange[mac[2:]] = name
    return BridgePorts(names, strange)


def _mac(device: Path) -> str:
    try:
        return (device / "address").read_text().strip()
    except OSError:
        return ""


def named_otherwise(vms: Iterable[Vm], networks: Mapping[str, Network], sys_net: Path = SYS_NET) -> dict[str, str]:
    """By the name that a card's port has with us: the one that it has now. Of guests that ran before their port had a name
    of ours, or whose definition somebody else wrote."""
    filtered = {uid: one.spec.bridge for uid, one in networks.items() if one.spec.filtered}
    ports = {bridge: ports_of(bridge, sys_net) for bridge in set(filtered.values())}
    if not any(found.strange for found in ports.values()):
        return {}
    renamed = {}
    for vm in vms:
        for nic in vm.spec.nics:
            found = ports.get(filtered.get(nic.network_uid, ""))
            port = found.strange.get(nic.mac[2:]) if found is not None else None
            tap = tap_name(vm.uid, nic.name)
            if port is not None and found is not None and tap not in found.names:
                renamed[tap] = port
    return renamed
