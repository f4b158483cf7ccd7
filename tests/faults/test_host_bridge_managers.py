"""A bridge over the host's card by netplan, systemd-networkd and NetworkManager themselves: confirmed, or taken back by itself.

In a host of the test's own with a systemd in it; ifupdown, and Corral's daemon, are in test_host_bridge.py.
"""

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from booted_host import PROJECT, BootedHost
from host_changes import BEGIN, NEXT_START, kill, until

from corral.host.bridging.journal import UNFINISHED, Journal, State

pytestmark = pytest.mark.timeout(120)

# What a real card's name is taken from; a program that makes up who it is to a DHCP server looks there first.
NAMES = 'SUBSYSTEM=="net", ACTION!="remove", KERNEL=="eth0", ENV{ID_NET_NAME_PATH}="enp1s0"\n'
NETWORKD = """\
[Match]
Name=e*

[Link]
MTUBytes=1400

[Network]
DHCP=ipv4
Address=10.66.0.1/24
Address=fd66::1/64
"""
NETPLAN = """\
# the office's
network:
  version: 2
  renderer: RENDERER
  ethernets:
    eth0:
      dhcp4: true
      mtu: 1400
      addresses: [10.66.0.1/24, "fd66::1/64"]
"""
NETWORK_MANAGER = """\
[connection]
id=Wired
type=ethernet

[ethernet]
mtu=1400

[ipv4]
method=auto
address1=10.66.0.1/24

[ipv6]
method=manual
address1=fd66::1/64
"""
HOSTS = {
    "systemd-networkd": (["systemd-networkd.service"], {"/etc/systemd/network/20-wired.network": NETWORKD}),
    "NetworkManager": (
        ["NetworkManager.service"],
        {"/etc/NetworkManager/system-connections/wired.nmconnection": NETWORK_MANAGER},
    ),
    "netplan": (
        ["systemd-networkd.service"],
        {"/etc/netplan/50-office.yaml": NETPLAN.replace("RENDERER", "networkd")},
    ),
    "netplan for NetworkManager": (
        ["NetworkManager.service", "systemd-networkd.service"],
        {"/etc/netplan/50-office.yaml": NETPLAN.replace("RENDERER", "NetworkManager")},
    ),
}
PLACES = ("/etc/netplan", "/etc/systemd/network", "/etc/NetworkManager", "/etc/cloud")
NEXT_BOOT = """
systemctl stop systemd-networkd.socket systemd-networkd NetworkManager
ip link del br0
ip address flush dev eth0
ip link set eth0 down
rm -rf /run/systemd/network /run/systemd/netif/links /run/NetworkManager
systemctl daemon-reload
systemctl start "$@"
"""


@pytest.fixture
def host(manager: str, tmp_path: Path) -> Iterator[BootedHost]:
    (tmp_path / "host").mkdir()
    units, files = HOSTS[manager]
    found = BootedHost(tmp_path / "host", units, {**files, "/etc/udev/rules.d/74-names.rules": NAMES})
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "journal")
    yield found
    kill(found)


def configuration(host: BootedHost) -> dict[str, tuple[int, str]]:
    """Every file of those who configure cards, and who may read it."""
    found = {}
    for place in PLACES:
        root = host.path(place)
        for path in root.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # it is renamed this moment
                text = path.read_text() if path.is_file() else ""
                found[f"{place}/{path.relative_to(root)}"] = (path.stat().st_mode, text)
    return found


def network(host: BootedHost, device: str) -> dict[str, Any]:
    """What hangs on a device; its name is left out, since it is what a bridge changes."""
    links = [one for one in json.loads(host("ip", "-j", "address", "show")) if one["ifname"] == device]
    routes = [one for version in "46" for one in json.loads(host("ip", "-j", f"-{version}", "route", "show"))]
    hanging = [one for one in routes if one.get("dev") == device and "gateway" in one]
    return {
        "addresses": sorted(
            f"{address['local']}/{address['prefixlen']}"
            for link in links
            for address in link["addr_info"]
            if address["scope"] == "global"
        ),
        "mtu": [link["mtu"] for link in links],
        "mac": [link["address"] for link in links],
        "routes": sorted(f"{one['dst']} {one['gateway']} {one.get('metric', 0)}" for one in hanging),
    }


