"""What may be asked of a running guest from outside, and what it answers: keys, clock, password, screen, files."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SecretStr, StringConstraints

from corral.model import limits
from corral.model.base import Model


def _example(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


class SendKeysRequest(Model):
    """Press keys: `keys`, and then what types `text`."""

    model_config = _example({"keys": ["ctrl-alt-del"]}, {"keys": ["KEY_LEFTCTRL", "KEY_C"]}, {"text": "root\n"})

    keys: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...],
        Field(max_length=limits.KEYS_MAX),
    ] = ()
    """Combinations, pressed one after the other: `ctrl-alt-del`, `alt-f2`, `enter`. Words that are all `KEY_…` or
    numbers are one combination, as in virsh."""
    text: Annotated[str, StringConstraints(max_length=limits.TYPED_TEXT_MAX_CHARS)] = ""
    """Typed on a US keyboard."""
    hold_ms: Annotated[int, Field(ge=1, le=limits.KEY_HOLD_MAX_MS)] | None = None
    """How long each combination is held; a tenth of a second when it is not given, less for text."""


class SetPasswordRequest(Model):
    """A new password for a user that the guest has. It is hashed here; the guest gets the hash."""

    model_config = _example({"user": "root", "password": "correct horse battery staple"})

    user: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?$")]
    password: SecretStr


class SetClockRequest(Model):
    """Set the guest's clock: to this host's time unless it is told otherwise."""

    model_config = _example({}, {"source": "rtc"})

    source: Literal["host", "rtc", "time"] = "host"
    """`rtc`: the guest's own hardware clock, which goes on while a guest is paused; `time`: the one that is given."""
    time: datetime | None = None


class ClockAnswer(Model):
    """Both clocks at one moment, as far as the way to the guest allows."""

    guest_time: datetime
    host_time: datetime
    offset_s: float
    """How far the guest's clock is ahead of the host's; negative: behind."""
    uncertainty_s: float
    """Half of the time that asking took: the offset is known no better."""


class DisplayAnswer(Model):
    """Where the graphical console listens on the VM's host."""

    kind: Literal["vnc", "spice", "none"]
    uri: str = ""
    """What viewers on that host take: `vnc+unix:///run/…`, `vnc://127.0.0.1:5900`."""


class GuestUserAnswer(Model):
    """Somebody who is logged in."""

    name: str
    logged_in_at: datetime | None = None


class GuestFileSystemAnswer(Model):
    mountpoint: str
    kind: str
    device: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None


class FileAnswer(Model):
    """A file that was, or is being, copied: in the guest."""

    path: str
    size_bytes: int
    mode: int
    """Permission bits."""
