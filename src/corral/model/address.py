"""Floating addresses: of a router's uplink, or of the host's own, that belong to no guest and lead to one after the other."""

from typing import Annotated, ClassVar, Literal

from corral.model.base import Model, Name, Object, Uid, written_unless
from corral.model.router import Address4


class AddressSpec(Model):
    address: Address4
    """Of the network that the router's uplink is on; without a router one that the host itself has."""
    router: Annotated[Name | None, written_unless(None)] = None
    router_uid: Annotated[Uid | None, written_unless(None)] = None
    vm: Name | None = None
    """The one that it leads to now."""
    vm_uid: Uid | None = None


class FloatingAddress(Object):
    KIND: ClassVar[str] = "address"
    PLURAL: ClassVar[str] = "addresses"

    kind: Literal["address"] = "address"
    name: Name
    spec: AddressSpec
