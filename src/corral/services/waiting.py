"""Waiting for a VM to get somewhere: driven by the store's watch, then by a bounded look at its SSH port or agent."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from types import MappingProxyType
from typing import Final

from corral.errors import CorralError, ErrorKind
from corral.model import limits
from corral.model.answers import WaitAnswer
from corral.model.requests import WaitCondition
from corral.model.vm import CloudInitStatus, Vm, VmState
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.subnet_room import unreached
from corral.store.base import Record
from corral.store.objects import decode

SSH_PORT: Final = 22
# A request that waits may look 20 times a second, for a bounded time.
LOOK_INTERVAL_S: Final = 0.05
CONNECT_TIMEOUT_S: Final = 2.0
# A server that took the connection is let finish: in a slow guest it needs many seconds for its first words, and who hangs
# up meanwhile and calls again keeps it busy until it answers nobody (sshd's MaxStartups).
GREETING_TIMEOUT_S: Final = 15.0
UNGREETED_PAUSE_S: Final = 1.0

_CLOUD_INIT_ENDED: Final = frozenset(
    {CloudInitStatus.DONE, CloudInitStatus.DEGRADED, CloudInitStatus.ERROR, CloudInitStatus.NONE}
)


def _runs(vm: Vm) -> bool:
    return vm.status.state is VmState.RUNNING


# Conditions that the VM's object alone decides.
_HOLDS: Final[Mapping[WaitCondition, Callable[[Vm], bool]]] = MappingProxyType(
    {
        WaitCondition.RUNNING: _runs,
        WaitCondition.AGENT: lambda vm: _runs(vm) and vm.status.agent_connected,
        WaitCondition.IP: lambda vm: _runs(vm) and bool(vm.status.addresses),
        WaitCondition.SSH: lambda vm: _runs(vm) and bool(_candidates(vm)),
        WaitCondition.SHUTOFF: lambda vm: vm.status.state is VmState.SHUT_OFF,
        WaitCondition.CLOUD_INIT: lambda vm: vm.status.cloud_init in _CLOUD_INIT_ENDED,
    }
)


async def wait_for(
    context: Context, caller: Caller, project: str, name: str, condition: WaitCondition, timeout_s: float
) -> WaitAnswer:
    """Return when `condition` holds. Raises `wait-timeout`, saying what was seen, or `vm-not-found` when it is deleted."""
    await authorize(context, caller, project, "vm.read", name)
    if not 0 <= timeout_s <= limits.WAIT_TIMEOUT_MAX_S:
        raise CorralError(
            "invalid-argument", f"wait {timeout_s:g} s", f"0 to {limits.WAIT_TIMEOUT_MAX_S:g} seconds can be waited"
        )
    started_s = context.clock.monotonic_s()
    vm = await context.objects.require(Vm, project, name)
    if condition is WaitCondition.SSH:
        await _check_reached(context, vm)
    address = ""
    try:
        async with asyncio.timeout(timeout_s):
            async with aclosing(_versions(context, vm)) as versions:
                async for vm in versions:
                    if _HOLDS[condition](vm):
                        address = (_candidates(vm) or ("",))[0]
                        break
            if condition is WaitCondition.SSH:
                address = await _answering(context, vm)
            elif condition is WaitCondition.AGENT:
                await _agent_answers(context, vm)
    except TimeoutError as error:
        raise CorralError(
            "wait-timeout",
            f"wait for {condition.value} of VM {name!r}",
            f"after {timeout_s:g} s {_seen(vm)}",
            f"corral info {name}, or wait longer with --timeout",
            {"state": vm.status.state.value, "timeout_s": timeout_s},
        ) from error
    return WaitAnswer(
        condition=condition,
        elapsed_s=round(context.clock.monotonic_s() - started_s, 3),
        state=vm.status.state.value,
        address=address,
        detail=vm.status.cloud_init.value if condition is WaitCondition.CLOUD_INIT else "",
    )


async def _versions(context: Context, vm: Vm) -> AsyncGenerator[Vm, None]:
    """The VM as it is, then each later version; `vm-not-found` when it is gone."""
    yield vm
    since = vm.revision
    while True:
        try:
            async with aclosing(context.objects.store.watch(vm.key, since)) as changes:
                async for change in changes:
                    if change.value is None:
                        raise _gone(vm)
                    yield decode(Vm, Record(change.key, change.value, change.revision, 0))
        except CorralError as error:
            if error.code != "compacted":
                raise
        newest = await context.objects.get(Vm, vm.uid)
        if newest is None:
            raise _gone(vm)
        since = newest.revision
        yield newest


async def _answering(context: Context, vm: Vm) -> str:
    """The first address whose SSH server says its banner; the VM is read again now and then, for a new address."""
    while True:
        hidden = await unreached(context)
        for address in _candidates(vm, hidden):
            if await _says_ssh(address):
                return address
        await asyncio.sleep(LOOK_INTERVAL_S)
        newest = await context.objects.get(Vm, vm.uid)
        if newest is None:
            raise _gone(vm)
        vm = newest


async def _agent_answers(context: Context, vm: Vm) -> None:
    """Until the guest agent really answers: just after a reset its channel still looks connected."""
    while True:
        try:
            await context.hypervisor.guest_facts(vm.uid)
        except CorralError as error:
            if error.kind is ErrorKind.INTERNAL:
                raise  # it answers, and badly
        else:
            return
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _says_ssh(address: str) -> bool:
    """Whether an SSH server answers there (RFC 4253, section 4.2: its first words are `SSH-`)."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address, SSH_PORT)
    except (OSError, TimeoutError):
        return False
    try:
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            # A server may say other lines first; they end with a line feed.
            for _ in range(16):
                if (await reader.readline()).startswith(b"SSH-"):
                    return True
    except (OSError, TimeoutError, ValueError):
        pass
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    await asyncio.sleep(UNGREETED_PAUSE_S)
    return False


def _candidates(vm: Vm, hidden: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Where its SSH server may be: the reserved addresses first, they are the ones the host routes to. None on the networks
    `hidden`: whoever has it here is another machine."""
    reserved = tuple(nic.address for nic in vm.spec.nics if nic.address)
    reported = tuple(address for address in vm.status.addresses if not address.startswith(("127.", "::1", "fe80:")))
    others = {address for nic in vm.spec.nics if nic.network_uid in hidden for address in nic.addresses}
    return tuple(address for address in dict.fromkeys((*reserved, *reported)) if address not in others)


async def _check_reached(context: Context, vm: Vm) -> None:
    """Raises `wrong-state` where no time would help."""
    hidden = await unreached(context)
    if vm.spec.nics and all(nic.network_uid in hidden for nic in vm.spec.nics):
        reason = f"network {vm.spec.nics[0].network!r} is behind a router, and this host does not lead there"
        hint = f"corral forward add {vm.name} 2222:22, or the router's --uplink routed; corral exec needs no network"
        raise CorralError("wrong-state", f"reach VM {vm.name!r} by SSH", reason, hint)


def _seen(vm: Vm) -> str:
    status = vm.status
    words = [f"it is {status.state.value}"]
    if status.state is VmState.RUNNING:
        words.append("its agent answers" if status.agent_connected else "its agent does not answer yet")
        words.append(f"its address is {status.addresses[0]}" if status.addresses else "no address is known")
    if status.last_error:
        words.append(f"its last error was: {status.last_error}")
    return ", ".join(words)


def _gone(vm: Vm) -> CorralError:
    return CorralError("vm-not-found", f"VM {vm.name!r}", "it was deleted meanwhile", "corral list --all")
