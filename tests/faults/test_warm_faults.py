"""Every fault at every call of filling, taking from and emptying a warm pool: a slot is somebody's or rubbish, never both;
memory is loaded once; nothing is left over."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import pytest
from points_in_time import check_layers, reads, write

from corral.agent import executor
from corral.errors import CorralError
from corral.hypervisor.base import StopCause
from corral.model.identity import Identity, Role
from corral.model.operation import DestroyVm, Operation, OperationState, SaveVm, StartVm
from corral.model.slot import WarmRequest, WarmSlot
from corral.model.template import Template
from corral.model.template_requests import CreateTemplateRequest, ForkRequest
from corral.model.vm import Power, Vm
from corral.services.caller import Caller
from corral.services.template import TemplateService
from corral.services.warm import WarmService
from corral.simulation import Fault, FaultKind

AT_ONCE = 48
CALLER = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "r")
HELD = {0: "a"}
WARM = 2


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


@dataclass(frozen=True)
class Verb:
    name: str
    before: int
    after: int
    """How many slots there are."""
    request: Callable[..., Awaitable[Operation | None]]


async def _fill(w) -> None:
    await WarmService(w.devices._context).set(CALLER, "default", "base", WarmRequest(count=WARM))


async def _take(w) -> Operation:
    service = TemplateService(w.devices._context)
    return (await service.fork(CALLER, "default", "base", ForkRequest(names=("fork",))))[1][0]


async def _empty(w) -> None:
    await WarmService(w.devices._context).set(CALLER, "default", "base", WarmRequest(count=0))


async def _delete(w) -> Operation:
    return await TemplateService(w.devices._context).delete(CALLER, "default", "base")


VERBS = (
    Verb("fill", 0, WARM, _fill),
    Verb("take", WARM, WARM, _take),
    Verb("empty", WARM, 0, _empty),
    Verb("delete", WARM, 0, _delete),
)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Waiting between tries is not the subject."""
    monkeypatch.setattr("corral.agent.vm.backoff_s", lambda attempts: 0.02 * attempts)
    monkeypatch.setattr("corral.agent.template.backoff_s", lambda attempts: 0.02 * attempts)
    monkeypatch.setattr("corral.agent.template.LOOK_S", 0.01)
    monkeypatch.setattr("corral.agent.vm.TIDY_AGAIN_S", 0.05)
    monkeypatch.setattr("corral.agent.warm.AGAIN_S", 0.02)
    monkeypatch.setattr("corral.agent.warm.AGAIN_MAX_S", 0.1)
    monkeypatch.setattr("corral.agent.warm.SETTLE_S", 0.001)
    shorter = tuple((kinds, min(factor, 8.0)) for kinds, factor in executor._FACTORS)
    monkeypatch.setattr("corral.agent.executor._FACTORS", shorter)


async def _ready(new_world, slots: int):
    """A running VM, a hot template of it, and so many domains that wait."""
    w = new_world()
    await w.prepare()
    await w.start()
    vm, create = await w.create()
    await w.ended(create)
    await w.quiet()
    write(w, vm, 0, "a")
    request = CreateTemplateRequest(name="base", source=vm.name, hot=True, warm=slots)
    done = await w.ended((await TemplateService(w.devices._context).create(CALLER, "default", request))[1])
    assert done.status.state is OperationState.SUCCEEDED, done.status
    await w.quiet()
    await _pool(w, slots, "before")
    write(w, vm, 0, "later")
    w.simulation.trace.clear()
    return w


def _waiting(w) -> set[str]:
    return {uid for uid, domain in w.hypervisor.domains.items() if domain.waiting}


async def _pool(w, count: int, where: str) -> None:
    """`count` slots that wait, each with an overlay of its own, and no other."""

    async def there() -> bool:
        slots = {slot.uid: slot for slot in await w.objects.list(WarmSlot)}
        templates = await w.objects.list(Template)
        return (
            set(slots) == _waiting(w)
            and len(slots) == sum(template.spec.warm for template in templates) == count
            and all(slot.status.ready for slot in slots.values())
            and all(template.status.waiting == count for template in templates)
            and all(set(slot.volumes.values()) <= set(w.volumes.layers.layers) for slot in slots.values())
        )

    try:
        await w.until(there, 30)
    except TimeoutError as error:
        slots = [(slot.uid[:8], slot.status.ready) for slot in await w.objects.list(WarmSlot)]
        raise AssertionError(f"{where}: {count} slots are wished, {slots} known, {_waiting(w)} wait") from error


async def _nothing_left(w, where: str) -> None:
    """Without slots, everything is as for any VMs and templates."""
    if await w.objects.list(Template):
        await _empty(w)
    await _pool(w, 0, f"{where}, emptied")
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
        raise AssertionError(f"{where}: does not converge: {problem}") from problem


async def _judge(w, verb: Verb, operation: Operation | None) -> None:
    for domain in w.hypervisor.domains.values():
        assert w.hypervisor.forking.loads.get(domain.uid, 0) == (
            1 if domain.name != "web" and not domain.waiting else 0
        )
    if operation is None:
        return
    done = await w.objects.get(Operation, operation.uid)
    succeeded = done.status.state is OperationState.SUCCEEDED
    assert succeeded or done.status.error is not None, done.status
    if verb.name == "take":
        forks = [found for found in await w.objects.list(Vm) if found.name == "fork"]
        assert len(forks) == (1 if succeeded else 0)
        for fork in forks:
            assert w.hypervisor.domains[fork.uid].introduced
            assert "name=fork\n" in w.hypervisor.forking.scripts[fork.uid]
            assert reads(w, fork) == HELD


