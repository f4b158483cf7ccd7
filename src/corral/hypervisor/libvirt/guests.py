"""Talk with guests through their agents: who is logged in, what is mounted, the clock, passwords. What a guest says is not trusted."""

import base64
from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import Field

from corral.errors import CorralError
from corral.hypervisor.libvirt.guest_agent import Answer, Ask, tell
from corral.hypervisor.libvirt.guest_files import open_read, open_write
from corral.hypervisor.reach import GuestDetails, GuestFileSystem, GuestReader, GuestUser, GuestWriter
from corral.names import plain_text

A = TypeVar("A", bound=Answer)

TEXT_MAX_CHARS: Final = 256
USERS_MAX: Final = 64
FILE_SYSTEMS_MAX: Final = 64
# Setting the clock and asking it again takes two agents' answers; a difference below this is the way, not the clock.
CLOCK_TOLERANCE_NS: Final = 5 * 10**9


class _Os(Answer):
    id: str = ""
    version: str = Field("", alias="version-id")
    kernel: str = Field("", alias="kernel-release")
    machine: str = ""


class _Info(Answer):
    version: str = ""


class _Timezone(Answer):
    zone: str = ""
    offset: int | None = Field(None, ge=-86_400, le=86_400)


class _User(Answer):
    user: str
    login_time: float | None = Field(None, alias="login-time", ge=0, le=2**40)


class _Users(Answer):
    items: tuple[_User, ...]


class _Device(Answer):
    dev: str = ""


class _FileSystem(Answer):
    name: str = ""
    mountpoint: str
    type: str = ""
    used_bytes: int | None = Field(None, alias="used-bytes", ge=0, lt=2**63)
    total_bytes: int | None = Field(None, alias="total-bytes", ge=0, lt=2**63)
    disk: tuple[_Device, ...] = ()


class _FileSystems(Answer):
    items: tuple[_FileSystem, ...]


class _Time(Answer):
    items: int = Field(ge=0, lt=2**63)


class _Nothing(Answer):
    pass


class LibvirtGuests:
    """`Guests` of the contract. `ask_of` gives the way to one guest's agent."""

    def __init__(self, ask_of: Callable[[str], Ask]) -> None:
        self._ask_of = ask_of

    async def details(self, uid: str) -> GuestDetails:
        return await details(self._ask_of(uid))

    async def time_ns(self, uid: str) -> int:
        return await time_ns(self._ask_of(uid))

    async def set_time(self, uid: str, time_ns: int | None) -> None:
        await set_time(self._ask_of(uid), time_ns)

    async def set_password(self, uid: str, user: str, password_hash: str) -> None:
        encoded = base64.b64encode(password_hash.encode()).decode()
        arguments = {"username": user, "password": encoded, "crypted": True}
        await tell(self._ask_of(uid), "guest-set-user-password", _Nothing, arguments)

    async def open_read(self, uid: str, path: str, *, tree: bool) -> GuestReader:
        return await open_read(self._ask_of(uid), path, tree=tree)

    async def open_write(self, uid: str, path: str, name: str, mode: int, *, tree: bool) -> GuestWriter:
        return await open_write(self._ask_of(uid), path, name, mode, tree=tree)


async def details(ask: Ask) -> GuestDetails:
    """Each fact is a command of its own; one that this agent lacks, or that was blocked, is named and its fact empty.

    The first must be answered: it tells whether there is an agent at all."""
    untold: list[str] = []

    async def told(command: str, kind: type[A], *, listed: bool = False) -> A | None:
        try:
            return await tell(ask, command, kind, listed=listed)
        except CorralError as error:
            if error.code != "guest-agent-error":
                raise
            untold.append(command)
            return None

    info = await told("guest-info", _Info)
    system = await told("guest-get-osinfo", _Os) or _Os.model_validate({})
    zone = await told("guest-get-timezone", _Timezone) or _Timezone.model_validate({})
    clock = await told("guest-get-time", _Time, listed=True)
    users = await told("guest-get-users", _Users, listed=True)
    mounted = await told("guest-get-fsinfo", _FileSystems, listed=True)
    return GuestDetails(
        os_id=_plain(system.id),
        os_version=_plain(system.version),
        kernel=_plain(system.kernel),
        machine=_plain(system.machine),
        time_ns=clock.items if clock else None,
        timezone=_plain(zone.zone),
        utc_offset_s=zone.offset,
        agent_version=_plain(info.version if info else ""),
        users=tuple(
            GuestUser(_plain(user.user), user.login_time) for user in (users.items[:USERS_MAX] if users else ())
        ),
        file_systems=tuple(_file_system(each) for each in (mounted.items[:FILE_SYSTEMS_MAX] if mounted else ())),
        untold=tuple(untold),
    )


async def time_ns(ask: Ask) -> int:
    return (await tell(ask, "guest-get-time", _Time, listed=True)).items


async def set_time(ask: Ask, wished_ns: int | None) -> None:
    """The agent sets the system's clock first and the hardware's then. Where it fails after the first (no hwclock in the
    guest), the guest's clock is as wished all the same: it is asked."""
    try:
        await tell(ask, "guest-set-time", _Nothing, None if wished_ns is None else {"time": wished_ns})
    except CorralError as error:
        if error.code != "guest-agent-error" or wished_ns is None:
            raise
        if abs(await time_ns(ask) - wished_ns) > CLOCK_TOLERANCE_NS:
            raise


def _file_system(found: _FileSystem) -> GuestFileSystem:
    return GuestFileSystem(
        mountpoint=_plain(found.mountpoint),
        kind=_plain(found.type),
        device=_plain(next((each.dev for each in found.disk if each.dev), "") or found.name),
        total_bytes=found.total_bytes,
        used_bytes=found.used_bytes,
    )


def _plain(text: str) -> str:
    return plain_text(text, TEXT_MAX_CHARS)
