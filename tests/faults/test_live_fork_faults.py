"""Every fault at every call of a live fork: its parent goes on, each VM that it made has loaded the memory once, and nothing is
left of what it was made with."""

import asyncio
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from points_in_time import check_layers, reads, write

from corral.agent import executor
from corral.errors import CorralError
from corral.model.identity import Identity, Role
from corral.model.operation import Operation
from corral.model.snapshot import Snapshot
from corral.model.template import Template
from corral.model.template_requests import LiveForkRequest
from corral.model.vm import Vm, VmState
from corral.services.caller import Caller
from corral.services.live_fork import LiveForks, LiveForkService
from corral.simulation import Fault, FaultKind

AT_ONCE = 48
CALLER = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "r")
HELD = {0: "a", 1: "b"}
NAMES = ("one", "two")


def _fault(kind: FaultKind, nth: int, code: str = "hypervisor-error") -> Fault:
    return Fault(kind, nth=nth, error=CorralError(code, "a call", "a fault was injected"))


FAULTS: dict[str, Callable[[int], Fault]] = {
    "crash before": lambda nth: _fault(FaultKind.CRASH_BEFORE, nth),
    "crash after": lambda nth: _fault(FaultKind.CRASH_AFTER, nth),
    "refused": lambda nth: _fault(FaultKind.ERROR, nth),
    "refused though done": lambda nth: _fault(FaultKind.LATE_ERROR, nth),
    "late timeout": lambda nth: _fault(FaultKind.LATE_ERROR, nth, "hypervisor-timeout"),
    "disk full": lambda nth: _fault(FaultKind.ERROR, nth, "disk-full"),
    "store away": lambda nth: _fault(FaultKind.ERROR, nth, "store-unavailable"),
}


# In an ordinary run, for the time that they take; the others in a soak.
WORST = ("crash before", "crash after", "refused though done")


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Waiting between tries is not the subject."""
    monkeypatch.setattr("corral.agent.vm.backoff_s", lambda attempts: 0.02 * attempts)
    monkeypatch.setattr("corral.agent.template.backoff_s", lambda attempts: 0.02 * attempts)
    monkeypatch.setattr("corral.agent.template.LOOK_S", 0.01)
    monkeypatch.setattr("corral.agent.hidden_points.PASSING_S", 1.0)
    monkeypatch.setattr("corral.agent.vm.TIDY_AGAIN_S", 0.05)
    shorter = tuple((kinds, min(factor, 8.0)) for kinds, factor in executor._FACTORS)
    monkeypatch.setattr("corral.agent.executor._FACTORS", shorter)


async def _ready(new_world):
    w = new_world()
    await w.prepare()
    await w.start()
    vm, create = await w.create()
    await w.ended(create)
    await w.quiet()
    for block, value in HELD.items():
        write(w, vm, block, value)
    w.simulation.trace.clear()
    return w, vm


def _asked(w, vm: Vm) -> "asyncio.Task[LiveForks]":
    """By the daemon's own process: when that is dead, it writes no more."""
    context = replace(w.devices._context, objects=w.agent.objects)
    service = LiveForkService(context)
    return asyncio.ensure_future(service.fork(CALLER, "default", vm.name, LiveForkRequest(names=NAMES)))


async def _judge(w, vm: Vm) -> None:
    forks = {found.name: found for found in await w.objects.list(Vm) if found.uid != vm.uid}
    assert set(forks) <= set(NAMES)
    assert w.hypervisor.domains[vm.uid].state is VmState.RUNNING
    assert w.hypervisor.domains[vm.uid].starts == 1
    assert reads(w, vm) == HELD
    for name, fork in forks.items():
        assert w.hypervisor.forking.loads[fork.uid] == 1
        assert w.hypervisor.domains[fork.uid].introduced
        assert f"name={name}\n" in w.hypervisor.forking.scripts[fork.uid]
        assert reads(w, fork) == HELD


async def _converges(w, where: str) -> None:
    problem: AssertionError | None = None
    try:
        async with asyncio.timeout(40):
            while True:
                await w.quiet(30)
                try:
                    assert not await w.objects.list(Template)
                    assert not await w.objects.list(Snapshot)
                    await check_layers(w)
                    return await w.check_whole()
                except AssertionError as error:
                    problem = error
                w.agent._relist.set()
                await asyncio.sleep(0.1)
    except TimeoutError:
        operations = await w.objects.list(Operation)
        shown = [(o.spec.intent.verb, o.status.state, o.status.phase, o.status.detail) for o in operations]
        raise AssertionError(f"{where}: does not converge: {problem}; {shown}") from problem


async def _trace(new_world) -> list[str]:
    w, vm = await _ready(new_world)
    try:
        found = await _asked(w, vm)
        vms, operations = found.made
        assert [made.name for made in vms] == list(NAMES)
        assert found.pause_ms is not None
        for operation in operations:
            assert (await w.ended(operation)).status.error is None
        await _converges(w, "undisturbed")
        await _judge(w, vm)
        assert len(await w.objects.list(Vm)) == 1 + len(NAMES)
        return list(w.simulation.trace)
    finally:
        await w.kill()


async def _disturbed(new_world, name: str, fault: Fault) -> None:
    w, vm = await _ready(new_world)
    crashed = asyncio.Event()
    w.simulation.on_crash = crashed.set
    w.simulation.inject(fault)
    where = f"{name} at call {fault.nth}"
    try:
        asking = _asked(w, vm)
        dying = asyncio.ensure_future(crashed.wait())
        await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        if "crash" in name:
            quiet = asyncio.ensure_future(w.quiet(20))
            await asyncio.wait({quiet, dying}, return_when=asyncio.FIRST_COMPLETED)
            quiet.cancel()
            await w.kill()
            while not asking.done():  # what it would do at its end dies with it
                asking.cancel()
                await asyncio.sleep(0.01)
            w.simulation.clear()
            await w.start()
        else:
            if not asking.done():
                shown = [(o.spec.intent.verb, o.status.state, o.status.phase) for o in await w.objects.list(Operation)]
                raise AssertionError(f"{where}: no answer; {shown}")
            [result] = await asyncio.gather(asking, return_exceptions=True)
            assert isinstance(result, LiveForks | CorralError), result
        dying.cancel()
        await _converges(w, where)
        try:
            await _judge(w, vm)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
    finally:
        await w.kill()


def test_the_worst_faults_at_every_call(new_world):
    _every_call(new_world, WORST)


@pytest.mark.soak
def test_the_other_faults_at_every_call(new_world):
    _every_call(new_world, tuple(name for name in FAULTS if name not in WORST))


def _every_call(new_world, names: tuple[str, ...]) -> None:
    async def main():
        calls = await _trace(new_world)
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(name: str, fault: Fault) -> None:
            async with slots:
                await _disturbed(new_world, name, fault)

        runs = [partial(one, name, FAULTS[name](nth)) for nth in range(1, len(calls) + 1) for name in names]
        results = await asyncio.gather(*(run() for run in runs), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        shown = "\n".join("".join(traceback.format_exception(f))[-1500:] for f in failures[:4])
        assert not failures, f"{len(failures)} of {len(runs)} failed:\n{shown}"

    asyncio.run(main())
