"""Guests on networks of every mode: routed with IPv6, over a card of the host's, macvtap, and one made elsewhere."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from walk import PATIENCE, Walk, virsh

from corral.network.addresses import eui64

pytestmark = pytest.mark.timeout(600)

# Less than the slow look at everything takes to come round: it was word from the kernel that did it.
CONVERGED_S = 20.0

FOREIGN = """<network><name>{name}</name><bridge name="{bridge}" stp="off" delay="0"/>
<ip address="10.213.47.1" prefix="24"><dhcp><range start="10.213.47.9" end="10.213.47.9"/></dhcp></ip></network>"""


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(("ip", *words), check=check, capture_output=True)


@dataclass(frozen=True)
class Cable:
    """A card of the host's, and a machine at the other end of its wire."""

    nic: str
    namespace: str

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = ("ip", "netns", "exec", self.namespace, *argv)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def cable(name: str, address: str) -> Iterator[Cable]:
    namespace = f"e2e{name}"
    ip("netns", "add", namespace)
    try:
        ip("link", "add", f"e2e{name}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("link", "set", f"e2e{name}", "up")
        made = Cable(f"e2e{name}", namespace)
        made.run("ip", "addr", "add", address, "dev", "eth0")
        made.run("ip", "link", "set", "eth0", "up")
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        ip("link", "del", f"e2e{name}", check=False)
        ip("netns", "del", namespace, check=False)


@pytest.fixture
def foreign(walk: Walk, tmp_path: Path) -> Iterator[str]:
    """A network as somebody makes one with virsh."""
    name = walk.name("elsewhere")
    document = tmp_path / "net.xml"
    document.write_text(FOREIGN.format(name=name, bridge="e2evirbr"))
    virsh("net-define", str(document))
    virsh("net-start", name)
    try:
        yield name
    finally:
        virsh("net-destroy", name)
        virsh("net-undefine", name)


def eventually(wanted: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + 60
    while not wanted():
        assert time.monotonic() < end_s, what
        time.sleep(0.5)


def pings(walk: Walk, guest: str, address: str) -> bool:
    return "1 packets received" in walk.guest(guest, f"ping -c 1 -W 5 {address} || true")


def test_one_guest_on_networks_of_every_kind(walk: Walk, foreign: str) -> None:
    name, over, past, far = walk.name("every"), walk.name("over"), walk.name("past"), walk.name("far")
    with (
        cable("wire", "203.0.113.1/24") as wire,
        cable("tap", "198.18.7.1/24") as tap,
        cable("out", "198.18.8.2/24") as out,
    ):
        ip("addr", "add", "198.18.8.1/24", "dev", out.nic)
        walk("network", "create", over, "--nic", wire.nic).ok()
        walk("network", "create", past, "--mode", "macvtap", "--nic", tap.nic).ok()
        walk("network", "create", far, "--mode", "routed", "--ipv6", "slaac", "--mtu", "1400").ok()
        try:
            eventually(lambda: f"libvirt:{foreign}" in walk("network", "list", "-o", "name").ok().split(), "not seen")
            listed = {one["name"]: one["spec"] for one in walk.json("network", "list")}
            assert listed[f"libvirt:{foreign}"]["mode"] == "libvirt"
            refused = walk("network", "delete", f"libvirt:{foreign}")
            assert "made elsewhere" in refused.err
            refused = walk("create", "--name", "x", "--image", "micro", "--network", f"{past},group=default")
            refused.ends(2, "unsupported")
            walk(
                *("create", "--name", name, "--image", "micro", "--memory", "128", "--wait", "agent"),
                *("--network", f"{far},group=open", "--network", over, "--network", past),
                *("--network", f"libvirt:{foreign}"),
            ).ok()
            walk("wait", name, "--for", "ip", "--timeout", PATIENCE).ok()
            cards = walk.info(name)["spec"]["nics"]
            # Over the card of the host's, and past its bridges: the machine at the other end of each wire.
            walk.guest(name, "ip addr add 203.0.113.9/24 dev eth1; ip link set eth1 up")
            eventually(lambda: pings(walk, name, "203.0.113.1"), "not over the card")
            # Its security group lets nobody in; macvtap passes by all filters, which is why it is refused groups.
            assert wire.run("busybox", "ping", "-c", "1", "-W", "2", "203.0.113.9").returncode != 0
            walk.guest(name, "ip addr add 198.18.7.9/24 dev eth2; ip link set eth2 up")
            eventually(
                lambda: tap.run("busybox", "ping", "-c", "1", "-W", "2", "198.18.7.9").returncode == 0,
                "not past the bridges",
            )
            assert "10.213.47.9" in walk.guest(name, "ip addr show eth3")
            # Routed: out and in by its own address, which the machine out there has a route to.
            address, subnet = cards[0]["address"], listed[far]["subnet"]
            out.run("ip", "route", "add", subnet, "via", "198.18.8.1")
            assert pings(walk, name, "198.18.8.2")
            eventually(
                lambda: out.run("busybox", "ping", "-c", "1", "-W", "2", address).returncode == 0, "nobody comes in"
            )
            # IPv6: the address was known before the guest made it of its MAC.
            address6 = eui64(listed[far]["subnet6"], cards[0]["mac"])
            assert cards[0]["address6"] == address6
            eventually(lambda: address6 in walk.guest(name, "ip -6 addr show eth0"), f"no {address6}")
            subprocess.run(("busybox", "ping", "-6", "-c", "1", "-W", "5", address6), check=True, capture_output=True)
            assert "mtu 1400" in walk.guest(name, "ip link show eth0")
        finally:
            walk("delete", name, "--yes")
            gone = walk("network", "delete", over, past, far)
    gone.ok()
    assert foreign in virsh("net-list", "--name")


def test_a_bridge_that_is_deleted_and_a_server_that_is_killed_come_back_under_a_guest(walk: Walk) -> None:
    """The guest is plugged in again, by itself and within seconds; what DHCP serves changes while it runs."""
    name, lab = walk.name("mended"), walk.name("lab")
    walk("network", "create", lab, "--mode", "isolated").ok()
    try:
        walk("create", "--name", name, "--image", "micro", "--memory", "128", "--network", lab, "--wait", "agent").ok()
        walk("wait", name, "--for", "ip", "--timeout", PATIENCE).ok()
        spec = walk.json("network", "show", lab)["spec"]
        bridge, gateway = spec["bridge"], spec["subnet"].replace(".0/24", ".1")
        driver_name = next(line for line in virsh("net-list", "--name").splitlines() if line.endswith(lab))
        server = Path(f"/run/libvirt/network/{driver_name}.pid")
        os.kill(int(server.read_text()), 9)
        began = time.monotonic()
        eventually(lambda: alive(server), "nobody serves DHCP")
        assert time.monotonic() - began < CONVERGED_S
        ip("link", "del", bridge)
        began = time.monotonic()
        eventually(lambda: any(Path(f"/sys/class/net/{bridge}/brif").glob("crt*")), "not plugged in again")
        assert time.monotonic() - began < CONVERGED_S
        eventually(lambda: pings(walk, name, gateway), "the gateway does not answer")
        walk("network", "reserve", lab, "printer", "00:11:22:33:44:55", gateway[:-1] + "99").ok()
        resolved = walk.guest(name, f"nslookup printer.{lab}.internal {gateway}")
        assert gateway[:-1] + "99" in resolved
        walk("network", "set", lab, "--mtu", "1300").ok()
        assert outdated(walk, lab)
        walk("destroy", name).ok()
        eventually(lambda: not outdated(walk, lab), "the MTU does not come")
        assert Path(f"/sys/class/net/{bridge}/mtu").read_text().strip() == "1300"
    finally:
        walk("delete", name, "--yes")
        gone = walk("network", "delete", lab)
    gone.ok()


def outdated(walk: Walk, network: str) -> bool:
    conditions = walk.json("network", "show", network)["status"]["conditions"]
    return any(one["type"] == "Outdated" and one["status"] == "true" for one in conditions)


def alive(pid_file: Path) -> bool:
    return Path(f"/proc/{pid_file.read_text().strip()}").exists()
