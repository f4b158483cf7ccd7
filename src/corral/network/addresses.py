"""IPv6 addresses of a network's guests, each following from what is already unique. Pure."""

import ipaddress
from typing import Final

from corral.model.network import NetworkSpec

_LINK_LOCAL: Final = "fe80::/64"


def address6_of(spec: NetworkSpec, address: str, mac: str) -> str:
    """The IPv6 address of a card: with DHCPv6 that of the same number in the subnet as its IPv4 address has, with SLAAC
    the one that its MAC makes (EUI-64). So neither can be another card's. Empty where the network has no IPv6."""
    if not spec.ours or not spec.subnet6 or not address:
        return ""
    if spec.ipv6 == "slaac":
        return eui64(spec.subnet6, mac)
    number = int(ipaddress.IPv4Address(address)) - int(ipaddress.IPv4Network(spec.subnet).network_address)
    return str(ipaddress.IPv6Network(spec.subnet6)[number])


def eui64(subnet6: str, mac: str) -> str:
    """RFC 4291, appendix A: the MAC's bytes around ff:fe, with the universal bit turned."""
    parts = [int(byte, 16) for byte in mac.split(":")]
    octets = bytes([parts[0] ^ 2, *parts[1:3], 0xFF, 0xFE, *parts[3:]])
    return str(ipaddress.IPv6Network(subnet6)[int.from_bytes(octets, "big")])


def link_local(mac: str) -> str:
    """The address that a card with this MAC has without being told."""
    return eui64(_LINK_LOCAL, mac)
