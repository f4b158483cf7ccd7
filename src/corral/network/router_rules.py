"""The packet filter inside a router's namespace, as nft's JSON. Pure; nothing in it is text of a user's."""

import hashlib
import ipaddress
import json
from typing import Any, Final

from corral.network.router import PortWish, RouterWish

TABLE: Final = "corral"
FAMILY: Final = "ip"
SIX: Final = "ip6"
MARK: Final = "v"
"""An empty chain is called so, followed by the digest of the rules: by it, rules that are there already are known."""
_ECHO_PER_SECOND: Final = 100
_DNS: Final = 53
_DHCP: Final = {FAMILY: 67, SIX: 547}
# Solicitations and advertisements of routers and neighbours, and the reports of groups.
_NEIGHBOURS: Final = (130, 131, 132, 133, 135, 136, 143)

Json = dict[str, Any]


def build_rules(wish: RouterWish) -> bytes:
    """One transaction that puts the tables in the place of whatever tables were there. They bear no mark yet."""
    commands: list[Json] = []
    for table in (_table(), _table(SIX)):
        commands += [{"add": {"table": table}}, {"delete": {"table": table}}, {"add": {"table": table}}]
    return _document([*commands, *({"add": one} for one in _content(wish))])


def build_mark(wish: RouterWish) -> bytes:
    """Says that everything which follows upon the rules was done, too."""
    return _document([{"add": _chain(mark_of(wish))}])


def mark_of(wish: RouterWish) -> str:
    content = json.dumps(_content(wish), sort_keys=True).encode()
    return f"{MARK}{hashlib.sha256(content).hexdigest()[:16]}"


def _content(wish: RouterWish) -> list[Json]:
    four = [*_arriving(wish), *_passing(wish), *_own(wish), *_leaving(wish)]
    six = [*_passing(wish, SIX), *_own6(wish), *_leaving6(wish)]
    return [*four, *six]


def _document(commands: list[Json]) -> bytes:
    return json.dumps({"nftables": commands}).encode()


def _arriving(wish: RouterWish) -> list[Json]:
    """Where packets go that are not for whom they say: floating addresses first, then forwarded ports of the uplink's."""
    found = [_base("arriving", "nat", "prerouting", -100)]
    if wish.floating:
        inner = [[one.outer, one.inner] for one in wish.floating]
        found.append(_rule("arriving", {"dnat": {"family": "ip", "addr": _map(_field("ip", "daddr"), inner)}}))
    if wish.uplink is not None:
        for protocol in sorted({one.protocol for one in wish.forwards}):
            targets = [
                [one.port, {"concat": [one.to_address, one.to_port]}]
                for one in wish.forwards
                if one.protocol == protocol
            ]
            chosen = _map(_field(protocol, "dport"), targets)
            here = _match(_field("ip", "daddr"), wish.uplink.address)
            found.append(_rule("arriving", here, {"dnat": {"family": "ip", "addr": chosen}}))
    return found


def _passing(wish: RouterWish, family: str = FAMILY) -> list[Json]:
    """What may pass from one network to another. Who may talk to whom is the security groups' matter; here only: behind
    NAT nobody comes in from outside unasked."""
    found = [_base("passing", "filter", "forward", 0, "accept", family)]
    if family == SIX:  # IPv4 has a switch for that
        reverse = {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}
        found.append(_rule("passing", _match(reverse, False), {"drop": None}, family=family))
    found += [
        _rule("passing", _match(_state(), ["established", "related"], "in"), {"accept": None}, family=family),
        _rule("passing", _match(_state(), "invalid", "in"), {"drop": None}, family=family),
    ]
    if wish.masquerade and wish.uplink is not None:
        outside = _match({"meta": {"key": "iifname"}}, wish.uplink.interface)
        if family == FAMILY:
            found.append(_rule("passing", outside, _match({"ct": {"key": "status"}}, "dnat", "in"), {"accept": None}))
        found.append(_rule("passing", outside, {"drop": None}, family=family))
    return found


