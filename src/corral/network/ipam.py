"""Addresses of a subnet: which one is next, and whether one that was asked for can be given. Pure."""

import ipaddress
from typing import Final

from corral.errors import CorralError

# The first host address is the gateway's, as in libvirt's own networks.
GATEWAY_OFFSET: Final = 1


class NumberPool:
    """Numbers 0 … size-1, each given to one owner: round robin, so that a number freed is used again late.

    `taken` are those that claims in the store hold; `held` those of requests under way. Of all, those of `given_out`
    are given unasked.
    """

    def __init__(self, size: int, start: int = 0, given_out: range | None = None) -> None:
        self.size = size
        self.given_out = range(size) if given_out is None else given_out
        self.taken: set[int] = set()
        self.held: set[int] = set()
        self._next = start % size if size else 0

    def hold_next(self) -> int | None:
        """A free number, held; None when there is none."""
        if len(self.taken) + len(self.held - self.taken) >= self.size or not self.given_out:
            return None
        first, count = self.given_out.start, len(self.given_out)
        for _ in range(count):
            number = self._next if self._next in self.given_out else first
            self._next = first + (number + 1 - first) % count
            if number not in self.taken and number not in self.held:
                self.held.add(number)
                return number
        return None

    def hold(self, number: int) -> bool:
        """Hold this very number; False if somebody has it."""
        if number in self.taken or number in self.held:
            return False
        self.held.add(number)
        return True


def address_count(subnet: str) -> int:
    """Addresses that guests can have: all but the network's own, the gateway's and the broadcast address."""
    return max(0, ipaddress.IPv4Network(subnet).num_addresses - 3)


def address_at(subnet: str, number: int) -> str:
    """The guest address of `number` (from 0)."""
    return str(ipaddress.IPv4Network(subnet).network_address + GATEWAY_OFFSET + 1 + number)


def number_of(subnet: str, address: str) -> int | None:
    """The inverse of `address_at`; None for an address that guests of `subnet` cannot have."""
    try:
        number = int(ipaddress.IPv4Address(address)) - int(ipaddress.IPv4Network(subnet).network_address)
    except ValueError:
        return None
    number -= GATEWAY_OFFSET + 1
    return number if 0 <= number < address_count(subnet) else None


def parse_address(subnet: str, address: str) -> int:
    """The number of an address that somebody asked for; `invalid-argument` if guests of `subnet` cannot have it."""
    number = number_of(subnet, address)
    if number is None:
        raise CorralError(
            "invalid-argument",
            f"address {address[:45]!r}",
            f"it is not one that a guest of {subnet} can have",
            f"choose one from {address_at(subnet, 0)} to {address_at(subnet, address_count(subnet) - 1)}",
        )
    return number


def given_out(subnet: str, first: str, last: str) -> range:
    """The numbers that are given unasked, from the address `first` to `last`; empty texts: the subnet's ends."""
    end = address_count(subnet) - 1
    return range(parse_address(subnet, first) if first else 0, (parse_address(subnet, last) if last else end) + 1)


def hold_address(pool: NumberPool, subnet: str, network_name: str) -> int:
    """The next free number of `pool`, held; `no-free-address` when all are taken."""
    number = pool.hold_next()
    if number is None:
        raise CorralError(
            "no-free-address",
            f"an address in network {network_name!r}",
            f"all {len(pool.given_out)} addresses of {subnet} that are given unasked are taken",
            "delete a VM that is not needed, or make the range wider: corral network set",
            {"subnet": subnet, "addresses": len(pool.given_out)},
        )
    return number
