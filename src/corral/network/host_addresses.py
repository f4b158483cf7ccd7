"""Addresses of the host's own that a guest may stand behind: those that it has besides the first of each interface."""

import json
from typing import Final

from pydantic import BaseModel, TypeAdapter

from corral import proc

_TIMEOUT_S: Final = 10.0


class _Address(BaseModel):
    family: str = ""
    local: str = ""
    scope: str = ""


class _Link(BaseModel):
    ifname: str
    addr_info: tuple[_Address, ...] = ()


_LINKS: Final = TypeAdapter(tuple[_Link, ...])


async def spare_addresses() -> tuple[str, ...]:
    """IPv4. The first is the host's face: who reaches the host there is not to be led elsewhere."""
    done = await proc.run((proc.require("ip", "iproute2"), "-j", "-4", "addr"), timeout_s=_TIMEOUT_S)
    return spare_in(done.stdout)


def spare_in(answer: bytes) -> tuple[str, ...]:
    found = []
    for link in _LINKS.validate_python([one for one in json.loads(answer or b"[]") if one]):
        own = [each.local for each in link.addr_info if each.family == "inet" and each.scope == "global"]
        found += own[1:]
    return tuple(found)
