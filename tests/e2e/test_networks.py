"""Networks with real guests on them: one that leads nowhere, and a bridge of the host's own."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from walk import PATIENCE, Walk, virsh

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge as an administrator makes one, with an address of the host's on it."""
    name = "e2ebr0"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)


def test_guests_of_an_isolated_network_reach_each_other_and_nobody_else(walk: Walk, bridge: str) -> None:
    back, lan = walk.name("back"), walk.name("lan")
    one, two = walk.name("iso-1"), walk.name("iso-2")
    walk("network", "create", back, "--mode", "isolated").ok()
    walk("network", "create", lan, "--bridge", bridge).ok()
    try:
        made = walk.json("network", "show", back)
        document = virsh("net-dumpxml", made["uid"])
        assert "<forward" not in document
        assert made["status"]["active"] is True
        for name in (one, two):
            walk(
                *("create", "--name", name, "--image", "micro", "--memory", "128"),
                *("--network", back, "--network", lan, "--wait", "agent"),
            ).ok()
        address = walk.info(two)["spec"]["nics"][0]["address"]
        walk("wait", two, "--for", "ip", "--timeout", PATIENCE).ok()
        walk("wait", one, "--for", "ip", "--timeout", PATIENCE).ok()
        assert "1 packets received" in walk.guest(one, f"ping -c 1 -W 5 {address}")
        assert "default" not in walk.guest(one, "ip route")  # DHCP names no way out
        resolved = walk.guest(one, f"nslookup {two}.{back}.internal {made['spec']['subnet'].rsplit('.', 1)[0]}.1")
        assert address in resolved
        # The second card is a port of the host's bridge, beside whatever else is on it.
        assert len(list(Path(f"/sys/class/net/{bridge}/brif").iterdir())) == 2
        walk("network", "delete", back).ends(4, "network-in-use")
    finally:
        walk("delete", one, two, "--yes")
        gone = walk("network", "delete", back, lan)
    gone.ok()
    assert back not in virsh("net-list", "--all", "--name")
    assert Path(f"/sys/class/net/{bridge}").exists()  # it was not ours
