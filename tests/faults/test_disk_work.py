"""Disks of VMs moved to another pool, and flattened: every fault at every call. The VM's disk holds what its guest wrote,
before and meanwhile; it lies in one place, which is known, and nothing is left over."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import pytest
from points_in_time import forget, revert, take, taken, write

from corral.agent import executor
from corral.errors import CorralError
from corral.hypervisor.base import StopCause
from corral.model.layer import Layer
from corral.model.operation import (
    DeleteVm,
    DestroyVm,
    FlattenVolume,
    MoveVolume,
    Operation,
    OperationState,
    PauseVm,
    ResetVm,
    ResumeVm,
    StartVm,
)
from corral.model.pool import Pool, PoolSpec
from corral.model.vm import Power, Vm, VmState
from corral.model.volume import Volume
from corral.names import new_uid
from corral.simulation import Fault, FaultKind
from corral.store.objects import work_claim

AT_ONCE = 48
HELD = {0: "a", 1: "b"}
WORST = ("crash before", "crash after", "refused though done", "disk full")


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
class Case:
    name: str
    power: Power
    verb: str = "move"
    layered: bool = False
    """Of its disk there was a point in time once: it has layers."""


CASES = (
    Case("move", Power.ON),
    Case("move off", Power.OFF),
    Case("move with layers", Power.ON, layered=True),
    Case("flatten", Power.ON, "flatten"),
    Case("flatten off", Power.OFF, "flatten"),
    Case("flatten with layers", Power.ON, "flatten", layered=True),
)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Waiting between tries is not the subject."""
    monkeypatch.setattr("corral.agent.vm.backoff_s", lambda attempts: 0.02 * attempts)
    monkeypatch.setattr("corral.agent.vm.TIDY_AGAIN_S", 0.05)
    monkeypatch.setattr("corral.agent.disk_work.AWAY_PAUSE_S", 0.02)
    monkeypatch.setattr("corral.agent.plan_disks.LOOK_AGAIN_S", 0.5)
    shorter = tuple((kinds, min(factor, 8.0)) for kinds, factor in executor._FACTORS)
    monkeypatch.setattr("corral.agent.executor._FACTORS", shorter)


async def _volume(w) -> Volume:
    [volume] = await w.objects.list(Volume)
    return volume


async def begin(w, vm: Vm, verb: str = "move") -> Operation:
    """As the service writes it."""
    volume = await _volume(w)
    move = MoveVolume(pool="fast", from_pool="default", volume_uid=volume.uid)
    operation = w.operation(vm, move if verb == "move" else FlattenVolume(volume_uid=volume.uid), tracks=0)
    transaction = w.objects.transaction()
    transaction.create(operation)
    transaction.claim(work_claim(volume.uid), volume.uid)
    await transaction.commit()
    return operation


async def _ready(new_world, case: Case):
    w = new_world()
    await w.prepare()
    await w.start()
    await w.volumes.open_pool(
        Pool(name="fast", uid=new_uid(), created_at=w.clock.now(), spec=PoolSpec(path="/srv/fast"))
    )
    vm, create = await w.create(power=Power.ON)
    await w.ended(create)
    write(w, vm, 0, "a")
    if case.layered:
        await taken(w, vm, "one")
    write(w, vm, 1, "b")
    if case.layered:
        assert (await w.ended(await revert(w, vm, "one"))).status.state is OperationState.SUCCEEDED
        write(w, vm, 1, "b")
        assert (await w.ended(await forget(w, vm, "one"))).status.state is OperationState.SUCCEEDED
    if case.power is Power.OFF:
        await w.ended(await w.wish(vm, DestroyVm(), Power.OFF))
    await w.quiet()
    w.simulation.trace.clear()
    return w, vm


async def check(w, vm: Vm, done: Operation, held=HELD) -> None:
    """As asked for, or as before: in one place, and nothing else anywhere."""
    volume, layers = await _volume(w), {layer.uid: layer for layer in await w.objects.list(Layer)}
    succeeded = done.status.state is OperationState.SUCCEEDED
    assert succeeded or done.status.error is not None or done.status.state is OperationState.CANCELLED
    domain = w.hypervisor.domains[vm.uid]
    moved = isinstance(done.spec.intent, MoveVolume)
    assert volume.spec.pool == ("fast" if succeeded and moved else "default")
    path = str(w.volumes.volume_path(volume))
    for disks in (domain.disks, *([domain.live_disks] if domain.active else [])):
        assert [disk.path for disk in disks] == [path]
    assert w.hypervisor.guest_reads(vm.uid, "root") == held
    there = {path for path in w.hypervisor.disks.files if path.endswith(".qcow2")}
    expected = {str(w.volumes.path(uid, layer.spec.pool)) for uid, layer in layers.items()} | {path}
    assert there == expected
    assert Volume.model_validate_json(w.volumes.pool.volumes[volume.uid]).spec == volume.spec
    assert await w.objects.owner(work_claim(volume.uid)) is None
    if succeeded:
        assert (volume.spec.image_uid, domain.disks[0].backing) == (None, ())
        assert set(layers) <= {volume.head_uid}
        assert w.hypervisor.disks.files[path].backing == ""
    head = layers.get(volume.head_uid)
    assert head is None or head.spec.pool == volume.spec.pool


