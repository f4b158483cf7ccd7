"""A network with a real guest in it: the reserved address by DHCP, the name in DNS, live changes, nothing left."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from libvirt_fixtures import Make

from corral import proc
from corral.hypervisor.base import DomainNic
from corral.hypervisor.libvirt import LibvirtDriver, LibvirtNetworks
from corral.model.network import Network, NetworkSpec, Reservation
from corral.names import new_mac, new_uid
from corral.network.host_routes import used_cidrs
from corral.network.subnets import choose_subnet


async def resolved(name: str, server: str) -> bool:
    done = await proc.run(("busybox", "nslookup", name, server), timeout_s=10, check=False)
    return b"Name:" in done.stdout


async def eventually(name: str, server: str, wanted: bool) -> None:
    async with asyncio.timeout(10):
        while await resolved(name, server) is not wanted:
            await asyncio.sleep(0.1)


async def free_network(networks: LibvirtNetworks, installation: str) -> Network:
    used = (*await used_cidrs(), *(seen.subnet for seen in await networks.observe_all()))
    return Network(
        name="default",
        uid=new_uid(),
        created_at=datetime.now(UTC),
        spec=NetworkSpec(subnet=choose_subnet(used), domain="test.internal", bridge=f"ct{installation[:8]}"),
    )


def test_a_guest_gets_its_reserved_address_and_its_name_resolves(open_dir: Path, micro_definition: Make) -> None:
    async def run() -> None:
        driver = await LibvirtDriver.open("qemu:///system", timeout_s=30)
        installation = new_uid()
        networks = LibvirtNetworks(driver, installation, open_dir / "reservations")
        network = await free_network(networks, installation)
        prefix = network.spec.subnet.rsplit(".", 1)[0]
        one = Reservation(mac=new_mac(), address=f"{prefix}.77", hostname="one", vm_uid=new_uid())
        two = Reservation(mac=new_mac(), address=f"{prefix}.78", hostname="two", vm_uid=new_uid())
        twin = Reservation(
            mac=new_mac(), address=f"{prefix}.79", hostname="one", vm_uid=one.vm_uid
        )  # another card of it
        name = networks.driver_name(network)
        definition = micro_definition("net", nics=(DomainNic("net0", one.mac, name),))
        heir = Reservation(mac=new_mac(), address=one.address, hostname="heir", vm_uid=new_uid())
        inheriting = micro_definition("heir", nics=(DomainNic("net0", heir.mac, name),))
        try:
            await networks.ensure(network, ())
            dnsmasq = Path(f"/run/libvirt/network/{name}.pid").read_text()
            await networks.reserve(network, one)
            await networks.reserve(network, two)
            await networks.reserve(network, two)
            await eventually("two.test.internal", f"{prefix}.1", True)
            await networks.release(network, two)
            await networks.release(network, two)
            await eventually("two.test.internal", f"{prefix}.1", False)
            await eventually("one", f"{prefix}.1", True)
            await networks.reserve(network, twin)

            await driver.define(definition)
            await driver.start(definition.uid)
            async with asyncio.timeout(150):
                while not (leases := await networks.leases(network)):
                    await asyncio.sleep(0.2)
            assert [(lease.mac, lease.address) for lease in leases] == [(one.mac, one.address)]

            await networks.ensure(network, (one,))
            assert Path(f"/run/libvirt/network/{name}.pid").read_text() == dnsmasq  # never restarted
            (seen,) = (seen for seen in await networks.observe_all() if seen.uid == network.uid)
            assert (seen.active, seen.subnet, seen.name) == (True, network.spec.subnet, name)

            newer = network.model_copy(update={"spec": network.spec.model_copy(update={"domain": "newer.internal"})})
            assert not await networks.ensure(newer, (one,))  # a restart would unplug the guest
            assert Path(f"/run/libvirt/network/{name}.pid").read_text() == dnsmasq
            await eventually("one.test.internal", f"{prefix}.1", True)
            await driver.destroy(definition.uid)
            assert await networks.ensure(newer, (one,))
            await eventually("one.newer.internal", f"{prefix}.1", True)

            # A guest that is gone never gave its lease back: who has its address now gets it all the same.
            await networks.release(newer, one)
            await networks.reserve(newer, heir)
            await driver.define(inheriting)
            await driver.start(inheriting.uid)
            async with asyncio.timeout(150):
                while heir.mac not in (found := {lease.mac: lease.address for lease in await networks.leases(newer)}):
                    await asyncio.sleep(0.2)
            assert found[heir.mac] == heir.address
        finally:
            for guest in (definition, inheriting):
                if await driver.observe(guest.uid) is not None:
                    await driver.destroy(guest.uid)
                    await driver.undefine(guest.uid)
            await networks.remove(network)
            await networks.remove(network)
            assert network.uid not in {seen.uid for seen in await networks.observe_all()}
            assert not (open_dir / "reservations" / network.uid).exists()
            await driver.close()

    asyncio.run(run())


def test_changes_at_once_do_not_undo_each_other(open_dir: Path) -> None:
    """Ten guests come, two others go, and one takes over a name, all at the same instant."""

    async def run() -> None:
        driver = await LibvirtDriver.open("qemu:///system", timeout_s=30)
        installation = new_uid()
        networks = LibvirtNetworks(driver, installation, open_dir / "reservations")
        network = await free_network(networks, installation)
        prefix = network.spec.subnet.rsplit(".", 1)[0]

        def reservation(number: int, hostname: str) -> Reservation:
            return Reservation(mac=new_mac(), address=f"{prefix}.{number}", hostname=hostname, vm_uid=new_uid())

        going = [reservation(90, "gone-1"), reservation(91, "gone-2")]
        coming = [*(reservation(10 + number, f"vm-{number}") for number in range(9)), reservation(50, "heir")]
        try:
            await networks.ensure(network, (*going, reservation(49, "heir")))
            async with asyncio.TaskGroup() as group:
                for one in coming:
                    group.create_task(networks.reserve(network, one))
                for one in going:
                    group.create_task(networks.release(network, one))
            seen = {path.read_text().strip() for path in (open_dir / "reservations" / network.uid).iterdir()}
            assert len(seen) == len(coming)
            assert all(any(one.mac in line and one.address in line for line in seen) for one in coming)
            for one in coming:
                await eventually(f"{one.hostname}.test.internal", f"{prefix}.1", True)
            for one in going:
                await eventually(f"{one.hostname}.test.internal", f"{prefix}.1", False)
        finally:
            await networks.remove(network)
            await driver.close()

    asyncio.run(run())
