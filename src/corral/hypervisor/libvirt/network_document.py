"""A network's document, and what of it Corral owns."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from lxml.etree import Element, SubElement, _Element, indent, tostring

from corral.model.network import Network, Reservation

# The gateway has .1; reserved addresses and the dynamic pool may overlap in dnsmasq, which never hands out a reserved one.
GATEWAY_OFFSET: Final = 1
FIRST_GUEST_OFFSET: Final = 2


@dataclass(frozen=True)
class NetworkFields:
    """What makes a network another one. Reservations are not among them: those change live."""

    name: str
    bridge: str
    stp: str
    domain: str
    gateway: str
    prefix: str
    dhcp_start: str
    dhcp_end: str
    forward: str


def build_network(network: Network, name: str, reservations: Iterable[Reservation]) -> str:
    """NAT, DHCP and DNS on a bridge without spanning tree, which would keep each new port silent for 4 s."""
    subnet = ipaddress.IPv4Network(network.spec.subnet)
    root = Element("network")
    SubElement(root, "name").text = name
    SubElement(root, "uuid").text = network.uid
    SubElement(root, "forward", mode=network.spec.mode)
    SubElement(root, "bridge", name=network.spec.bridge, stp="off", delay="0")
    # `localOnly`: a name that is not known here is not asked of the servers above.
    SubElement(root, "domain", name=network.spec.domain, localOnly="yes")
    known = tuple(reservations)
    dns = SubElement(root, "dns")
    for reservation in known:
        dns.append(build_dns_host(reservation))
    address = SubElement(
        root,
        "ip",
        family="ipv4",
        address=str(subnet[GATEWAY_OFFSET]),
        prefix=str(subnet.prefixlen),
    )
    dhcp = SubElement(address, "dhcp")
    SubElement(dhcp, "range", start=str(subnet[FIRST_GUEST_OFFSET]), end=str(subnet[-2]))
    for reservation in known:
        dhcp.append(build_dhcp_host(reservation))
    indent(root)
    return tostring(root, encoding="unicode")


def build_dhcp_host(reservation: Reservation) -> _Element:
    return Element("host", mac=reservation.mac, name=reservation.hostname, ip=reservation.address)


def build_dns_host(reservation: Reservation) -> _Element:
    """So that a name resolves as soon as it is reserved, whatever host name the guest sends with its DHCP request."""
    host = Element("host", ip=reservation.address)
    SubElement(host, "hostname").text = reservation.hostname
    return host


def fields_of(root: _Element) -> NetworkFields:
    def attribute(path: str, name: str) -> str:
        found = root.find(path)
        return "" if found is None else found.get(name) or ""

    return NetworkFields(
        name=root.findtext("name") or "",
        bridge=attribute("bridge", "name"),
        stp=attribute("bridge", "stp"),
        domain=attribute("domain", "name"),
        gateway=attribute("ip", "address"),
        prefix=attribute("ip", "prefix"),
        dhcp_start=attribute("ip/dhcp/range", "start"),
        dhcp_end=attribute("ip/dhcp/range", "end"),
        forward=attribute("forward", "mode"),
    )


def subnet_of(root: _Element) -> str:
    """CIDR of the first IPv4 address, or nothing."""
    for element in root.iterfind("ip"):
        if element.get("family", "ipv4") == "ipv4" and (address := element.get("address")):
            mask = element.get("prefix") or element.get("netmask") or "32"
            return str(ipaddress.IPv4Network(f"{address}/{mask}", strict=False))
    return ""


def dhcp_hosts(root: _Element) -> dict[str, tuple[str, str]]:
    """(host name, address) by MAC."""
    hosts = root.iterfind("ip/dhcp/host")
    return {host.get("mac") or "": (host.get("name") or "", host.get("ip") or "") for host in hosts}


def dns_hosts(root: _Element) -> dict[str, tuple[str, ...]]:
    """Host names by address."""
    hosts = root.iterfind("dns/host")
    return {host.get("ip") or "": tuple(name.text or "" for name in host.iterfind("hostname")) for host in hosts}


@dataclass(frozen=True)
class Change:
    """One live change of a network's hosts."""

    add: bool
    section: str  # dhcp | dns
    element: str


def plan_changes(root: _Element, wanted: Sequence[Reservation]) -> tuple[Change, ...]:
    """What makes the DHCP and DNS hosts of `root` exactly `wanted`: deletions first, since MAC, name and address are
    each unique. Pure."""
    dhcp = {r.mac: (r.hostname, r.address) for r in wanted}
    dns = {r.address: (r.hostname,) for r in wanted}
    have_dhcp, have_dns = dhcp_hosts(root), dns_hosts(root)
    stale = [Change(False, "dhcp", _dhcp_text(mac, *have)) for mac, have in have_dhcp.items() if dhcp.get(mac) != have]
    stale += [Change(False, "dns", _dns_text(ip, have)) for ip, have in have_dns.items() if dns.get(ip) != have]
    fresh = [
        Change(True, "dhcp", tostring(build_dhcp_host(r), encoding="unicode"))
        for r in wanted
        if have_dhcp.get(r.mac) != dhcp[r.mac]
    ]
    fresh += [
        Change(True, "dns", tostring(build_dns_host(r), encoding="unicode"))
        for r in wanted
        if have_dns.get(r.address) != dns[r.address]
    ]
    return (*stale, *fresh)


def _dhcp_text(mac: str, name: str, address: str) -> str:
    host = Element("host", mac=mac, ip=address)
    if name:
        host.set("name", name)
    return tostring(host, encoding="unicode")


def _dns_text(address: str, names: Sequence[str]) -> str:
    host = Element("host", ip=address)
    for name in names:
        SubElement(host, "hostname").text = name
    return tostring(host, encoding="unicode")
