"""What is answered about the firewall: whether a connection would pass, what it counts, and what it denied."""

from datetime import datetime
from typing import Literal

from corral.model.base import Model


class ExplainedStep(Model):
    """What one stage of the firewall says of a connection. The first that denies decides."""

    stage: str
    """`state`, `rogue`, `closed`, `host`, `transit`, `policy`, `out`, `in`."""
    allowed: bool
    card: str = ""
    """Whose groups were asked: `web/net0`."""
    groups: tuple[str, ...] = ()
    group: str = ""
    """The one whose rule let it through."""
    rule: str = ""
    """That rule, as it is written."""
    rule_id: str = ""
    policy: str = ""
    """The network policy that denies it."""
    reason: str
    """For people."""


class Explanation(Model):
    """Whether a new connection would be let through. What answers it is then let through with it."""

    allowed: bool
    source: str
    source_card: str = ""
    """`web/net0`; empty: it is no card of the project's."""
    destination: str
    destination_card: str = ""
    protocol: str
    port: int | None = None
    icmp_type: int | None = None
    decided_by: str
    """One line: the step that decides."""
    steps: tuple[ExplainedStep, ...] = ()


class FirewallStatus(Model):
    """What of the firewall is loaded on this host."""

    active: bool
    reason: str = ""
    """Why there is none."""
    path: str = ""
    """How bridged packets are filtered with their connections in mind."""
    keeper_pid: int = 0
    changes: int = 0
    """Since its keeper started."""
    log_group: int = 0
    log_reason: str = ""
    """Why denied packets are not heard of."""
    networks: int = 0
    cards: int = 0
    groups: int = 0
    rules: int = 0
    policies: int = 0


class RuleCount(Model):
    """New connections that a rule let through, or that were denied for one reason."""

    group: str = ""
    rule_id: str = ""
    rule: str = ""
    policy: str = ""
    denied: str = ""
    """The reason: `deny-in`, `deny-out`, `spoofed` … Told to those who may look at the host."""
    packets: int = 0
    bytes: int = 0


class DeniedPacket(Model):
    """One packet that was denied, or that a rule with `log` let through; only so many a second are told of each reason."""

    number: int
    time: datetime
    verdict: Literal["denied", "allowed"] = "denied"
    reason: str
    """Why it was denied; `rule` where one let it through."""
    policy: str = ""
    group: str = ""
    """Of the rule that let it through."""
    rule: str = ""
    card_in: str = ""
    """The card that it came from: `web/net0`."""
    card_out: str = ""
    """The card that it was for."""
    interface_in: str = ""
    interface_out: str = ""
    protocol: str
    source: str
    source_port: int | None = None
    destination: str
    port: int | None = None
    icmp_type: int | None = None
