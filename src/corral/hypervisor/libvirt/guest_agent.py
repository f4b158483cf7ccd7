"""What the guest agent tells, and how it is asked: qemu-ga's JSON in, typed values out. What a guest says is not trusted."""

import asyncio
import base64
import ipaddress
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corral.errors import CorralError
from corral.hypervisor.base import GuestFacts
from corral.names import plain_text

COMMAND_TIMEOUT_S: Final = 5
# A guest that has just resumed answers "not connected" for an instant.
CONNECT_PATIENCE_S: Final = 2.0
CONNECT_RETRY_S: Final = 0.1
ADDRESSES_MAX: Final = 64
# Of the four threads that wait for libvirt's slow answers.
GUESTS_AT_ONCE: Final = 2
TURN_PATIENCE_S: Final = 30.0
TEXT_MAX_CHARS: Final = 256
# To read a file that is there costs a guest nothing; `cloud-init status`, which reads it too, is a Python program.
CLOUD_INIT_STATUS: Final = "/run/cloud-init/status.json"
STATUS_MAX_BYTES: Final = 16 * 1024

Ask = Callable[[str], Awaitable[str]]
"""Sends one command's JSON to the agent and returns the answer's."""


class Turns:
    """Who may ask a guest's agent now: one question a guest at a time, and few guests at once. A guest whose agent takes
    questions and never answers holds a thread for seconds each; starts and saves of other guests need those too."""

    def __init__(self, at_once: int = GUESTS_AT_ONCE, patience_s: float = TURN_PATIENCE_S) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._patience_s = patience_s
        self._guests: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, uid: str) -> AsyncIterator[None]:
        """Raises `guest-agent-timeout` when the turn does not come."""
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._patience_s):
                    # The guest's own lock first: its questions wait for each other, and in nobody else's way.
                    await held.enter_async_context(self._guests.setdefault(uid, asyncio.Lock()))
                    await held.enter_async_context(self._slots)
            except TimeoutError as error:
                reason = f"earlier questions were not answered within {self._patience_s:g} s"
                raise CorralError("guest-agent-timeout", f"ask the guest agent of {uid}", reason) from error
            yield


class Answer(BaseModel):
    """What a command returns, as far as Corral reads it."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")


A = TypeVar("A", bound=Answer)


class _Host(Answer):
    name: str = Field("", alias="host-name")


class _Os(Answer):
    pretty: str = Field("", alias="pretty-name")
    id: str = ""
    kernel: str = Field("", alias="kernel-release")


class _Address(Answer):
    address: str = Field(alias="ip-address")
    family: str = Field("", alias="ip-address-type")


class _Interface(Answer):
    name: str
    addresses: tuple[_Address, ...] = Field((), alias="ip-addresses")


class _Interfaces(Answer):
    items: tuple[_Interface, ...]


class Handle(Answer):
    """Of a file that the agent has opened."""

    number: int = Field(alias="items")


class Piece(Answer):
    """Of a file, in base64."""

    content: str = Field("", alias="buf-b64")


async def facts(ask: Ask) -> GuestFacts:
    """Host name, operating system, addresses. A command that this agent lacks leaves its fact empty."""
    interfaces = await tell(ask, "guest-network-get-interfaces", _Interfaces, listed=True)
    host = await _optional(ask, "guest-get-host-name", _Host) or _Host.model_validate({})
    system = await _optional(ask, "guest-get-osinfo", _Os) or _Os.model_validate({})
    addresses = (
        parse_address(address.address)
        for interface in interfaces.items
        if interface.name != "lo"
        for address in interface.addresses
    )
    return GuestFacts(
        hostname=plain_text(host.name, TEXT_MAX_CHARS),
        os=plain_text(system.pretty or system.id or system.kernel, TEXT_MAX_CHARS),
        addresses=tuple(address for address in addresses if address)[:ADDRESSES_MAX],
        cloud_init=await _content(ask, CLOUD_INIT_STATUS, STATUS_MAX_BYTES),
    )


async def _content(ask: Ask, path: str, max_bytes: int) -> str:
    """Of a small file; empty where there is none, or the agent does not read files."""
    opened = await _optional(ask, "guest-file-open", Handle, {"path": path, "mode": "r"}, listed=True)
    if opened is None:
        return ""
    read = await _optional(ask, "guest-file-read", Piece, {"handle": opened.number, "count": max_bytes})
    await _optional(ask, "guest-file-close", Answer, {"handle": opened.number})
    return decoded(read.content, "guest-file-read").decode(errors="replace") if read is not None else ""


def decoded(text: str, command: str) -> bytes:
    """Of base64, which `command` told."""
    try:
        return base64.b64decode(text)
    except ValueError as error:  # binascii.Error is one, and so is what letters outside of ASCII raise
        raise nonsense(command) from error


def parse_address(text: str) -> str:
    """The IP address that a guest says it has, in its canonical form; empty for what is none, or none of the guest's.

    It is handed to `ssh` and connected to by the daemon: `-oProxyCommand=…`, a host's name or the host's own loopback
    must not get there.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    seen = getattr(address, "ipv4_mapped", None) or address
    foreign = seen.is_loopback or seen.is_link_local or seen.is_multicast or seen.is_unspecified
    return "" if foreign or "%" in text else str(address)


async def _optional(
    ask: Ask, command: str, kind: type[A], arguments: dict[str, Any] | None = None, *, listed: bool = False
) -> A | None:
    try:
        return await tell(ask, command, kind, arguments, listed=listed)
    except CorralError as error:
        if error.code != "guest-agent-error":
            raise
        return None


async def tell(
    ask: Ask, command: str, kind: type[A], arguments: dict[str, Any] | None = None, *, listed: bool = False
) -> A:
    """One command and its answer, waiting a moment for an agent that is not connected yet."""
    clock = asyncio.get_running_loop().time
    request = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})
    deadline = clock() + CONNECT_PATIENCE_S
    while True:
        try:
            answer = await ask(request)
            break
        except CorralError as error:
            if error.code != "guest-agent-unavailable" or clock() >= deadline:
                raise
            await asyncio.sleep(CONNECT_RETRY_S)
    try:
        content = json.loads(answer)["return"]
        return kind.model_validate({"items": content} if listed else content)
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:  # nested a thousand deep
        raise nonsense(command) from error


def nonsense(command: str) -> CorralError:
    """The error for an answer that is none."""
    return CorralError("guest-agent-error", command, "the guest agent's answer could not be understood")