async def _trace(new_world, case: Case) -> int:
    """How many calls an undisturbed run makes."""
    w, vm = await _ready(new_world, case)
    try:
        done = await w.ended(await begin(w, vm, case.verb))
        assert done.status.state is OperationState.SUCCEEDED, done.status
        await w.quiet()
        calls = len(w.simulation.trace)
        await check(w, vm, done)
        return calls
    finally:
        await w.kill()


async def _disturbed(new_world, case: Case, name: str, fault: Fault) -> None:
    w, vm = await _ready(new_world, case)
    crashed = asyncio.Event()
    w.simulation.on_crash = crashed.set
    w.simulation.inject(fault)
    where = f"{case.name}, {name} at call {fault.nth}"
    try:
        operation = await begin(w, vm, case.verb)
        if "crash" in name:
            quiet = asyncio.ensure_future(_ended_and_quiet(w, operation))
            dying = asyncio.ensure_future(crashed.wait())
            await asyncio.wait({quiet, dying}, return_when=asyncio.FIRST_COMPLETED)
            quiet.cancel()
            dying.cancel()
            await w.kill()
            w.simulation.clear()
            await w.start()
        await _converges(w, vm, operation, where)
    finally:
        await w.kill()


async def _ended_and_quiet(w, operation: Operation) -> None:
    await w.ended(operation, 20)
    await w.quiet()


async def _converges(w, vm: Vm, operation: Operation, where: str, held=HELD) -> Operation:
    problem: BaseException | None = None
    try:
        async with asyncio.timeout(12):
            while True:
                await w.quiet(30)
                done = await w.objects.get(Operation, operation.uid)
                try:
                    await check(w, vm, done, held)
                    await w.check_whole()
                    return done
                except (AssertionError, CorralError) as error:
                    problem = error
                await asyncio.sleep(0.02)
    except TimeoutError:
        operations = await w.objects.list(Operation)
        shown = [(o.spec.intent.verb, o.status.state, o.status.phase, o.status.detail) for o in operations]
        raise AssertionError(f"{where}: does not converge: {problem!r}; {shown}") from problem


