"""A free subnet: one that overlaps with nothing that the host knows. Pure."""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

from corral.errors import CorralError

PREFIX_LENGTH: Final = 24
# Ranges that are searched, in this order: inside 192.168/16 above libvirt's and home routers' usual numbers, then the
# rest of the private space (RFC 1918, section 3).
_RANGES: Final = ("192.168.144.0/20", "192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8")


def choose_subnet(used: Iterable[str], wanted: str = "") -> str:
    """A /24 that overlaps with none of `used` (CIDRs; IPv6, default routes and what cannot be read are skipped).

    `wanted` is taken if it is free. Raises `no-free-subnet`, or `invalid-argument` for a `wanted` that is no private
    IPv4 subnet of /16 to /29.
    """
    taken = tuple(_parsed(used))
    if wanted:
        subnet = check_subnet(wanted)
        if clash := next((other for other in taken if other.overlaps(subnet)), None):
            reason = f"{clash} is in use on this host"
            raise CorralError(
                "no-free-subnet", f"subnet {subnet}", reason, "choose another, or let a free one be found"
            )
        return str(subnet)
    for subnet in _candidates():
        if not any(other.overlaps(subnet) for other in taken):
            return str(subnet)
    hint = "name one: setting `subnet`"
    raise CorralError("no-free-subnet", "find a free subnet", "every private /24 overlaps with a route", hint)


def _candidates() -> Iterator[ipaddress.IPv4Network]:
    for text in _RANGES:
        yield from ipaddress.IPv4Network(text).subnets(new_prefix=PREFIX_LENGTH)


def _parsed(cidrs: Iterable[str]) -> Iterator[ipaddress.IPv4Network]:
    for text in cidrs:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        if isinstance(network, ipaddress.IPv4Network) and network.prefixlen > 0:
            yield network


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
