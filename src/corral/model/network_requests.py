"""What can be asked about networks."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from corral.model.bandwidth import UNLIMITED, Bandwidth
from corral.model.base import Model, Name
from corral.model.network_parts import (
    Address,
    Cidr,
    DhcpOptions,
    DnsServers,
    GatewayAt,
    Interface,
    Ipv6Mode,
    MakeableMode,
    Mtu,
    NetworkBoot,
    Reservations,
    Vlan,
)
from corral.model.requests import Labels, example

Domain = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.|$))*$", max_length=200)]


class NetworkServing(Model):
    """What a network of ours serves: all of it changes while guests are on it."""

    model_config = ConfigDict(use_attribute_docstrings=True)  # stacks say it, too, and editors show their fields' words

    dns: DnsServers = ()
    """Servers that names from elsewhere are asked of; none: the host's."""
    dhcp_first: Address = ""
    """The first IPv4 address that is given out unasked; empty: the subnet's first."""
    dhcp_last: Address = ""
    dhcp_options: DhcpOptions = ()
    boot: NetworkBoot | None = None
    """What machines that boot from the network are told."""
    dhcp_relay: Address = ""
    """A DHCP server elsewhere that the router, where it is the gateway, passes guests' questions on to; it has to give each
    card the address that is reserved for it here."""
    reservations: Reservations = ()
    """Addresses of machines that are no VMs of ours."""
    host_names: bool = False
    """Its guests' names resolve on the host, too."""


class DeclaredNetwork(NetworkServing):
    """What is said of a new network, by whoever asks for it and by stacks."""

    name: Name
    mode: MakeableMode | None = None
    """`bridge` where a bridge or a card is named, `isolated` where a router is the gateway, else `nat`."""
    subnet: Annotated[str, StringConstraints(max_length=18)] = ""
    """IPv4 CIDR, private, /16 to /29; empty: a free one is found."""
    ipv6: Ipv6Mode = ""
    """`dhcp`: addresses reserved as the IPv4 ones; `slaac`: what each card makes of its MAC; empty: none."""
    subnet6: Cidr = ""
    """IPv6 CIDR, a /64; empty: with `ipv6` a unique local one."""
    domain: Domain = ""
    """DNS suffix of its guests' names; empty: the network's name and `.internal`."""
    mtu: Mtu | None = None
    gateway_at: GatewayAt = "host"
    """`router`: the first router that joins it has the gateway's address, and serves addresses and names; this host has
    no address in it, so that any subnet may be chosen, whoever else has it."""
    bridge: Interface | None = None
    """A bridge of the host's that is there."""
    nic: Interface | None = None
    """A card of the host's: a bridge is made over it, or macvtap uses it."""
    vlan: Vlan | None = None
    """The tag that its frames have on `nic`."""


class CreateNetworkRequest(DeclaredNetwork):
    """A network. Those on a bridge or a card of the host's: administrators of the server only."""

    model_config = example(
        {"name": "lab"},
        {"name": "db", "mode": "isolated", "subnet": "10.20.0.0/24", "ipv6": "dhcp"},
        {"name": "app", "gateway_at": "router", "subnet": "10.0.0.0/24"},
        {"name": "lan", "bridge": "br0"},
    )

    bandwidth_in: Bandwidth = UNLIMITED
    bandwidth_out: Bandwidth = UNLIMITED
    labels: Labels = Field(default_factory=dict)


class ChangeNetworkRequest(Model):
    """What is given changes; lists are given whole. What DHCP and DNS serve changes at once; mode, domain, MTU and IPv6
    once no guest is plugged in (condition `Outdated` until then)."""

    model_config = example({"dns": ["9.9.9.9"]}, {"mode": "routed"}, {"dhcp_first": "10.20.0.100"})

    mode: Literal["nat", "routed", "isolated"] | None = None
    domain: Domain | None = None
    mtu: Mtu | Literal[0] | None = None
    """0: the kernel's."""
    ipv6: Ipv6Mode | None = None
    """Only while no VM has a card on it."""
    subnet6: Cidr | None = None
    dns: DnsServers | None = None
    dhcp_first: Address | None = None
    dhcp_last: Address | None = None
    dhcp_options: DhcpOptions | None = None
    boot: NetworkBoot | Literal[""] | None = None
    """An empty text takes it away."""
    dhcp_relay: Address | None = None
    """Likewise."""
    reservations: Reservations | None = None
    host_names: bool | None = None
    bandwidth_in: Bandwidth | None = None
    bandwidth_out: Bandwidth | None = None
    labels: Labels | None = None
