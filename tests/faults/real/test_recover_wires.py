"""The database is lost: groups, policies, routers and what hangs on them come back, as they were acknowledged last."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from real_world import World, until

from corral.client import Client
from corral.errors import CorralError

pytestmark = pytest.mark.timeout(300)
KINDS = ("security-groups", "network-policies", "routers", "balancers", "forwards", "addresses")


def sidecars(world: World) -> set[str]:
    return {f"{path.parent.name}/{path.stem}" for path in world.seen(world.state / "objects").glob("*/*.json")}


def objects(world: World) -> dict[str, Any]:
    """By name, without what the agent observes."""
    with world.client() as client:
        listed = {
            "security-groups": [one for one in client.list_security_groups() if one["revision"]],
            "network-policies": client.list_network_policies(),
            "routers": client.list_routers(),
            "balancers": client.list_balancers(),
            "forwards": client.list_forwards(),
            "addresses": client.list_addresses(),
        }
    kept = ("uid", "spec", "labels", "generation", "created_at")
    return {f"{kind}/{one['name']}": {key: one[key] for key in kept} for kind in KINDS for one in listed[kind]}


def lose_database(world: World) -> None:
    for path in world.seen(world.state).glob("corral.db*"):
        path.unlink()


@pytest.fixture
def site(world: World) -> Iterator[World]:
    """Two tiers behind a router, with all that can hang on one."""
    with world.client() as client:
        client.create_network({"name": "tier", "mode": "isolated"})
        client.create_security_group({"name": "web", "rules": ["in tcp/80", "out any"]})
        client.create_network_policy({"name": "apart", "tiers": ["group:web", "network:tier"]})
        world.create("behind", nics=[{"network": "tier", "groups": ["web"]}])
        client.create_router({"name": "edge", "connect": ["tier"]})
        client.create_balancer({"name": "shop", "listen": 81, "port": 80, "targets": ["behind"]})
        client.create_forward({"vm": "behind", "host_port": 8080, "port": 80})
        client.create_forward({"balancer": "shop", "host_port": 8081})
        client.create_address({"name": "face", "router": "edge", "vm": "behind"})
    yield world
    with world.client() as client:
        world.delete("behind")
        for port in (8080, 8081):
            client.delete_forward(f"tcp-{port}")
        client.delete_address("face")
        client.delete_balancer("shop")
        client.delete_router("edge")
        client.delete_network_policy("apart")
        client.delete_security_group("web")
        client.delete_network("tier")
    assert not sidecars(world)


def test_what_is_on_the_wires_comes_back_with_a_lost_database(site: World) -> None:
    world = site
    with world.client() as client:
        client.update_security_group("web", {"add_rules": ["in tcp/443"]})
    before = objects(world)
    assert {f"{name.partition('/')[0]}/{one['uid']}" for name, one in before.items()} == sidecars(world)
    world.kill()  # right after the answer
    lose_database(world)
    world.start()
    assert not objects(world)
    assert len(sidecars(world)) == len(before), "a daemon that knows of nothing leaves them alone"
    with world.client() as client:
        report: Any = client.recover()
    assert (report["security_groups"], report["routers"], report["addresses"]) == (["web"], ["edge"], ["face"])
    assert (report["forwards"], report["balancers"]) == (["tcp-8080", "tcp-8081"], ["shop"])
    assert objects(world) == before
    with world.client() as client:
        with pytest.raises(CorralError) as taken:
            client.create_security_group({"name": "web"})
        assert taken.value.code == "name-taken"
        again: Any = client.recover()
        assert (again["routers"], again["security_groups"]) == ([], [])
        group = client.get_security_group("web")
        explained = client.explain_firewall({"vm": "behind", "source": "10.0.0.7", "port": 443})
        assert [one["uid"] for one in client.list_routers()] == [before["routers/edge"]["uid"]]
    assert explained["steps"]
    until("the guest's rules are loaded", lambda: group["uid"] in world.inside("nft", "list", "ruleset"), 20)
    until("the router stands", lambda: _active(world), 20)
    world.terminate()
    world.start()
    assert objects(world) == before


def _active(world: World) -> bool:
    with world.client() as client:
        return client.get_router("edge")["status"]["active"]


REQUESTS: Final[tuple[tuple[str, Callable[[Client], object]], ...]] = (
    ("after commit 1", lambda client: client.create_security_group({"name": "cut"})),
    ("after commit 1", lambda client: client.update_security_group("cut", {"add_rules": ["in tcp/1"]})),
    ("after commit 2", lambda client: client.delete_security_group("cut")),
)


def test_a_change_that_was_cut_is_written_by_the_next_daemon(world: World) -> None:
    for at, request in REQUESTS:
        world.fault("kill", at)
        with world.client() as client, pytest.raises(CorralError):
            request(client)
        assert world.daemon is not None
        world.daemon.wait(20)
        world.start()
        until("the files are as the database", lambda: _written(world) == _held(world), 20)
    with world.client() as client:
        for name in _held(world):
            client.delete_security_group(name)
    assert not sidecars(world)


def _held(world: World) -> dict[str, Any]:
    with world.client() as client:
        return {one["name"]: one["spec"] for one in client.list_security_groups() if one["revision"]}


def _written(world: World) -> dict[str, Any]:
    files = [path.read_text() for path in world.seen(world.state / "objects").glob("*/*.json")]
    return {found["name"]: found["spec"] for found in (json.loads(text)["object"] for text in files)}
