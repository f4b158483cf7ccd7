"""Networks through libvirt: a bridge with dnsmasq, whose reservations change live, or a bridge of the host's."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import libvirt

from corral import files
from corral.errors import CorralError
from corral.hypervisor.libvirt.driver import LibvirtDriver
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.network_document import (
    Change,
    build_network,
    dhcp_host_line,
    holds,
    in_use,
    parse_dhcp_host,
    plan_changes,
    refreshing_changes,
    subnet_of,
)
from corral.model.network import Network, Reservation
from corral.network.base import Lease, ObservedNetwork
from corral.network.host_routes import bridges, used_cidrs
from corral.network.shaper import TcShaper
from corral.network.shaping import Shape

_LIVE: Final = libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
_CONFIG: Final = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
_PREFIX_CHARS: Final = 6
# dnsmasq reads them as a user of its own.
_DIR_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_NOBODY: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})
T = TypeVar("T")


class LibvirtNetworks:
    """`NetworkDriver` on the hypervisor driver's connection. Names carry the installation, since several daemons may
    share one libvirt: `corral-3fa1c2-default`; the UUID is the Network's uid.

    `reservations_dir` gets a directory for each network, whose files dnsmasq reads: the way to it must let it pass.
    """

    def __init__(self, driver: LibvirtDriver, installation_id: str, reservations_dir: Path) -> None:
        self._driver = driver
        self._prefix = f"corral-{installation_id.replace('-', '')[:_PREFIX_CHARS]}"
        self._root = reservations_dir
        self._shaper = TcShaper(installation_id)
        # Each change reads what there is and writes what there shall be: two at once would undo each other's.
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def driver_name(self, network: Network) -> str:
        return f"{self._prefix}-{network.name}"

    async def ensure(self, network: Network, reservations: Sequence[Reservation]) -> bool:
        wanted = tuple(reservations)
        name = self.driver_name(network)

        def act(handle: libvirt.virConnect) -> bool:
            return _ensure(handle, network, name, wanted, self._files(network))

        return await self._in_turn(network, f"ensure network {name}", act)

    async def reserve(self, network: Network, reservation: Reservation) -> None:
        def act(handle: libvirt.virConnect) -> None:
            found = handle.networkLookupByUUIDString(network.uid)
            known_files = self._files(network)
            kept = [known for known in known_files.known() if not _clash(known, reservation)]
            _sync(found, (*kept, reservation), known_files)

        await self._in_turn(network, f"reserve {reservation.address} in network {self.driver_name(network)}", act)

    async def release(self, network: Network, reservation: Reservation) -> None:
        def act(handle: libvirt.virConnect) -> None:
            known_files = self._files(network)
            kept = [known for known in known_files.known() if known.mac != reservation.mac]
            found = _find(handle, network.uid)
            if found is not None:
                _sync(found, kept, known_files)
            else:
                known_files.sync(kept)

        await self._in_turn(network, f"release {reservation.address} in network {self.driver_name(network)}", act)

    async def _in_turn(self, network: Network, asked: str, act: Callable[[libvirt.virConnect], T]) -> T:
        """One change of a network at a time."""
        async with self._turns[network.uid]:
            return await self._driver.call(asked, act)

    def _files(self, network: Network) -> "_HostFiles":
        return _HostFiles(self._root / network.uid)

    async def remove(self, network: Network) -> None:
        def act(handle: libvirt.virConnect) -> None:
            found = _find(handle, network.uid)
            if found is not None:
                _stop(found)
                found.undefine()
            self._files(network).remove()

        await self._in_turn(network, f"remove network {self.driver_name(network)}", act)

    async def used_subnets(self) -> tuple[str, ...]:
        return await used_cidrs()

    async def bridges(self) -> tuple[str, ...]:
        return await asyncio.to_thread(bridges)

    async def observe_all(self) -> tuple[ObservedNetwork, ...]:
        return await self._driver.call("list networks", lambda handle: _observe_all(handle, f"{self._prefix}-"))

    async def shape(self, shapes: Sequence[Shape], ours: frozenset[str]) -> None:
        await self._shaper.shape(shapes, ours)

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


def _observe_all(handle: libvirt.virConnect, prefix: str) -> tuple[ObservedNetwork, ...]:
    observed = []
    for found in handle.listAllNetworks(0):
        root = parse_document(found.XMLDesc(0))
        bridge, forward, domain = root.find("bridge"), root.find("forward"), root.find("domain")
        observed.append(
            ObservedNetwork(
                uid=found.UUIDString(),
                name=found.name(),
                active=bool(found.isActive()),
                bridge="" if bridge is None else bridge.get("name") or "",
                subnet=subnet_of(root),
                mode="isolated" if forward is None else forward.get("mode") or "nat",
                domain="" if domain is None else domain.get("name") or "",
                ours=found.name().removeprefix(prefix) if found.name().startswith(prefix) else "",
            )
        )
    return tuple(observed)


@dataclass(frozen=True)
class _HostFiles:
    """A network's reservations as dnsmasq reads them: one file a MAC."""

    directory: Path

    def known(self) -> tuple[Reservation, ...]:
        found = []
        for path in self.directory.glob("[0-9a-f]*") if self.directory.exists() else ():
            mac, address, hostname = parse_dhcp_host(path.read_text())
            # No VM is named in the file, and nobody asks.
            found.append(Reservation.model_construct(mac=mac, address=address, hostname=hostname, vm_uid=""))
        return tuple(found)

    def sync(self, wanted: Sequence[Reservation], lessees: Mapping[str, Sequence[str]] = _NOBODY) -> bool:
        """Make the files so; whether dnsmasq must be told (it sees new files by itself, but forgets nothing).

        `lessees` are MACs by the address that was leased to them last: a new file lets the reservation's guest take it over.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.directory.chmod(_DIR_MODE)
        except OSError as error:
            raise files.storage_error(f"make {self.directory}", error) from error
        missing = {reservation.mac.replace(":", "-"): reservation for reservation in wanted}
        forget = False
        for path in self.directory.glob("[0-9a-f]*"):
            asked = missing.get(path.name)
            if asked is not None and parse_dhcp_host(path.read_text()) == (asked.mac, asked.address, asked.hostname):
                missing.pop(path.name)
                continue
            forget = True
            if asked is None:
                files.remove_file(path)
        here = {reservation.mac for reservation in wanted}
        for name, reservation in missing.items():
            gone = [mac for mac in lessees.get(reservation.address, ()) if mac not in here]
            line = dhcp_host_line(reservation, gone)
            files.write_atomic(self.directory / name, line.encode(), _FILE_MODE)
        return forget

    def remove(self) -> None:
        if self.directory.exists():
            self.sync(())
            self.directory.rmdir()


def _ensure(
    handle: libvirt.virConnect, network: Network, name: str, wanted: Sequence[Reservation], host_files: _HostFiles
) -> bool:
    """Define, start, and make the reservations so. What differs in more than reservations takes a restart of the network,
    which would unplug its guests: False where it runs on as it was, and the new definition waits for its next start."""
    document = build_network(network, name, wanted, str(host_files.directory))
    wish = parse_document(document)
    found = _find(handle, network.uid)
    waits = False
    if found is None:
        _remove_left(handle, network, name)
        found = handle.networkDefineXML(document)
    elif found.isActive() and not holds(live := parse_document(found.XMLDesc(0)), wish):
        waits = in_use(live)
        if not waits:
            _stop(found)
    if not holds(parse_document(found.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)), wish):
        renamed = found.name() != name
        if renamed and not waits:
            found.undefine()
        if not (renamed and waits):
            found = handle.networkDefineXML(document)
    if network.spec.ours:
        _sync(found, wanted, host_files)
    if not found.isActive():
        _start(found, network)
    if not found.autostart():
        found.setAutostart(True)
    return not waits


def _remove_left(handle: libvirt.virConnect, network: Network, name: str) -> None:
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
        if network.spec.ours and Path("/sys/class/net", bridge).exists():
            asked = f"start network {found.name()}"
            reason = f"the interface {bridge} is there already, and not libvirt's"
            raise CorralError("hypervisor-error", asked, reason, f"remove it: ip link delete {bridge}") from error
        raise


def _stop(found: libvirt.virNetwork) -> None:
    if found.isActive():
        found.destroy()


def _clash(one: Reservation, other: Reservation) -> bool:
    return one.mac == other.mac or one.address == other.address or one.hostname == other.hostname


def _lessees(found: libvirt.virNetwork) -> dict[str, list[str]]:
    """MACs by address, of the leases that have not run out: also of guests that were deleted and never gave theirs back."""
    lessees: dict[str, list[str]] = {}
    with contextlib.suppress(libvirt.libvirtError):  # without them a guest gets its address when the lease runs out
        for lease in found.DHCPLeases():
            lessees.setdefault(lease["ipaddr"] or "", []).append(lease["mac"] or "")
    return lessees


def _sync(found: libvirt.virNetwork, wanted: Sequence[Reservation], host_files: _HostFiles) -> None:
    """First the files, then the names, for good and live: the latter makes libvirt tell dnsmasq to read all again."""
    forget = host_files.sync(wanted, _lessees(found))
    config = parse_document(found.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))
    for change in plan_changes(config, wanted):
        _apply(found, change, _CONFIG)
    if not found.isActive():
        return
    live = parse_document(found.XMLDesc(0))
    changes = plan_changes(live, wanted)
    if forget and not changes:
        changes = refreshing_changes(live)
    for change in changes:
        _apply(found, change, _LIVE)


def _apply(found: libvirt.virNetwork, change: Change, affect: int) -> None:
    command = libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST if change.add else libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE
    found.update(command, libvirt.VIR_NETWORK_SECTION_DNS_HOST, -1, change.element, affect)
