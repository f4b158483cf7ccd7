"""What a router shall be in the kernel, in plain values, and the contract of whoever makes it so."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from corral.names import namespace_name


@dataclass(frozen=True)
class PortWish:
    """An interface of the router in a network's bridge; it has the same name on both sides."""

    interface: str
    bridge: str
    mac: str
    address: str
    prefix_length: int
    floating: tuple[str, ...] = ()
    """Further addresses, each a host's own (/32)."""
    address6: str = ""
    """Of its network's /64; empty: the network has no IPv6."""
    mtu: int = 1500

    @property
    def cidrs(self) -> tuple[str, ...]:
        six = (f"{self.address6}/64",) if self.address6 else ()
        return (f"{self.address}/{self.prefix_length}", *(f"{address}/32" for address in self.floating), *six)


@dataclass(frozen=True)
class ServedWish:
    """A network whose gateway the router is: dnsmasq serves addresses and names on it, or advertises the router alone."""

    network_uid: str
    interface: str
    lines: tuple[str, ...]
    """dnsmasq's words."""
    relay: str = ""
    """The DHCP server elsewhere that answers what is passed on."""
    gateway: bool = True
    """Guests ask it; else they ask the host, and it says which way leads out."""


@dataclass(frozen=True)
class HostRouteWish:
    """What the host sends to the router, to its uplink's address and by that network's bridge."""

    to: str
    via: str
    bridge: str


@dataclass(frozen=True)
class RouteWish:
    to: str
    """A CIDR, or `default`."""
    via: str

    @property
    def six(self) -> bool:
        return ":" in self.via


@dataclass(frozen=True)
class ForwardWish:
    protocol: str
    port: int
    to_address: str
    to_port: int


@dataclass(frozen=True)
class FloatingWish:
    outer: str
    inner: str


@dataclass(frozen=True)
class ServerWish:
    """A VM behind a balancer; `name` is its own."""

    name: str
    address: str


@dataclass(frozen=True)
class BalancerWish:
    uid: str
    name: str
    listen: int
    port: int
    mode: str
    algorithm: str
    servers: tuple[ServerWish, ...]
    check_path: str
    """Empty: it is enough that a connection is taken."""
    check_interval_s: int


@dataclass(frozen=True)
class RouterWish:
    """Everything about one router. `ports` are the inner ones; `uplink` leads out."""

    uid: str
    ports: tuple[PortWish, ...] = ()
    uplink: PortWish | None = None
    masquerade: bool = False
    """Guests go out under the uplink's address, and nobody comes in who was not forwarded."""
    routes: tuple[RouteWish, ...] = ()
    forwards: tuple[ForwardWish, ...] = ()
    floating: tuple[FloatingWish, ...] = ()
    balancers: tuple[BalancerWish, ...] = ()
    served: tuple[ServedWish, ...] = ()
    host_routes: tuple[HostRouteWish, ...] = ()

    @property
    def namespace(self) -> str:
        return namespace_name(self.uid)

    @property
    def all_ports(self) -> tuple[PortWish, ...]:
        return (*self.ports, *((self.uplink,) if self.uplink is not None else ()))


class RouterDriver(Protocol):
    """Every method may be repeated, after a death in its middle too. Raises CorralError: `command-*`, `network-not-found`."""

    def tell(self, wake: Callable[[], None]) -> None:
        """`wake` is called when something of it has died."""
        ...

    def events(self) -> AsyncGenerator[None, None]:
        """An item whenever something of the kernel's network has changed, for ever."""
        ...

    async def standing(self, wishes: Sequence[RouterWish]) -> frozenset[str]:
        """A quick look at all of them, by which nothing is started: whose namespaces, interfaces and processes are there."""
        ...

    async def ensure(self, wish: RouterWish) -> None:
        """There, and exactly so; what is right is not touched, and connections go on."""
        ...

    async def remove(self, uid: str) -> None:
        """Gone, with its interfaces, processes and files."""
        ...

    async def tell_guests(self, network_uid: str, lines: Sequence[str]) -> bool:
        """Options for the network's DHCP (dnsmasq's `dhcp-optsfile`); whether it is still to read them."""
        ...

    async def guests_told(self, network_uid: str, lines: Sequence[str]) -> None:
        """It has read them."""
        ...
