"""Networks in memory: switched on, with the addresses reserved in them."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.model.network import Network, Reservation
from corral.network.base import Lease, ObservedNetwork
from corral.simulation import Simulation


@dataclass
class FakeNetwork:
    """One network; reservations by MAC."""

    name: str
    bridge: str
    subnet: str
    active: bool = True
    reservations: dict[str, Reservation] = field(default_factory=dict)


_NETWORKS: Final = TypeAdapter(dict[str, FakeNetwork])


class FakeNetworks:
    """The network contract over a dictionary."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        saved = simulation.restore("networks")
        self.networks: dict[str, FakeNetwork] = {} if saved is None else _NETWORKS.validate_python(saved)
        simulation.sections["networks"] = lambda: _NETWORKS.dump_python(self.networks, mode="json")

    def driver_name(self, network: Network) -> str:
        return f"fake-{network.name}"

    async def ensure(self, network: Network, reservations: Sequence[Reservation]) -> None:
        async with self._call("ensure"):
            known = self.networks.setdefault(
                network.uid, FakeNetwork(self.driver_name(network), network.spec.bridge, network.spec.subnet)
            )
            known.active = True
            known.reservations = {reservation.mac: reservation for reservation in reservations}

    async def reserve(self, network: Network, reservation: Reservation) -> None:
        async with self._call("reserve"):
            self._known(network).reservations[reservation.mac] = reservation

    async def release(self, network: Network, reservation: Reservation) -> None:
        async with self._call("release"):
            known = self.networks.get(network.uid)
            if known is not None:
                known.reservations.pop(reservation.mac, None)

    async def remove(self, network: Network) -> None:
        async with self._call("remove"):
            self.networks.pop(network.uid, None)

    async def observe_all(self) -> tuple[ObservedNetwork, ...]:
        async with self._call("observe_all", changes=False):
            return tuple(
                ObservedNetwork(uid, known.name, known.active, known.bridge, known.subnet)
                for uid, known in self.networks.items()
            )

    async def leases(self, network: Network) -> tuple[Lease, ...]:
        async with self._call("leases", changes=False):
            return tuple(
                Lease(kept.mac, kept.address, kept.hostname) for kept in self._known(network).reservations.values()
            )

    def _call(self, name: str, *, changes: bool = True) -> AbstractAsyncContextManager[None]:
        return self.simulation.call(f"network.{name}", changes=changes, connection=True)

    def _known(self, network: Network) -> FakeNetwork:
        known = self.networks.get(network.uid)
        if known is None:
            raise CorralError("network-not-found", f"network {network.name}", "the hypervisor does not know it")
        return known
