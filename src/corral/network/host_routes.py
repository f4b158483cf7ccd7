"""What the host's own routes and addresses occupy."""

import json
from pathlib import Path
from typing import Final

from pydantic import BaseModel, TypeAdapter

from corral import proc

_TIMEOUT_S: Final = 10.0


class _Route(BaseModel):
    dst: str


class _Address(BaseModel):
    local: str = ""
    prefixlen: int = 32


class _Link(BaseModel):
    addr_info: tuple[_Address, ...] = ()


_ROUTES: Final = TypeAdapter(tuple[_Route, ...])
ROOT: Final = Path("/")
_LINKS: Final = TypeAdapter(tuple[_Link, ...])


async def used_cidrs() -> tuple[str, ...]:
    """CIDRs of every route (all tables, so that a VPN's own table counts) and every address, IPv4."""
    require = proc.require("ip", "iproute2")
    routes = await proc.run((require, "-j", "-4", "route", "show", "table", "all"), timeout_s=_TIMEOUT_S)
    addresses = await proc.run((require, "-j", "-4", "addr"), timeout_s=_TIMEOUT_S)
    found = {route.dst for route in _ROUTES.validate_python(_json(routes.stdout)) if route.dst != "default"}
    for link in _LINKS.validate_python(_json(addresses.stdout)):
        found.update(f"{address.local}/{address.prefixlen}" for address in link.addr_info if address.local)
    return tuple(sorted(found))


def bridges(root: Path = ROOT) -> tuple[str, ...]:
    """The host's bridges: interfaces that the kernel shows the settings of a bridge for."""
    return tuple(sorted(found.parent.name for found in (root / "sys/class/net").glob("*/bridge")))


def _json(output: bytes) -> object:
    return json.loads(output or b"[]")
