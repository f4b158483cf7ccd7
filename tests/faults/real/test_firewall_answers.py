"""Requests that change the firewall are answered once the kernel has it; where it does not, that is what they say."""

import os
import signal
import time

import pytest
from real_world import World, until

from corral.errors import CorralError

pytestmark = pytest.mark.timeout(300)


def rules(world: World) -> str:
    """The table of groups as the kernel has it now."""
    return world.inside("nft", "list", "ruleset")


def rule_id(world: World, text: str, group: str = "web") -> str:
    with world.client() as client:
        found = client.get_security_group(group)
    ids = {
        f"{rule['direction']} {rule['protocol']}/{rule.get('port_min')}": rule["id"] for rule in found["spec"]["rules"]
    }
    return f"{found['uid']}-{ids[text]}"


def test_the_kernel_has_what_was_answered(world: World) -> None:
    with world.client() as client:
        client.create_security_group({"name": "web", "rules": ["in tcp/80", "out any"]})
        world.create("answered")
        try:
            world.done(client.change_nic("answered", "net0", {"groups": ["web"]}))
            assert rule_id(world, "in tcp/80") in rules(world)
            for port in range(8000, 8005):
                client.update_security_group("web", {"add_rules": [f"in tcp/{port}"]})
                added = rule_id(world, f"in tcp/{port}")
                assert added in rules(world)
                client.update_security_group("web", {"remove_rules": [f"in tcp/{port}"]})
                assert added not in rules(world)
            policy = client.create_network_policy({"name": "apart", "tiers": ["group:web", "group:default"]})
            assert policy["uid"] in rules(world)
            client.delete_network_policy("apart")
            assert policy["uid"] not in rules(world)
            _an_address_of_the_hosts(world)
            _say_when_it_is_not_in_force(world)
        finally:
            world.delete("answered")
            client.delete_security_group("web")


def _an_address_of_the_hosts(world: World) -> None:
    world.inside("ip", "link", "add", "outer0", "type", "veth", "peer", "name", "outer1")
    for address in ("198.51.100.1/24", "198.51.100.7/24"):
        world.inside("ip", "addr", "add", address, "dev", "outer0")
    inside = world.vm("answered")["spec"]["nics"][0]["address"]
    with world.client() as client:
        with pytest.raises(CorralError, match="invalid-argument"):
            client.create_address({"name": "face", "address": "198.51.100.1", "vm": "answered"})
        client.create_address({"name": "face", "address": "198.51.100.7", "vm": "answered"})
        assert f"198.51.100.7 : {inside}" in rules(world)
        client.assign_address("face", None)
        assert "198.51.100.7" not in rules(world)
        client.delete_address("face")
    world.inside("ip", "link", "del", "outer0")


def _say_when_it_is_not_in_force(world: World) -> None:
    with world.client() as client:
        keeper = client.firewall_status()["keeper_pid"]
        os.kill(keeper, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(CorralError) as refused:
                client.update_security_group("web", {"add_rules": ["in tcp/9000"]})
            assert refused.value.code == "not-in-force"
            assert "recorded" in refused.value.reason
            assert time.monotonic() - began < 20
            added = rule_id(world, "in tcp/9000")
            assert added not in rules(world)
        finally:
            os.kill(keeper, signal.SIGCONT)
        until("it is loaded all the same", lambda: added in rules(world), 30)
        client.update_security_group("web", {"add_rules": ["in tcp/9000"]})
