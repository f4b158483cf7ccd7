"""Networks through libvirt: a bridge with dnsmasq, whose reservations change live, or a bridge of the host's."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import libvirt

from corral.errors import CorralError
from corral.hypervisor.libvirt import network_life
from corral.hypervisor.libvirt.driver import LibvirtDriver
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.network_document import spec_json_of, subnet_of
from corral.hypervisor.libvirt.network_files import NetworkFiles, check_settings
from corral.hypervisor.libvirt.network_life import Ensuring
from corral.model.capture import CaptureRequest
from corral.model.network import Network, NetworkSpec, Reservation
from corral.network.base import HostCard, Lease, ObservedNetwork
from corral.network.capture import capture, check_filter
from corral.network.connections import connections
from corral.network.host_addresses import spare_addresses
from corral.network.host_cards import ensure_bridge, has_vlans, host_cards, keep_silent, remove_bridge
from corral.network.host_names import HOSTS, write_block
from corral.network.host_routes import bridges, used_cidrs
from corral.network.shaper import TcShaper
from corral.network.shaping import Shape
from corral.network.watched import WatchedNetworks

_PREFIX_CHARS: Final = 6
T = TypeVar("T")


class LibvirtNetworks:
    """`NetworkDriver` on the hypervisor driver's connection. Names carry the installation, since several daemons may
    share one libvirt: `corral-3fa1c2-default`; the UUID is the Network's uid.

    `reservations_dir` gets directories for each network, whose files dnsmasq reads: the way to it must let it pass.
    With `own_rules` libvirt makes none of the firewall's for networks with a way out: Corral's own let their guests out.
    """

    def __init__(
        self,
        driver: LibvirtDriver,
        installation_id: str,
        reservations_dir: Path,
        *,
        own_rules: bool = False,
        hosts_file: Path = HOSTS,
    ) -> None:
        self._driver = driver
        self._prefix = f"corral-{installation_id.replace('-', '')[:_PREFIX_CHARS]}"
        self._root = reservations_dir
        self._own_rules = own_rules
        self._hosts_file = hosts_file
        self._file_sets: dict[str, NetworkFiles] = {}
        self._watched = WatchedNetworks(network_life.dnsmasq_of)
        self._shaper = TcShaper(installation_id)
        # Each change reads what there is and writes what there shall be: two at once would undo each other's.
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def driver_name(self, network: Network) -> str:
        if network.spec.mode == "libvirt":
            return network.spec.source
        return f"{self._prefix}-{network.name}"

    async def ensure(self, network: Network, reservations: Sequence[Reservation]) -> bool:
        wanted = tuple(reservations)
        name = self.driver_name(network)
        await self._prepare(network, name)
        if network.spec.mode == "libvirt":
            return await self._driver.call(
                f"find network {name}", lambda handle: network_life.check_foreign(handle, name)
            )
        ensuring = Ensuring(network, name, self._files(network), self._own_rules)
        whole = await self._in_turn(network, f"ensure network {name}", lambda handle: ensuring.ensure(handle, wanted))
        if network.spec.ours and not network.spec.hosted:
            await asyncio.to_thread(keep_silent, network.spec.bridge)
        if network.spec.ours:
            self._watched.add(network.uid, name, network.spec.bridge, served=network.spec.hosted)
            await asyncio.to_thread(write_block, self._hosts_file, network.uid, self._host_lines(network))
        return whole

    def _name_on_host(self, network: Network) -> None:
        if network.spec.host_names:
            write_block(self._hosts_file, network.uid, self._host_lines(network))

    def _host_lines(self, network: Network) -> tuple[str, ...]:
        """Full names alone: short ones of two networks would hide each other."""
        if not network.spec.host_names:
            return ()
        known = sorted(self._files(network).known(), key=lambda kept: kept.hostname)
        pairs = ((address, kept.hostname) for kept in known for address in (kept.address, kept.address6) if address)
        return tuple(f"{address} {name}.{network.spec.domain}" for address, name in pairs)

    def tell(self, told: Callable[[], None]) -> None:
        self._watched.tell(told)

    async def broken(self) -> frozenset[str]:
        return self._watched.broken()

    async def _prepare(self, network: Network, name: str) -> None:
        """What of the host's a network stands on. Raises `network-not-found` where it is not there."""
        spec = network.spec
        if spec.mode == "bridge" and spec.nic:
            await ensure_bridge(spec.bridge, spec.nic, spec.vlan)
        elif spec.mode == "bridge" and spec.bridge not in await self.bridges():
            reason = f"the host's bridge {spec.bridge} is gone"
            raise CorralError("network-not-found", f"start network {name}", reason, f"ip link show {spec.bridge}")

    async def reserve(self, network: Network, reservation: Reservation) -> None:
        def act(handle: libvirt.virConnect) -> None:
            found = handle.networkLookupByUUIDString(network.uid)
            network_life.put(found, reservation, self._files(network))
            self._name_on_host(network)

        await self._in_turn(network, f"reserve {reservation.address} in network {self.driver_name(network)}", act)

    async def release(self, network: Network, reservation: Reservation) -> None:
        def act(handle: libvirt.virConnect) -> None:
            files = self._files(network)
            found = network_life.find_network(handle, network.uid)
            if found is not None:
                network_life.drop(found, reservation.mac, files)
            else:
                files.drop(reservation.mac)
            self._name_on_host(network)

        await self._in_turn(network, f"release {reservation.address} in network {self.driver_name(network)}", act)

    async def refresh(self, network: Network) -> None:
        def act(handle: libvirt.virConnect) -> None:
            network_life.refresh(handle.networkLookupByUUIDString(network.uid), self._files(network))

        await self._in_turn(network, f"refresh network {self.driver_name(network)}", act)

    async def _in_turn(self, network: Network, asked: str, act: Callable[[libvirt.virConnect], T]) -> T:
        """One change of a network at a time."""
        async with self._turns[network.uid]:
            return await self._driver.call(asked, act)

    def _files(self, network: Network) -> NetworkFiles:
        files = NetworkFiles(self._root, network.uid, of_router=not network.spec.hosted)
        return self._file_sets.setdefault(network.uid, files)

    async def remove(self, network: Network) -> None:
        def act(handle: libvirt.virConnect) -> None:
            network_life.stop_and_undefine(handle, network.uid)
            self._files(network).remove()
            write_block(self._hosts_file, network.uid, ())

        if network.spec.mode == "libvirt":
            return
        self._watched.remove(network.uid)
        await self._in_turn(network, f"remove network {self.driver_name(network)}", act)
        if network.spec.mode == "bridge" and network.spec.nic:
            await remove_bridge(network.spec.bridge)

    async def used_subnets(self) -> Mapping[str, str]:
        """Networks of libvirt's that are on are seen by their bridges' addresses."""
        routes, idle = await asyncio.gather(used_cidrs(), self._driver.call("list networks", network_life.idle_subnets))
        return {**idle, **routes}

    async def cards(self) -> tuple[HostCard, ...]:
        return await host_cards()

    async def spare_addresses(self) -> tuple[str, ...]:
        return await spare_addresses()

    async def has_vlans(self) -> bool:
        return await has_vlans()

    async def check_settings(self, spec: NetworkSpec) -> None:
        await check_settings(spec)

    async def bridges(self) -> tuple[str, ...]:
        return await asyncio.to_thread(bridges)

    async def observe_all(self) -> tuple[ObservedNetwork, ...]:
        return await self._driver.call("list networks", lambda handle: _observe_all(handle, f"{self._prefix}-"))

    async def shape(self, shapes: Sequence[Shape], ours: frozenset[str]) -> None:
        await self._shaper.shape(shapes, ours)

    async def check_filter(self, text: str) -> None:
        await check_filter(text)

    def capture(self, device: str, wish: CaptureRequest) -> AsyncGenerator[bytes, None]:
        return capture(device, wish)

    async def connections(self) -> Mapping[tuple[int, str], int] | None:
        return await asyncio.to_thread(connections)

    async def leases(self, network: Network) -> tuple[Lease, ...]:
        def act(handle: libvirt.virConnect) -> tuple[Lease, ...]:
            return network_life.leases(handle.networkLookupByUUIDString(network.uid), self._files(network))

        return await self._driver.call(f"read leases of network {self.driver_name(network)}", act)


def _observe_all(handle: libvirt.virConnect, prefix: str) -> tuple[ObservedNetwork, ...]:
    observed = []
    for found in handle.listAllNetworks(0):
        with network_life.unless_gone():
            observed.append(_observed(found, prefix))
    return tuple(observed)


def _observed(found: libvirt.virNetwork, prefix: str) -> ObservedNetwork:
    root = parse_document(found.XMLDesc(0))
    active, name = bool(found.isActive()), found.name()
    ours = name.startswith(prefix)
    kept = parse_document(found.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)) if active and ours else root
    bridge, forward, domain = root.find("bridge"), root.find("forward"), root.find("domain")
    return ObservedNetwork(
        uid=found.UUIDString(),
        name=name,
        active=active,
        bridge="" if bridge is None else bridge.get("name") or "",
        subnet=subnet_of(root),
        mode="isolated" if forward is None else forward.get("mode") or "nat",
        domain="" if domain is None else domain.get("name") or "",
        subnet6=subnet_of(root, "ipv6"),
        whole=active and network_life.is_whole(name, root),
        spec_json=spec_json_of(kept),
        ours=name.removeprefix(prefix) if ours else "",
    )
