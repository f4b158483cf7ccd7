"""Parts of a network: addresses kept for machines that are no VMs, DHCP options, and what is booted from it."""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Mac, Model, Name, written_unless

FOREIGN: Final = "libvirt:"
NetworkName = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|libvirt:[A-Za-z0-9][A-Za-z0-9_.+-]{0,62})$")
]
"""A name of ours, or `libvirt:` and the name of a network that was made elsewhere."""
NetworkMode = Literal["nat", "routed", "isolated", "bridge", "macvtap", "libvirt"]
MakeableMode = Literal["nat", "routed", "isolated", "bridge", "macvtap"]
GatewayAt = Literal["host", "router"]
Ipv6Mode = Literal["", "dhcp", "slaac"]
Cidr = Annotated[str, StringConstraints(max_length=49)]
Address = Annotated[str, StringConstraints(max_length=45)]
Mtu = Annotated[int, Field(ge=limits.MTU_MIN, le=limits.MTU_MAX)]
Vlan = Annotated[int, Field(ge=1, le=limits.VLAN_MAX)]
Interface = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]
"""A Linux interface's name, at most 15 characters (IFNAMSIZ)."""
# Of a line of dnsmasq's: no blank in front, no quote, comment or end of line.
_OPTION_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._:/,+=@%?&~-]{0,253}$"
_FILE_PATTERN: Final = r"^[A-Za-z0-9/][A-Za-z0-9._:/+=@%?&~-]{0,127}$"


class StaticReservation(Model):
    """An address kept for a machine that is no VM of ours: it never goes to a VM, DHCP gives it to `mac`, and `name`
    resolves."""

    name: Name
    mac: Mac
    address: Address
    """IPv4."""
    address6: Annotated[Address, written_unless("")] = ""
    """Follows from the others."""


class DhcpOption(Model):
    """One more option of DHCP, by its number (RFC 2132; IANA's list)."""

    code: Annotated[int, Field(ge=1, le=254)]
    value: Annotated[str, StringConstraints(pattern=_OPTION_PATTERN)]
    """As dnsmasq takes it: addresses, numbers or text, several divided by commas."""


class NetworkBoot(Model):
    """What a machine that boots from the network is told (PXE)."""

    file: Annotated[str, StringConstraints(pattern=_FILE_PATTERN)]
    server: Annotated[Address, written_unless("")] = ""
    """IPv4 address of the TFTP server; empty: the network's gateway."""


Reservations = Annotated[tuple[StaticReservation, ...], Field(max_length=limits.NETWORK_RESERVATIONS_MAX)]
DhcpOptions = Annotated[tuple[DhcpOption, ...], Field(max_length=limits.DHCP_OPTIONS_MAX)]
DnsServers = Annotated[tuple[Address, ...], Field(max_length=limits.DNS_SERVERS_MAX)]
