"""What the host's own routes and addresses occupy, and its bridges and cards."""

import asyncio
import ipaddress
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, TypeAdapter

from corral import proc

_TIMEOUT_S: Final = 10.0


class _Route(BaseModel):
    dst: str
    dev: str = ""


class _Address(BaseModel):
    local: str = ""
    prefixlen: int = 32


class _Link(BaseModel):
    ifname: str = ""
    addr_info: tuple[_Address, ...] = ()


_ROUTES: Final = TypeAdapter(tuple[_Route, ...])
ROOT: Final = Path("/")
_LINKS: Final = TypeAdapter(tuple[_Link, ...])
# Of no use to anybody else, and on every card.
_EVERYWHERE: Final = (
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("ff00::/8"),
    ipaddress.ip_network("::1/128"),
)


async def used_cidrs() -> Mapping[str, str]:
    """CIDRs of every route (all tables, so that a VPN's own table counts) and every address, with who has each."""
    ip = proc.require("ip", "iproute2")
    found: dict[str, str] = {}
    addresses, *tables = await asyncio.gather(
        proc.run((ip, "-j", "addr"), timeout_s=_TIMEOUT_S),
        *(proc.run((ip, "-j", each, "route", "show", "table", "all"), timeout_s=_TIMEOUT_S) for each in ("-4", "-6")),
    )
    for routes in tables:
        for route in _ROUTES.validate_python(_json(routes.stdout)):
            if route.dst != "default" and not _is_everywhere(route.dst):
                found.setdefault(
                    route.dst, f"the host's route through {route.dev}" if route.dev else "a route of the host's"
                )
    for link in _LINKS.validate_python(_json(addresses.stdout)):
        for address in link.addr_info:
            if address.local and not _is_everywhere(address.local):
                found.setdefault(f"{address.local}/{address.prefixlen}", f"the host's address on {link.ifname}")
    return found


def _is_everywhere(cidr: str) -> bool:
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return True
    return any(network.version == other.version and other.supernet_of(network) for other in _EVERYWHERE)  # type: ignore[arg-type]


def bridges(root: Path = ROOT) -> tuple[str, ...]:
    """The host's bridges: interfaces that the kernel shows the settings of a bridge for."""
    return tuple(sorted(found.parent.name for found in (root / "sys/class/net").glob("*/bridge")))


def _json(output: bytes) -> object:
    return json.loads(output or b"[]")
