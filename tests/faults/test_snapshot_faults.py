"""Every fault at every call of what is done with points in time: each of them that was there holds what it held, the VM's disks
hold what they did or what was asked for, and nothing is left over."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import pytest
from points_in_time import check_layers, forget, holds, reads, revert, take, taken, write

from corral.agent import executor
from corral.errors import CorralError
from corral.model.operation import DeleteVm, DestroyVm, Operation, OperationState
from corral.model.snapshot import Snapshot
from corral.model.vm import Power, Vm
from corral.simulation import Fault, FaultKind

AT_ONCE = 48
NOW = {0: "now", 1: "b", 2: "c"}
# What each point in time of the tree holds: first - second (with memory) - third, and a branch from the first.
HELD = {"first": {0: "a"}, "second": {0: "a", 1: "b"}, "third": {0: "a", 1: "b", 2: "c"}, "branch": {0: "a", 1: "x"}}
MEMORY = "what it was thinking"


@dataclass(frozen=True)
class Verb:
    """`after`: what the disk holds once it has succeeded, if not what it held before. `gone`: the points that go."""

    name: str
    power: Power
    request: Callable[..., Awaitable[Operation]]
    after: dict[int, str] | None = None
    gone: frozenset[str] = frozenset()
    made: str = ""


VERBS = (
    Verb("take", Power.ON, lambda w, vm: take(w, vm, "new"), made="new"),
    Verb("take off", Power.OFF, lambda w, vm: take(w, vm, "new"), made="new"),
    Verb("take with memory", Power.ON, lambda w, vm: take(w, vm, "new", memory=True), made="new"),
    Verb("revert", Power.ON, lambda w, vm: revert(w, vm, "branch"), HELD["branch"]),
    Verb("revert off", Power.OFF, lambda w, vm: revert(w, vm, "first"), HELD["first"]),
    Verb("revert to memory", Power.ON, lambda w, vm: revert(w, vm, "second"), HELD["second"]),
    Verb("delete a leaf", Power.ON, lambda w, vm: forget(w, vm, "branch"), gone=frozenset({"branch"})),
    Verb("delete below a head", Power.ON, lambda w, vm: forget(w, vm, "third"), gone=frozenset({"third"})),
    Verb("delete in the middle", Power.ON, lambda w, vm: forget(w, vm, "second"), gone=frozenset({"second"})),
    Verb("delete off", Power.OFF, lambda w, vm: forget(w, vm, "second"), gone=frozenset({"second"})),
    Verb("delete a fork", Power.OFF, lambda w, vm: forget(w, vm, "first"), gone=frozenset({"first"})),
    Verb("delete the VM", Power.ON, lambda w, vm: w.wish(vm, DeleteVm(), delete=True), gone=frozenset(HELD)),
)


def _error(code: str) -> CorralError:
    return CorralError(code, "a call", "a fault was injected")


def _fault(kind: FaultKind, nth: int, code: str = "hypervisor-error", times: int = 1) -> Fault:
    return Fault(kind, nth=nth, times=times, error=_error(code))


FAULTS: dict[str, Callable[[int], Fault]] = {
    "crash before": lambda nth: _fault(FaultKind.CRASH_BEFORE, nth),
    "crash after": lambda nth: _fault(FaultKind.CRASH_AFTER, nth),
    "refused": lambda nth: _fault(FaultKind.ERROR, nth),
    "refused though done": lambda nth: _fault(FaultKind.LATE_ERROR, nth),
    "late timeout": lambda nth: _fault(FaultKind.LATE_ERROR, nth, "hypervisor-timeout"),
    "late hang": lambda nth: _fault(FaultKind.LATE_HANG, nth),
    "disk full": lambda nth: _fault(FaultKind.ERROR, nth, "disk-full"),
    "store away": lambda nth: _fault(FaultKind.ERROR, nth, "store-unavailable"),
}


# In an ordinary run, for the time that they take; all of them in a soak.
WORST = ("crash before", "crash after", "refused though done", "disk full")


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Waiting between tries is not the subject."""
    monkeypatch.setattr("corral.agent.vm.backoff_s", lambda attempts: 0.02 * attempts)
    monkeypatch.setattr("corral.agent.vm.TIDY_AGAIN_S", 0.05)
    monkeypatch.setattr("corral.agent.points.CLOCK_PATIENCE_S", 0.05)
    # A merge may take hours; one that hangs is to be given up within this test.
    shorter = tuple((kinds, min(factor, 8.0)) for kinds, factor in executor._FACTORS)
    monkeypatch.setattr("corral.agent.executor._FACTORS", shorter)


