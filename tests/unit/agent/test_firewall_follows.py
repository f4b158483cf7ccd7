"""The firewall follows what is wished: made anew for that alone, and waited for by nobody but guests that are plugged in."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from corral.agent import firewall as module
from corral.agent.cache import Cache
from corral.agent.firewall import FirewallKeeper
from corral.model.network import Network, NetworkSpec
from corral.model.vm import NicSpec, Vm, VmSpec, VmState, VmStatus
from corral.names import new_mac, new_uid, tap_name
from corral.network.firewall.base import Count, FirewallState
from corral.network.firewall.policy import Policy
from corral.store.base import Change
from corral.store.memory import MemoryStore
from corral.store.objects import Objects

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Slow:
    """Loads once it is let."""

    def __init__(self) -> None:
        self.let, self.asked = asyncio.Event(), list[Policy]()

    async def state(self) -> FirewallState:
        return FirewallState(active=True)

    async def follow(self) -> None:
        """Nobody holds it."""

    async def counters(self) -> Mapping[str, Count]:
        return {}

    async def ensure(self, policy: Policy) -> None:
        self.asked.append(policy)
        await self.let.wait()


def keeper(firewall: Slow) -> tuple[FirewallKeeper, Vm]:
    cache = Cache(Objects(MemoryStore()), lambda _kind, _uid: None)
    spec = NetworkSpec.model_validate({"mode": "nat", "subnet": "10.1.0.0/24", "bridge": "crllab"})
    lab = Network(name="lab", uid=new_uid(), created_at=NOW, spec=spec)
    nic = NicSpec(name="net0", network="lab", network_uid=lab.uid, mac=new_mac(), address="10.1.0.2")
    vm = Vm(name="one", uid=new_uid(), created_at=NOW, spec=VmSpec(nics=(nic,)))
    cache.networks[lab.uid], cache.vms[vm.uid] = lab, vm
    return FirewallKeeper(cache, firewall), vm


def test_the_policy_is_made_anew_for_what_it_is_made_of_alone() -> None:
    async def run() -> None:
        firewall = Slow()
        firewall.let.set()
        follower, vm = keeper(firewall)
        await follower.sync()
        running = vm.model_copy(update={"status": VmStatus(state=VmState.RUNNING)})
        follower.cache.vms[vm.uid] = Vm.model_validate_json(running.model_dump_json())
        await follower.sync()
        first, second = firewall.asked
        assert first is second
        nic = vm.spec.nics[0].model_copy(update={"groups": ("web",)})
        moved = vm.model_copy(update={"spec": vm.spec.model_copy(update={"nics": (nic,)})})
        follower.cache.vms[vm.uid] = moved
        await follower.sync()
        assert firewall.asked[2] != first

    asyncio.run(run())


def test_a_slow_firewall_keeps_the_plugging_in_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(module, "BEGIN_S", 0.01)
        firewall = Slow()
        follower, vm = keeper(firewall)
        await follower.begin()
        plugging = asyncio.ensure_future(follower.guard(vm))
        await asyncio.sleep(0.01)
        assert not plugging.done()
        assert not follower.guarded
        firewall.let.set()
        await plugging
        assert follower.guarded
        await follower.begin()

    asyncio.run(run())


def test_who_follows_it_hears_when_what_was_committed_is_loaded() -> None:
    async def run() -> None:
        firewall = Slow()
        follower, vm = keeper(firewall)
        following = asyncio.ensure_future(follower.follow(3))
        for revision in (2, 3):
            await asyncio.sleep(0)
            assert not firewall.asked
            follower.cache.apply(Change(f"/elsewhere/{revision}", revision, b"{}", None))
        await asyncio.sleep(0.01)
        assert len(firewall.asked) == 1
        assert not following.done()
        firewall.let.set()
        await following
        nic = vm.spec.nics[0].model_copy(update={"groups": ("web",)})
        regrouped = vm.model_copy(update={"spec": vm.spec.model_copy(update={"nics": (nic,)})})
        follower.cache.vms[vm.uid] = regrouped
        await follower.guard(regrouped)
        assert len(firewall.asked) == 2, "it is not guarded so yet"
        await follower.guard(regrouped)
        assert len(firewall.asked) == 2

    asyncio.run(run())


def test_a_port_of_another_name_is_guarded_under_it_and_its_next_one_under_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        firewall = Slow()
        firewall.let.set()
        follower, vm = keeper(firewall)
        own = tap_name(vm.uid, "net0")
        monkeypatch.setattr(module, "named_otherwise", lambda _vms, _networks: {own: "vnet7"})
        await follower.sync()
        assert [card.tap for card in firewall.asked[-1].cards] == ["vnet7"]
        monkeypatch.setattr(module, "named_otherwise", lambda _vms, _networks: {})
        await follower.guard(vm)
        assert [card.tap for card in firewall.asked[-1].cards] == [own]

    asyncio.run(run())
