"""The guest agent's commands and answers: qemu-ga's JSON in, typed values out. What a guest says is not trusted."""

import asyncio
import base64
import ipaddress
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corral.errors import CorralError
from corral.hypervisor.base import ExecResult, GuestFacts
from corral.names import plain_text

# libvirt's own limit of an answer is 4 MiB; qemu-ga cuts what it captures at 16 MiB a stream.
COMMAND_TIMEOUT_S: Final = 5
POLL_FIRST_S: Final = 0.05
POLL_MAX_S: Final = 0.5
# A guest that has just resumed answers "not connected" for an instant.
CONNECT_PATIENCE_S: Final = 2.0
CONNECT_RETRY_S: Final = 0.1
ADDRESSES_MAX: Final = 64
# Of the four threads that wait for libvirt's slow answers.
GUESTS_AT_ONCE: Final = 2
TURN_PATIENCE_S: Final = 30.0
TEXT_MAX_CHARS: Final = 256

# Run by the guest's own shell around the command: passes on no more than $1 bytes of each stream and swallows the rest.
# qemu-ga itself keeps 16 MiB a stream, which kills it in a small guest; libvirt refuses answers beyond 4 MiB, and cuts
# the connection to the agent beyond 10 MiB. 3 and 4 are the real streams, 5 carries the exit code, 6 standard output.
_BOUNDED: Final = """\
n=$1; shift
exec 3>&1 4>&2
s=$( { { { "$@" 3>&- 4>&- 5>&-; echo $? >&5; } 2>&1 >&6 6>&- |
 { exec 6>&-; head -c "$n" >&4; cat >/dev/null; }; } 6>&1 | { head -c "$n" >&3; cat >/dev/null; }; } 5>&1 )
exit "$s"
"""

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


class _Answer(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="ignore")


A = TypeVar("A", bound=_Answer)


class _Pid(_Answer):
    pid: int


class _ExecStatus(_Answer):
    exited: bool
    exit_code: int | None = Field(None, alias="exitcode")
    signal: int | None = None
    stdout: str = Field("", alias="out-data")
    stderr: str = Field("", alias="err-data")
    stdout_cut: bool = Field(False, alias="out-truncated")
    stderr_cut: bool = Field(False, alias="err-truncated")


class _Host(_Answer):
    name: str = Field("", alias="host-name")


class _Os(_Answer):
    pretty: str = Field("", alias="pretty-name")
    id: str = ""
    kernel: str = Field("", alias="kernel-release")


class _Address(_Answer):
    address: str = Field(alias="ip-address")
    family: str = Field("", alias="ip-address-type")


class _Interface(_Answer):
    name: str
    addresses: tuple[_Address, ...] = Field((), alias="ip-addresses")


class _Interfaces(_Answer):
    items: tuple[_Interface, ...]


async def facts(ask: Ask) -> GuestFacts:
    """Host name, operating system, addresses. A command that this agent lacks leaves its fact empty."""
    interfaces = await _tell(ask, "guest-network-get-interfaces", _Interfaces, listed=True)
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
    )


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


async def execute(
    ask: Ask, argv: Sequence[str], *, stdin: bytes, timeout_s: float, capture_max_bytes: int
) -> ExecResult:
    """Run `argv` in the guest to its end. Raises `guest-agent-timeout` when it is late: it may run on, and the agent
    has no way to stop it. A shell of the guest's bounds the output, hence a program that is not there, or was killed,
    ends with the shell's code for that: 127, 128 + signal. Without such a shell (Windows) it is run as it is."""
    bounded = ["/bin/sh", "-c", _BOUNDED, "exec", str(capture_max_bytes + 1), *argv]
    try:
        pid = await _begin(ask, bounded, stdin)
    except CorralError as error:
        if error.code != "guest-agent-error":
            raise
        pid = await _begin(ask, argv, stdin)
    pause_s = POLL_FIRST_S
    try:
        async with asyncio.timeout(timeout_s):
            while not (status := await _tell(ask, "guest-exec-status", _ExecStatus, {"pid": pid})).exited:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, POLL_MAX_S)
    except TimeoutError as error:
        asked, reason = f"run {argv[0]} in the guest", f"it did not end within {timeout_s:g} s"
        hint = f"it may still run in the guest (process {pid})"
        raise CorralError("guest-agent-timeout", asked, reason, hint, {"pid": pid}) from error
    stdout, stdout_cut = _captured(status.stdout, status.stdout_cut, capture_max_bytes)
    stderr, stderr_cut = _captured(status.stderr, status.stderr_cut, capture_max_bytes)
    return ExecResult(status.exit_code, status.signal, stdout, stderr, stdout_cut or stderr_cut)


async def _begin(ask: Ask, argv: Sequence[str], stdin: bytes) -> int:
    """Start it; its process number in the guest. A refusal means that nothing was started."""
    arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
    if stdin:
        arguments["input-data"] = base64.b64encode(stdin).decode()
    return (await _tell(ask, "guest-exec", _Pid, arguments)).pid


def _captured(text: str, cut: bool, limit: int) -> tuple[bytes, bool]:
    try:
        content = base64.b64decode(text)
    except ValueError as error:  # binascii.Error is one, and so is what letters outside of ASCII raise
        raise _nonsense("guest-exec-status") from error
    return content[:limit], cut or len(content) > limit


async def _optional(ask: Ask, command: str, kind: type[A]) -> A | None:
    try:
        return await _tell(ask, command, kind)
    except CorralError as error:
        if error.code != "guest-agent-error":
            raise
        return None


async def _tell(
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
        raise _nonsense(command) from error


def _nonsense(command: str) -> CorralError:
    return CorralError("guest-agent-error", command, "the guest agent's answer could not be understood")
