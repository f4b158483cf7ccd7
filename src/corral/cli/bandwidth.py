"""Limits and promises of bandwidth, as people write them."""

from typing import Any, Final

from corral.errors import CorralError
from corral.names import format_bytes, format_rate, parse_rate_bytes_per_s, parse_size_bytes

NONE: Final = "none"
HELP: Final = "100mbit, or average=100mbit,peak=1gbit,burst=1M,floor=10mbit; none: no limit"
NETWORK_HELP: Final = "100mbit, or average=100mbit,peak=1gbit,burst=1M; none: no limit"
_RATES: Final = ("average", "peak", "floor")


def parse_bandwidth(text: str, what: str) -> dict[str, Any]:
    """`100mbit`, `average=100mbit,peak=200mbit,burst=1M,floor=10mbit`, `none`."""
    if text.strip().lower() in (NONE, "0"):
        return {}
    found: dict[str, Any] = {}
    for part in text.split(","):
        word, given, value = part.partition("=")
        word, value = (word.strip(), value) if given else ("average", part)
        if word in _RATES:
            found[f"{word}_bytes_per_s"] = parse_rate_bytes_per_s(value, f"{what} {word}")
        elif word == "burst":
            found["burst_bytes"] = parse_size_bytes(value, "b", f"{what} burst")
        else:
            raise CorralError("invalid-argument", f"{what} {text[:64]!r}", f"{word[:32]!r} is unknown there", HELP)
    return found


def shown(bandwidth: dict[str, Any] | None) -> str:
    """`100 Mbit/s, at least 10 Mbit/s`; `-`: no limit."""
    found = bandwidth or {}
    parts = []
    if average := found.get("average_bytes_per_s"):
        parts.append(format_rate(average))
    if peak := found.get("peak_bytes_per_s"):
        parts.append(f"peak {format_rate(peak)}")
    if burst := found.get("burst_bytes"):
        parts.append(f"burst {format_bytes(burst)}")
    if floor := found.get("floor_bytes_per_s"):
        parts.append(f"at least {format_rate(floor)}")
    return ", ".join(parts) or "-"
