"""A network's document, and what of it Corral owns."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from lxml.etree import Element, QName, SubElement, _Element, indent, tostring

from corral.model.network import Network, Reservation

DNSMASQ_NAMESPACE: Final = "http://libvirt.org/schemas/network/dnsmasq/1.0"

# The gateway has .1; reserved addresses and the dynamic pool may overlap in dnsmasq, which never hands out a reserved one.
GATEWAY_OFFSET: Final = 1
FIRST_GUEST_OFFSET: Final = 2


def build_network(network: Network, name: str, reservations: Iterable[Reservation], hosts_dir: str) -> str:
    """DHCP and DNS, and NAT where it is wished, on a bridge without spanning tree, which would keep each new port silent
    for 4 s. On a bridge of the host's: nothing but that.

    Reserved addresses are files in `hosts_dir`, which dnsmasq watches, and not libvirt's `<host>` elements: changing one
    of those live makes libvirt 9 take all firewall rules of the network away and set them again, for half a second in
    which nobody gets out.
    """
    root = Element("network", nsmap={"dnsmasq": DNSMASQ_NAMESPACE})
    SubElement(root, "name").text = name
    SubElement(root, "uuid").text = network.uid
    if network.spec.mode != "isolated":
        SubElement(root, "forward", mode=network.spec.mode)
    if not network.spec.ours:
        SubElement(root, "bridge", name=network.spec.bridge)
        indent(root)
        return tostring(root, encoding="unicode")
    subnet = ipaddress.IPv4Network(network.spec.subnet)
    SubElement(root, "bridge", name=network.spec.bridge, stp="off", delay="0")
    # `localOnly`: a name that is not known here is not asked of the servers above.
    SubElement(root, "domain", name=network.spec.domain, localOnly="yes")
    dns = SubElement(root, "dns")
    for reservation in reservations:
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
    options = SubElement(root, QName(DNSMASQ_NAMESPACE, "options"))
    SubElement(options, QName(DNSMASQ_NAMESPACE, "option"), value=f"dhcp-hostsdir={hosts_dir}")
    indent(root)
    return tostring(root, encoding="unicode")


def dhcp_host_line(reservation: Reservation, lessees: Sequence[str] = ()) -> str:
    """dnsmasq's `dhcp-host`. It gives the address although `lessees`, MACs of guests that are gone, still have it leased
    (dnsmasq(8): of several MACs one at a time is in use, and the lease of another is abandoned)."""
    macs = dict.fromkeys([reservation.mac, *lessees])
    return f"{','.join(macs)},{reservation.address},{reservation.hostname}\n"


def parse_dhcp_host(line: str) -> tuple[str, str, str]:
    """The MAC, address and name of a line of ours."""
    words = line.strip().split(",")
    return words[0], words[-2], words[-1]


def build_dns_host(reservation: Reservation) -> _Element:
    """So that a name resolves as soon as it is reserved, whatever host name the guest sends with its DHCP request."""
    host = Element("host", ip=reservation.address)
    SubElement(host, "hostname").text = reservation.hostname
    return host


def holds(root: _Element, wanted: _Element) -> bool:
    """`root` says all that `wanted` says, and perhaps more (libvirt adds a MAC address, ports, counters). Reservations
    are left out: those change live."""
    if root.tag != wanted.tag or (root.text or "").strip() != (wanted.text or "").strip():
        return False
    if any(root.get(name) != value for name, value in wanted.attrib.items()):
        return False
    if wanted.tag == "dns":
        return True
    return all(any(holds(found, child) for found in root) for child in wanted)


def in_use(live: _Element) -> bool:
    """A guest is plugged into the running network `live`."""
    return int(live.get("connections") or 0) > 0


def subnet_of(root: _Element) -> str:
    """CIDR of the first IPv4 address, or nothing."""
    for element in root.iterfind("ip"):
        if element.get("family", "ipv4") == "ipv4" and (address := element.get("address")):
            mask = element.get("prefix") or element.get("netmask") or "32"
            return str(ipaddress.IPv4Network(f"{address}/{mask}", strict=False))
    return ""


def dns_hosts(root: _Element) -> dict[str, tuple[str, ...]]:
    """Host names by address."""
    hosts = root.iterfind("dns/host")
    return {host.get("ip") or "": tuple(name.text or "" for name in host.iterfind("hostname")) for host in hosts}


@dataclass(frozen=True)
class Change:
    """One live change of a network's DNS hosts."""

    add: bool
    element: str


def plan_changes(root: _Element, wanted: Sequence[Reservation]) -> tuple[Change, ...]:
    """What makes the DNS hosts of `root` exactly `wanted`; deletions first, since name and address are unique. Pure.

    What is stale is named by its address alone: libvirt deletes nothing where a name matches a second host."""
    names = {reservation.address: (reservation.hostname,) for reservation in wanted}
    have = dns_hosts(root)
    stale = [Change(False, _dns_text(address, ())) for address, known in have.items() if names.get(address) != known]
    fresh = [Change(True, _dns_text(address, name)) for address, name in names.items() if have.get(address) != name]
    return (*stale, *fresh)


def refreshing_changes(root: _Element) -> tuple[Change, Change]:
    """An addition taken back at once: each makes libvirt tell dnsmasq to read all of its files again."""
    address = root.find("ip")
    text = _dns_text("" if address is None else address.get("address") or "", ("corral-refresh",))
    return Change(True, text), Change(False, text)


def _dns_text(address: str, names: Sequence[str]) -> str:
    host = Element("host", ip=address)
    for name in names:
        SubElement(host, "hostname").text = name
    return tostring(host, encoding="unicode")
