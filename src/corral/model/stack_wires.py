"""What a stack says of its wires: networks, routers, and who gets where. Words of its document."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from corral.model import limits
from corral.model.balancer import BalancerCheck
from corral.model.base import Model, Name
from corral.model.firewall_requests import Exceptions, Tiers
from corral.model.forward import Port
from corral.model.network_requests import DeclaredNetwork
from corral.model.requests import Description
from corral.model.router import RouterRoute, Uplink

ForwardedPort = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4}(/(tcp|udp))?$")]
VmPort = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?:[1-9][0-9]{0,4}$")]


class StackModel(Model):
    """Its fields' words are shown by editors."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class StackNetwork(DeclaredNetwork):
    """A network of the stack's own; `corral down` removes it."""


class StackRouter(StackModel):
    """A router between networks; `corral down` removes it."""

    connect: Annotated[tuple[Name, ...], Field(max_length=limits.ROUTER_PORTS_MAX)]
    """The networks that it joins; guests of isolated ones get it as their way out."""
    uplink: Uplink = "nat"
    uplink_network: Name = "default"
    routes: Annotated[tuple[RouterRoute, ...], Field(max_length=limits.ROUTER_ROUTES_MAX)] = ()


class StackNetworkPolicy(StackModel):
    """Tiers that do not speak to each other; `corral down` removes it."""

    tiers: Tiers
    """`network:NAME` or `group:NAME`, at least two."""
    unless: Exceptions = ()
    """`TIER to TIER [PROTOCOL[/PORTS]]`."""
    description: Description = ""


class StackBalancer(StackModel):
    """A balancer on a router, before VMs of the stack; `corral down` removes it."""

    router: Name | None = None
    """The one router that reaches all of them when it is not given."""
    listen: Port
    port: Port | None = None
    """Of the VMs; as `listen` when it is not given."""
    to: Annotated[tuple[Name, ...], Field(min_length=1, max_length=limits.BALANCER_TARGETS_MAX)]
    """VMs of the stack; one with a `count` is all of its instances."""
    mode: Literal["tcp", "http"] = "tcp"
    algorithm: Literal["roundrobin", "leastconn", "source"] = "roundrobin"
    check: BalancerCheck = BalancerCheck()


class StackAddress(StackModel):
    """A floating address of a router's uplink; `corral down` removes it."""

    router: Name
    vm: Name | None = None
    """The one of the stack that it leads to."""
    address: Annotated[str, StringConstraints(max_length=45)] | None = None
    """One that is free; the next one when it is not given."""


class StackBalancedPort(StackModel):
    """A port that leads to a balancer of the stack."""

    balancer: Name


ForwardTarget = VmPort | StackBalancedPort
