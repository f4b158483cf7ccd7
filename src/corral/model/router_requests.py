"""What can be asked about routers, and what hangs on them."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.balancer import BalancerCheck
from corral.model.base import Model, Name
from corral.model.forward import Port, Protocol
from corral.model.requests import Labels, example
from corral.model.router import RouterRoute, Uplink

Names = Annotated[tuple[Name, ...], Field(max_length=limits.ROUTER_PORTS_MAX)]
Targets = Annotated[tuple[Name, ...], Field(max_length=limits.BALANCER_TARGETS_MAX)]
Routes = Annotated[tuple[RouterRoute, ...], Field(max_length=limits.ROUTER_ROUTES_MAX)]


class CreateRouterRequest(Model):
    """A router between networks. Guests of isolated ones get it as their way out, by DHCP."""

    model_config = example(
        {"name": "edge", "connect": ["web", "app"]}, {"name": "core", "connect": ["app", "db"], "uplink": "none"}
    )

    name: Name
    connect: Names = ()
    """The networks that it joins; each gives it an address."""
    uplink: Uplink = "nat"
    uplink_network: Name = "default"
    """The network of mode nat or routed that leads out."""
    routes: Routes = ()
    labels: Labels = Field(default_factory=dict)


class UpdateRouterRequest(Model):
    """What is left out stays as it is."""

    model_config = example({"connect": ["db"]}, {"uplink": "none"}, {"disconnect": ["app"]})

    connect: Names = ()
    disconnect: Names = ()
    uplink: Uplink | None = None
    uplink_network: Name | None = None
    routes: Routes | None = None
    """All of them, anew."""


class CreateForwardRequest(Model):
    """A port of the host's that leads to a VM, or to a balancer."""

    model_config = example({"vm": "web", "host_port": 8080, "port": 80}, {"balancer": "shop", "host_port": 80})

    vm: Name | None = None
    balancer: Name | None = None
    protocol: Protocol = "tcp"
    host_port: Port
    port: Port | None = None
    """Of the guest; as `host_port` when it is not given. Of a balancer it is the one that it listens on."""
    labels: Labels = Field(default_factory=dict)


class CreateAddressRequest(Model):
    """An address of the network that a router's uplink is on; or one of the host's own."""

    model_config = example(
        {"name": "shop", "router": "edge", "vm": "web"}, {"name": "face", "address": "203.0.113.7", "vm": "web"}
    )

    name: Name
    router: Name | None = None
    """None: the host itself has the address, besides its first one (administrators alone)."""
    address: Annotated[str, StringConstraints(max_length=45)] | None = None
    """One that is free; of a router the next one when it is not given."""
    vm: Name | None = None
    labels: Labels = Field(default_factory=dict)


class AssignAddressRequest(Model):
    model_config = example({"vm": "web-2"})

    vm: Name | None
    """Null: it leads nowhere."""


class CreateBalancerRequest(Model):
    """HAProxy in the router's namespace."""

    model_config = example(
        {
            "name": "shop",
            "router": "edge",
            "listen": 80,
            "targets": ["web-1", "web-2"],
            "check": {"kind": "http", "path": "/healthz"},
        }
    )

    name: Name
    router: Name | None = None
    """The one router that reaches all targets when it is not given."""
    listen: Port
    port: Port | None = None
    """Of the VMs; as `listen` when it is not given."""
    targets: Targets
    mode: Literal["tcp", "http"] = "tcp"
    algorithm: Literal["roundrobin", "leastconn", "source"] = "roundrobin"
    check: BalancerCheck = BalancerCheck()
    labels: Labels = Field(default_factory=dict)


class UpdateBalancerRequest(Model):
    """What is left out stays as it is."""

    model_config = example({"targets": ["web-1", "web-2", "web-3"]})

    port: Port | None = None
    targets: Targets | None = None
    mode: Literal["tcp", "http"] | None = None
    algorithm: Literal["roundrobin", "leastconn", "source"] | None = None
    check: BalancerCheck | None = None
