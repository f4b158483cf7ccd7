"""Routers: a namespace of the kernel's with an address in each of its networks, between them and, if wished, a way out."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Condition, Mac, Model, Name, Object, Uid

Uplink = Literal["nat", "routed", "none"]
Cidr4 = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$")]
Address4 = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$")]


class RouterPort(Model):
    """The router's place in one network; MAC and address are allocated, and kept for life."""

    network: Name
    network_uid: Uid
    mac: Mac
    address: Address4


class RouterRoute(Model):
    """Where else it sends what is for `to`."""

    to: Cidr4
    via: Address4


class RouterSpec(Model):
    ports: Annotated[tuple[RouterPort, ...], Field(max_length=limits.ROUTER_PORTS_MAX)] = ()
    """Of the networks that it joins."""
    uplink: Uplink = "nat"
    """`nat`: guests reach out under the address of the router's uplink, nobody in but by forwards and floating addresses;
    `routed`: under their own, and the host leads to them what is for them, as far as the uplink's network lets it in;
    `none`: there is no way out."""
    uplink_port: RouterPort | None = None
    """On the network that leads out; None where there is no way out."""
    routes: Annotated[tuple[RouterRoute, ...], Field(max_length=limits.ROUTER_ROUTES_MAX)] = ()

    @property
    def all_ports(self) -> tuple[RouterPort, ...]:
        return (*self.ports, *((self.uplink_port,) if self.uplink_port is not None else ()))


class RouterStatus(Model):
    active: bool = False
    observed_generation: int = 0
    namespace: str = ""
    """Its name for `ip netns exec`."""
    conditions: tuple[Condition, ...] = ()


class Router(Object):
    KIND: ClassVar[str] = "router"
    PLURAL: ClassVar[str] = "routers"

    kind: Literal["router"] = "router"
    name: Name
    spec: RouterSpec
    status: RouterStatus = RouterStatus()
