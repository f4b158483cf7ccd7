"""A free subnet: one that overlaps with nothing that the host knows. Pure."""

import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from corral.errors import CorralError

PREFIX_LENGTH: Final = 24
# SLAAC works with no other length (RFC 4291, section 2.5.1).
PREFIX_LENGTH6: Final = 64
# Ranges that are searched, in this order: inside 192.168/16 above libvirt's and home routers' usual numbers, then the
# rest of the private space (RFC 1918, section 3).
_RANGES: Final = ("192.168.144.0/20", "192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8")
# RFC 4193, section 3.1: fd, 40 bits drawn by lot, and a number of the site's own.
_UNIQUE_LOCAL: Final = ipaddress.IPv6Network("fd00::/8")
_GLOBAL_ID_BITS: Final = 40
_HINT: Final = "choose another, or let a free one be found"

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Used = Iterable[str] | Mapping[str, str]
"""CIDRs, and who has each where that is known."""


def choose_subnet(used: Used, wanted: str = "") -> str:
    """A /24 that overlaps with none of `used` (IPv6, default routes and what cannot be read are skipped).

    `wanted` is taken if it is free. Raises `no-free-subnet`, or `invalid-argument` for a `wanted` that is no private
    IPv4 subnet of /16 to /29.
    """
    taken = tuple(_parsed(used, 4))
    if wanted:
        subnet = check_subnet(wanted)
        _check_free(subnet, taken, used)
        return str(subnet)
    for subnet in _candidates():
        if not any(other.overlaps(subnet) for other in taken):
            return str(subnet)
    hint = "name one: setting `subnet`"
    raise CorralError("no-free-subnet", "find a free subnet", "every private /24 overlaps with a route", hint)


def choose_subnet6(used: Used, wanted: str = "") -> str:
    """`wanted` if it is free, else a unique local /64 drawn by lot. Raises as `choose_subnet`."""
    taken = tuple(_parsed(used, 6))
    if wanted:
        subnet = check_subnet6(wanted)
        _check_free(subnet, taken, used)
        return str(subnet)
    while True:  # of 2^40
        drawn = int.from_bytes(os.urandom(_GLOBAL_ID_BITS // 8), "big") << (128 - 8 - _GLOBAL_ID_BITS)
        subnet = ipaddress.IPv6Network((int(_UNIQUE_LOCAL.network_address) | drawn, PREFIX_LENGTH6))
        if not any(other.overlaps(subnet) for other in taken):
            return str(subnet)


def _check_free(subnet: Subnet, taken: Iterable[Subnet], used: Used) -> None:
    clash = next((other for other in taken if other.version == subnet.version and _overlap(other, subnet)), None)
    if clash is None:
        return
    holders = used if isinstance(used, Mapping) else {}
    by = next((by for text, by in holders.items() if _parse(text) == clash), "")
    reason = f"{clash} is in use: {by}" if by else f"{clash} is in use on this host"
    raise CorralError("no-free-subnet", f"subnet {subnet}", reason, _HINT)


def _overlap(one: Subnet, other: Subnet) -> bool:
    return int(one[0]) <= int(other[-1]) and int(other[0]) <= int(one[-1])


def _candidates() -> Iterator[ipaddress.IPv4Network]:
    for text in _RANGES:
        yield from ipaddress.IPv4Network(text).subnets(new_prefix=PREFIX_LENGTH)


def _parsed(cidrs: Iterable[str], version: int) -> Iterator[Subnet]:
    for text in cidrs:
        network = _parse(text)
        if network is not None and network.version == version and network.prefixlen > 0:
            yield network


def _parse(text: str) -> Subnet | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def check_subnet(text: str) -> ipaddress.IPv4Network:
    """A private IPv4 subnet of /16 to /29. Raises `invalid-argument`."""
    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise CorralError("invalid-argument", f"subnet {text!r}", str(error), "for example 192.168.150.0/24") from error
    if not subnet.is_private or not 16 <= subnet.prefixlen <= 29:
        reason = "it must be private and between /16 and /29"
        raise CorralError("invalid-argument", f"subnet {text}", reason, "for example 192.168.150.0/24")
    return subnet


def check_subnet6(text: str) -> ipaddress.IPv6Network:
    """An IPv6 /64 that guests may have: unique local, or global. Raises `invalid-argument`."""
    hint = "for example fd12:3456:789a:1::/64"
    try:
        subnet = ipaddress.IPv6Network(text)
    except ValueError as error:
        raise CorralError("invalid-argument", f"IPv6 subnet {text!r}", str(error), hint) from error
    special = subnet.is_link_local or subnet.is_multicast or subnet.is_loopback or subnet.is_unspecified
    if special or subnet.is_reserved or subnet.prefixlen != PREFIX_LENGTH6:
        reason = "it must be a /64, unique local (fd00::/8) or of your own global addresses"
        raise CorralError("invalid-argument", f"IPv6 subnet {text}", reason, hint)
    return subnet
