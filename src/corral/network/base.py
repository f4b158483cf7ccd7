"""The network driver's contract."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from corral.model.capture import CaptureRequest
from corral.model.network import Network, NetworkSpec, Reservation
from corral.network.shaping import Shape


@dataclass(frozen=True)
class ObservedNetwork:
    """A libvirt network. `uid` is its UUID: ours has the Network object's uid."""

    uid: str
    name: str
    active: bool
    bridge: str
    subnet: str
    """CIDR of its first IPv4 address, or empty."""
    mode: str = ""
    """As libvirt has it; `isolated` where it forwards nothing."""
    domain: str = ""
    ours: str = ""
    """The name that this installation knows it by; empty: it is somebody else's."""
    subnet6: str = ""
    whole: bool = True
    """Its bridge is there, and who serves addresses on it lives; someone may have taken them away."""
    spec_json: str = ""
    """The spec that it was made of."""


@dataclass(frozen=True)
class HostCard:
    """An interface of the host's."""

    name: str
    addresses: tuple[str, ...] = ()
    master: str = ""
    """The bridge, or bond, that it is a port of."""


@dataclass(frozen=True)
class Lease:
    mac: str
    address: str
    hostname: str


class NetworkDriver(Protocol):
    """Every method may be repeated. Raises CorralError: `hypervisor-*`, `network-not-found`."""

    def driver_name(self, network: Network) -> str:
        """What the hypervisor calls it; differs between installations on one host."""
        ...

    async def ensure(self, network: Network, reservations: Sequence[Reservation]) -> bool:
        """Defined, started, with exactly these reservations in DHCP and DNS; live, without cutting anyone off.

        False: guests are plugged into it and it runs with an older definition; the new one waits until none is."""
        ...

    async def reserve(self, network: Network, reservation: Reservation) -> None: ...

    async def release(self, network: Network, reservation: Reservation) -> None: ...

    async def refresh(self, network: Network) -> None:
        """What serves DHCP and names on it reads the files beside its reservations again."""
        ...

    async def remove(self, network: Network) -> None: ...

    async def observe_all(self) -> tuple[ObservedNetwork, ...]: ...

    def tell(self, told: Callable[[], None]) -> None:
        """Call `told`, in the event loop, when something of an ensured network may have gone."""
        ...

    async def broken(self) -> frozenset[str]:
        """The uids of ensured networks whose bridge or DHCP server is gone; quickly, it is asked often."""
        ...

    async def used_subnets(self) -> Mapping[str, str]:
        """CIDRs that the host has or reaches by a route, with who has each: no network of ours may overlap them."""
        ...

    async def bridges(self) -> tuple[str, ...]:
        """The host's bridges, ours and others'."""
        ...

    async def cards(self) -> tuple[HostCard, ...]:
        """The host's interfaces that a bridge can be made over, or that macvtap can use."""
        ...

    async def spare_addresses(self) -> tuple[str, ...]:
        """IPv4 addresses that the host has besides the first of each interface."""
        ...

    async def has_vlans(self) -> bool:
        """The kernel tags frames."""
        ...

    async def check_settings(self, spec: NetworkSpec) -> None:
        """Who serves DHCP and names would take it. Raises `invalid-argument`."""
        ...

    async def shape(self, shapes: Sequence[Shape], ours: frozenset[str]) -> None:
        """All devices of `ours` as `shapes` wish them, and the others of them without a limit."""
        ...

    async def check_filter(self, text: str) -> None:
        """Raise `invalid-argument` for a filter of packets that is not understood."""
        ...

    def capture(self, device: str, wish: CaptureRequest) -> AsyncGenerator[bytes, None]:
        """A capture file in pieces of whole packets. Raises `wrong-state` where there is no such device."""
        ...

    async def connections(self) -> Mapping[tuple[int, str], int] | None:
        """How many tracked connections each address has a part in, by the zone that it is tracked in; None: unknown."""
        ...

    async def leases(self, network: Network) -> tuple[Lease, ...]: ...
