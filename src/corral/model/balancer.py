"""Load balancers: HAProxy in a router's namespace, before VMs of the router's networks."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Condition, Model, Name, Object, Uid
from corral.model.forward import Port

HttpPath = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._~/-]{0,200}$")]


class BalancerCheck(Model):
    """How it is found out whether a VM can serve."""

    kind: Literal["tcp", "http"] = "tcp"
    """`tcp`: it takes connections; `http`: it answers `GET path` with 2xx or 3xx."""
    path: HttpPath = "/"
    interval_s: Annotated[int, Field(ge=1, le=300)] = 2


class BalancerTarget(Model):
    vm: Name
    vm_uid: Uid


class BalancerSpec(Model):
    router: Name
    router_uid: Uid
    listen: Port
    """On every address of the router."""
    port: Port
    """Of the VMs."""
    mode: Literal["tcp", "http"] = "tcp"
    """`http`: it reads requests, and adds X-Forwarded-For."""
    algorithm: Literal["roundrobin", "leastconn", "source"] = "roundrobin"
    targets: Annotated[tuple[BalancerTarget, ...], Field(max_length=limits.BALANCER_TARGETS_MAX)]
    check: BalancerCheck = BalancerCheck()


class BalancerStatus(Model):
    active: bool = False
    conditions: tuple[Condition, ...] = ()


class Balancer(Object):
    KIND: ClassVar[str] = "balancer"
    PLURAL: ClassVar[str] = "balancers"

    kind: Literal["balancer"] = "balancer"
    name: Name
    spec: BalancerSpec
    status: BalancerStatus = BalancerStatus()
