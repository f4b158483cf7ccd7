"""A network's document, and what of it Corral owns."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lxml.etree import Element, QName, SubElement, _Element, indent, tostring

from corral.model.network import Network, NetworkSpec, Reservation
from corral.network.dnsmasq import dhcp_range, dhcp_range6, is_narrow

DNSMASQ_NAMESPACE: Final = "http://libvirt.org/schemas/network/dnsmasq/1.0"
NAMESPACE: Final = "urn:corral:network:1"
PREFIX: Final = "corral"
# libvirt's words, where it makes the rules of the firewall; `open` where it makes none.
_FORWARD: Final = {"nat": "nat", "routed": "route", "bridge": "bridge", "macvtap": "bridge"}


def build_network(network: Network, name: str, dnsmasq_options: Sequence[str], *, own_rules: bool = False) -> str:
    """DHCP and DNS, and a way out where it is wished, on a bridge without spanning tree, which would keep each new port
    silent for 4 s. On a bridge or a card of the host's: nothing but that.

    Reserved addresses and names are files that `dnsmasq_options` tell of, and not libvirt's `<host>` elements: changing
    one of those live makes libvirt 9 take all firewall rules of the network away and set them again, for half a second
    in which nobody gets out. With `own_rules` libvirt makes none at all: Corral's own are there. Where a router is the
    gateway it is a bridge alone: the host has no address there, and libvirt turns IPv6 off on it.
    """
    spec = network.spec
    root = Element("network", nsmap={"dnsmasq": DNSMASQ_NAMESPACE})
    SubElement(root, "name").text = name
    SubElement(root, "uuid").text = network.uid
    root.append(_metadata(spec))
    if spec.mode != "isolated":
        root.append(_forward(spec, own_rules=own_rules))
    if not spec.ours:
        if spec.mode != "macvtap":
            SubElement(root, "bridge", name=spec.bridge)
        indent(root)
        return tostring(root, encoding="unicode")
    SubElement(root, "bridge", name=spec.bridge, stp="off", delay="0")
    if spec.mtu:
        SubElement(root, "mtu", size=str(spec.mtu))
    if not spec.hosted:
        indent(root)
        return tostring(root, encoding="unicode")
    # `localOnly`: a name that is not known here is not asked of the servers above.
    SubElement(root, "domain", name=spec.domain, localOnly="yes")
    root.append(_address4(spec))
    if spec.subnet6:
        root.append(_address6(spec))
    options = SubElement(root, QName(DNSMASQ_NAMESPACE, "options"))
    for option in dnsmasq_options:
        SubElement(options, QName(DNSMASQ_NAMESPACE, "option"), value=option)
    indent(root)
    return tostring(root, encoding="unicode")


def _metadata(spec: NetworkSpec) -> _Element:
    """What a lost database is rebuilt from."""
    metadata = Element("metadata")
    ours = SubElement(metadata, QName(NAMESPACE, "network"), nsmap={PREFIX: NAMESPACE})
    SubElement(ours, QName(NAMESPACE, "spec")).text = spec.model_dump_json()
    return metadata


def spec_json_of(root: _Element) -> str:
    return root.findtext(f"metadata/{{{NAMESPACE}}}network/{{{NAMESPACE}}}spec") or ""


def _forward(spec: NetworkSpec, *, own_rules: bool) -> _Element:
    forward = Element("forward", mode="open" if own_rules and spec.ours else _FORWARD[spec.mode])
    if spec.mode == "macvtap":
        SubElement(forward, "interface", dev=spec.nic)
    if spec.mode == "nat" and spec.subnet6 and not own_rules:
        SubElement(forward, "nat", ipv6="yes")
    return forward


def _address4(spec: NetworkSpec) -> _Element:
    subnet = ipaddress.IPv4Network(spec.subnet)
    address = Element("ip", family="ipv4", address=spec.gateway, prefix=str(subnet.prefixlen))
    dhcp = SubElement(address, "dhcp")
    # libvirt would allow no more leases than its range has addresses, those that are reserved outside of it among them:
    # then it gets no range, and dnsmasq gets it from us.
    if is_narrow(spec):
        dhcp.append(_placeholder(spec))
    else:
        first, last = dhcp_range(spec)
        SubElement(dhcp, "range", start=first, end=last)
    return address


def _placeholder(spec: NetworkSpec) -> _Element:
    """A reservation that nobody asks for, the gateway's: without a range or one of those libvirt serves no DHCP."""
    return Element("host", mac=_NOBODYS_MAC, ip=spec.gateway)


def placeholder_text(spec: NetworkSpec) -> str:
    return tostring(_placeholder(spec), encoding="unicode")


def has_placeholder(root: _Element) -> bool:
    return any(host.get("mac") == _NOBODYS_MAC for host in root.iterfind("ip/dhcp/host"))


def _address6(spec: NetworkSpec) -> _Element:
    subnet = ipaddress.IPv6Network(spec.subnet6)
    address = Element("ip", family="ipv6", address=spec.gateway6, prefix=str(subnet.prefixlen))
    if spec.ipv6 == "dhcp":
        first, last = dhcp_range6(spec)
        SubElement(SubElement(address, "dhcp"), "range", start=first, end=last)
    return address


def ranges4(root: _Element) -> tuple[tuple[str, str], ...]:
    """What a document says of them."""
    found = root.iterfind("ip/dhcp/range")
    pairs = ((each.get("start") or "", each.get("end") or "") for each in found)
    return tuple(pair for pair in pairs if ":" not in pair[0])


def range_text(pair: tuple[str, str]) -> str:
    return tostring(Element("range", start=pair[0], end=pair[1]), encoding="unicode")


def holds(root: _Element, wanted: _Element) -> bool:
    """`root` says all that `wanted` says, and perhaps more (libvirt adds a MAC address, ports, counters). Reservations,
    ranges and what we remember are left out: those change live."""
    if root.tag != wanted.tag or (root.text or "").strip() != (wanted.text or "").strip():
        return False
    if any(root.get(name) != value for name, value in wanted.attrib.items()):
        return False
    return all(child.tag in _LIVE or any(holds(found, child) for found in root) for child in wanted)


_LIVE: Final = ("dns", "range", "host", "metadata")
# Locally administered (IEEE 802, clause 8.2).
_NOBODYS_MAC: Final = "02:00:00:00:00:00"


def same_document(root: _Element, wanted: _Element) -> bool:
    """As `holds`, with what changes live: the one that is kept says it all."""
    return holds(root, wanted) and spec_json_of(root) == spec_json_of(wanted) and ranges4(root) == ranges4(wanted)


def in_use(live: _Element) -> bool:
    """A guest is plugged into the running network `live`."""
    return int(live.get("connections") or 0) > 0


def subnet_of(root: _Element, family: str = "ipv4") -> str:
    """CIDR of the first address of this family, or nothing."""
    for element in root.iterfind("ip"):
        if element.get("family", "ipv4") == family and (address := element.get("address")):
            mask = element.get("prefix") or element.get("netmask") or ("32" if family == "ipv4" else "128")
            return str(ipaddress.ip_network(f"{address}/{mask}", strict=False))
    return ""


def reads_names(root: _Element) -> bool:
    """dnsmasq reads names from our files. One that was started by a Corral older than those has them from libvirt."""
    options = root.iterfind(f"{{{DNSMASQ_NAMESPACE}}}options/{{{DNSMASQ_NAMESPACE}}}option")
    return any((option.get("value") or "").startswith("hostsdir=") for option in options)


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
