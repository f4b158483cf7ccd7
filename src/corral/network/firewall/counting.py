"""The firewall's counters out of nftables' listings. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from corral.network.firewall.base import Count
from corral.network.firewall.layout import Ident


def listing(ident: Ident) -> tuple[tuple[str, ...], ...]:
    """The commands whose answers hold the counters."""
    return tuple(("nft", "-j", "list", "table", family, ident.table) for family in ("inet", "bridge"))


def counts_in(answer: bytes) -> dict[str, Count]:
    """By the comment of a rule, or the name of a counter; what bears the same name is added up."""
    found: dict[str, Count] = {}
    for name, count in _counted(json.loads(answer)["nftables"]):
        known = found.get(name, Count())
        found[name] = Count(known.packets + count.packets, known.bytes + count.bytes)
    return found


def _counted(listed: list[dict[str, Any]]) -> Iterator[tuple[str, Count]]:
    for item in listed:
        if "counter" in item:
            counter = item["counter"]
            yield counter["name"], Count(counter["packets"], counter["bytes"])
        elif "rule" in item and "comment" in item["rule"]:
            for statement in item["rule"]["expr"]:
                counter = statement.get("counter")
                if isinstance(counter, dict):
                    yield item["rule"]["comment"], Count(counter["packets"], counter["bytes"])
