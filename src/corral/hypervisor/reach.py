"""What can be done with a running guest from outside: see its screen, press its keys, ask and tell its agent. Sessions, not state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

# ---- screen and keys -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DisplayAddress:
    """Where a domain's graphical console listens, as its live document says."""

    kind: Literal["vnc", "spice"]
    socket: str = ""
    """A Unix socket's path; empty: `host` and `port`."""
    host: str = ""
    port: int = 0
    tls_port: int = 0


class Display(Protocol):
    """The bytes of a graphical console's protocol (RFB), both ways."""

    async def read(self) -> bytes:
        """What the hypervisor sent; empty at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class Screens(Protocol):
    """Screen and keyboard of running domains. Raises as the driver does; `unsupported` for a domain without a screen."""

    async def screenshot(self, uid: str) -> bytes:
        """The first screen as PNG."""
        ...

    async def display(self, uid: str) -> DisplayAddress | None:
        """Where it listens; None: it has no graphical console. `wrong-state` while it is off."""
        ...

    async def open_display(self, uid: str) -> Display:
        """A new connection to the VNC server, without its password; `unsupported` if there is none."""
        ...

    async def press(self, uid: str, codes: Sequence[int], hold_ms: int) -> None:
        """Hold these keys (Linux key codes) down together. Returns when they were handed over, not when they are up."""
        ...

    async def inject_nmi(self, uid: str) -> None: ...


# ---- the guest agent -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GuestUser:
    """Somebody who is logged in."""

    name: str
    logged_in_at_s: float | None = None
    """Seconds since 1970."""


@dataclass(frozen=True)
class GuestFileSystem:
    """One that is mounted."""

    mountpoint: str
    kind: str
    device: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None


@dataclass(frozen=True)
class GuestDetails:
    """What the agent tells beyond `GuestFacts`. Whatever it could not, or would not, tell is named in `untold`."""

    os_id: str = ""
    os_version: str = ""
    kernel: str = ""
    machine: str = ""
    time_ns: int | None = None
    """Nanoseconds since 1970 by the guest's clock."""
    timezone: str = ""
    utc_offset_s: int | None = None
    agent_version: str = ""
    users: tuple[GuestUser, ...] = ()
    file_systems: tuple[GuestFileSystem, ...] = ()
    untold: tuple[str, ...] = ()
    """Commands of the agent that it lacks or refuses: `guest-get-users`."""


@dataclass(frozen=True)
class GuestFile:
    """A file in a guest: where it is (was, will be), how long, and its permission bits."""

    path: str
    size_bytes: int
    mode: int


class GuestReader(Protocol):
    """A file of the guest's, open for reading. The guest may change it meanwhile: count what comes."""

    @property
    def file(self) -> GuestFile: ...

    async def read(self) -> bytes:
        """The next part; empty at the end."""
        ...

    async def close(self) -> None: ...


class GuestWriter(Protocol):
    """A file that is being written beside its place. Either `commit` puts it there, or `close` leaves nothing."""

    async def write(self, data: bytes) -> None: ...

    async def commit(self) -> GuestFile: ...

    async def close(self) -> None: ...


class Guests(Protocol):
    """Talk with guest agents. Raises `guest-agent-*`, also where the guest's administrator has blocked a command."""

    async def details(self, uid: str) -> GuestDetails: ...

    async def time_ns(self, uid: str) -> int:
        """The guest's clock, in nanoseconds since 1970."""
        ...

    async def set_time(self, uid: str, time_ns: int | None) -> None:
        """Set the clock; None: from the guest's own hardware clock, which goes on while a guest is paused or saved."""
        ...

    async def set_password(self, uid: str, user: str, password_hash: str) -> None:
        """crypt(5) text; the password itself goes nowhere."""
        ...

    async def open_read(self, uid: str, path: str, *, tree: bool) -> GuestReader:
        """A file, or with `tree` a directory as a tar archive. `guest-file-error` if there is none."""
        ...

    async def open_write(self, uid: str, path: str, name: str, mode: int, *, tree: bool) -> GuestWriter:
        """A file at `path`, or in it and called `name` if it is a directory. With `tree` what is written is a tar
        archive, and `commit` makes a new directory of it."""
        ...
