"""The firewall's contract: one desired policy, loaded whole or as its difference; what it counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from corral.network.firewall.policy import Policy


@dataclass(frozen=True)
class Count:
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class FirewallState:
    """What of the firewall there is. `reason` says why there is none (no rights, no nftables, a pretended hypervisor)."""

    active: bool
    reason: str = ""
    path: str = ""
    """How bridged packets are filtered with their connections: `br_netfilter`."""
    keeper_pid: int = 0
    epoch: int = 0
    """Counts the changes of policy since the keeper started."""
    log_group: int = 0
    """The NFLOG group that denied packets and logging rules are written to."""


class Firewall(Protocol):
    """Raises CorralError: `firewall-unavailable`."""

    async def ensure(self, policy: Policy) -> None:
        """Loaded when this returns: at once, in one transaction, or not at all. What is loaded already costs nothing."""
        ...

    async def follow(self) -> None:
        """Until cancelled: whoever holds it is brought back when it dies."""
        ...

    async def state(self) -> FirewallState: ...

    async def counters(self) -> Mapping[str, Count]:
        """By a rule's or network policy's uid; denials by their reason: `deny-in`, `deny-out`, `spoofed`, …"""
        ...
