"""Network policies: tiers of a project that do not speak to each other, unless an exception names it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from corral.errors import CorralError
from corral.model import limits
from corral.model.base import Model, Name, Object
from corral.model.firewall_rule import ANY, GROUP, NETWORK, Traffic, parse_peer, parse_traffic
from corral.names import plain_text

Tier = Annotated[str, StringConstraints(pattern=r"^(group|network):[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class PolicyException(Traffic):
    """New connections from one tier to another that the policy leaves to the groups."""

    from_tier: Tier
    to_tier: Tier

    @property
    def text(self) -> str:
        """`network:web to network:app tcp/8080`."""
        return f"{self.from_tier} to {self.to_tier} {super().text}"


class NetworkPolicySpec(Model):
    """It allows nothing: what it leaves alone, the groups of both ends must let through, too."""

    tiers: Annotated[tuple[Tier, ...], Field(max_length=limits.POLICY_TIERS_MAX)]
    """`network:NAME` or `group:NAME`. Traffic within a tier is not its business, nor is that with anybody else."""
    unless: Annotated[tuple[PolicyException, ...], Field(max_length=limits.POLICY_EXCEPTIONS_MAX)] = ()
    description: Annotated[str, StringConstraints(max_length=limits.DESCRIPTION_MAX_CHARS)] = ""


class NetworkPolicy(Object):
    KIND: ClassVar[str] = "network-policy"
    PLURAL: ClassVar[str] = "network-policies"

    kind: Literal["network-policy"] = "network-policy"
    name: Name
    spec: NetworkPolicySpec


def parse_tier(word: str) -> str:
    """`network:web` or `group:db`. Raises `invalid-rule`."""
    tier = parse_peer(word, word)
    if tier == ANY or not tier.startswith((f"{GROUP}:", f"{NETWORK}:")):
        raise CorralError(
            "invalid-rule",
            f"tier {plain_text(word, 48)!r}",
            "a tier is network:NAME or group:NAME",
            "--tier network:web",
        )
    return tier


def parse_exception(text: str, tiers: tuple[str, ...]) -> PolicyException:
    """`network:web to network:app tcp/8080`, between two of `tiers`. Raises `invalid-rule`."""
    asked, words = f"exception {plain_text(text, 64)!r}", text.split()
    if len(words) not in (3, 4) or words[1] != "to":
        hint = "write for example: network:web to network:app tcp/8080"
        raise CorralError("invalid-rule", asked, "an exception is: TIER to TIER [PROTOCOL[/PORTS]]", hint)
    ends = [parse_tier(words[0]), parse_tier(words[2])]
    if missing := [end for end in ends if end not in tiers]:
        raise CorralError(
            "invalid-rule", asked, f"{missing[0]} is no tier of the policy", f"its tiers: {', '.join(tiers)}"
        )
    if ends[0] == ends[1]:
        reason = "a tier is not kept from itself: there is nothing to except"
        raise CorralError("invalid-rule", asked, reason, "name two different tiers")
    traffic = parse_traffic(words[3] if len(words) == 4 else ANY, text)
    return PolicyException(from_tier=ends[0], to_tier=ends[1], **dict(traffic))


def check_tiers(tiers: tuple[str, ...], asked: str) -> None:
    """At least two, each once: a tier that is denied to itself would mean nothing."""
    if len(set(tiers)) != len(tiers):
        twice = next(tier for tier in tiers if tiers.count(tier) > 1)
        raise CorralError(
            "invalid-rule", asked, f"{twice} is named twice: a tier is not kept from itself", "name it once"
        )
    if len(tiers) < 2:
        raise CorralError("invalid-rule", asked, "it keeps nothing apart", "name at least two tiers")
