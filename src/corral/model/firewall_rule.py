"""One rule of a firewall: what it matches, and how people write it (`in tcp/443 from 10.0.0.0/8`). Pure."""

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from corral.errors import CorralError
from corral.model import limits
from corral.model.base import Model, written_unless
from corral.names import NAME_PATTERN, plain_text

Direction = Literal["in", "out"]
Protocol = Literal["any", "tcp", "udp", "sctp", "icmp", "icmpv6"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("any", "tcp", "udp", "sctp", "icmp", "icmpv6")
WITH_PORTS: Final = frozenset({"tcp", "udp", "sctp"})
WITH_TYPES: Final = frozenset({"icmp", "icmpv6"})
ANY: Final = "any"
GROUP: Final = "group"
NETWORK: Final = "network"
LOG: Final = "log"

Port = Annotated[int, Field(ge=1, le=65535)]
RuleId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
RuleText = Annotated[str, StringConstraints(max_length=limits.RULE_MAX_CHARS)]

_NAME: Final = re.compile(NAME_PATTERN)
_HINT: Final = "write for example: in tcp/443 from 10.0.0.0/8, in icmp/echo-request, out udp/53 to network:lab, in any from group:web"
# RFC 792 and RFC 4443; by their usual names.
_ICMP_TYPES: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "icmp": {"echo-reply": 0, "destination-unreachable": 3, "redirect": 5, "echo-request": 8, "time-exceeded": 11},
        "icmpv6": {
            "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "echo-request": 128, "echo-reply": 129,
        },
    }
)  # fmt: skip


class Traffic(Model):
    """What new connections are meant: a protocol, and the ports that they go to, or the type of message."""

    protocol: Protocol = "any"
    port_min: Annotated[Port | None, written_unless(None)] = None
    port_max: Annotated[Port | None, written_unless(None)] = None
    """Both or none; none is all ports."""
    icmp_type: Annotated[int | None, Field(ge=0, le=255), written_unless(None)] = None
    icmp_code: Annotated[int | None, Field(ge=0, le=255), written_unless(None)] = None

    @property
    def text(self) -> str:
        """`tcp/80`, `udp/8000-8099`, `icmp/8`, `icmp/3.4`, `any`."""
        if self.port_min is not None:
            return f"{self.protocol}/{_range(self.port_min, self.port_max)}"
        if self.icmp_type is not None:
            return f"{self.protocol}/{self.icmp_type}" + (f".{self.icmp_code}" if self.icmp_code is not None else "")
        return self.protocol


class SecurityRule(Traffic):
    """New connections that are let through. What answers them, or belongs to them, is let through with them."""

    id: RuleId
    """Made of what it says, so that the same rule has the same id in every group."""
    direction: Direction
    peer: Annotated[str, StringConstraints(max_length=80)] = ANY
    """The other end: `any`, a CIDR (`10.0.0.0/8`, `fd00::/8`), `network:NAME` or `group:NAME`."""
    log: Annotated[bool, written_unless(False)] = False
    """New connections that it lets through are told of: so many a second."""

    @property
    def meaning(self) -> str:
        """What it matches: `in tcp/443 from any`."""
        return f"{self.direction} {super().text} {_PREPOSITION[self.direction]} {self.peer}"

    @property
    def text(self) -> str:
        """As it is written: `in tcp/443 from any`, `in tcp/22 from 10.0.0.0/8 log`."""
        return f"{self.meaning} {LOG}" if self.log else self.meaning

    @property
    def group(self) -> str:
        """The group whose members are the other end; empty: it is something else."""
        return named(self.peer, GROUP)

    @property
    def network(self) -> str:
        return named(self.peer, NETWORK)


_PREPOSITION: Final[Mapping[str, str]] = MappingProxyType({"in": "from", "out": "to"})


def named(peer: str, what: str) -> str:
    """The name in `group:web`; empty for a peer of another kind."""
    kind, _, name = peer.partition(":")
    return name if kind == what else ""


def make_rule(direction: Direction, traffic: Traffic, peer: str, *, log: bool = False) -> SecurityRule:
    """With the id that its meaning gives it."""
    rule = SecurityRule(id="00000000", direction=direction, peer=peer, log=log, **dict(traffic))
    return rule.model_copy(update={"id": hashlib.sha256(rule.meaning.encode()).hexdigest()[:8]})