async def _all(runs: list[Callable[[], Awaitable[None]]]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(run: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await run()

    results = await asyncio.gather(*(one(run) for run in runs), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    shown = "\n".join("".join(traceback.format_exception(f))[-1500:] for f in failures[:4])
    assert not failures, f"{len(failures)} of {len(runs)} failed:\n{shown}"


async def _every(new_world, case: Case, faults) -> None:
    calls = await _trace(new_world, case)
    await _all(
        [
            partial(_disturbed, new_world, case, name, FAULTS[name](nth))
            for nth in range(1, calls + 1)
            for name in faults
        ]
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_death_refusal_and_a_full_disk_at_every_call(new_world, case):
    asyncio.run(_every(new_world, case, WORST))


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_fault_at_every_call(new_world, case):
    asyncio.run(_every(new_world, case, FAULTS))


# ---- what else is wished meanwhile -----------------------------------------------------------------------------------


def _scene(new_world, body, case: Case = CASES[0]) -> None:
    async def main() -> None:
        w, vm = await _ready(new_world, case)
        try:
            await body(w, vm)
        finally:
            await w.kill()

    asyncio.run(main())


async def _copying(w, vm: Vm, call: str) -> Operation:
    """Begun, and not yet at its end."""
    w.simulation.inject(Fault(FaultKind.HANG, call))
    operation = await begin(w, vm)
    await w.until(lambda: call in w.simulation.trace)
    return operation


def test_until_the_switch_it_is_cancelled_and_nothing_is_left(new_world):
    async def body(w, vm: Vm) -> None:
        operation = await _copying(w, vm, "hypervisor.disk_mirror")
        write(w, vm, 2, "meanwhile")
        await w.cancel(operation)
        done = await _converges(w, vm, operation, "cancelled", {**HELD, 2: "meanwhile"})
        assert done.status.state is OperationState.CANCELLED
        assert w.hypervisor.disk_jobs.running == {}

    _scene(new_world, body)


def test_a_guest_that_stops_is_copied_while_it_is_off_and_the_other_way_round(new_world):
    async def body(w, vm: Vm) -> None:
        operation = await _copying(w, vm, "hypervisor.disk_mirror")
        await w.ended(await w.wish(vm, DestroyVm(), Power.OFF))
        done = await _converges(w, vm, operation, "stopped")
        assert done.status.state is OperationState.SUCCEEDED
        assert "storage.fill" in w.simulation.trace

    async def other(w, vm: Vm) -> None:
        operation = await _copying(w, vm, "storage.fill")
        await w.ended(await w.wish(vm, StartVm(), Power.ON))
        write(w, vm, 2, "since its start")
        done = await _converges(w, vm, operation, "started", {**HELD, 2: "since its start"})
        assert done.status.state is OperationState.SUCCEEDED
        assert "hypervisor.disk_switch" in w.simulation.trace

    _scene(new_world, body)
    _scene(new_world, other, CASES[1])


def test_other_verbs_do_not_wait_for_a_copy(new_world):
    async def body(w, vm: Vm) -> None:
        operation = await _copying(w, vm, "hypervisor.disk_mirror")
        paused = await w.ended(await w.wish(vm, PauseVm(), Power.PAUSED))
        assert paused.status.state is OperationState.SUCCEEDED
        assert (await w.ended(await w.wish(vm, ResumeVm(), Power.ON))).status.state is OperationState.SUCCEEDED
        assert (await w.ended(await w.ask(vm, ResetVm()))).status.state is OperationState.SUCCEEDED
        refused = await w.ended(await take(w, vm, "no"))
        assert (refused.status.state, refused.status.error.code) == (OperationState.FAILED, "wrong-state")
        assert not (await w.objects.get(Operation, operation.uid)).status.state.final
        await w.cancel(operation)
        await w.ended(operation)

    _scene(new_world, body)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("call", ["hypervisor.disk_mirror", "storage.fill"])
def test_a_vm_that_is_deleted_leaves_no_copy(new_world, call, keep):
    async def body(w, vm: Vm) -> None:
        operation = await _copying(w, vm, call)
        await w.ended(await w.wish(vm, DeleteVm(keep_disks=keep), delete=True))
        await w.quiet()
        assert (await w.objects.get(Operation, operation.uid)).status.state is OperationState.SUPERSEDED
        volumes = await w.objects.list(Volume)
        assert len(volumes) == keep
        there = {path for path in w.hypervisor.disks.files if path.endswith(".qcow2")}
        assert there == {str(w.volumes.volume_path(volume)) for volume in volumes}
        for volume in volumes:
            assert w.hypervisor.disks.content(str(w.volumes.volume_path(volume))) == HELD
            assert await w.objects.owner(work_claim(volume.uid)) is None

    _scene(new_world, body, CASES[0] if call.startswith("hypervisor") else CASES[1])


def test_a_disk_with_points_in_time_stays_where_they_lie(new_world):
    async def body(w, vm: Vm) -> None:
        await taken(w, vm, "kept")
        done = await w.ended(await begin(w, vm))
        assert (done.status.state, done.status.error.code) == (OperationState.FAILED, "unsupported")
        assert await w.objects.owner(work_claim((await _volume(w)).uid)) is None

    _scene(new_world, body)


def test_a_daemon_that_died_with_the_guest_standing_still_lets_it_go_on(new_world):
    async def body(w, vm: Vm) -> None:
        crashed = asyncio.Event()
        w.simulation.on_crash = crashed.set
        w.simulation.inject(Fault(FaultKind.CRASH_BEFORE, "hypervisor.disk_switch"))
        operation = await begin(w, vm)
        await crashed.wait()
        await w.kill()
        assert w.hypervisor.domains[vm.uid].state is VmState.PAUSED
        w.simulation.clear()
        await w.start()
        done = await _converges(w, vm, operation, "paused")
        assert done.status.state is OperationState.SUCCEEDED
        assert w.hypervisor.domains[vm.uid].state is VmState.RUNNING
        assert (await w.vm(vm.uid)).spec.power is Power.ON

    _scene(new_world, body)


def test_qemu_dies_and_the_copy_begins_anew(new_world):
    async def body(w, vm: Vm) -> None:
        w.simulation.inject(Fault(FaultKind.ERROR, "hypervisor.disk_switch", error=CorralError("wrong-state", "", "")))
        operation = await _copying(w, vm, "hypervisor.disk_mirror")
        w.hypervisor.stop(vm.uid, StopCause.FAILED)
        done = await _converges(w, vm, operation, "QEMU died")
        assert done.status.state is OperationState.SUCCEEDED
        assert w.hypervisor.domains[vm.uid].starts == 2

    _scene(new_world, body)
