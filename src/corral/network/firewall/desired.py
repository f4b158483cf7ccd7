"""The whole policy of a host: what cards and groups say, and what forwards open beside them. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from corral.model.network_policy import NetworkPolicy
from corral.model.security_group import SecurityGroup
from corral.names import tap_name
from corral.network.firewall.from_objects import Wishes, build_policy
from corral.network.firewall.policy import Group, Policy
from corral.network.paths import Layout, forward_openings, host_floating, host_forwards


def desired_policy(layout: Layout, groups: Iterable[SecurityGroup], policies: Iterable[NetworkPolicy]) -> Policy:
    """What the kernel is given, and what `firewall explain` asks."""
    wishes = Wishes(
        vms=tuple(layout.vms.values()),
        networks=tuple(layout.networks.values()),
        groups=tuple(groups),
        policies=tuple(policies),
        routers=tuple(layout.routers.values()),
        forwards=host_forwards(layout),
        floating=host_floating(layout),
    )
    return _with_openings(build_policy(wishes), forward_openings(layout))


def with_ports(policy: Policy, renamed: Mapping[str, str]) -> Policy:
    """Cards whose ports have other names now are guarded under those."""
    if not renamed:
        return policy
    cards = (replace(card, tap=renamed[card.tap]) if card.tap in renamed else card for card in policy.cards)
    return replace(policy, cards=tuple(cards))


def _with_openings(policy: Policy, openings: Mapping[tuple[str, str], tuple[Group, ...]]) -> Policy:
    """What forwards through a router open, as groups of the cards that they lead to."""
    if not openings:
        return policy
    by_tap = {tap_name(*card): groups for card, groups in openings.items()}
    cards = tuple(
        replace(card, groups=(*card.groups, *(group.uid for group in by_tap.get(card.tap, ()))))
        for card in policy.cards
    )
    more = {group.uid: group for groups in openings.values() for group in groups}
    return replace(policy, cards=cards, groups=(*policy.groups, *more.values()))
