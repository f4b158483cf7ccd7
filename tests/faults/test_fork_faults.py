"""Every fault at every call of freezing, forking and forgetting a template: memory is loaded once, nothing is left over, and
every disk holds what it held."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import pytest
from points_in_time import check_layers, reads, write

from corral.agent import executor
from corral.errors import CorralError
from corral.model.identity import Identity, Role
from corral.model.operation import DeleteVm, Operation, OperationState
from corral.model.template import Template
from corral.model.template_requests import CreateTemplateRequest, ForkRequest, RefreshTemplateRequest
from corral.model.vm import Vm
from corral.services.caller import Caller
from corral.services.template import TemplateService
from corral.simulation import Fault, FaultKind

AT_ONCE = 48
CALLER = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "r")
HELD = {0: "a", 1: "b"}


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


# Of a refresh, which makes most calls, in an ordinary run; the others in a soak.
WORST = ("crash before", "crash after", "refused though done")


@dataclass(frozen=True)
class Verb:
    name: str
    request: Callable[..., Awaitable[Operation]]


async def _create(w, service: TemplateService, vm: Vm) -> Operation:
    request = CreateTemplateRequest(name="new", source=vm.name, hot=True)
    return (await service.create(CALLER, "default", request))[1]


async def _fork(w, service: TemplateService, vm: Vm) -> Operation:
    return (await service.fork(CALLER, "default", "base", ForkRequest(names=("fork",))))[1][0]


async def _delete(w, service: TemplateService, vm: Vm) -> Operation:
    return await service.delete(CALLER, "default", "base")


async def _delete_source(w, service: TemplateService, vm: Vm) -> Operation:
    return await w.wish(vm, DeleteVm(), delete=True)


async def _refresh(w, service: TemplateService, vm: Vm) -> Operation:
    return await service.refresh(CALLER, "default", "base", RefreshTemplateRequest(deadline_s=30))


VERBS = (
    Verb("create", _create),
    Verb("fork", _fork),
    Verb("delete", _delete),
    Verb("delete its VM", _delete_source),
    Verb("refresh", _refresh),
)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Waiting between tries is not the subject."""
    monkeypatch.setattr("corral.agent.vm.backoff_s", lambda attempts: 0.02 * attempts)
    monkeypatch.setattr("corral.agent.template.backoff_s", lambda attempts: 0.02 * attempts)
    monkeypatch.setattr("corral.agent.template.LOOK_S", 0.01)
    monkeypatch.setattr("corral.agent.vm.TIDY_AGAIN_S", 0.05)
    shorter = tuple((kinds, min(factor, 8.0)) for kinds, factor in executor._FACTORS)
    monkeypatch.setattr("corral.agent.executor._FACTORS", shorter)


async def _ready(new_world, verb: Verb):
    """A running VM, and except where one is made a hot template of it."""
    w = new_world()
    await w.prepare()
    await w.start()
    vm, create = await w.create()
    await w.ended(create)
    await w.quiet()
    service = TemplateService(w.devices._context)
    for block, value in HELD.items():
        write(w, vm, block, value)
    if verb.name != "create":
        request = CreateTemplateRequest(name="base", source=vm.name, hot=True)
        done = await w.ended((await service.create(CALLER, "default", request))[1])
        assert done.status.state is OperationState.SUCCEEDED, done.status
        await w.quiet()
        write(w, vm, 0, "later")
    w.simulation.trace.clear()
    return w, vm, service


async def _judge(w, verb: Verb, operation: Operation, vm: Vm) -> None:
    done = await w.objects.get(Operation, operation.uid)
    succeeded = done.status.state is OperationState.SUCCEEDED
    assert succeeded or done.status.error is not None, done.status
    there = {template.name: template for template in await w.objects.list(Template)}
    assert all(template.status.ready for template in there.values())
    if verb.name == "create":
        assert set(there) == ({"new"} if succeeded else set())
        assert reads(w, vm) == HELD
    elif verb.name == "delete":
        assert set(there) == (set() if succeeded else {"base"})
    elif verb.name == "refresh":
        assert set(there) == {"base"}
        assert [found.name for found in await w.objects.list(Vm)] == [vm.name]
        assert (there["base"].uid == operation.spec.target_uid) is not succeeded
    for template in there.values():
        [disk] = template.spec.disks
        assert w.hypervisor.disks.content(str(w.volumes.path(disk.layer_uid))) == HELD
    if verb.name == "fork":
        forks = [found for found in await w.objects.list(Vm) if found.name == "fork"]
        assert len(forks) == (1 if succeeded else 0)
        for fork in forks:
            assert w.hypervisor.forking.loads == {fork.uid: 1}
            assert w.hypervisor.domains[fork.uid].introduced
            assert "name=fork\n" in w.hypervisor.forking.scripts[fork.uid]
            assert reads(w, fork) == HELD


async def _converges(w, where: str) -> None:
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


async def _trace(new_world, verb: Verb) -> list[str]:
    w, vm, service = await _ready(new_world, verb)
    try:
        operation = await verb.request(w, service, vm)
        done = await w.ended(operation)
        assert done.status.state is OperationState.SUCCEEDED, done.status
        await _converges(w, verb.name)
        calls = list(w.simulation.trace)
        await _judge(w, verb, operation, vm)
        return calls
    finally:
        await w.kill()


async def _disturbed(new_world, verb: Verb, name: str, fault: Fault) -> None:
    w, vm, service = await _ready(new_world, verb)
    crashed = asyncio.Event()
    w.simulation.on_crash = crashed.set
    w.simulation.inject(fault)
    where = f"{verb.name}, {name} at call {fault.nth}"
    try:
        operation = await verb.request(w, service, vm)
        if "crash" in name:
            quiet = asyncio.ensure_future(w.ended(operation, 20))
            dying = asyncio.ensure_future(crashed.wait())
            await asyncio.wait({quiet, dying}, return_when=asyncio.FIRST_COMPLETED)
            quiet.cancel()
            dying.cancel()
            await w.kill()
            w.simulation.clear()
            await w.start()
        await _converges(w, where)
        try:
            await _judge(w, verb, operation, vm)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
    finally:
        await w.kill()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_fault_at_every_call(new_world, verb):
    _every_call(new_world, verb, WORST if verb.name == "refresh" else tuple(FAULTS))


@pytest.mark.soak
def test_the_other_faults_at_every_call_of_a_refresh(new_world):
    _every_call(new_world, Verb("refresh", _refresh), tuple(name for name in FAULTS if name not in WORST))


def _every_call(new_world, verb: Verb, names: tuple[str, ...]) -> None:
    async def main():
        calls = await _trace(new_world, verb)
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(name: str, fault: Fault) -> None:
            async with slots:
                await _disturbed(new_world, verb, name, fault)

        runs = [partial(one, name, FAULTS[name](nth)) for nth in range(1, len(calls) + 1) for name in names]
        results = await asyncio.gather(*(run() for run in runs), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        shown = "\n".join("".join(traceback.format_exception(f))[-1500:] for f in failures[:4])
        assert not failures, f"{len(failures)} of {len(runs)} failed:\n{shown}"

    asyncio.run(main())
