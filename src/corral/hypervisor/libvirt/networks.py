"""Networks through libvirt: a NAT bridge with dnsmasq, whose reservations change live."""

import contextlib
import os
from collections.abc import Sequence
from typing import Final

import libvirt
from lxml.etree import _Element

from corral.errors import CorralError
from corral.hypervisor.libvirt.driver import LibvirtDriver
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.network_document import (
    Change,
    build_network,
    dhcp_hosts,
    fields_of,
    plan_changes,
    subnet_of,
)
from corral.model.network import Network, Reservation
from corral.network.base import Lease, ObservedNetwork

_SECTIONS: Final = {
    "dhcp": libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST,
    "dns": libvirt.VIR_NETWORK_SECTION_DNS_HOST,
}
_PREFIX_CHARS: Final = 6


class LibvirtNetworks:
    """`NetworkDriver` on the hypervisor driver's connection. Names carry the installation, since several daemons may
    share one libvirt: `corral-3fa1c2-default`; the UUID is the Network's uid."""

    def __init__(self, driver: LibvirtDriver, installation_id: str) -> None:
        self._driver = driver
        self._prefix = f"corral-{installation_id.replace('-', '')[:_PREFIX_CHARS]}"

    def driver_name(self, network: Network) -> str:
        return f"{self._prefix}-{network.name}"

    async def ensure(self, network: Network, reservations: Sequence[Reservation]) -> None:
        wanted = tuple(reservations)
        name = self.driver_name(network)
        await self._driver.call(f"ensure network {name}", lambda handle: _ensure(handle, network, name, wanted))

    async def reserve(self, network: Network, reservation: Reservation) -> None:
        name = self.driver_name(network)

        def act(handle: libvirt.virConnect) -> None:
            found = handle.networkLookupByUUIDString(network.uid)
            kept = [r for r in _reservations(found, reservation.vm_uid) if not _clash(r, reservation)]
            _sync(found, (*kept, reservation))

        await self._driver.call(f"reserve {reservation.address} in network {name}", act)

    async def release(self, network: Network, reservation: Reservation) -> None:
        name = self.driver_name(network)

        def act(handle: libvirt.virConnect) -> None:
            found = _find(handle, network.uid)
            if found is not None:
                kept = [r for r in _reservations(found, reservation.vm_uid) if r.mac != reservation.mac]
                _sync(found, kept)

        await self._driver.call(f"release {reservation.address} in network {name}", act)

    async def remove(self, network: Network) -> None:
        def act(handle: libvirt.virConnect) -> None:
            found = _find(handle, network.uid)
            if found is not None:
                _stop(found)
                found.undefine()

        await self._driver.call(f"remove network {self.driver_name(network)}", act)

    async def observe_all(self) -> tuple[ObservedNetwork, ...]:
        return await self._driver.call("list networks", _observe_all)

    async def leases(self, network: Network) -> tuple[Lease, ...]:
        def act(handle: libvirt.virConnect) -> tuple[Lease, ...]:
            found = handle.networkLookupByUUIDString(network.uid)
            return tuple(
                Lease(mac=lease["mac"] or "", address=lease["ipaddr"] or "", hostname=lease["hostname"] or "")
                for lease in found.DHCPLeases()
            )

        return await self._driver.call(f"read leases of network {self.driver_name(network)}", act)


def _find(handle: libvirt.virConnect, uid: str) -> libvirt.virNetwork | None:
    try:
        return handle.networkLookupByUUIDString(uid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_NETWORK:
            return None
        raise


def _observe_all(handle: libvirt.virConnect) -> tuple[ObservedNetwork, ...]:
    observed = []
    for found in handle.listAllNetworks(0):
        root = parse_document(found.XMLDesc(0))
        bridge = root.find("bridge")
        observed.append(
            ObservedNetwork(
                uid=found.UUIDString(),
                name=found.name(),
                active=bool(found.isActive()),
                bridge="" if bridge is None else bridge.get("name") or "",
                subnet=subnet_of(root),
            )
        )
    return tuple(observed)


def _ensure(handle: libvirt.virConnect, network: Network, name: str, wanted: Sequence[Reservation]) -> None:
    """Define, start, and make the reservations so. What differs in more than reservations is defined anew and restarted:
    bridge or subnet changed, and guests of the old one have nothing to lose by it."""
    document = build_network(network, name, wanted)
    found = _find(handle, network.uid)
    if found is None:
        _refuse_taken(handle, network, name)
        found = handle.networkDefineXML(document)
    elif fields_of(parse_document(found.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))) != fields_of(
        parse_document(document)
    ):
        _stop(found)
        if found.name() != name:
            found.undefine()
        found = handle.networkDefineXML(document)
    if not found.isActive():
        _redefine_hosts(handle, found, document)
        _start(found, network)
    else:
        _sync(found, wanted)
    if not found.autostart():
        found.setAutostart(True)


def _redefine_hosts(handle: libvirt.virConnect, found: libvirt.virNetwork, document: str) -> None:
    """While it is off, its hosts change by defining it again."""
    root = parse_document(found.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))
    wanted = parse_document(document)
    if plan_changes(root, _listed(wanted, "")):
        handle.networkDefineXML(document)


def _refuse_taken(handle: libvirt.virConnect, network: Network, name: str) -> None:
    """A network of the same name is what an installation with the same id left behind: ours by its name, so it goes."""
    with contextlib.suppress(libvirt.libvirtError):
        left = handle.networkLookupByName(name)
        if left.UUIDString() != network.uid:
            _stop(left)
            left.undefine()


def _start(found: libvirt.virNetwork, network: Network) -> None:
    try:
        found.create()
    except libvirt.libvirtError as error:
        if found.isActive():
            return
        bridge = network.spec.bridge
        if os.path.exists(f"/sys/class/net/{bridge}"):  # noqa: PTH110  # a name in sysfs, not a file of ours
            asked = f"start network {found.name()}"
            reason = f"the interface {bridge} is there already, and not libvirt's"
            raise CorralError("hypervisor-error", asked, reason, f"remove it: ip link delete {bridge}") from error
        raise


def _stop(found: libvirt.virNetwork) -> None:
    if found.isActive():
        found.destroy()


def _reservations(found: libvirt.virNetwork, vm_uid: str) -> tuple[Reservation, ...]:
    return _listed(parse_document(found.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)), vm_uid)


def _listed(root: _Element, vm_uid: str) -> tuple[Reservation, ...]:
    """The document knows no VM; `vm_uid` fills the field and is not looked at."""
    return tuple(
        Reservation.model_construct(mac=mac, address=address, hostname=name, vm_uid=vm_uid)
        for mac, (name, address) in dhcp_hosts(root).items()
    )


def _clash(one: Reservation, other: Reservation) -> bool:
    return one.mac == other.mac or one.address == other.address or one.hostname == other.hostname


def _sync(found: libvirt.virNetwork, wanted: Sequence[Reservation]) -> None:
    """Change the hosts live and for good; dnsmasq reads them again without losing a lease."""
    active = bool(found.isActive())
    for live in (True, False) if active else (False,):
        flags = 0 if live else libvirt.VIR_NETWORK_XML_INACTIVE
        affect = libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE if live else libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
        for change in plan_changes(parse_document(found.XMLDesc(flags)), wanted):
            _apply(found, change, affect)


def _apply(found: libvirt.virNetwork, change: Change, affect: int) -> None:
    command = libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST if change.add else libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE
    found.update(command, _SECTIONS[change.section], -1, change.element, affect)
