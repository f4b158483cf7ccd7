"""A change of the host's network configuration: files and commands, and how it is taken back. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from corral.errors import CorralError

FILE_MODE: Final = 0o644
SECRET_MODE: Final = 0o600
"""What NetworkManager and netplan ask of files that may hold keys."""
CLOUD_INIT_OFF: Final = "/etc/cloud/cloud.cfg.d/99-corral-network.cfg"


class Manager(StrEnum):
    """Who configures a card; their own names."""

    IFUPDOWN = "ifupdown"
    NETWORKD = "systemd-networkd"
    NETPLAN = "netplan"
    NETWORK_MANAGER = "NetworkManager"


@dataclass(frozen=True)
class Command:
    """One step. Where one fails that is `needed`, all is taken back."""

    argv: tuple[str, ...]
    needed: bool = True


@dataclass(frozen=True)
class FileChange:
    """A file as it was and as it is to be; None: it is not there."""

    path: str
    before: str | None
    after: str | None
    mode: int = FILE_MODE
    """Of the new file; one that was there keeps its own."""
    own_directory: bool = False
    """Its directory comes with it, and goes with it when nothing else is in there."""


@dataclass(frozen=True)
class Plan:
    manager: Manager
    nic: str
    bridge: str
    files: tuple[FileChange, ...]
    before: tuple[Command, ...] = ()
    """While the files are as they were."""
    after: tuple[Command, ...] = ()
    undo_before: tuple[Command, ...] = ()
    """Taking back, while the new files are still there."""
    undo_after: tuple[Command, ...] = ()
    undo_again: tuple[Command, ...] = ()
    """Where the card has not got its addresses back by all that."""
    addresses: tuple[str, ...] = ()
    """The card's own."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wish:
    """A bridge over a card, which takes over its addresses."""

    nic: str
    bridge: str
    mac: str
    """The card's: the bridge keeps it, so that DHCP gives the same address."""


@dataclass(frozen=True)
class TextFile:
    path: str
    text: str
    mode: int = FILE_MODE


@dataclass(frozen=True)
class NicFacts:
    """A card as the kernel shows it."""

    name: str
    mac: str
    ethernet: bool = True
    wireless: bool = False
    virtual: str = ""
    """`bridge`, `bond`, `vlan` …; empty for a card."""
    master: str = ""
    """The bridge or bond that it is part of already."""
    addresses: tuple[str, ...] = ()
    default_route: bool = False
    index: int = 0


@dataclass(frozen=True)
class Identity:
    """What a program made up for a card by the card's name, and would make up anew for a bridge. Empty: it did not."""

    iaid_v4: str = ""
    """Goes into what a DHCP server knows a client by (RFC 4361): with another one it gives another address."""
    iaid_v6: str = ""
    route_metric: str = ""


@dataclass(frozen=True)
class Facts:
    """All that the planners look at."""

    nic: NicFacts
    interfaces: frozenset[str]
    """Every interface of the host's."""
    ifupdown: tuple[TextFile, ...] = ()
    """`/etc/network/interfaces` and what it sources, in order; empty where ifupdown is not installed."""
    networkd: tuple[TextFile, ...] = ()
    """The .network file that systemd-networkd has applied to the card, and its drop-ins."""
    netplan: tuple[TextFile, ...] = ()
    network_manager: TextFile | None = None
    """The connection that NetworkManager has up on the card."""
    connection: str = ""
    """Its UUID, which need not be in its file."""
    identity: Identity = Identity()
    others: Mapping[str, TextFile] = field(default_factory=dict)
    """Files that a plan may write and that are there already, by path."""
    cloud_init: bool = False


def refuse(wish: Wish, reason: str, hint: str) -> CorralError:
    return CorralError("unsupported", f"make bridge {wish.bridge} over {wish.nic}", reason, hint)


def written(facts: Facts, path: str, text: str, mode: int = FILE_MODE, *, own_directory: bool = False) -> FileChange:
    """A file that may be there already."""
    known = facts.others.get(path)
    return FileChange(path, None if known is None else known.text, text, mode, own_directory)


def keeps_cloud_init_away(facts: Facts, path: str) -> tuple[FileChange, ...]:
    """cloud-init writes its own network file again at the next boot, unless it is told not to."""
    if not facts.cloud_init or "cloud-init" not in path:
        return ()
    return (written(facts, CLOUD_INIT_OFF, "network: {config: disabled}\n"),)
