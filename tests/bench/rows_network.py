"""Rows of networks on real libvirt: made against bare `virsh net-start`, and how fast addresses are reserved in one."""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from stage import Daemon, Row, median, process_s, say, timed

from corral.client import Client
from corral.hypervisor.libvirt import LibvirtDriver, LibvirtNetworks
from corral.model.network import Network, NetworkSpec, Reservation
from corral.names import new_mac, new_uid
from corral.network import ipam
from corral.network.subnets import choose_subnet

ROUNDS = 8
ADDRESSES = 200
BARE = """<network><name>{name}</name><forward mode="open"/><bridge name="{bridge}" stp="off" delay="0"/>
<domain name="{name}.internal" localOnly="yes"/>
<ip address="10.217.{number}.1" prefix="24"><dhcp><range start="10.217.{number}.2" end="10.217.{number}.254"/></dhcp></ip>
</network>"""


def network_rows(one: Daemon, prefix: str, uri: str) -> Iterator[Row]:
    yield _create_row(one, prefix, uri)
    yield asyncio.run(_reserve_row(uri))


def _create_row(one: Daemon, prefix: str, uri: str) -> Row:
    """From the request until the network is up, a free subnet found; bare virsh is told one, and has it defined before."""
    ours, theirs = [], []
    say(f"{ROUNDS} networks of corral's, virsh net-start")
    virsh = ["virsh", "-q", "-c", uri]
    with Client(one.socket) as client:
        for number in range(ROUNDS):
            name = f"{prefix}-n{number}"
            ours.append(timed(partial(client.create_network, {"name": name})))
            client.delete_network(name)
            with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
                file.write(BARE.format(name=name, bridge=f"cbn{prefix[-4:]}{number}", number=number))
                file.flush()
                subprocess.run([*virsh, "net-define", file.name], check=True, capture_output=True)
            try:
                theirs.append(process_s([*virsh, "net-start", name], one.environment))
                subprocess.run([*virsh, "net-destroy", name], check=True, capture_output=True)
            finally:
                subprocess.run([*virsh, "net-undefine", name], check=False, capture_output=True)
    how = (
        f"medians of {ROUNDS} in turns: a request to the daemon {median(ours) * 1000:.0f} ms, "
        f"virsh net-start {median(theirs) * 1000:.0f} ms"
    )
    return Row("a network is made, over virsh net-start", 1.3, median(ours) / median(theirs), "", how)


async def _reserve_row(uri: str) -> Row:
    """Given out one by one, each in DHCP and DNS of a running network when it counts."""
    say(f"{ADDRESSES} addresses")
    driver = await LibvirtDriver.open(uri, timeout_s=30)
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as place:
        Path(place).chmod(0o711)
        uid = new_uid()
        networks = LibvirtNetworks(driver, uid, Path(place) / "reservations", own_rules=True)
        subnet = choose_subnet(await networks.used_subnets())
        spec = NetworkSpec(subnet=subnet, domain="bench.internal", bridge=f"cbr{uid[:8]}")
        network = Network(name="bench", uid=uid, created_at=datetime.now(UTC), spec=spec)
        try:
            await networks.ensure(network, ())
            pool = ipam.NumberPool(ipam.address_count(subnet))
            began = time.perf_counter()
            for number in range(ADDRESSES):
                address = ipam.address_at(subnet, ipam.hold_address(pool, subnet, "bench"))
                kept = Reservation(mac=new_mac(), address=address, hostname=f"vm-{number}", vm_uid=uid)
                await networks.reserve(network, kept)
            took_s = time.perf_counter() - began
        finally:
            await networks.remove(network)
            await driver.close()
    how = f"one after the other, {took_s / ADDRESSES * 1000:.1f} ms each"
    return Row(f"{ADDRESSES} addresses are reserved", 1.0, took_s, "s", how)
