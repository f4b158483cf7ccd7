"""What passes cards and networks: rates between two looks, whose is shown to whom, and how often the hypervisor is asked."""

import asyncio
from dataclasses import replace
from typing import Any

from corral.hypervisor.base import DomainUsage, NicCounters
from corral.model.identity import Project, Role
from corral.names import new_uid, tap_name
from corral.services.network_usage import NetworkUsageService
from corral.services.session import SessionService
from corral.services.usage import UsageMeter


class Counting:
    """The hypervisor's counters, which the test moves on; how often it was asked for them."""

    def __init__(self, world: Any) -> None:
        self.real = world.context.hypervisor
        self.asked = 0
        self.counters: dict[str, tuple[NicCounters, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def usage_all(self) -> tuple[DomainUsage, ...]:
        self.asked += 1
        await asyncio.sleep(0)
        return tuple(DomainUsage(uid, 1, 128, 0, 0, 0, 0, 0, nics) for uid, nics in self.counters.items())


def test_rates_are_between_two_looks_and_both_reports_ask_once(play: Any) -> None:
    async def scene(world: Any) -> None:
        counting = Counting(world)
        context = replace(world.context, hypervisor=counting)
        meter = UsageMeter(context)
        networks, sessions = NetworkUsageService(context, meter), SessionService(context, meter)
        await world.follow()
        web = await world.running("web")
        tap = tap_name(web.uid, "net0")
        counting.counters[web.uid] = (NicCounters(tap, 1000, 500, 10, 5, 1, 2, 3), NicCounters("vnet7", 9, 9, 9, 9))
        first = await networks.report(world.caller(Role.VIEWER), "default")
        assert (first.interval_s, [item.received_bytes_per_s for item in first.nics]) == (0.0, [0.0])
        world.clock.advance(2.0)
        counting.counters[web.uid] = (NicCounters(tap, 5000, 300, 30, 9, 1, 2, 3),)
        reports = await asyncio.gather(
            networks.report(world.caller(Role.VIEWER), "default"), sessions.usage(world.caller(Role.VIEWER), "default")
        )
        assert counting.asked == 2
        (card,) = reports[0].nics
        assert (card.vm, card.nic, card.device, card.address) == ("web", "net0", tap, web.spec.nics[0].address)
        assert (card.received_bytes_per_s, card.received_packets_per_s) == (2000.0, 10.0)
        assert card.sent_bytes_per_s == 0.0  # a counter that went back is no rate
        (network,) = (item for item in reports[0].networks if item.name == "default")
        assert (network.running, network.received_bytes, network.received_bytes_per_s) == (1, 5000, 2000.0)
        # Nobody else's project sees it, nor the network that it is on.
        await world.put(Project(name="other", uid=new_uid(), created_at=world.clock.now()))
        other = await networks.report(world.caller(Role.VIEWER, project="other"), "other")
        assert (other.nics, other.networks) == ((), ())

    play(scene)
