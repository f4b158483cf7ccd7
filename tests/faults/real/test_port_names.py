"""A guest whose document names no port of ours (it ran before, or somebody else wrote it) is guarded all the same."""

import re

import pytest
from real_world import World, until

pytestmark = pytest.mark.timeout(300)


def spoofed(world: World) -> int:
    with world.client() as client:
        return sum(one["packets"] for one in client.firewall_counters() if one.get("denied") == "spoofed")


def test_a_port_that_libvirt_named_is_guarded(world: World) -> None:
    world.create("odd", start=False)
    try:
        document = world.virsh("dumpxml", "--inactive", "odd")
        bare = re.sub(r"<target dev='crt[^>]*/>|<port isolated[^>]*/>", "", document)
        assert bare != document
        path = world.root / "odd.xml"
        path.write_text(bare)
        world.virsh("define", str(path))
        world.act("odd", "start")
        world.wait_agent("odd")
        port = world.virsh("domiflist", "odd").splitlines()[2].split()[0]
        assert port.startswith("vnet")
        nic = world.vm("odd")["spec"]["nics"][0]
        until("it is guarded", lambda: f'"{port}" . {nic["mac"]}' in world.inside("nft", "list", "ruleset"), 20)
        before = spoofed(world)
        script = "ip addr add 10.99.99.99/32 dev $(ls /sys/class/net | grep -v lo | head -1); ping -c 2 -W 1 -I 10.99.99.99 $1; true"
        gateway = nic["address"].rpartition(".")[0] + ".1"

        def counted() -> bool:
            world.run_in("odd", "sh", "-c", script, "x", gateway)
            return spoofed(world) > before

        until("it is counted", counted, 30)  # a guest that has no address yet sends nothing
        with world.client() as client:
            findings = {one["id"]: one for one in client.doctor()}
        assert (findings["guarded-ports"]["level"], port in findings["guarded-ports"]["found"]) == ("info", True)
    finally:
        world.delete("odd")
