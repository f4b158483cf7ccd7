"""Every fault at every call of every verb: afterwards the request is fulfilled or undone, and nothing lies about.

The calls are not listed by hand: each verb is run once undisturbed and its trace of driver and store calls is the list.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import pytest

from corral.clock import SystemClock
from corral.errors import CorralError
from corral.model.identity import Identity, Role
from corral.model.operation import (
    DeleteVm,
    DestroyVm,
    Operation,
    OperationState,
    RebootVm,
    ResetVm,
    SaveVm,
    ShutdownVm,
    StartVm,
    UpdateVm,
)
from corral.model.requests import AttachDiskRequest, ChangeDiskRequest, ChangeNicRequest, NicRequest
from corral.model.vm import Power, Vm
from corral.model.volume import Volume
from corral.names import GIB
from corral.services.caller import Caller
from corral.simulation import Fault, FaultKind

AT_ONCE = 48


class JumpingClock(SystemClock):
    """The machine's clock, whose wall time an operator sets."""

    offset = timedelta()

    def now(self) -> datetime:
        return super().now() + self.offset


@dataclass(frozen=True)
class Verb:
    """`request` is the call that is disturbed; `power` what the VM is before it (None: there is none)."""

    name: str
    power: Power | None
    request: Callable[..., Awaitable[Operation]]
    before: Callable[..., Awaitable[Operation]] | None = None
    """A request that is undisturbed and done before."""


ADMIN = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "request")


async def _create(w, vm: Vm | None) -> Operation:
    return (await w.create("new"))[1]


async def _attach(w, vm: Vm) -> Operation:
    return await w.devices.attach_disk(ADMIN, "default", vm.name, AttachDiskRequest(size_bytes=GIB, name="data"))


async def _detach(w, vm: Vm) -> Operation:
    return await w.devices.detach_disk(ADMIN, "default", vm.name, "data")


async def _attach_again(w, vm: Vm) -> Operation:
    free = next(volume for volume in await w.objects.list(Volume) if volume.spec.vm_uid is None)
    request = AttachDiskRequest(volume=free.name, name="data")
    return await w.devices.attach_disk(ADMIN, "default", vm.name, request)


async def _attach_and_detach(w, vm: Vm) -> Operation:
    await w.ended(await _attach(w, vm))
    return await _detach(w, vm)


async def _grow(w, vm: Vm) -> Operation:
    return await w.devices.change_disk(ADMIN, "default", vm.name, "root", ChangeDiskRequest(size_bytes=3 * GIB))


async def _plug(w, vm: Vm) -> Operation:
    return await w.devices.attach_nic(ADMIN, "default", vm.name, NicRequest(address="192.168.200.251"))


async def _move(w, vm: Vm) -> Operation:
    request = ChangeNicRequest(address="192.168.200.252", link_up=False)
    return await w.devices.change_nic(ADMIN, "default", vm.name, "net0", request)


async def _unplug(w, vm: Vm) -> Operation:
    return await w.devices.detach_nic(ADMIN, "default", vm.name, "net1")


async def _set(w, vm: Vm) -> Operation:
    return await w.wish(vm, UpdateVm(), spec={"vcpus": 2, "memory_mib": 2048})


VERBS = (
    Verb("create", None, _create),
    Verb("start", Power.OFF, lambda w, vm: w.wish(vm, StartVm(), Power.ON)),
    Verb("shutdown", Power.ON, lambda w, vm: w.wish(vm, ShutdownVm(deadline_s=20), Power.OFF)),
    Verb("destroy", Power.ON, lambda w, vm: w.wish(vm, DestroyVm(), Power.OFF)),
    Verb("save", Power.ON, lambda w, vm: w.wish(vm, SaveVm(), Power.OFF)),
    Verb("reset", Power.ON, lambda w, vm: w.ask(vm, ResetVm())),
    Verb("delete", Power.ON, lambda w, vm: w.wish(vm, DeleteVm(), delete=True)),
    Verb("attach a disk", Power.ON, _attach),
    Verb("detach a disk", Power.ON, _detach, before=_attach),
    Verb("attach a volume", Power.OFF, _attach_again, before=_attach_and_detach),
    Verb("grow", Power.ON, _grow),
    Verb("plug a card", Power.ON, _plug),
    Verb("move a card", Power.ON, _move),
    Verb("unplug a card", Power.ON, _unplug, before=_plug),
    Verb("set", Power.ON, _set),
    Verb("restart", Power.ON, lambda w, vm: w.ask(vm, RebootVm(deadline_s=20)), before=_set),
)