async def _ready(new_world, verb: Verb):
    w = new_world()
    await w.prepare()
    await w.start()
    vm, create = await w.create(power=Power.ON)
    await w.ended(create)
    write(w, vm, 0, "a")
    await taken(w, vm, "first")
    write(w, vm, 1, "x")
    await taken(w, vm, "branch")
    assert (await w.ended(await revert(w, vm, "first"))).status.state is OperationState.SUCCEEDED
    await w.quiet()
    write(w, vm, 1, "b")
    w.hypervisor.domains[vm.uid].memory = MEMORY
    await taken(w, vm, "second", memory=True)
    write(w, vm, 2, "c")
    await taken(w, vm, "third")
    write(w, vm, 0, "now")
    if verb.power is Power.OFF:
        await w.ended(await w.wish(vm, DestroyVm(), Power.OFF))
    await w.quiet()
    await check_layers(w)
    w.simulation.trace.clear()
    return w, vm


async def _trace(new_world, verb: Verb) -> list[str]:
    """The calls of an undisturbed run."""
    w, vm = await _ready(new_world, verb)
    try:
        done = await w.ended(await verb.request(w, vm))
        assert done.status.state is OperationState.SUCCEEDED, done.status
        await w.quiet()
        calls = list(w.simulation.trace)
        await _judge(w, verb, done, vm)
        return calls
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
                    await check_layers(w)
                    return await w.check_whole()
                except AssertionError as error:
                    problem = error
                await asyncio.sleep(0.02)
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
            quiet = asyncio.ensure_future(_ended_and_quiet(w, operation))
            dying = asyncio.ensure_future(crashed.wait())
            await asyncio.wait({quiet, dying}, return_when=asyncio.FIRST_COMPLETED)
            quiet.cancel()
            dying.cancel()
            await w.kill()
            w.simulation.clear()
            await w.start()
        where = f"{verb.name}, {name} at call {fault.nth}"
        await _converges(w, where)
        try:
            await _judge(w, verb, operation, vm)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
    finally:
        await w.kill()


async def _ended_and_quiet(w, operation: Operation) -> None:
    await w.ended(operation, 20)
    await w.quiet()


async def _judge(w, verb: Verb, operation: Operation, vm: Vm) -> None:
    done = await w.objects.get(Operation, operation.uid)
    succeeded = done.status.state is OperationState.SUCCEEDED
    assert succeeded or done.status.error is not None, done.status
    there = {snapshot.name for snapshot in await w.objects.list(Snapshot)}
    gone = verb.gone if succeeded else frozenset()
    assert there == {*HELD, *([verb.made] if verb.made and succeeded else [])} - gone, done.status
    for name in set(HELD) - gone:
        assert await holds(w, name) == HELD[name]
    if verb.name == "delete the VM":
        assert succeeded
        assert await w.vm(vm.uid) is None
        return
    if verb.made in there:
        assert await holds(w, verb.made) == NOW
    assert reads(w, vm) == (verb.after if succeeded and verb.after is not None else NOW)
    if verb.name == "revert to memory" and succeeded:
        assert w.hypervisor.domains[vm.uid].memory == MEMORY


async def _all(runs: list[Callable[[], Awaitable[None]]]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(run: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await run()

    results = await asyncio.gather(*(one(run) for run in runs), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    shown = "\n".join("".join(traceback.format_exception(f))[-1500:] for f in failures[:4])
    assert not failures, f"{len(failures)} of {len(runs)} failed:\n{shown}"


async def _every(new_world, verb: Verb, faults) -> None:
    calls = await _trace(new_world, verb)
    assert "store.transact" in calls
    await _all(
        [
            partial(_disturbed, new_world, verb, name, FAULTS[name](nth))
            for nth in range(1, len(calls) + 1)
            for name in faults
        ]
    )


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_death_refusal_and_a_full_disk_at_every_call(new_world, verb):
    asyncio.run(_every(new_world, verb, WORST))


@pytest.mark.soak
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_fault_at_every_call(new_world, verb):
    asyncio.run(_every(new_world, verb, FAULTS))
