"""Port forwards: a port of the host's that leads to a VM, through its router where it is behind one, or to a balancer."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corral.model.base import Model, Name, Object, Uid

Protocol = Literal["tcp", "udp"]
Port = Annotated[int, Field(ge=1, le=65535)]


class ForwardSpec(Model):
    """Unique by protocol and port of the host. To a VM, or to a balancer."""

    protocol: Protocol = "tcp"
    host_port: Port
    vm: Name | None = None
    vm_uid: Uid | None = None
    balancer: Name | None = None
    balancer_uid: Uid | None = None
    port: Port
    """Of the guest; of a balancer the one that it listens on."""


class Forward(Object):
    """Its name says what it is: `tcp-8080`."""

    KIND: ClassVar[str] = "forward"
    PLURAL: ClassVar[str] = "forwards"

    kind: Literal["forward"] = "forward"
    name: Name
    spec: ForwardSpec