def _error(code: str) -> CorralError:
    return CorralError(code, "a call", "a fault was injected")


def _fault(kind: FaultKind, nth: int, code: str = "hypervisor-error", times: int = 1) -> Fault:
    return Fault(kind, nth=nth, times=times, error=_error(code))


FAULTS: dict[str, Callable[[int], Fault]] = {
    "crash before": lambda nth: _fault(FaultKind.CRASH_BEFORE, nth),
    "crash after": lambda nth: _fault(FaultKind.CRASH_AFTER, nth),
    "refused": lambda nth: _fault(FaultKind.ERROR, nth),
    "unavailable": lambda nth: _fault(FaultKind.ERROR, nth, "hypervisor-unavailable"),
    "late timeout": lambda nth: _fault(FaultKind.LATE_ERROR, nth, "hypervisor-timeout"),
    "hang": lambda nth: _fault(FaultKind.HANG, nth),
    "late hang": lambda nth: _fault(FaultKind.LATE_HANG, nth),
    "disk full": lambda nth: _fault(FaultKind.ERROR, nth, "disk-full"),
    "store away": lambda nth: _fault(FaultKind.ERROR, nth, "store-unavailable"),
}


async def _ready(new_world, verb: Verb):
    w = new_world()
    w.clock = JumpingClock()
    await w.prepare()
    await w.start()
    vm = None
    if verb.power is not None:
        vm, create = await w.create(power=verb.power)
        await w.ended(create)
        if verb.before is not None:
            await w.ended(await verb.before(w, vm))
    await w.quiet()
    w.simulation.trace.clear()
    return w, vm


async def _trace(new_world, verb: Verb) -> list[str]:
    """The calls of an undisturbed run."""
    w, vm = await _ready(new_world, verb)
    try:
        done = await w.ended(await verb.request(w, vm))
        assert done.status.state is OperationState.SUCCEEDED
        await w.quiet()
        return list(w.simulation.trace)
    finally:
        await w.kill()


async def _converges(w, where: str) -> None:
    """No unfinished operation and a whole world, within a bounded time."""
    problem: AssertionError | None = None
    try:
        async with asyncio.timeout(40):
            while True:
                await w.quiet(30)
                try:
                    return await w.check_whole()
                except AssertionError as error:
                    problem = error
                await asyncio.sleep(0.05)
    except TimeoutError:
        operations = await w.objects.list(Operation)
        shown = [(o.spec.intent.verb, o.status.state, o.status.phase, o.status.detail) for o in operations]
        raise AssertionError(f"{where}: does not converge: {problem}; {shown}") from problem


