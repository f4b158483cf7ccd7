"""A bridge in Debian's /etc/network/interfaces (interfaces(5)): the card's stanzas become the bridge's. Pure.

Made by `ip` in `pre-up` lines, so that no further package is needed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from corral.host.bridging.plan import (
    Command,
    Facts,
    FileChange,
    Manager,
    Plan,
    TextFile,
    Wish,
    keeps_cloud_init_away,
    refuse,
)

_AUTO: Final = re.compile(r"(auto|allow-[a-z-]+)\s")
_STANZA: Final = re.compile(
    r"(iface|mapping|auto|allow-[a-z-]+|no-auto-down|no-scripts|source|source-directory|rename|template)\b"
)
_METHODS: Final = ("dhcp", "static", "manual", "auto")
_WIRELESS: Final = ("wpa-", "wpa_", "wireless-", "wireless_")


@dataclass(frozen=True)
class Line:
    """A logical line: one that ends with a backslash goes on in the next."""

    number: int
    raw: str

    @property
    def words(self) -> tuple[str, ...]:
        text = self.raw.replace("\\\n", " ").strip()
        return () if text.startswith("#") else tuple(text.split())


def claims(files: Sequence[TextFile], nic: str) -> bool:
    """There is a stanza for the card."""
    return any(line.words[:2] == ("iface", nic) for file in files for line in _lines(file.text))


def plan_ifupdown(facts: Facts, wish: Wish) -> Plan:
    """Raises `unsupported` for what only a person can decide about."""
    stanzas = [
        (file, line) for file in facts.ifupdown for line in _lines(file.text) if line.words[:2] == ("iface", wish.nic)
    ]
    for file, line in stanzas:
        if len(line.words) < 4 or line.words[3] not in _METHODS:
            raise refuse(wish, f"{file.path}:{line.number} has a method that is not known here", _by_hand(wish))
    changed: list[FileChange] = []
    rest = len(stanzas)
    started = False
    for file in facts.ifupdown:
        _check(file, wish)
        editor = _Editor(wish, first=rest == len(stanzas), stanzas_left=rest, started=started)
        text = editor.edit(file.text)
        rest, started = editor.stanzas_left, editor.started
        if text != file.text:
            changed += [FileChange(file.path, file.text, text), *keeps_cloud_init_away(facts, file.path)]
    nic, bridge = wish.nic, wish.bridge
    up = Command(("ifup", "--force", nic))
    return Plan(
        manager=Manager.IFUPDOWN,
        nic=nic,
        bridge=bridge,
        files=tuple(changed),
        before=(Command(("ifdown", "--force", nic), needed=False), Command(("ip", "address", "flush", "dev", nic))),
        after=(Command(("ifup", bridge)),),
        undo_before=(Command(("ifdown", "--force", bridge), needed=False),),
        undo_after=(
            Command(("ip", "link", "del", "dev", bridge), needed=False),
            Command(("ip", "address", "flush", "dev", nic), needed=False),
            up,
        ),
        undo_again=(up,),
    )


def _lines(text: str) -> Iterator[Line]:
    waiting: list[str] = []
    start = 1
    for number, raw in enumerate(text.splitlines(), start=1):
        if not waiting:
            start = number
        waiting.append(raw)
        if not raw.endswith("\\"):
            yield Line(start, "\n".join(waiting))
            waiting = []
    if waiting:
        yield Line(start, "\n".join(waiting))


def words_of(text: str) -> Iterator[tuple[str, ...]]:
    """Of each line that says something."""
    return (line.words for line in _lines(text) if line.words)


def _check(file: TextFile, wish: Wish) -> None:
    """What names the card in another way than by its own stanzas."""
    inside = ""
    for line in _lines(file.text):
        words = line.words
        if not words:
            continue
        where = f"{file.path}:{line.number}"
        if _STANZA.match(words[0]):
            inside = words[1] if words[0] == "iface" and len(words) > 1 else ""
            named = [word for word in words[1:] if word.split(":")[0].split(".")[0] == wish.nic and word != wish.nic]
            if words[0] in ("mapping", "rename", "template") and wish.nic in line.raw:
                raise refuse(wish, f"{where} has a {words[0]} for {wish.nic}", _by_hand(wish))
            if words[0] == "iface" and named:
                raise refuse(wish, f"{where} puts {named[0]} on {wish.nic}", _by_hand(wish))
            if words[0] == "iface" and "inherits" in words and wish.nic in words:
                raise refuse(wish, f"{where} inherits from another stanza", _by_hand(wish))
            if words[0] == "iface" and inside == wish.bridge:
                raise refuse(wish, f"{where} configures {wish.bridge} already", "choose another name: --name br1")
            continue
        if inside == wish.nic and words[0].startswith(_WIRELESS):
            raise refuse(
                wish, f"{where}: {wish.nic} is wireless, and such a card cannot be in a bridge", "use a wired one"
            )
        if wish.nic in re.split(r"[^A-Za-z0-9_.-]+", line.raw):
            hint = f"write $IFACE there, or move the line, then ask again. {_by_hand(wish)}"
            raise refuse(wish, f"{where} names {wish.nic}: {' '.join(words)[:80]}", hint)


def _by_hand(wish: Wish) -> str:
    return f"make {wish.bridge} by hand (man interfaces), then: corral network create lan --bridge {wish.bridge}"


class _Editor:
    """Goes through one file once."""

    def __init__(self, wish: Wish, *, first: bool, stanzas_left: int, started: bool) -> None:
        self._wish = wish
        self._first = first
        self.stanzas_left = stanzas_left
        self.started = started

    def edit(self, text: str) -> str:
        out: list[str] = []
        for line in _lines(text):
            words = line.words
            if words and _AUTO.match(f"{words[0]} ") and self._wish.nic in words[1:]:
                out += self._auto(words)
            elif words[:2] == ("iface", self._wish.nic):
                out += self._stanza(line, text)
            else:
                out.append(line.raw)
        return "\n".join(out) + ("\n" if text.endswith("\n") else "")

    def _auto(self, words: tuple[str, ...]) -> Iterator[str]:
        left = [word for word in words[1:] if word != self._wish.nic]
        if left:
            yield " ".join([words[0], *left])
        if not self.started:
            self.started = True
            yield f"auto {self._wish.bridge}"

    def _stanza(self, line: Line, text: str) -> Iterator[str]:
        nic, bridge = self._wish.nic, self._wish.bridge
        if self._first:
            self._first = False
            yield f"iface {nic} inet manual"
            yield ""
            yield " ".join(["iface", bridge, *line.words[2:]])
            yield (
                f"    pre-up ip link show dev {bridge} >/dev/null 2>&1 || "
                f"ip link add name {bridge} address {self._wish.mac} type bridge stp_state 0 forward_delay 0"
            )
            if mtu := _mtu(text, line):
                yield f"    pre-up ip link set dev {nic} mtu {mtu}"
            yield f"    pre-up ip link set dev {nic} master {bridge} up"
        else:
            yield " ".join(["iface", bridge, *line.words[2:]])
        self.stanzas_left -= 1
        if not self.stanzas_left:  # the last one's: those before it still need the bridge
            yield f"    post-down ip link set dev {nic} nomaster || true"
            yield f"    post-down ip link del dev {bridge} || true"


def _mtu(text: str, stanza: Line) -> str:
    """What the stanza says of it: the bridge's can be no larger than the card's."""
    inside = False
    for line in _lines(text):
        if line.number == stanza.number:
            inside = True
        elif inside and line.words and _STANZA.match(line.words[0]):
            return ""
        elif inside and line.words[:1] == ("mtu",) and line.words[1:2] and line.words[1].isdigit():
            return line.words[1]
    return ""
