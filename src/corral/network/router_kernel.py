"""Routers in the kernel: network namespaces, veth pairs into the bridges, nftables inside. It all goes on without the daemon."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from corral import files, proc
from corral.errors import CorralError
from corral.names import PORT_PREFIX, namespace_name
from corral.network.deaths import Deaths
from corral.network.events import kernel_events
from corral.network.haproxy import Haproxy
from corral.network.host_cards import is_up
from corral.network.router import RouterWish
from corral.network.router_host_routes import HostRoutes, missing
from corral.network.router_options import RouterOptions
from corral.network.router_plan import (
    ObservedPort,
    ObservedRouter,
    arriving_addresses,
    plan_links,
    plan_routes,
)
from corral.network.router_rules import MARK, TABLE, build_mark, build_rules, mark_of
from corral.network.router_served import NAMESPACES, RouterServers

INTERFACES: Final = Path("/sys/class/net")
# Strict reverse paths keep guests from sending under others' addresses; with IPv6 a rule does.
_SWITCHES: Final = (
    *("net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/all/arp_notify"),
    "net/ipv6/conf/all/forwarding",
)
_FORWARDS: Final[dict[str, dict[str, object]]] = {
    "inet": {"forwarding": True, "rp_filter": "strict"},
    "inet6": {"forwarding": True},
}
_SOURCE: Final = re.compile(r"\bsrc=([0-9.]+)")
_TIMEOUT_S: Final = 10.0


class KernelRouters:
    """`RouterDriver` with ip(8), nft(8) and HAProxy. `run_dir` holds the balancers' files: short, and gone at boot;
    `networks_dir` the files that dnsmasq reads."""

    def __init__(self, run_dir: Path, networks_dir: Path) -> None:
        self._networks_dir = networks_dir
        self._deaths = Deaths()
        self._haproxy = Haproxy(run_dir / "balancers", self._deaths)
        self._servers = RouterServers(networks_dir, self._deaths)
        self._host_routes = HostRoutes()

    def tell(self, wake: Callable[[], None]) -> None:
        self._deaths.on_death = wake

    def events(self) -> AsyncGenerator[None, None]:
        return kernel_events()

    async def standing(self, wishes: Sequence[RouterWish]) -> frozenset[str]:
        alive = [wish for wish in wishes if self._haproxy.stands(wish) and self._servers.stands(wish)]
        return await asyncio.to_thread(_standing, alive) if alive else frozenset()

    async def ensure(self, wish: RouterWish) -> None:
        if not await asyncio.to_thread(_exists, wish.namespace):
            # Who takes the installation off the machine without its database knows by this which ones are its.
            # Routes of the host's outlive a namespace: what is noted of them stays.
            if not self._mark(wish.uid).exists():
                await asyncio.to_thread(files.write_atomic, self._mark(wish.uid), b"")
            await _make(wish.namespace)
        observed = await _observe(wish)
        fresh = observed.mark != mark_of(wish)
        # Rules first: there is no instant in which it forwards without them. Then that it is a router, which takes no
        # other's advertisements.
        if fresh:
            await _inside(wish.namespace, ("nft", "-j", "-f", "-"), stdin=build_rules(wish))
        if not observed.forwarding:
            switches = [f"/proc/sys/{switch}" for switch in _SWITCHES if _has_switch(switch)]
            await _inside(wish.namespace, ("tee", *switches), stdin=b"1\n")
        await _ensure_links(wish, observed)
        if fresh:
            await _end_misled(wish)
            await _inside(wish.namespace, ("nft", "-j", "-f", "-"), stdin=build_mark(wish))
        await self._servers.ensure(wish)
        await self._haproxy.ensure(wish)
        await self._host_routes.ensure(self._mark(wish.uid), wish.host_routes)

    async def remove(self, uid: str) -> None:
        namespace = namespace_name(uid)
        await self._host_routes.remove(self._mark(uid))
        await self._servers.remove(namespace)
        await self._haproxy.remove(uid)
        if (NAMESPACES / namespace).exists():
            # The interfaces go with it, but only once the kernel gets round to it: not before somebody else has the address.
            if await asyncio.to_thread(_exists, namespace):
                (links,) = await _shown(namespace, "addr show")
                inner = [name for name in _ports(links) if name.startswith(PORT_PREFIX)]
                await _batch(("-n", namespace), [f"link del {name}" for name in inner])
            await proc.run((proc.require("ip", "iproute2"), "netns", "del", namespace), timeout_s=_TIMEOUT_S)
        self._mark(uid).unlink(missing_ok=True)

    def _mark(self, uid: str) -> Path:
        return self._networks_dir / f"{namespace_name(uid)}.router"

    async def tell_guests(self, network_uid: str, lines: Sequence[str]) -> bool:
        return await asyncio.to_thread(self._options(network_uid).write, lines)

    async def guests_told(self, network_uid: str, lines: Sequence[str]) -> None:
        await asyncio.to_thread(self._options(network_uid).note_read, lines)

    def _options(self, network_uid: str) -> RouterOptions:
        return RouterOptions(self._networks_dir, network_uid)


# ---- looking -------------------------------------------------------------------------------------------------------


def _exists(namespace: str) -> bool:
    """A file without a namespace on it is what a creation that was cut short has left."""
    try:
        return (NAMESPACES / namespace).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def _standing(wishes: Sequence[RouterWish]) -> frozenset[str]:
    """An interface whose other side has gone would be gone, too."""
    led = frozenset(missing([one for wish in wishes for one in wish.host_routes]))
    return frozenset(
        wish.uid
        for wish in wishes
        if led.isdisjoint(wish.host_routes)
        and _exists(wish.namespace)
        and all(_master(port.interface) == port.bridge for port in wish.all_ports)
    )


async def _make(namespace: str) -> None:
    ip = proc.require("ip", "iproute2")
    if (NAMESPACES / namespace).exists():
        (NAMESPACES / namespace).unlink()
    await proc.run((ip, "netns", "add", namespace), timeout_s=_TIMEOUT_S)


async def _observe(wish: RouterWish) -> ObservedRouter:
    namespace = wish.namespace
    chains = _parsed(await _inside(namespace, ("nft", "-j", "list", "chains"), check=False))
    names = (one.get("chain", {}) for one in chains.get("nftables", ())) if isinstance(chains, dict) else ()
    marks = [chain["name"] for chain in names if chain.get("table") == TABLE and _is_mark(chain["name"])]
    links, routes, switches = await _shown(namespace, "addr show", "route show", "netconf show")
    routes += await _routes6(wish)
    return ObservedRouter(
        exists=True,
        outer=await asyncio.to_thread(_outer, wish),
        inner=_ports(links),
        routes=_hops(routes),
        mark=marks[0] if len(marks) == 1 else "",
        forwarding=_is_router(switches),
    )


def _is_router(switches: list[Any]) -> bool:
    """As netconf says it of all interfaces."""
    found = {one["family"]: one for one in switches if one.get("interface") == "all"}
    return "inet" in found and all(
        found[family].get(key) == value
        for family, wished in _FORWARDS.items()
        if family in found
        for key, value in wished.items()
    )


def _has_switch(switch: str) -> bool:
    """A kernel may be without IPv6."""
    return Path(f"/proc/sys/{switch}").exists()


def _outer(wish: RouterWish) -> dict[str, ObservedPort]:
    """The host's side of its ports, without a look at everybody's."""
    there = (port.interface for port in wish.all_ports if (INTERFACES / port.interface).exists())
    return {name: ObservedPort(is_up(name), _master(name), mtu=_mtu(name)) for name in there}


def _mtu(interface: str) -> int:
    try:
        return int((INTERFACES / interface / "mtu").read_text())
    except OSError:  # it goes this instant
        return 0


def _master(interface: str) -> str:
    try:
        return (INTERFACES / interface / "master").readlink().name
    except OSError:
        return ""


def _is_mark(name: str) -> bool:
    return re.fullmatch(f"{MARK}[0-9a-f]{{16}}", name) is not None


async def _shown(namespace: str, *queries: str) -> list[list[Any]]:
    """What ip(8) answers to each, asked by one process."""
    argv = (proc.require("ip", "iproute2"), "-j", "-n", namespace, "-batch", "-")
    text = "".join(f"{query}\n" for query in queries).encode()
    said = (await proc.run(argv, timeout_s=_TIMEOUT_S, stdin=text)).stdout.decode()
    answers: list[list[Any]] = []
    decoder, at = json.JSONDecoder(), 0
    while len(answers) < len(queries) and (found := said.find("[", at)) >= 0:
        answer, at = decoder.raw_decode(said, found)
        answers.append(answer)
    return [*answers, *([] for _ in range(len(queries) - len(answers)))]


def _ports(links: list[Any]) -> dict[str, ObservedPort]:
    return {
        link["ifname"]: ObservedPort(
            up="UP" in link["flags"],
            mtu=link.get("mtu", 0),
            mac=link.get("address", ""),
            cidrs=frozenset(
                f"{one['local']}/{one['prefixlen']}"
                for one in link["addr_info"]
                if one["family"] == "inet" or one.get("scope") == "global"
            ),
        )
        for link in links
        if link
    }


async def _routes(wish: RouterWish) -> frozenset[tuple[str, str]]:
    (routes,) = await _shown(wish.namespace, "route show")
    return _hops(routes + await _routes6(wish))


async def _routes6(wish: RouterWish) -> list[Any]:
    """Asked where there may be any."""
    if not any(port.address6 for port in wish.all_ports):
        return []
    argv = (proc.require("ip", "iproute2"), "-n", wish.namespace, "-j", "-6", "route")
    found: list[Any] = _parsed((await proc.run(argv, timeout_s=_TIMEOUT_S)).stdout)
    return found


def _hops(routes: list[Any]) -> frozenset[tuple[str, str]]:
    return frozenset((route["dst"], route["gateway"]) for route in routes if route and "gateway" in route)


def _parsed(output: bytes) -> Any:
    return json.loads(output.strip() or b"[]")


# ---- acting --------------------------------------------------------------------------------------------------------


async def _ensure_links(wish: RouterWish, observed: ObservedRouter) -> None:
    commands = plan_links(wish, observed)
    await _batch((), commands.outer)
    await _batch(("-n", wish.namespace), commands.inner)
    # With an interface or address its routes go, too.
    routes = await _routes(wish) if commands.outer or commands.inner else observed.routes
    await _batch(("-n", wish.namespace), plan_routes(wish, routes))
    await asyncio.gather(*(_announce(wish.namespace, *one) for one in arriving_addresses(wish, observed)))


async def _end_misled(wish: RouterWish) -> None:
    """Connections to a floating address that go on leading where it led before."""
    for one in wish.floating:
        listed = await _inside(wish.namespace, ("conntrack", "-L", "--orig-dst", one.outer), check=False)
        targets = {found[1] for line in listed.decode().splitlines() if len(found := _SOURCE.findall(line)) > 1}
        for old in sorted(targets - {one.inner}):
            ends = ("conntrack", "-D", "--orig-dst", one.outer, "--reply-src", old)
            await _inside(wish.namespace, ends, check=False)  # 1: it has ended by itself


async def _inside(namespace: str, argv: Sequence[str], *, stdin: bytes | None = None, check: bool = True) -> bytes:
    ip = proc.require("ip", "iproute2")
    done = await proc.run((ip, "netns", "exec", namespace, *argv), timeout_s=_TIMEOUT_S, stdin=stdin, check=check)
    return done.stdout


async def _batch(where: tuple[str, ...], lines: Sequence[str]) -> None:
    """All of them, or `command-failed` with the first that the kernel refused."""
    if not lines:
        return
    text = "".join(f"{line}\n" for line in lines).encode()
    await proc.run((proc.require("ip", "iproute2"), *where, "-batch", "-"), timeout_s=_TIMEOUT_S, stdin=text)


async def _announce(namespace: str, interface: str, address: str) -> None:
    """Tell the neighbours, who may remember another place of this address (a gratuitous ARP, RFC 5227)."""
    argv = ("busybox", "arping", "-U", "-c", "1", "-w", "1", "-I", interface, address)
    try:
        await _inside(namespace, argv, check=False)
    except CorralError as error:
        if error.code not in ("command-missing", "command-timeout"):  # neighbours find out by themselves, later
            raise