# ---- reading -------------------------------------------------------------------------------------------------------


def parse_rule(text: str) -> SecurityRule:
    """`in tcp/443 from 10.0.0.0/8`; without an end it is for any; `log` behind it. Raises `invalid-rule`."""
    words = text.split()
    logged = len(words) in (3, 5) and words[-1] == LOG
    if logged:
        words.pop()
    if not words or words[0] not in _PREPOSITION:
        raise _refused(text, "a rule begins with in or out")
    direction: Direction = "in" if words[0] == "in" else "out"
    preposition = _PREPOSITION[direction]
    if len(words) not in (2, 4) or (len(words) == 4 and words[2] != preposition):
        raise _refused(text, f"a rule is: {direction} PROTOCOL[/PORTS] [{preposition} PEER] [{LOG}]")
    traffic = parse_traffic(words[1], text)
    peer = parse_peer(words[3] if len(words) == 4 else ANY, text)
    check_families(traffic, peer, text)
    return make_rule(direction, traffic, peer, log=logged)


def parse_traffic(word: str, rule: str) -> Traffic:
    """`tcp/80`, `tcp/8000-8099`, `icmp/echo-request`, `any`. `rule`: what is asked, for the refusal."""
    protocol, slash, detail = word.partition("/")
    if protocol not in PROTOCOLS:
        raise _refused(rule, f"{_shown(protocol)} is no protocol of: {', '.join(PROTOCOLS)}")
    known: Protocol = PROTOCOLS[PROTOCOLS.index(protocol)]
    if not slash or detail == ANY:
        return Traffic(protocol=known)
    if protocol in WITH_PORTS:
        first, dash, last = detail.partition("-")
        low = _number(first, 1, 65535, "port", rule)
        high = _number(last, 1, 65535, "port", rule) if dash else low
        if low > high:
            raise _refused(rule, f"the range {low}-{high} ends before it begins")
        return Traffic(protocol=known, port_min=low, port_max=high)
    if protocol in WITH_TYPES:
        kind, dot, code = detail.partition(".")
        named_type = _ICMP_TYPES[protocol].get(kind)
        return Traffic(
            protocol=known,
            icmp_type=named_type if named_type is not None else _number(kind, 0, 255, f"{protocol} type", rule),
            icmp_code=_number(code, 0, 255, f"{protocol} code", rule) if dot else None,
        )
    raise _refused(rule, "ports are tcp's, udp's and sctp's: any has none")


def parse_peer(word: str, rule: str) -> str:
    """The canonical text of the other end. That the group or network is there is for others to say."""
    kind, colon, name = word.partition(":")
    if word == ANY:
        return ANY
    if colon and kind in (GROUP, NETWORK):
        if not _NAME.fullmatch(name):
            raise _refused(rule, f"{_shown(name)} cannot be the name of a {kind}")
        return f"{kind}:{name}"
    if "%" in word:  # a zone index, behind which the library takes any text
        raise _refused(rule, f"{_shown(word)} has a zone, which means nothing outside of one host")
    try:
        return str(ipaddress.ip_network(word, strict=True))
    except ValueError:
        pass
    try:
        whole = ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise _refused(rule, f"{_shown(word)} is no address, CIDR, group:NAME or network:NAME") from None
    raise _refused(rule, f"{_shown(word)} has bits beyond its prefix; the network is {whole}")


def check_families(traffic: Traffic, peer: str, rule: str) -> None:
    """ICMP is IPv4's, ICMPv6 is IPv6's."""
    if peer == ANY or peer.startswith((f"{GROUP}:", f"{NETWORK}:")):
        return
    version = ipaddress.ip_network(peer).version
    if (traffic.protocol, version) in (("icmp", 6), ("icmpv6", 4)):
        raise _refused(rule, f"{traffic.protocol} is not IPv{version}'s, as {peer} is")


def _number(text: str, low: int, high: int, what: str, rule: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6 or not low <= int(text) <= high:
        raise _refused(rule, f"{what} {_shown(text)} is not one of {low} to {high}")
    return int(text)


def _range(low: int, high: int | None) -> str:
    return str(low) if high in (None, low) else f"{low}-{high}"


def _shown(text: str) -> str:
    return repr(plain_text(text, 48))


def _refused(rule: str, reason: str) -> CorralError:
    return CorralError("invalid-rule", f"rule {_shown(rule)}", reason, _HINT)
