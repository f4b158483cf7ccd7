"""Floating addresses: addresses of a router's uplink that belong to no guest, and lead to one after the other."""

from typing import ClassVar, Literal

from corral.model.base import Model, Name, Object, Uid
from corral.model.router import Address4


class AddressSpec(Model):
    address: Address4
    """Of the network that the router's uplink is on."""
    router: Name
    router_uid: Uid
    vm: Name | None = None
    """The one that it leads to now."""
    vm_uid: Uid | None = None


class FloatingAddress(Object):
    KIND: ClassVar[str] = "address"
    PLURAL: ClassVar[str] = "addresses"

    kind: Literal["address"] = "address"
    name: Name
    spec: AddressSpec