def _own(wish: RouterWish) -> list[Json]:
    """What the router itself answers: echo requests, and the ports of its balancers."""
    echo = _match(_field("icmp", "type"), "echo-request")
    found = [
        _base("own", "filter", "input", 0, "drop"),
        _rule("own", _match(_state(), ["established", "related"], "in"), {"accept": None}),
        _rule("own", _match({"meta": {"key": "iifname"}}, "lo"), {"accept": None}),
        _rule("own", echo, {"limit": {"rate": _ECHO_PER_SECOND, "per": "second"}}, {"accept": None}),
    ]
    found += _served(wish, FAMILY)
    for server in sorted({served.relay for served in wish.served if served.relay}):
        answers = _match(_field("udp", "dport"), _DHCP[FAMILY])
        found.append(_rule("own", _match(_field("ip", "saddr"), server), answers, {"accept": None}))
    if wish.balancers:
        ports = {"set": sorted({one.listen for one in wish.balancers})}
        found.append(_rule("own", _match(_field("tcp", "dport"), ports), {"accept": None}))
    return found


def _own6(wish: RouterWish) -> list[Json]:
    """And what neighbours say to each other (RFC 4890, section 4.4)."""
    kind = _field("icmpv6", "type")
    limited = {"limit": {"rate": _ECHO_PER_SECOND, "per": "second"}}
    return [
        _base("own", "filter", "input", 0, "drop", SIX),
        _rule("own", _match(_state(), ["established", "related"], "in"), {"accept": None}, family=SIX),
        _rule("own", _match({"meta": {"key": "iifname"}}, "lo"), {"accept": None}, family=SIX),
        _rule("own", _match(kind, {"set": sorted(_NEIGHBOURS)}), {"accept": None}, family=SIX),
        _rule("own", _match(kind, "echo-request"), limited, {"accept": None}, family=SIX),
        *_served(wish, SIX),
    ]


def _served(wish: RouterWish, family: str) -> list[Json]:
    """What those ask it whose gateway it is."""
    dhcp = ("udp", _DHCP[family])
    return [
        _rule(
            "own",
            _match({"meta": {"key": "iifname"}}, served.interface),
            _match(_field(protocol, "dport"), port),
            {"accept": None},
            family=family,
        )
        for served in wish.served
        if served.gateway
        for protocol, port in (dhcp, ("udp", _DNS), ("tcp", _DNS))
    ]


def _leaving6(wish: RouterWish) -> list[Json]:
    found = [_base("leaving", "nat", "postrouting", 100, family=SIX)]
    if wish.masquerade and wish.uplink is not None and wish.uplink.address6:
        out = _match({"meta": {"key": "oifname"}}, wish.uplink.interface)
        found.append(_rule("leaving", out, {"snat": {"family": SIX, "addr": wish.uplink.address6}}, family=SIX))
    return found


def _leaving(wish: RouterWish) -> list[Json]:
    """Under which address packets leave. One that was forwarded back into its own network comes from the router, or the
    answer would go past it."""
    found = [_base("leaving", "nat", "postrouting", 100)]
    for port in wish.ports:
        subnet = _subnet(port)
        there = (_match(_field("ip", "saddr"), subnet), _match(_field("ip", "daddr"), subnet))
        found.append(_rule("leaving", *there, {"snat": {"family": "ip", "addr": port.address}}))
    if wish.uplink is None:
        return found
    out = _match({"meta": {"key": "oifname"}}, wish.uplink.interface)
    if wish.floating:
        outer = [[one.inner, one.outer] for one in wish.floating]
        found.append(_rule("leaving", out, {"snat": {"family": "ip", "addr": _map(_field("ip", "saddr"), outer)}}))
    if wish.masquerade:
        found.append(_rule("leaving", out, {"snat": {"family": "ip", "addr": wish.uplink.address}}))
    return found


def _subnet(port: PortWish) -> Json:
    network = ipaddress.IPv4Interface(port.cidrs[0]).network
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


# ---- words of nft's ------------------------------------------------------------------------------------------------


def _table(family: str = FAMILY) -> Json:
    return {"family": family, "name": TABLE}


def _chain(name: str, family: str = FAMILY) -> Json:
    return {"chain": {"family": family, "table": TABLE, "name": name}}


def _base(name: str, kind: str, hook: str, priority: int, policy: str = "accept", family: str = FAMILY) -> Json:
    found = _chain(name, family)
    found["chain"] |= {"type": kind, "hook": hook, "prio": priority, "policy": policy}
    return found


def _rule(chain: str, *expressions: Json, family: str = FAMILY) -> Json:
    return {"rule": {"family": family, "table": TABLE, "chain": chain, "expr": list(expressions)}}


def _match(left: Json, right: object, operator: str = "==") -> Json:
    return {"match": {"op": operator, "left": left, "right": right}}


def _field(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _state() -> Json:
    return {"ct": {"key": "state"}}


def _map(key: Json, pairs: list[list[Any]]) -> Json:
    return {"map": {"key": key, "data": {"set": pairs}}}