def has_all(found: dict[str, Any]) -> bool:
    """Also what the DHCP server gives."""
    return len(found["addresses"]) == 3 and any(route.startswith("default 10.66.0.2") for route in found["routes"])


def unleased(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "addresses": [re.sub(r"^10\.66\.0\.\d\d+/", "leased/", address) for address in found["addresses"]]}


class Before:
    def __init__(self, host: BootedHost) -> None:
        self.host = host
        until(lambda: has_all(network(host, "eth0")))
        self.network, self.files = network(host, "eth0"), configuration(host)

    def bridged(self) -> None:
        until(lambda: has_all(network(self.host, "br0")))
        assert network(self.host, "br0") == self.network
        assert not network(self.host, "eth0")["addresses"]
        assert "master br0" in self.host("bridge", "link")
        assert self.host.reached()

    def again(self) -> None:
        until(lambda: has_all(network(self.host, "eth0")))
        # In a container systemd-networkd (255) learns by some event what a card is called, and is another client from then on.
        assert unleased(network(self.host, "eth0")) == unleased(self.network)
        assert "br0" not in self.host("ip", "-br", "link")
        assert configuration(self.host) == self.files
        assert self.host.reached()

    @property
    def changed(self) -> bool:
        return configuration(self.host) != self.files


def begin(host: BootedHost, journal: Journal, within_s: float) -> None:
    host.python(BEGIN, str(journal.directory), str(within_s))


@pytest.mark.parametrize("manager", list(HOSTS))
def test_taken_back_and_confirmed(manager: str, host: BootedHost, journal: Journal) -> None:
    before = Before(host)
    begin(host, journal, 0.5)
    until(lambda: journal.state() is State.ROLLED_BACK)
    assert journal.result().reason == "nobody confirmed it in time"
    assert not journal.result().problems
    before.again()

    before = Before(host)
    begin(host, journal, 60)
    until(lambda: journal.state() is State.PENDING)
    assert journal.plan()[0].manager.value == manager.split(maxsplit=1)[0]
    assert journal.move(State.PENDING, State.CONFIRMED)
    before.bridged()
    # And at the next boot.
    host("sh", "-c", NEXT_BOOT, "boot", *HOSTS[manager][0], check=False)
    before.bridged()


@pytest.mark.parametrize("manager", ["systemd-networkd"])
def test_it_outlives_the_service_that_began_it(host: BootedHost, journal: Journal) -> None:
    """systemd ends what a service has begun, sessions of their own or not, unless the unit says otherwise."""
    before = Before(host)
    unit = (PROJECT / "packaging/corral.service").read_text()
    [kill_mode] = re.findall(r"^KillMode=\w+$", unit, re.MULTILINE)
    argv = (sys.executable, "-c", BEGIN, str(journal.directory), "3", "wait")
    host("systemd-run", "--unit=corral", f"--property={kill_mode}", *argv)
    until(lambda: journal.state() is State.PENDING)
    host("systemctl", "stop", "corral")
    assert journal.state() is State.PENDING
    until(lambda: journal.state() is State.ROLLED_BACK)
    assert journal.result().reason == "nobody confirmed it in time"
    before.again()


WHEN: dict[str, Callable[[Before, Journal], bool]] = {
    "begun": lambda _before, journal: journal.state() is State.APPLYING,
    "half way": lambda before, _journal: before.changed,
    "applied": lambda _before, journal: journal.state() is State.PENDING,
    "taking back": lambda _before, journal: journal.state() is State.ROLLING_BACK,
}


# What takes back is the same for all of them, and killed in every run of test_host_bridge.py.
@pytest.mark.soak
@pytest.mark.parametrize("manager", list(HOSTS))
def test_the_next_start_takes_back_what_was_cut(host: BootedHost, journal: Journal) -> None:
    """The process itself, or the machine, dies at each of its steps."""
    before = Before(host)
    for when, reached in WHEN.items():
        begin(host, journal, 0.5 if when == "taking back" else 60)
        until(partial(reached, before, journal), look_s=0.005)
        kill(journal)
        assert journal.state() in UNFINISHED, when
        assert host.python(NEXT_START, str(journal.directory)).splitlines()[-1] == "True"
        until(lambda: journal.state() is State.ROLLED_BACK)
        before.again()
        assert host.python(NEXT_START, str(journal.directory)).splitlines()[-1] == "False"
