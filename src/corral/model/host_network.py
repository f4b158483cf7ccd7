"""A change of the host's own network: a bridge over the card that it is reached through, confirmed or taken back."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model
from corral.model.network_parts import Interface
from corral.model.requests import example

ChangeState = Literal["none", "applying", "pending", "confirmed", "rolling-back", "rolled-back"]
BridgeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,14}$")]


class BridgeRequest(Model):
    """A bridge over a card of the host's, which takes over the card's addresses."""

    model_config = example({"nic": "eth0", "bridge": "br0"})

    nic: Interface
    bridge: BridgeName = "br0"
    confirm_within_s: Annotated[float, Field(ge=limits.CONFIRM_MIN_S, le=limits.CONFIRM_MAX_S)] = (
        limits.CONFIRM_DEFAULT_S
    )
    """Unless it is confirmed until then, everything is as before."""


class FileEdit(Model):
    """A file of the host's as it is and as it is to be; null: it is not there."""

    path: str
    before: str | None
    after: str | None


class BridgePlan(Model):
    """What would be done, and how it would be taken back."""

    manager: str
    """Who configures the card: `ifupdown`, `netplan`, `systemd-networkd`, `NetworkManager`."""
    nic: str
    bridge: str
    addresses: tuple[str, ...]
    """Of the card: they move to the bridge."""
    carries_default_route: bool
    files: tuple[FileEdit, ...]
    commands: tuple[str, ...]
    undo: tuple[str, ...]
    notes: tuple[str, ...] = ()


class HostNetworkChange(Model):
    """The change that was begun last."""

    state: ChangeState
    """`pending`: applied, and waits for confirmation."""
    nic: str = ""
    bridge: str = ""
    manager: str = ""
    confirm_before: datetime | None = None
    reason: str = ""
    """Why it was taken back."""
    problems: tuple[str, ...] = ()
    """What of taking it back did not work."""
