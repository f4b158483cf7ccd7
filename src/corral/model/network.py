"""A network: an isolated switch with a gateway, DHCP and DNS. The foundation has one, `default`, in mode nat."""

from typing import ClassVar, Literal

from corral.model.base import Condition, Mac, Model, Name, Object, Uid


class NetworkSpec(Model):
    mode: Literal["nat"] = "nat"
    subnet: str
    """IPv4 CIDR, found free of the host's routes when it is allocated: `192.168.150.0/24`."""
    domain: str
    """DNS suffix of the guests' names."""
    bridge: str
    """The bridge's interface name, at most 15 characters (IFNAMSIZ)."""


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
