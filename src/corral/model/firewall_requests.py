"""What can be asked about security groups, network policies and the firewall."""

from typing import Annotated

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model, Name
from corral.model.firewall_rule import RuleText
from corral.model.requests import Description, Labels, example

Rules = Annotated[tuple[RuleText, ...], Field(max_length=limits.GROUP_RULES_MAX)]
Tiers = Annotated[tuple[RuleText, ...], Field(max_length=limits.POLICY_TIERS_MAX)]
Exceptions = Annotated[tuple[RuleText, ...], Field(max_length=limits.POLICY_EXCEPTIONS_MAX)]


class CreateSecurityGroupRequest(Model):
    """A group. With no word of rules it lets its cards out, and nobody in; a list of rules is all of them."""

    model_config = example(
        {"name": "web", "rules": ["in tcp/443 from any", "in tcp/22 from 10.0.0.0/8", "out any"]},
        {"name": "db", "rules": ["in tcp/5432 from group:app"]},
    )

    name: Name
    rules: Rules = ("out any",)
    """`in|out PROTOCOL[/PORTS|/TYPE] [from|to PEER]`; a peer is `any`, an address or CIDR, `group:NAME` (its own, too)
    or `network:NAME`."""
    description: Description = ""
    labels: Labels = Field(default_factory=dict)


class UpdateSecurityGroupRequest(Model):
    """What is given changes. New connections meet it at once, also those of running guests."""

    model_config = example({"add_rules": ["in tcp/8080 from network:lab"]}, {"remove_rules": ["8dcb3143"]})

    rules: Rules | None = None
    """All rules: those that are not named go."""
    add_rules: Rules = ()
    remove_rules: Rules = ()
    """By their ids, or by their words."""
    description: Description | None = None
    labels: Labels | None = None


class CreateNetworkPolicyRequest(Model):
    """Tiers that do not speak to each other, whatever their groups say, unless an exception names it."""

    model_config = example(
        {
            "name": "tiers",
            "tiers": ["network:web", "network:app", "network:db"],
            "unless": ["network:web to network:app tcp/8080", "network:app to network:db tcp/5432"],
        }
    )

    name: Name
    tiers: Tiers
    """`network:NAME` or `group:NAME`, at least two."""
    unless: Exceptions = ()
    """`TIER to TIER [PROTOCOL[/PORTS]]`. What is excepted, the groups of both ends must let through."""
    description: Description = ""
    labels: Labels = Field(default_factory=dict)


class UpdateNetworkPolicyRequest(Model):
    """What is given changes."""

    model_config = example({"unless": ["network:web to network:app tcp/8080"]})

    tiers: Tiers | None = None
    unless: Exceptions | None = None
    description: Description | None = None
    labels: Labels | None = None


class ExplainRequest(Model):
    """Would a new connection be let through, and which rule decides?"""

    model_config = example({"vm": "web", "source": "10.0.0.7", "port": 5432}, {"vm": "web", "destination": "db"})

    vm: Name
    """The VM that is meant: it is reached from `source`, or it reaches `destination`."""
    source: Annotated[str, StringConstraints(max_length=64)] = ""
    """An address, or another VM's name."""
    destination: Annotated[str, StringConstraints(max_length=64)] = ""
    """One of the two."""
    protocol: Annotated[str, StringConstraints(max_length=16)] = "tcp"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """tcp's, udp's and sctp's."""
    icmp_type: Annotated[int, Field(ge=0, le=255)] | None = None
    """An echo request when it is not given."""
    nic: Name | None = None
    """The VM's card; the one on the network that the other end is reached by when it is not given."""
