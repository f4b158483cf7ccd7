"""Networks: a switch of our own with a gateway, DHCP and DNS, or a bridge of the host's."""

from typing import Annotated, ClassVar, Literal

from pydantic import StringConstraints

from corral.model.bandwidth import UNLIMITED, Bandwidth
from corral.model.base import Condition, Mac, Model, Name, Object, Uid, written_unless

NetworkMode = Literal["nat", "isolated", "bridge"]
Interface = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]
"""A Linux interface's name, at most 15 characters (IFNAMSIZ)."""


class NetworkSpec(Model):
    mode: NetworkMode = "nat"
    """`nat`: guests reach out, nobody in; `isolated`: each other and the host alone; `bridge`: they are where the host's
    bridge is, and whatever serves addresses there serves them."""
    subnet: str = ""
    """IPv4 CIDR, found free of the host's routes when it is allocated: `192.168.150.0/24`. A bridge of the host's has none
    of ours."""
    domain: str = ""
    """DNS suffix of the guests' names."""
    bridge: str
    """The bridge's interface name; the host's own in mode `bridge`, else ours."""
    bandwidth_in: Annotated[Bandwidth, written_unless(UNLIMITED)] = UNLIMITED
    """All of its guests together, from beyond the network: what passes between them on it is not counted."""
    bandwidth_out: Annotated[Bandwidth, written_unless(UNLIMITED)] = UNLIMITED

    @property
    def ours(self) -> bool:
        """Corral makes the bridge, and serves addresses and names on it."""
        return self.mode != "bridge"


class NetworkStatus(Model):
    active: bool = False
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


class Network(Object):
    KIND: ClassVar[str] = "network"
    PLURAL: ClassVar[str] = "networks"

    kind: Literal["network"] = "network"
    name: Name
    spec: NetworkSpec
    status: NetworkStatus = NetworkStatus()


class Reservation(Model):
    """An address kept for one NIC, in DHCP and DNS."""

    mac: Mac
    address: str
    hostname: Name
    vm_uid: Uid