async def _trace(new_world, verb: Verb) -> list[str]:
    w = await _ready(new_world, verb.before)
    taken = _waiting(w)
    try:
        operation = await verb.request(w)
        if operation is not None:
            done = await w.ended(operation)
            assert done.status.state is OperationState.SUCCEEDED, done.status
        await _pool(w, verb.after, verb.name)
        calls = list(w.simulation.trace)
        await _judge(w, verb, operation)
        if verb.name == "take":
            [fork] = [found for found in await w.objects.list(Vm) if found.name == "fork"]
            assert fork.uid in taken
            assert calls.count("hypervisor.prepare") == 1, "a waiting domain was not gone on with"
        await _nothing_left(w, verb.name)
        return calls
    finally:
        await w.kill()


async def _crashed_or_done(w, verb: Verb, operation: Operation | None, crashed: asyncio.Event) -> None:
    """How many calls there are may differ by one or two."""

    async def over() -> bool:
        if operation is None:
            return crashed.is_set() or len(_waiting(w)) == verb.after
        found = await w.objects.get(Operation, operation.uid)
        return crashed.is_set() or found.status.state.final

    await w.until(over, 20)


async def _disturbed(new_world, verb: Verb, name: str, fault: Fault) -> None:
    w = await _ready(new_world, verb.before)
    crashed = asyncio.Event()
    w.simulation.on_crash = crashed.set
    w.simulation.inject(fault)
    where = f"{verb.name}, {name} at call {fault.nth}"
    try:
        operation = await verb.request(w)
        if "crash" in name:
            await _crashed_or_done(w, verb, operation, crashed)
            await w.kill()
            w.simulation.clear()
            await w.start()
        if operation is not None:
            await w.ended(operation, 20)
        await _pool(w, verb.after, where)
        try:
            await _judge(w, verb, operation)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        await _nothing_left(w, where)
    finally:
        await w.kill()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_fault_at_every_call(new_world, verb):
    async def main():
        calls = await _trace(new_world, verb)
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(name: str, fault: Fault) -> None:
            async with turns:
                await _disturbed(new_world, verb, name, fault)

        runs = [partial(one, name, make(nth)) for nth in range(1, len(calls) + 1) for name, make in FAULTS.items()]
        results = await asyncio.gather(*(run() for run in runs), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        shown = "\n".join("".join(traceback.format_exception(f))[-1500:] for f in failures[:4])
        assert not failures, f"{len(failures)} of {len(runs)} failed:\n{shown}"

    asyncio.run(main())


def test_slots_come_and_go_with_what_happens(new_world):
    """One that dies is made anew; they make room; a host that reboots, and a restart of the daemon, find what there is."""

    async def main():
        w = await _ready(new_world, WARM)
        try:
            first = _waiting(w)
            w.hypervisor.stop(min(first), StopCause.FAILED)
            await w.until(lambda: len(_waiting(w)) == WARM)
            await _pool(w, WARM, "one died")
            kept = _waiting(w)
            assert len(kept & first) == 1
            await w.kill()
            await w.start()
            await _pool(w, WARM, "the daemon was killed")
            assert _waiting(w) == kept
            await w.kill()
            w.reboot_host()
            await w.start()
            await _pool(w, WARM, "the host was booted")
            assert not _waiting(w) & kept
            w.agent.warm_keeper.available_mib = lambda: 0
            w.agent.warm_keeper.wake()
            await w.until(lambda: not _waiting(w))
            w.agent.warm_keeper.available_mib = lambda: 100_000
            w.agent.warm_keeper.wake()
            await _pool(w, WARM, "there is memory again")
            await _nothing_left(w, "at last")
        finally:
            await w.kill()

    asyncio.run(main())


def test_a_fork_keeps_its_slots_name_until_it_is_off(new_world):
    """Saved memory goes by that name, too."""

    async def main():
        w = await _ready(new_world, 1)
        try:
            done = await w.ended(await _take(w))
            assert done.status.state is OperationState.SUCCEEDED, done.status
            [fork] = [found for found in await w.objects.list(Vm) if found.name == "fork"]
            domain = w.hypervisor.domains[fork.uid]
            name = domain.name
            assert name.startswith("corral-warm-")
            for intent, power, called in (
                (SaveVm(), Power.OFF, name),
                (StartVm(), Power.ON, name),
                (DestroyVm(), Power.OFF, "fork"),
                (StartVm(), Power.ON, "fork"),
            ):
                ended = await w.ended(await w.wish(fork, intent, power))
                assert ended.status.state is OperationState.SUCCEEDED, ended.status
                await w.quiet()
                await w.until(lambda called=called: domain.name == called)
            assert domain.starts == 3
            await _nothing_left(w, "at last")
        finally:
            await w.kill()

    asyncio.run(main())


def test_more_forks_than_slots(new_world):
    async def main():
        w = await _ready(new_world, WARM)
        try:
            waited = _waiting(w)
            service = TemplateService(w.devices._context)
            names = tuple(f"fork-{number}" for number in range(WARM + 2))
            requests = [service.fork(CALLER, "default", "base", ForkRequest(names=(name,))) for name in names]
            answers = await asyncio.gather(*requests)
            for _, operations in answers:
                done = await w.ended(operations[0])
                assert done.status.state is OperationState.SUCCEEDED, done.status
            made = {vm.uid for vm in await w.objects.list(Vm) if vm.name in names}
            assert len(made) == len(names)
            assert waited <= made
            await _pool(w, WARM, "refilled")
            await _nothing_left(w, "at last")
        finally:
            await w.kill()

    asyncio.run(main())
