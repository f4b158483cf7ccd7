"""What `network create` and `network set` have in common: how people write what a network serves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

from corral.cli.bandwidth import NETWORK_HELP, parse_bandwidth
from corral.errors import CorralError

NONE: Final = "none"
ALL: Final = "all"
_KEYS: Final = ("name", "mac", "address")

_OPTIONS: Final = (
    click.option("--domain", metavar="SUFFIX", help="Of the guests' names.  [default: NAME.internal]"),
    click.option("--mtu", type=int, metavar="BYTES", help="Of its bridge and cards; 0: the kernel's, 1500."),
    click.option(
        "--ipv6",
        type=click.Choice(["dhcp", "slaac", NONE]),
        help="dhcp: addresses reserved as the IPv4 ones. slaac: what each card makes of its MAC.",
    ),
    click.option("--subnet6", metavar="CIDR", help="IPv6, a /64.  [default: a unique local one, with --ipv6]"),
    click.option(
        "--dns", multiple=True, metavar="ADDRESS", help="Ask this server for names from elsewhere; again: more."
    ),
    click.option("--dhcp-range", metavar="FIRST-LAST", help="What is given out unasked; all: the whole subnet."),
    click.option("--dhcp-option", multiple=True, metavar="NUMBER=VALUE", help="One more option of DHCP; again: more."),
    click.option("--boot", metavar="FILE[@SERVER]", help="What machines boot over the network (PXE), and from where."),
    click.option(
        "--dhcp-relay",
        metavar="ADDRESS",
        help="Whom DHCP is asked of, where a router is the gateway: it passes on what guests ask.",
    ),
    click.option("--host-names/--no-host-names", default=None, help="Its guests' names resolve on this host, too."),
    click.option("--in", "bandwidth_in", metavar="LIMIT", help=f"All of its guests from beyond it: {NETWORK_HELP}."),
    click.option("--out", "bandwidth_out", metavar="LIMIT", help="What they send there, likewise."),
)


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_serving(options: Mapping[str, Any]) -> dict[str, Any]:
    """The request's fields of the options that were given. `none` takes something away."""
    body = {key: options[key] for key in ("domain", "mtu", "subnet6", "host_names") if options[key] is not None}
    if options["ipv6"] is not None:
        body["ipv6"] = "" if options["ipv6"] == NONE else options["ipv6"]
    if options["dns"]:
        body["dns"] = [each for each in options["dns"] if each != NONE]
    if options["dhcp_range"] is not None:
        body["dhcp_first"], body["dhcp_last"] = _range(options["dhcp_range"])
    if options["dhcp_option"]:
        body["dhcp_options"] = [_option(text) for text in options["dhcp_option"] if text != NONE]
    if (relay := options["dhcp_relay"]) is not None:
        body["dhcp_relay"] = "" if relay == NONE else relay
    if options["boot"] is not None:
        body["boot"] = _boot(options["boot"])
    for word in ("in", "out"):
        if (text := options[f"bandwidth_{word}"]) is not None:
            body[f"bandwidth_{word}"] = parse_bandwidth(text, f"--{word}")
    return body


def _range(text: str) -> tuple[str, str]:
    if text == ALL:
        return "", ""
    first, dash, last = text.partition("-")
    if not dash or not first or not last:
        raise CorralError(
            "invalid-argument", f"--dhcp-range {text!r}", "it is no range", "for example 10.0.0.100-10.0.0.199"
        )
    return first.strip(), last.strip()


def _option(text: str) -> dict[str, Any]:
    code, given, value = text.partition("=")
    if not given or not code.isdecimal():
        hint = "its number: 42=10.0.0.5 is the time server"
        raise CorralError("invalid-argument", f"--dhcp-option {text!r}", "it is no NUMBER=VALUE", hint)
    return {"code": int(code), "value": value}


def _boot(text: str) -> dict[str, Any] | str:
    if text == NONE:
        return ""
    file, _, server = text.partition("@")
    return {"file": file, "server": server} if server else {"file": file}


def parse_reservations(texts: Sequence[str]) -> list[dict[str, str]]:
    """All `--reserve`: `name=printer,mac=52:54:00:…,address=10.0.0.9`."""
    found = []
    for text in texts:
        pairs = dict(part.partition("=")[::2] for part in text.split(","))
        if sorted(pairs) != sorted(_KEYS):
            hint = "name=printer,mac=00:11:22:33:44:55,address=10.0.0.9"
            raise CorralError(
                "invalid-argument", f"--reserve {text!r}", "it names a machine, its MAC and address", hint
            )
        found.append({**pairs, "mac": pairs["mac"].lower()})
    return found
