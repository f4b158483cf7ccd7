"""What dnsmasq is told of a network: the files that it reads, and its settings. Pure, but for where the files are."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from corral.model.network import NetworkSpec

# Reserved addresses and the dynamic pool may overlap in dnsmasq, which never hands out a reserved one.
FIRST_GUEST_OFFSET = 2
# As many addresses as a /16 has: more are never given out.
RANGE6_ADDRESSES = 2**16
LEASES_MAX = 1000
"""dnsmasq's own, where not the whole subnet is given out unasked."""


@dataclass
class ServedFiles:
    """`root` is the installation's; a file for each MAC in `hosts` (DHCP) and in `names` (DNS), which dnsmasq watches."""

    root: Path
    uid: str

    @property
    def hosts(self) -> Path:
        return self.root / self.uid

    @property
    def names(self) -> Path:
        return self.root / f"{self.uid}.names"

    @property
    def options(self) -> Path:
        """One file for each who has something to say, as dhcp-optsfile; read again when dnsmasq is told."""
        return self.root / f"{self.uid}.opts"

    @property
    def settings(self) -> Path:
        """dnsmasq's own words, read when it starts."""
        return self.root / f"{self.uid}.conf"

    @property
    def leases(self) -> Path:
        """Of one that is not libvirt's."""
        return self.root / f"{self.uid}.leases"

    @property
    def pid(self) -> Path:
        """Of one that is not libvirt's."""
        return self.root / f"{self.uid}.pid"

    @property
    def directories(self) -> tuple[Path, ...]:
        return self.hosts, self.names, self.options

    def dnsmasq_options(self) -> tuple[str, ...]:
        return f"dhcp-hostsdir={self.hosts}", f"hostsdir={self.names}", f"dhcp-optsdir={self.options}"


def is_narrow(spec: NetworkSpec) -> bool:
    """Less than the subnet is given out unasked."""
    return bool(spec.dhcp_first or spec.dhcp_last)


def dhcp_range(spec: NetworkSpec) -> tuple[str, str]:
    """The first and the last address that DHCP gives to somebody unknown."""
    subnet = ipaddress.IPv4Network(spec.subnet)
    return spec.dhcp_first or str(subnet[FIRST_GUEST_OFFSET]), spec.dhcp_last or str(subnet[-2])


def dhcp_range6(spec: NetworkSpec) -> tuple[str, str]:
    subnet = ipaddress.IPv6Network(spec.subnet6)
    return str(subnet[FIRST_GUEST_OFFSET]), str(subnet[RANGE6_ADDRESSES - 1])


def settings_lines(spec: NetworkSpec) -> list[str]:
    """What can change while the network runs, since dnsmasq alone has to start anew for it."""
    lines = []
    if spec.dns:
        lines += ["no-resolv", *(f"server={address}" for address in spec.dns)]
    lines += [f"dhcp-option={option.code},{option.value}" for option in spec.dhcp_options]
    if spec.boot is not None:
        lines.append(f"dhcp-boot={spec.boot.file},,{spec.boot.server or spec.first_address}")
    return lines


def range_line(spec: NetworkSpec) -> str:
    first, last = dhcp_range(spec)
    return f"dhcp-range={first},{last},{ipaddress.IPv4Network(spec.subnet).netmask}"


def served_lines(spec: NetworkSpec, upstream: str) -> tuple[str, ...]:
    """All that a dnsmasq of a router's is told, but for its interface and its files. `upstream`: whom names from elsewhere
    are asked of, where the network names nobody; empty: nobody is asked."""
    lines = ["no-hosts", "no-poll", f"domain={spec.domain}", f"local=/{spec.domain}/", "expand-hosts"]
    if spec.dhcp_relay:
        lines.append(f"dhcp-relay={spec.router_address},{spec.dhcp_relay}")
    else:
        lines += [range_line(spec), "dhcp-no-override", "dhcp-authoritative", f"dhcp-lease-max={_leases_max(spec)}"]
    if spec.subnet6:
        lines += ["enable-ra", _range6_line(spec)]
    if spec.mtu and not spec.dhcp_relay:
        lines.append(f"dhcp-option=26,{spec.mtu}")
    lines += settings_lines(spec)
    if not spec.dns:
        lines += ["no-resolv", *([f"server={upstream}"] if upstream else [])]
    return tuple(lines)


def _leases_max(spec: NetworkSpec) -> int:
    first, last = dhcp_range(spec)
    return LEASES_MAX if is_narrow(spec) else int(ipaddress.IPv4Address(last)) - int(ipaddress.IPv4Address(first)) + 1


def advertised_lines(spec: NetworkSpec) -> tuple[str, ...]:
    """Of one that serves nothing, but says that its router leads out: who serves says that guests are to ask for addresses."""
    subnet = ipaddress.IPv6Network(spec.subnet6)
    asked = f"dhcp-range={subnet[0]},static,{subnet.prefixlen}" if spec.ipv6 == "dhcp" else _range6_line(spec)
    return "no-hosts", "no-resolv", "port=0", "enable-ra", asked


def _range6_line(spec: NetworkSpec) -> str:
    subnet = ipaddress.IPv6Network(spec.subnet6)
    if spec.ipv6 == "slaac":
        return f"dhcp-range={subnet[1]},ra-only"
    first, last = dhcp_range6(spec)
    return f"dhcp-range={first},{last},{subnet.prefixlen}"
