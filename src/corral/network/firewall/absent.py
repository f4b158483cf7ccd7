"""A firewall that is not there: pretended hypervisors, and an ordinary user's own libvirt, have no packets of ours."""

from collections.abc import Mapping

from corral.network.firewall.base import Count, FirewallState
from corral.network.firewall.policy import Policy


class NoFirewall:
    """The firewall's contract over nothing."""

    def __init__(self, reason: str = "no guest's packets pass this daemon's networks") -> None:
        self._reason = reason

    async def ensure(self, policy: Policy) -> None:
        """Nothing is to be kept from anything."""

    async def state(self) -> FirewallState:
        return FirewallState(active=False, reason=self._reason)

    async def follow(self) -> None:
        """Nobody holds it."""

    async def counters(self) -> Mapping[str, Count]:
        return {}
