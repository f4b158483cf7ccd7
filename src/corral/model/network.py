"""Networks: a switch of our own with a gateway, DHCP and DNS, or a bridge of the host's."""

import ipaddress
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from corral.model import limits
from corral.model.bandwidth import UNLIMITED, Bandwidth
from corral.model.base import Condition, Mac, Model, Name, Object, Uid, written_unless
from corral.model.network_parts import (
    Address,
    Cidr,
    DhcpOptions,
    DnsServers,
    GatewayAt,
    Interface,
    Ipv6Mode,
    NetworkBoot,
    NetworkMode,
    NetworkName,
    Reservations,
)

__all__ = ["Interface", "Network", "NetworkMode", "NetworkName", "NetworkSpec", "NetworkStatus", "Reservation"]

# The first address of a subnet after the network's own, as in libvirt's own networks; the gateway's, wherever that is.
GATEWAY_OFFSET: Final = 1


class NetworkSpec(Model):
    mode: NetworkMode = "nat"
    """`nat`: guests reach out, nobody in; `routed`: both ways, with their own addresses; `isolated`: each other and the
    host alone; `bridge`: they are where the host's bridge is, and whatever serves addresses there serves them;
    `macvtap`: on a card of the host's, past its bridges and filters; `libvirt`: made elsewhere, and left as it is."""
    subnet: str = ""
    """IPv4 CIDR, found free of the host's routes when it is allocated: `192.168.150.0/24`. A bridge of the host's has none
    of ours."""
    domain: str = ""
    """DNS suffix of the guests' names."""
    gateway_at: Annotated[GatewayAt, written_unless("host")] = "host"
    """Who has the gateway's address, and serves addresses and names: this host, or a router in its namespace. Of the
    latter the host knows nothing but the bridge: others may have the same subnet."""
    bridge: str
    """The bridge's interface name; the host's own in mode `bridge`, unless `nic` is named, else ours. Empty where there
    is none."""
    subnet6: Annotated[Cidr, written_unless("")] = ""
    """IPv6 CIDR, a /64; empty: the network has no IPv6."""
    ipv6: Annotated[Ipv6Mode, written_unless("")] = ""
    """How guests get their IPv6 addresses: `dhcp` (DHCPv6, reserved as the IPv4 ones) or `slaac`."""
    mtu: Annotated[int, Field(ge=0, le=limits.MTU_MAX), written_unless(0)] = 0
    """0: the kernel's, 1500."""
    dns: Annotated[DnsServers, written_unless(())] = ()
    """Servers that names from elsewhere are asked of; none: the host's."""
    dhcp_first: Annotated[Address, written_unless("")] = ""
    """The first address that is given out unasked; others of the subnet can be asked for. Empty: the whole subnet."""
    dhcp_last: Annotated[Address, written_unless("")] = ""
    dhcp_options: Annotated[DhcpOptions, written_unless(())] = ()
    boot: Annotated[NetworkBoot | None, written_unless(None)] = None
    dhcp_relay: Annotated[Address, written_unless("")] = ""
    """Who gives addresses, elsewhere: the router that is the gateway passes on what guests ask. Empty: it gives them."""
    reservations: Annotated[Reservations, written_unless(())] = ()
    """For machines that are no VMs of ours."""
    nic: Annotated[str, written_unless("")] = ""
    """The card of the host's that our bridge is made over, or that macvtap uses."""
    vlan: Annotated[int, Field(ge=0, le=limits.VLAN_MAX), written_unless(0)] = 0
    """The tag of its frames on `nic`; 0: none."""
    host_names: Annotated[bool, written_unless(False)] = False
    """Its guests' names resolve on the host, too."""
    source: Annotated[str, written_unless("")] = ""
    """The libvirt network's name, where it was made elsewhere."""
    bandwidth_in: Annotated[Bandwidth, written_unless(UNLIMITED)] = UNLIMITED
    """All of its guests together, from beyond the network: what passes between them on it is not counted."""
    bandwidth_out: Annotated[Bandwidth, written_unless(UNLIMITED)] = UNLIMITED

    @property
    def ours(self) -> bool:
        """Corral makes the bridge, and serves addresses and names on it."""
        return self.mode in ("nat", "routed", "isolated")

    @property
    def filtered(self) -> bool:
        """Its guests' packets pass a bridge that Corral filters."""
        return self.mode not in ("macvtap", "libvirt")

    @property
    def hosted(self) -> bool:
        """The host itself is the gateway, and libvirt serves addresses and names."""
        return self.ours and self.gateway_at == "host"

    @property
    def gateway(self) -> str:
        """The host's IPv4 address on it; empty where it has none of ours."""
        return self.first_address if self.hosted else ""

    @property
    def gateway6(self) -> str:
        return self.first_address6 if self.hosted else ""

    @property
    def router_address(self) -> str:
        """The address of the router that is its gateway; empty where the host is."""
        return self.first_address if self.ours and not self.hosted else ""

    @property
    def first_address(self) -> str:
        return str(ipaddress.IPv4Network(self.subnet)[GATEWAY_OFFSET]) if self.ours and self.subnet else ""

    @property
    def first_address6(self) -> str:
        return str(ipaddress.IPv6Network(self.subnet6)[GATEWAY_OFFSET]) if self.ours and self.subnet6 else ""


class NetworkStatus(Model):
    active: bool = False
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


class Network(Object):
    KIND: ClassVar[str] = "network"
    PLURAL: ClassVar[str] = "networks"

    kind: Literal["network"] = "network"
    name: NetworkName
    spec: NetworkSpec
    status: NetworkStatus = NetworkStatus()


class Reservation(Model):
    """Addresses kept for one NIC, in DHCP and DNS."""

    mac: Mac
    address: str
    hostname: Name
    vm_uid: Uid
    address6: str = ""