async def _disturbed(new_world, verb: Verb, name: str, fault: Fault) -> None:
    w, vm = await _ready(new_world, verb)
    crashed = asyncio.Event()
    w.simulation.on_crash = crashed.set
    w.simulation.inject(fault)
    try:
        operation = await verb.request(w, vm)
        if "crash" in name:
            ending = asyncio.ensure_future(w.ended(operation, 20))
            dying = asyncio.ensure_future(crashed.wait())
            await asyncio.wait({ending, dying}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            dying.cancel()
            await w.kill()
            w.simulation.clear()
            await w.start()
        await _converges(w, f"{verb.name}, {name} at call {fault.nth}")
        await _judge(w, verb, operation, vm)
    finally:
        await w.kill()


async def _judge(w, verb: Verb, operation: Operation, vm: Vm | None) -> None:
    """A create that failed left no VM; a delete is never half done; a reset happened at most once."""
    done = await w.objects.get(Operation, operation.uid)
    succeeded = done.status.state is OperationState.SUCCEEDED
    there = await w.vm(done.spec.target_uid) is not None
    if verb.name == "create":
        assert there == succeeded, done.status
        assert succeeded or done.status.error is not None
    elif verb.name == "delete":
        assert succeeded, done.status
        assert not there
    elif verb.name == "reset":
        resets = w.hypervisor.domains[vm.uid].resets
        assert resets <= 1
        assert resets == 1 or not succeeded
    elif verb.name == "restart" and succeeded:
        assert w.hypervisor.domains[vm.uid].starts == 2
        assert (await w.vm(vm.uid)).status.pending_restart == ()
    elif not succeeded:
        assert done.status.error is not None, done.status


async def _all(runs: list[Callable[[], Awaitable[None]]]) -> None:
    """Side by side, since most of the time is spent in waiting before the next try."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(run: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await run()

    results = await asyncio.gather(*(one(run) for run in runs), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    shown = "\n".join("".join(traceback.format_exception(f))[-1500:] for f in failures[:4])
    assert not failures, f"{len(failures)} of {len(runs)} failed:\n{shown}"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_fault_at_every_call(new_world, verb):
    async def main():
        calls = await _trace(new_world, verb)
        assert "store.transact" in calls
        runs = [
            partial(_disturbed, new_world, verb, name, make(nth))
            for nth in range(1, len(calls) + 1)
            for name, make in FAULTS.items()
        ]
        await _all(runs)

    asyncio.run(main())


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_hypervisor_goes_away_or_the_clock_jumps_at_every_call(new_world, verb):
    async def disturbed(nth: int, what: str) -> None:
        w, vm = await _ready(new_world, verb)
        count = 0

        def on_call(name: str) -> None:
            nonlocal count
            count += 1
            if count != nth:
                return
            if what == "away":
                w.hypervisor.disconnect()
                asyncio.get_running_loop().call_later(0.2, w.hypervisor.reconnect)
            else:
                w.clock.offset += timedelta(days=3650 if what == "forward" else -3650)

        w.simulation.on_call = on_call
        try:
            operation = await verb.request(w, vm)
            await _converges(w, f"{verb.name}, {what} at call {nth}")
            done = await w.objects.get(Operation, operation.uid)
            if what != "away" or verb.name != "reset":
                assert done.status.state is OperationState.SUCCEEDED, (what, nth, done.status)
        finally:
            w.simulation.on_call = None
            await w.kill()

    async def main():
        calls = await _trace(new_world, verb)
        runs = [
            partial(disturbed, nth, what) for nth in range(1, len(calls) + 1) for what in ("away", "forward", "back")
        ]
        await _all(runs)

    asyncio.run(main())


def test_a_disk_that_stays_full_fails_the_create_and_leaves_nothing(new_world):
    async def full(w, call: str) -> None:
        await w.prepare()
        await w.start()
        try:
            w.simulation.inject(Fault(FaultKind.ERROR, call, times=1000, error=_error("disk-full")))
            _, operation = await w.create()
            done = await w.ended(operation, 30)
            assert done.status.state is OperationState.FAILED
            assert done.status.error.code == "disk-full"
            assert done.status.attempts > 1
            await _converges(w, call)
            assert not w.hypervisor.domains
        finally:
            await w.kill()

    async def main():
        calls = ("storage.create", "storage.write_seed", "hypervisor.define", "hypervisor.start")
        await _all([partial(full, new_world(), call) for call in calls])

    asyncio.run(main())


def test_waiting_for_the_hypervisor_is_no_try(world, monkeypatch):
    """Whoever waited long for libvirtd, and then meets one refusal that passes, has not failed for good."""
    monkeypatch.setattr("corral.agent.vm.backoff_s", lambda _attempts: 0.01)

    async def wait(w):
        await w.start()
        vm, create = await w.create(power=Power.OFF)
        await w.ended(create)
        for nth in range(1, 6):
            code = "hypervisor-unavailable" if nth < 5 else "wrong-state"
            w.simulation.inject(Fault(FaultKind.ERROR, "hypervisor.start", nth=nth, error=_error(code)))
        done = await w.ended(await w.wish(vm, StartVm(), Power.ON))
        assert done.status.state is OperationState.SUCCEEDED, done.status

    world(wait)
