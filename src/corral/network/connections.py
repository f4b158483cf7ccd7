"""How many connections pass, by address: the kernel's table of tracked ones, as long as it is not too long to be read."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

# One line a connection (nf_conntrack_standalone.c): both directions' src= and dst=, and zone= where it is not 0.
TABLE: Final = Path("/proc/net/nf_conntrack")
NUMBER: Final = Path("/proc/sys/net/netfilter/nf_conntrack_count")
READ_MAX: Final = 16_384
"""A tenth of a second's reading, for whoever asks for metrics; of a host with more of them each card's are not told."""
_WORDS: Final = re.compile(r" (?:src|dst)=(\S+)| zone=(\d+)")


def connections(table: Path = TABLE, number: Path = NUMBER) -> Mapping[tuple[int, str], int] | None:
    """By zone and address; None where the kernel keeps or shows no table, or a very long one."""
    try:
        if int(number.read_text()) > READ_MAX:
            return None
        with table.open(encoding="ascii", errors="replace") as lines:
            return count(lines)
    except (OSError, ValueError):  # there is none, or it is for root alone
        return None


def count(lines: Iterable[str]) -> Mapping[tuple[int, str], int]:
    """Each connection once for each address that has a part in it, before or after translation."""
    found: Counter[tuple[int, str]] = Counter()
    for line in lines:
        words = _WORDS.findall(line)
        zone = next((int(number) for _, number in words if number), 0)
        found.update({(zone, address) for address, _ in words if address})
    return found
