"""Port forwards: a port of the host's that leads to a VM, through its router where it is behind one."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corral.model.base import Model, Name, Object, Uid

Protocol = Literal["tcp", "udp"]
Port = Annotated[int, Field(ge=1, le=65535)]


class ForwardSpec(Model):
    """Unique by protocol and port of the host."""

    vm: Name
    vm_uid: Uid
    protocol: Protocol = "tcp"
    host_port: Port
    port: Port
    """Of the guest."""


class Forward(Object):
    """Its name says what it is: `tcp-8080`."""

    KIND: ClassVar[str] = "forward"
    PLURAL: ClassVar[str] = "forwards"

    kind: Literal["forward"] = "forward"
    name: Name
    spec: ForwardSpec
