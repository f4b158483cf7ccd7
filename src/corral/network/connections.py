"""How many connections pass, by address: the kernel's table of tracked ones."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

# One line a connection (nf_conntrack_standalone.c): both directions' src= and dst=, and zone= where it is not 0.
TABLE: Final = Path("/proc/net/nf_conntrack")


def connections(table: Path = TABLE) -> Mapping[tuple[int, str], int] | None:
    """By zone and address; None where the kernel keeps or shows no table."""
    try:
        with table.open(encoding="ascii", errors="replace") as lines:
            return count(lines)
    except FileNotFoundError:
        return None


def count(lines: Iterable[str]) -> Mapping[tuple[int, str], int]:
    """Each connection once for each address that has a part in it, before or after translation."""
    found: Counter[tuple[int, str]] = Counter()
    for line in lines:
        zone, parts = 0, set()
        for word in line.split():
            key, _, value = word.partition("=")
            if key in ("src", "dst"):
                parts.add(value)
            elif key == "zone":
                zone = int(value)
        found.update((zone, address) for address in parts)
    return found
