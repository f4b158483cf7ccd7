"""Names, sizes and identifiers: how they are spelt, and how text from people becomes them. Pure."""

import hashlib
import os
import re
import uuid
from typing import Final

from corral.errors import CorralError

# A DNS label (RFC 1123, section 2.1): the VM's name is its host name inside its network. 63 bytes is the label's limit.
NAME_MAX_CHARS: Final = 63
NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_NAME: Final = re.compile(NAME_PATTERN)

# Images carry versions, so dots are allowed: `debian-12`, `ubuntu-24.04`.
IMAGE_NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
_IMAGE_NAME: Final = re.compile(IMAGE_NAME_PATTERN)

LABEL_KEY_PATTERN: Final = r"^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$"
LABEL_VALUE_MAX_CHARS: Final = 256

# QEMU's and KVM's locally administered prefix, the one virt-install uses: 52:54:00.
MAC_PREFIX: Final = "52:54:00"

_UNITS: Final = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_SIZE: Final = re.compile(r"^\s*(\d{1,15}(?:\.\d{1,6})?)\s*([kmgtp]?)(i?b)?\s*$", re.IGNORECASE)
_BITS: Final = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_RATE: Final = re.compile(
    r"^\s*(\d{1,15}(?:\.\d{1,6})?)\s*(?:([kmg]?bit)(?:/s)?|([kmgt]?)(?:i?b)?(?:/s)?)\s*$", re.IGNORECASE
)
_DURATION: Final = re.compile(r"^\s*(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|m|h|d)?\s*$")
_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

MIB: Final = 2**20
GIB: Final = 2**30


def parse_name(text: str, what: str = "name") -> str:
    """Return `text` if it is a DNS label in lower case; raise `invalid-name` otherwise."""
    if _NAME.fullmatch(text):
        return text
    raise _bad_name(text, what, "a-z, 0-9 and '-', starting and ending with a letter or digit, at most 63 characters")


def parse_image_name(text: str) -> str:
    """Return `text` if it can name an image (a DNS label that may also hold dots); raise `invalid-name` otherwise."""
    if _IMAGE_NAME.fullmatch(text) and ".." not in text:
        return text
    raise _bad_name(
        text, "image name", "a-z, 0-9, '-' and single dots, starting and ending with a letter or digit, at most 63"
    )


def _bad_name(text: str, what: str, rule: str) -> CorralError:
    shown = text if len(text) <= NAME_MAX_CHARS else f"{text[:40]}… ({len(text)} characters)"
    return CorralError("invalid-name", f"{what} {shown!r}", f"{_an(what)} is made of {rule}", "choose another name")


def _an(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def parse_size_bytes(text: str, bare_unit: str, what: str = "size") -> int:
    """Bytes of `2G`, `512M`, `1.5GiB`, `2048`; a bare number counts in `bare_unit` (`b`, `k`, `m`, `g`).

    Units are powers of 1024, as in virt-install and qemu-img. Raises `invalid-size`.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise CorralError(
            "invalid-size", f"{what} {text[:40]!r}", "not a size", "write a number with K, M, G or T, for example 2G"
        )
    number, unit, suffix = match.groups()
    if not unit and not suffix:
        unit = bare_unit
    return round(float(number) * _UNITS[unit.lower()])


def parse_rate_bytes_per_s(text: str, what: str = "rate") -> int:
    """Bytes a second of `100mbit`, `1gbit` (bits, powers of 1000, as tc(8) has them), `12M`, `512K` (bytes, powers of
    1024, as everywhere else). Raises `invalid-size`."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise CorralError(
            "invalid-size", f"{what} {text[:40]!r}", "not a rate", "write 100mbit, 1gbit, or 12M for bytes a second"
        )
    number, bits, unit = match.groups()
    exact = float(number) * (_BITS[bits.lower()] / 8 if bits else _UNITS[(unit or "").lower()])
    return max(round(exact), 1 if exact else 0)  # however little is not nothing, which means `no limit`


def format_rate(bytes_per_s: int) -> str:
    """In bits, as networks are sold: `100 Mbit/s`."""
    bits = bytes_per_s * 8.0
    for unit in ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"):
        if bits < 1000 or unit == "Gbit/s":
            return f"{bits:.4g} {unit}"
        bits /= 1000
    raise AssertionError("unreachable")


def parse_duration_s(text: str, what: str = "duration") -> float:
    """Seconds of `60s`, `5m`, `2h`, `250ms`, `90`. Raises `invalid-argument`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise CorralError("invalid-argument", f"{what} {text[:40]!r}", "not a duration", "write 30s, 5m or 2h")
    return float(match[1]) * _DURATION_UNITS[match[2] or "s"]


def format_bytes(count: int) -> str:
    """`1.5 GiB`: short, for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def plain_text(text: str, max_chars: int) -> str:
    """One line of `text` as somebody not trusted wrote it (a guest): control characters, which could steer a terminal,
    and lone surrogates, which no document can carry, become `?`; cut at `max_chars`."""
    return "".join(character if character.isprintable() else "?" for character in text[:max_chars])


TAP_PREFIX: Final = "crt"


def tap_name(vm_uid: str, nic_name: str) -> str:
    """The host's end of a VM's card: the same whenever it runs, and nobody else's."""
    return f"{TAP_PREFIX}{hashlib.sha256(f'{vm_uid}/{nic_name}'.encode()).hexdigest()[:12]}"


def ifb_name(device: str) -> str:
    """Of the intermediate device (ifb) that what comes in at `device` is queued on, so that it can be slowed down."""
    return f"cri{hashlib.sha256(device.encode()).hexdigest()[:12]}"


def new_uid() -> str:
    """A random UUID (version 4) as text; a VM's uid is its libvirt UUID."""
    return str(uuid.uuid4())


def new_mac() -> str:
    """A random locally administered MAC address in QEMU's range."""
    tail = os.urandom(3)
    return MAC_PREFIX + "".join(f":{byte:02x}" for byte in tail)


def parse_numbers(text: str) -> frozenset[int]:
    """A set of numbers as the kernel, taskset and libvirt write it: `0-3,8`; `^2` takes one out again."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().lstrip("^").partition("-")
        if first:
            found = set(range(int(first), int(last or first) + 1))
            numbers = numbers - found if part.strip().startswith("^") else numbers | found
    return frozenset(numbers)


def format_numbers(numbers: frozenset[int]) -> str:
    """The shortest such text: `0-3,8`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


PORT_PREFIX: Final = "crr"


def port_name(router_uid: str, network_uid: str) -> str:
    """The interface of a router in a network's bridge; as long as the kernel lets a name be (IFNAMSIZ)."""
    return PORT_PREFIX + hashlib.sha256(f"{router_uid}/{network_uid}".encode()).hexdigest()[:12]


def namespace_name(router_uid: str) -> str:
    """The network namespace that is a router."""
    return "crn" + router_uid.replace("-", "")[:12]
