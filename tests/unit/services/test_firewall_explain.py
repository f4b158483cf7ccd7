"""`firewall explain` in words, counters by rule, and who sees which denied packet."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from corral.errors import CorralError
from corral.model.firewall_answers import Explanation
from corral.model.firewall_requests import (
    CreateNetworkPolicyRequest,
    CreateSecurityGroupRequest,
    ExplainRequest,
    UpdateSecurityGroupRequest,
)
from corral.model.identity import Project, Role
from corral.model.network import Network, NetworkSpec
from corral.model.requests import CreateVmRequest, NicRequest
from corral.model.router import Router, RouterPort, RouterSpec
from corral.model.security_group import rule_uid
from corral.names import new_mac, new_uid, tap_name
from corral.network.firewall.absent import NoFirewall
from corral.network.firewall.base import Count
from corral.network.firewall.nflog import Denial
from corral.services.firewall import FirewallService
from corral.services.network_policy import NetworkPolicyService
from corral.services.security_group import SecurityGroupService

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def shop(world: Any) -> None:
    """`web` on two networks, `db` on one, `plain` without groups of its own."""
    groups, caller = SecurityGroupService(world.context), world.caller(Role.ADMIN)
    spec = NetworkSpec(mode="isolated", subnet="10.9.0.0/24", bridge="crlback")
    await world.put(Network(name="back", uid=new_uid(), created_at=NOW, spec=spec))
    await groups.create(caller, "default", CreateSecurityGroupRequest(name="web", rules=("in tcp/443", "out any")))
    await groups.create(caller, "default", CreateSecurityGroupRequest(name="db"))
    change = UpdateSecurityGroupRequest(rules=("in tcp/5432 from group:web",))
    await groups.update(caller, "default", "db", change)
    cards: Mapping[str, tuple[NicRequest, ...]] = {
        "web": (NicRequest(groups=("web",)), NicRequest(network="back", groups=("web",))),
        "db": (NicRequest(network="back", groups=("db",)),),
        "plain": (NicRequest(),),
    }
    for name, nics in cards.items():
        await world.vms.create(caller, "default", CreateVmRequest(name=name, image="micro", nics=nics))


async def explain(world: Any, vm: str, **request: Any) -> Explanation:
    asked = ExplainRequest.model_validate({"vm": vm, **request})
    return await FirewallService(world.context).explain(world.caller(Role.VIEWER), "default", asked)


def test_the_rule_that_decides_is_named_in_its_own_words(play: Any) -> None:
    async def scene(world: Any) -> None:
        await shop(world)
        found = await explain(world, "db", source="web", port=5432)
        assert (found.allowed, found.source_card, found.destination_card) == (True, "web/net1", "db/net0")
        assert [step.stage for step in found.steps] == ["transit", "out", "in"]
        assert found.decided_by == "group db lets db/net0 take it: in tcp/5432 from group:web"
        assert found.steps[-1].rule_id
        denied = await explain(world, "db", source="web", port=22)
        assert (denied.allowed, denied.decided_by) == (False, "no rule of db lets db/net0 take it")
        assert (
            await explain(world, "db", destination="web", port=443)
        ).decided_by == "no rule of db lets db/net0 send it"

    play(scene)


def test_who_comes_through_a_router_is_met_by_its_address(play: Any) -> None:
    async def scene(world: Any) -> None:
        await shop(world)
        await world.vms.create(
            world.caller(Role.ADMIN),
            "default",
            CreateVmRequest(name="far", image="micro", nics=(NicRequest(network="back"),)),
        )
        assert (await explain(world, "plain", source="far", port=80)).steps[-1].stage == "transit"
        far, plain = [(await world.vm(name)).spec.nics[0] for name in ("far", "plain")]
        inner = RouterPort(network="back", network_uid=far.network_uid, mac=new_mac(), address="10.9.0.2")
        outer = RouterPort(
            network="default", network_uid=plain.network_uid, mac=new_mac(), address=f"{plain.address[:-1]}9"
        )
        spec = RouterSpec(ports=(inner,), uplink="nat", uplink_port=outer)
        await world.put(Router(name="edge", uid=new_uid(), created_at=NOW, spec=spec))
        for other in ({"source": "far"}, {"source": outer.address}):
            denied = await explain(world, "plain", **other, port=80)
            assert (denied.allowed, denied.decided_by) == (False, "no rule of default lets plain/net0 take it")
        assert (await explain(world, "far", destination=plain.address, port=80)).steps[-1].card == "plain/net0"
        assert (await explain(world, "far", source="plain", port=80)).steps[-1].stage == "transit", "nobody comes in"

    play(scene)


def test_addresses_are_found_to_be_cards(play: Any) -> None:
    async def scene(world: Any) -> None:
        await shop(world)
        web = (await world.vm("web")).spec.nics
        by_address = await explain(world, "db", source=web[1].address, port=5432)
        assert (by_address.allowed, by_address.source_card) == (True, "web/net1")
        unknown = await explain(world, "db", source="10.9.0.200", port=5432)
        assert (unknown.allowed, unknown.source_card) == (False, "")
        outside = await explain(world, "plain", destination="192.0.2.7", port=80)
        assert (outside.allowed, outside.decided_by) == (True, "group default lets plain/net0 send it: out any to any")
        assert (await explain(world, "plain", source="192.0.2.7", port=80)).steps[-1].stage == "transit"
        assert (await explain(world, "db", destination="192.0.2.7", port=80)).steps[-1].stage == "transit"
        mine = await explain(world, "web", source="plain", protocol="icmp")
        assert (mine.allowed, mine.steps[-1].card) == (False, "web/net0")

    play(scene)


def test_the_host_and_policies_have_their_say(play: Any) -> None:
    async def scene(world: Any) -> None:
        await shop(world)
        gateway = await explain(world, "plain", destination="10.0.0.1", port=53, protocol="udp")
        assert (gateway.allowed, gateway.steps[-1].stage) == (True, "host")
        assert (await explain(world, "plain", destination="10.0.0.1", port=22)).allowed is False
        assert (await explain(world, "plain", destination="127.0.0.1", port=22)).steps[-1].stage == "host"
        tiers = CreateNetworkPolicyRequest(name="apart", tiers=("group:web", "group:db"))
        await NetworkPolicyService(world.context).create(world.caller(Role.ADMIN), "default", tiers)
        denied = await explain(world, "db", source="web", port=5432)
        assert (denied.allowed, denied.steps[-1].policy) == (False, "apart")
        assert denied.decided_by == "network policy apart keeps the two apart"

    play(scene)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"source": "10.0.0.9"}, "invalid-argument"),
        ({"port": 80}, "invalid-argument"),
        ({"source": "10.0.0.9", "destination": "10.0.0.8", "port": 80}, "invalid-argument"),
        ({"source": "nobody", "port": 80}, "vm-not-found"),
        ({"source": "10.0.0.300", "port": 80}, "vm-not-found"),
        ({"source": "$(id)", "port": 80}, "vm-not-found"),
        ({"source": "fe80::1%eth0", "port": 80}, "invalid-argument"),
        ({"source": "fd00::1", "port": 80}, "invalid-argument"),
        ({"source": "10.0.0.9", "protocol": "icmp", "port": 80}, "invalid-argument"),
        ({"source": "10.0.0.9", "protocol": "dccp", "port": 80}, "invalid-argument"),
        ({"source": "10.0.0.9", "port": 80, "nic": "net7"}, "device-not-found"),
    ],
)
def test_a_question_without_a_meaning_is_refused(play: Any, request_: dict[str, Any], code: str) -> None:
    async def scene(world: Any) -> None:
        await shop(world)
        with pytest.raises(CorralError) as refused:
            await explain(world, "plain", **request_)
        assert refused.value.code == code

    play(scene)


def test_a_port_beyond_the_last_is_no_request() -> None:
    with pytest.raises(ValidationError):
        ExplainRequest(vm="web", source="10.0.0.1", port=70000)


class Counting(NoFirewall):
    """A firewall that has counted."""

    def __init__(self, counted: dict[str, Count]) -> None:
        self.counted = counted

    async def counters(self) -> Mapping[str, Count]:
        return self.counted


def test_counters_are_told_by_rule_and_denials_to_those_who_see_the_host(play: Any) -> None:
    async def scene(world: Any) -> None:
        await shop(world)
        group = await SecurityGroupService(world.context).update(
            world.caller(), "default", "web", UpdateSecurityGroupRequest(description="the shop")
        )
        counted = {rule_uid(group.uid, group.spec.rules[0].id): Count(3, 180), "deny-in": Count(5, 300)}
        context = replace(world.context, firewall=Counting(counted))
        found = await FirewallService(context).counters(world.caller(Role.VIEWER), "default")
        assert [(one.group, one.rule, one.packets) for one in found if one.packets and one.group] == [
            ("web", "in tcp/443 from any", 3)
        ]
        assert [(one.denied, one.packets) for one in found if one.denied] == [("deny-in", 5)]

    play(scene)


def test_counters_of_a_firewall_that_does_not_answer_are_given_up(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(NoFirewall):
        async def counters(self) -> Mapping[str, Count]:
            await asyncio.Event().wait()
            return {}

    async def scene(world: Any) -> None:
        monkeypatch.setattr("corral.services.firewall.COUNT_S", 0.05)
        service = FirewallService(replace(world.context, firewall=Silent()))
        with pytest.raises(CorralError, match="firewall-unavailable"):
            await asyncio.wait_for(service.counters(world.caller(Role.VIEWER), "default"), 5)

    play(scene)


def test_whoever_waits_for_denied_packets_is_not_sent_away_for_those_of_others(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.put(Project(name="other", uid=new_uid(), created_at=NOW))
        await shop(world)
        denials, web = world.context.denials, await world.vm("web")
        one = Denial(0, 1.0, "deny-in", "eth0", tap_name(web.uid, "net0"), "tcp", "192.0.2.7", "10.0.0.2", 4000, 22)
        tenant = world.caller(Role.VIEWER, project="other")
        waiting = asyncio.create_task(FirewallService(world.context).denied(tenant, "other", wait_s=20))
        denials.add(one)
        mine = web.model_copy(update={"project": "other", "uid": new_uid(), "name": "mine", "revision": 0})
        await world.put(mine)
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        denials.add(replace(one, outward=tap_name(mine.uid, "net0")))
        found = await asyncio.wait_for(waiting, 10)
        assert [(item.card_out, item.number) for item in found] == [("mine/net0", 2)]

    play(scene)


def test_a_tenant_sees_its_own_denied_packets_alone(play: Any) -> None:
    async def scene(world: Any) -> None:
        await shop(world)
        await world.put(Project(name="other", uid=new_uid(), created_at=NOW))
        web, denials = await world.vm("web"), world.context.denials
        one = Denial(0, 1.0, "deny-in", "eth0", tap_name(web.uid, "net0"), "tcp", "192.0.2.7", "10.0.0.2", 4000, 22)
        denials.add(one)
        denials.add(replace(one, outward="crt000000000000"))
        firewall = FirewallService(world.context)
        found = await firewall.denied(world.caller(Role.VIEWER), "default")
        assert [(item.card_out, item.port, item.number) for item in found] == [("web/net0", 22, 1), ("", 22, 2)]
        tenant = world.caller(Role.ADMIN, project="other")
        assert await firewall.denied(tenant, "other") == ()
        status = await firewall.status(world.caller(Role.VIEWER))
        assert (status.active, status.cards, status.networks) == (False, 4, 2)
        with pytest.raises(CorralError, match="forbidden"):
            await firewall.status(tenant)

    play(scene)
