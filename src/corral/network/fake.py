"""Networks in memory: switched on, with the addresses reserved in them."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.model.capture import CaptureRequest
from corral.model.network import Network, NetworkSpec, Reservation
from corral.network.base import HostCard, Lease, ObservedNetwork
from corral.network.pcap import empty_capture
from corral.network.shaping import Shape
from corral.simulation import Simulation


@dataclass
class FakeNetwork:
    """One network; reservations by MAC."""

    name: str
    bridge: str
    subnet: str
    active: bool = True
    mode: str = "nat"
    domain: str = ""
    subnet6: str = ""
    spec_json: str = ""
    reservations: dict[str, Reservation] = field(default_factory=dict)


_NETWORK: Final = TypeAdapter(FakeNetwork)
_RESERVATION: Final = TypeAdapter(tuple[str, Reservation])


class FakeNetworks:
    """The network contract over a dictionary."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.outdated = False
        """They run with an older definition, and guests are plugged in."""
        self.lost: set[str] = set()
        """Networks whose bridge somebody took away."""
        self.foreign: list[ObservedNetwork] = []
        """Made by others."""
        self.shapes: dict[str, Shape] = {}
        # Reservations are kept one by one: a network of thousands is not written anew for each.
        self._kept = simulation.section("networks", _NETWORK)
        self._kept_reservations = simulation.section("reservations", _RESERVATION)
        self.networks = self._kept.restore()
        for uid, reservation in self._kept_reservations.restore().values():
            self.networks[uid].reservations[reservation.mac] = reservation

    def driver_name(self, network: Network) -> str:
        return f"fake-{network.name}"

    async def ensure(self, network: Network, reservations: Sequence[Reservation]) -> bool:
        async with self._call("ensure"):
            if network.spec.mode == "libvirt":
                return True
            known = self.networks.setdefault(
                network.uid, FakeNetwork(self.driver_name(network), network.spec.bridge, network.spec.subnet)
            )
            known.mode, known.domain = network.spec.mode, network.spec.domain
            known.subnet6, known.spec_json = network.spec.subnet6, network.spec.model_dump_json()
            known.active = True
            self.lost.discard(network.uid)
            self._kept.keep(network.uid, replace(known, reservations={}))
            wanted = {reservation.mac: reservation for reservation in reservations}
            for mac in known.reservations.keys() - wanted.keys():
                self._forget(network.uid, known, mac)
            for reservation in reservations:
                self._reserve(network.uid, known, reservation)
            return not self.outdated

    async def reserve(self, network: Network, reservation: Reservation) -> None:
        async with self._call("reserve"):
            self._reserve(network.uid, self._known(network), reservation)

    async def release(self, network: Network, reservation: Reservation) -> None:
        async with self._call("release"):
            known = self.networks.get(network.uid)
            if known is not None:
                self._forget(network.uid, known, reservation.mac)

    async def refresh(self, network: Network) -> None:
        async with self._call("refresh"):
            self._known(network)

    async def remove(self, network: Network) -> None:
        async with self._call("remove"):
            known = self.networks.pop(network.uid, None)
            if known is not None:
                for mac in list(known.reservations):
                    self._forget(network.uid, known, mac)
                self._kept.keep(network.uid, None)

    async def observe_all(self) -> tuple[ObservedNetwork, ...]:
        async with self._call("observe_all"):
            return tuple(
                ObservedNetwork(
                    uid,
                    known.name,
                    known.active,
                    known.bridge,
                    known.subnet,
                    known.mode,
                    known.domain,
                    known.name.removeprefix("fake-"),
                    known.subnet6,
                    spec_json=known.spec_json,
                    whole=uid not in self.lost,
                )
                for uid, known in self.networks.items()
            ) + tuple(self.foreign)

    def tell(self, told: Callable[[], None]) -> None:
        """Nothing goes here without being told."""

    async def broken(self) -> frozenset[str]:
        return frozenset(self.lost)

    async def used_subnets(self) -> Mapping[str, str]:
        return {}

    async def cards(self) -> tuple[HostCard, ...]:
        return (HostCard("eth0", ("192.0.2.2/24",)), HostCard("eth1"), HostCard("eth2", (), "br0"))

    async def spare_addresses(self) -> tuple[str, ...]:
        return ("203.0.113.7", "203.0.113.8")

    async def has_vlans(self) -> bool:
        return True

    async def check_settings(self, spec: NetworkSpec) -> None:
        async with self._call("check_settings"):
            return

    async def bridges(self) -> tuple[str, ...]:
        return ("br0", *(known.bridge for known in self.networks.values()))

    async def shape(self, shapes: Sequence[Shape], ours: frozenset[str]) -> None:
        self.shapes = {shape.device: shape for shape in shapes if shape.device in ours and shape.wished}

    async def check_filter(self, text: str) -> None:
        if text.startswith("-"):
            raise CorralError(
                "invalid-argument", f"filter {text!r}", "can't parse filter expression", "see man pcap-filter"
            )

    async def capture(self, device: str, wish: CaptureRequest) -> AsyncGenerator[bytes, None]:
        """Nothing passes."""
        yield empty_capture(wish.snap_bytes)

    async def connections(self) -> Mapping[tuple[int, str], int]:
        return {}

    async def leases(self, network: Network) -> tuple[Lease, ...]:
        async with self._call("leases"):
            return tuple(
                Lease(kept.mac, kept.address, kept.hostname) for kept in self._known(network).reservations.values()
            )

    def _reserve(self, uid: str, known: FakeNetwork, reservation: Reservation) -> None:
        if known.reservations.get(reservation.mac) != reservation:
            known.reservations[reservation.mac] = reservation
            self._kept_reservations.keep(f"{uid} {reservation.mac}", (uid, reservation))

    def _forget(self, uid: str, known: FakeNetwork, mac: str) -> None:
        if known.reservations.pop(mac, None) is not None:
            self._kept_reservations.keep(f"{uid} {mac}", None)

    def _call(self, name: str) -> AbstractAsyncContextManager[None]:
        return self.simulation.call(f"network.{name}", connection=True)

    def _known(self, network: Network) -> FakeNetwork:
        known = self.networks.get(network.uid)
        if known is None:
            raise CorralError("network-not-found", f"network {network.name}", "the hypervisor does not know it")
        return known
