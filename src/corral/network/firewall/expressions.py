"""nft's JSON expressions and statements, as many as the firewall is made of. Pure."""

from collections.abc import Iterable
from typing import Final

from corral.network.firewall.form import Json

ACCEPT: Final[Json] = {"accept": None}
DROP: Final[Json] = {"drop": None}
RETURN: Final[Json] = {"return": None}
MASQUERADE: Final[Json] = {"masquerade": None}
COUNTER: Final[Json] = {"counter": None}
LOG_SNAP_BYTES: Final = 128


def meta(key: str) -> Json:
    return {"meta": {"key": key}}


def ct(key: str) -> Json:
    return {"ct": {"key": key}}


def field(protocol: str, name: str) -> Json:
    return {"payload": {"protocol": protocol, "field": name}}


IIF: Final = meta("iifname")
OIF: Final = meta("oifname")
L4: Final = meta("l4proto")
SPORT: Final = field("th", "sport")
DPORT: Final = field("th", "dport")
FROM_MAC: Final = field("ether", "saddr")
TO_MAC: Final = field("ether", "daddr")
FROM4: Final = field("ip", "saddr")
TO4: Final = field("ip", "daddr")
FROM6: Final = field("ip6", "saddr")
TO6: Final = field("ip6", "daddr")


def concat(*parts: Json) -> Json:
    return {"concat": list(parts)}


def match(left: Json, right: object, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def among(left: Json, name: str, op: str = "==") -> Json:
    """In the named set."""
    return match(left, f"@{name}", op)


def one_of(left: Json, values: Iterable[object]) -> Json:
    found = list(values)
    return match(left, found[0] if len(found) == 1 else {"set": found})


def prefix(cidr: str) -> Json:
    address, _, length = cidr.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


def masked(left: Json, mask: int | str, value: int | str, op: str = "==") -> Json:
    return match({"&": [left, mask]}, value, op)


def put(left: Json, mask: int, value: int) -> Json:
    """Set the bits of `mask` in a 32-bit mark to `value`."""
    return {"mangle": {"key": left, "value": {"|": [{"&": [left, ~mask & 0xFFFFFFFF]}, value]}}}


def state(*names: str) -> Json:
    return match(ct("state"), names[0] if len(names) == 1 else list(names), "in")


def translated() -> Json:
    """The connection's destination was another one at first."""
    return match(ct("status"), "dnat", "in")


def vmap(left: Json, data: object) -> Json:
    return {"vmap": {"key": left, "data": data}}


def lookup(left: Json, data: object) -> Json:
    return {"map": {"key": left, "data": data}}


def jump(chain: str) -> Json:
    return {"jump": {"target": chain}}


def goto(chain: str) -> Json:
    return {"goto": {"target": chain}}


def counted(name: str) -> Json:
    return {"counter": name}


def log(group: int, text: str) -> Json:
    return {"log": {"prefix": text, "group": group, "snaplen": LOG_SNAP_BYTES}}


def at_most(per_s: int, burst: int) -> Json:
    return {"limit": {"rate": per_s, "per": "second", "burst": burst}}


TO_MANY: Final = masked(TO_MAC, "01:00:00:00:00:00", "00:00:00:00:00:00", "!=")
"""A frame for everybody, or for many."""
