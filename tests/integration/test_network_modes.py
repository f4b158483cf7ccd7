"""Networks of each mode through libvirt, seen by machines that are plugged into them: DHCP, names, IPv6, live changes."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from wired_guest import WiredGuest, wired_guest

from corral.hypervisor.libvirt import LibvirtDriver, LibvirtNetworks
from corral.hypervisor.libvirt.network_life import dnsmasq_of
from corral.model.network import Network, NetworkSpec, Reservation
from corral.model.network_parts import DhcpOption, NetworkBoot
from corral.names import new_mac, new_uid
from corral.network.addresses import address6_of, eui64
from corral.network.subnets import choose_subnet, choose_subnet6

PATIENCE_S = 15.0


class World:
    """A driver, and one network made with it."""

    def __init__(self, networks: LibvirtNetworks, network: Network, place: Path) -> None:
        self.networks, self.network, self.place = networks, network, place

    @property
    def spec(self) -> NetworkSpec:
        return self.network.spec

    def reservation(self, number: int, name: str, mac: str = "") -> Reservation:
        address, mac = f"{self.spec.subnet.rsplit('.', 1)[0]}.{number}", mac or new_mac()
        address6 = address6_of(self.spec, address, mac)
        return Reservation(mac=mac, address=address, hostname=name, vm_uid=new_uid(), address6=address6)

    async def changed(self, *kept: Reservation, **update: object) -> bool:
        spec = self.spec.model_copy(update=update)
        self.network = self.network.model_copy(update={"spec": spec})
        return await self.networks.ensure(self.network, kept)


def on_network(open_dir: Path, act: Callable[[World], Awaitable[None]], **wished: object) -> None:
    async def run() -> None:
        driver = await LibvirtDriver.open("qemu:///system", timeout_s=30)
        uid = new_uid()
        networks = LibvirtNetworks(driver, uid, open_dir / "reservations", hosts_file=open_dir / "hosts")
        used = await networks.used_subnets()
        fields = {"subnet": choose_subnet(used), "domain": "test.internal", "bridge": f"ct{uid[:8]}", **wished}
        if fields.get("ipv6"):
            fields["subnet6"] = choose_subnet6(used)
        network = Network(name="n", uid=uid, created_at=datetime.now(UTC), spec=NetworkSpec.model_validate(fields))
        world = World(networks, network, open_dir)
        try:
            assert await networks.ensure(network, ())
            await act(world)
        finally:
            await networks.remove(network)
            await driver.close()

    asyncio.run(run())


async def eventually(wanted: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(wanted):
        assert time.monotonic() < end_s, what
        await asyncio.sleep(0.1)


def dhcp6(guest: WiredGuest) -> list[str]:
    """Ask a DHCPv6 server with dhclient, which leaves the address to us: the lease says it."""
    leases = guest.place / f"{guest.namespace}.leases6"
    ran = guest.run(
        *("dhclient", "-6", "-1", "-v", "-sf", "/bin/true", "-lf", str(leases), "-pf", f"{leases}.pid", "eth0"),
        timeout_s=40,
    )
    with contextlib.suppress(OSError, ValueError):  # it stays to renew; its number is in its own file
        os.kill(int(Path(f"{leases}.pid").read_text()), 15)
    text = leases.read_text() if leases.exists() else ran.stderr
    return [line.split()[1] for line in text.splitlines() if line.strip().startswith("iaaddr ")]


def test_a_routed_network_serves_both_families_and_is_left_alone_by_libvirts_nat(open_dir: Path) -> None:
    async def act(world: World) -> None:
        web = world.reservation(77, "web")
        await world.networks.reserve(world.network, web)
        with wired_guest(world.spec.bridge, web.mac, open_dir) as guest:
            got = await asyncio.to_thread(guest.dhcp)
            assert (got["ip"], got["router"], got["mtu"]) == (web.address, world.spec.gateway, "1400")
            assert web.address in guest.resolves("web.test.internal", world.spec.gateway)
            assert web.address6 in guest.resolves("web.test.internal", world.spec.gateway)
            assert guest.pings(world.spec.gateway)
            # A neighbour asks and is answered before DHCPv6 has one: the link-local address takes a second.
            await eventually(lambda: web.address6 in dhcp6(guest), f"no {web.address6}")
        assert Path(f"/sys/class/net/{world.spec.bridge}/mtu").read_text().strip() == "1400"

    on_network(open_dir, act, mode="routed", ipv6="dhcp", mtu=1400)


def test_a_guest_makes_the_ipv6_address_that_was_foreseen_of_its_mac(open_dir: Path) -> None:
    async def act(world: World) -> None:
        mac = new_mac()
        foreseen = eui64(world.spec.subnet6, mac)
        assert world.reservation(9, "x", mac).address6 == foreseen
        with wired_guest(world.spec.bridge, mac, open_dir, accept_ra=True) as guest:
            await eventually(lambda: foreseen in guest.addresses("-6"), f"no {foreseen}: {guest.addresses('-6')}")
            await eventually(lambda: guest.pings(world.spec.gateway6), "the gateway does not answer")
            route = guest.run("ip", "-6", "route", "show", "default").stdout
        assert "default via fe80::" not in route  # an isolated network names no way out

    on_network(open_dir, act, mode="isolated", ipv6="slaac")


def test_what_dhcp_and_dns_serve_changes_while_guests_are_on(open_dir: Path) -> None:
    async def act(world: World) -> None:
        prefix = world.spec.subnet.rsplit(".", 1)[0]
        printer = world.reservation(200, "printer")
        stranger = new_mac()
        with wired_guest(world.spec.bridge, stranger, open_dir) as guest:
            first = await asyncio.to_thread(guest.dhcp)
            assert "router" not in first  # isolated
            assert await world.changed(
                printer,
                dhcp_first=f"{prefix}.50",
                dhcp_last=f"{prefix}.50",
                dhcp_options=(DhcpOption(code=42, value=f"{prefix}.5"),),
                boot=NetworkBoot(file="pxelinux.0", server=f"{prefix}.6"),
            )
            assert printer.address in guest.resolves("printer", world.spec.gateway)
        with wired_guest(world.spec.bridge, new_mac(), open_dir) as guest:
            got = await asyncio.to_thread(guest.dhcp)
            assert (got["ip"], got["ntpsrv"]) == (f"{prefix}.50", f"{prefix}.5")
            assert (got["siaddr"], got["boot_file"]) == (f"{prefix}.6", "pxelinux.0")
        # A router that is connected later, and taken away again: a file beside, read when told.
        options = open_dir / "reservations" / f"{world.network.uid}.opts"
        (options / "router").write_text(f"option:router,{prefix}.7\n")
        await world.networks.refresh(world.network)
        with wired_guest(world.spec.bridge, printer.mac, open_dir) as guest:
            got = await asyncio.to_thread(guest.dhcp)
            assert (got["ip"], got["router"]) == (printer.address, f"{prefix}.7")
            (options / "router").unlink()
            await world.networks.refresh(world.network)
            await eventually(lambda: "router" not in guest.dhcp(), "the way out is still told")

    on_network(open_dir, act, mode="isolated")


def test_names_from_elsewhere_are_asked_of_the_servers_that_were_named(open_dir: Path) -> None:
    """The second network's server asks the first one's, and stops when that is taken away from it."""

    async def act(world: World) -> None:
        elder = world.reservation(30, "elder")
        await world.networks.reserve(world.network, elder)

        async def younger(other: World) -> None:
            with wired_guest(other.spec.bridge, new_mac(), open_dir) as guest:
                await asyncio.to_thread(guest.dhcp)
                name = "elder.test.internal"
                assert elder.address not in guest.resolves(name, other.spec.gateway)
                assert await other.changed(dns=(world.spec.gateway,))
                assert elder.address in guest.resolves(name, other.spec.gateway)
                assert await other.changed(dns=())
                assert elder.address not in guest.resolves(name, other.spec.gateway)

        await asyncio.to_thread(on_network, open_dir, younger, domain="other.internal", mode="isolated")

    on_network(open_dir, act, mode="isolated")


def test_names_on_the_host_come_and_go_beside_what_others_wrote(open_dir: Path) -> None:
    hosts = open_dir / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")

    async def act(world: World) -> None:
        web, db = world.reservation(10, "web"), world.reservation(11, "db")
        await world.networks.reserve(world.network, web)
        assert "web" in hosts.read_text()
        hosts.write_text(hosts.read_text() + "10.9.9.9 mine\n")
        await world.networks.reserve(world.network, db)
        assert f"{db.address} db.test.internal\n{web.address} web.test.internal\n" in hosts.read_text()
        await world.networks.release(world.network, web)
        assert "web" not in hosts.read_text()
        assert await world.changed(db, host_names=False)
        assert hosts.read_text() == "127.0.0.1 localhost\n10.9.9.9 mine\n"

    on_network(open_dir, act, mode="isolated", host_names=True)
    assert hosts.read_text() == "127.0.0.1 localhost\n10.9.9.9 mine\n"


def test_a_killed_server_and_a_deleted_bridge_come_back_with_their_guests(open_dir: Path) -> None:
    async def act(world: World) -> None:
        name = world.networks.driver_name(world.network)
        told = asyncio.Event()
        world.networks.tell(told.set)
        kept = world.reservation(40, "kept")
        await world.networks.reserve(world.network, kept)
        assert not await world.networks.broken()
        pid = dnsmasq_of(name)
        assert pid is not None
        os.kill(pid, 9)
        async with asyncio.timeout(5):
            await told.wait()
        assert await world.networks.broken() == {world.network.uid}
        assert await world.networks.ensure(world.network, (kept,))
        assert not await world.networks.broken()
        with wired_guest(world.spec.bridge, kept.mac, open_dir) as guest:
            assert (await asyncio.to_thread(guest.dhcp))["ip"] == kept.address

        os.system(f"ip link delete {world.spec.bridge}")
        assert await world.networks.broken() == {world.network.uid}
        assert await world.networks.ensure(world.network, (kept,))
        assert not await world.networks.broken()
        with wired_guest(world.spec.bridge, kept.mac, open_dir) as guest:
            assert (await asyncio.to_thread(guest.dhcp))["ip"] == kept.address

    on_network(open_dir, act, mode="isolated")


def test_where_a_router_is_the_gateway_the_host_is_nobody(open_dir: Path) -> None:
    async def act(world: World) -> None:
        bridge, kept = world.spec.bridge, world.reservation(77, "web")
        shown = subprocess.run(["ip", "-o", "addr", "show", "dev", bridge], check=True, capture_output=True, text=True)
        assert shown.stdout == ""
        assert Path(f"/proc/sys/net/ipv4/conf/{bridge}/arp_ignore").read_text().strip() == "8"
        assert dnsmasq_of(world.networks.driver_name(world.network)) is None
        assert await world.networks.broken() == frozenset()
        await world.networks.reserve(world.network, kept)
        uid = world.network.uid
        assert kept.address in (world.place / "reservations" / uid / kept.mac.replace(":", "-")).read_text()
        assert await world.networks.leases(world.network) == ()
        assert await world.changed(kept, dns=("9.9.9.9",))
        subprocess.run(["ip", "link", "del", bridge], check=True)
        assert await world.networks.broken() == frozenset({uid})
        assert await world.changed(kept)
        assert Path(f"/proc/sys/net/ipv4/conf/{bridge}/arp_ignore").read_text().strip() == "8"
        await world.networks.release(world.network, kept)

    on_network(open_dir, act, mode="isolated", gateway_at="router")
