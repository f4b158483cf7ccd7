"""A policy as nftables' tables. Pure: the same policy, installation and epoch always make the same form."""

from collections.abc import Iterator
from typing import Final

from corral.network.firewall.floor import floor_tables
from corral.network.firewall.form import Form
from corral.network.firewall.guard import guard_table
from corral.network.firewall.judge import judge_table
from corral.network.firewall.layout import Ident, Layout
from corral.network.firewall.policy import Policy

# What nft 1.0.6 has no JSON for, or dies of: flags of tables and sets, a type without a name, a map that leads to two
# things and is used in the transaction that makes it.
_NATIVE_SETS: Final = (
    ("inet", "set flood", "type ifname . ether_addr; flags dynamic; size 65536; timeout 60s;"),
    ("inet", "map forward4", "type inet_proto . inet_service : ipv4_addr . inet_service;"),
    ("inet", "map forward6", "type inet_proto . inet_service : ipv6_addr . inet_service;"),
    ("inet", "map forward-at4", "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;"),
    ("inet", "map forward-at6", "type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service;"),
    ("bridge", "set targets", "typeof iifname . @nh,384,128;"),
)


def preamble(ident: Ident) -> str:
    """What the keeper makes before anything is loaded, in nft's own language: its tables, which are empty."""
    return "".join(_native(ident))


def _native(ident: Ident) -> Iterator[str]:
    for family in ("inet", "bridge"):
        yield f"add table {family} {ident.table} {{ flags owner; }}\n"
    for family, made, spec in _NATIVE_SETS:
        kind, name = made.split()
        yield f"add {kind} {family} {ident.table} {name} {{ {spec} }}\n"


def compile_policy(policy: Policy, ident: Ident, epoch: int) -> Form:
    """`epoch` is 1 … EPOCHS: connections that were let through in another one are judged anew."""
    layout = Layout(policy)
    bridge_floor, inet_floor = floor_tables(layout, ident)
    return bridge_floor, inet_floor, guard_table(layout, ident), judge_table(layout, ident, epoch)
