"""A VM is made with a volume that was there: cut at any call, the volume is the VM's or nobody's, and whole."""

import asyncio

import pytest

from corral.errors import CorralError
from corral.model.identity import Identity, Role
from corral.model.operation import DeleteVm, OperationState
from corral.model.requests import CreateVmRequest
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.model.volume_requests import CreateVolumeRequest
from corral.names import GIB
from corral.services.caller import Caller
from corral.services.creation import create_vm
from corral.services.volume_create import VolumeMaker
from corral.simulation import Fault, FaultKind

ADMIN = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "request")
KINDS = (FaultKind.CRASH_BEFORE, FaultKind.CRASH_AFTER, FaultKind.ERROR, FaultKind.LATE_ERROR)
WRITTEN = {3: "three"}
SHARED = {"format": "raw", "shared": True}


async def volume(w, **request) -> Volume:
    asked = CreateVolumeRequest.model_validate({"name": "data", "size_bytes": GIB, **request})
    made, operation = await VolumeMaker(w.devices._context).create(ADMIN, "default", asked)
    await w.ended(operation)
    assert made is not None
    w.volumes.layers.disks.write(str(w.volumes.volume_path(made)), 3, "three")
    return made


async def create(w, name: str = "web"):
    body = {"name": name, "image": "micro", "memory_mib": 128, "disks": [{"size_bytes": GIB}, {"volume": "data"}]}
    return (await create_vm(w.devices._context, ADMIN, "default", CreateVmRequest.model_validate(body)))[1]


async def check(w, made: Volume) -> None:
    """It is there, with what was written, and belongs to who has it."""
    now = await w.objects.get(Volume, made.uid)
    assert now is not None
    assert now.status.ready
    holders = [vm.uid for vm in await w.objects.list(Vm) if any(disk.volume_uid == made.uid for disk in vm.spec.disks)]
    assert now.spec.vm_uid == (holders[0] if holders and not made.spec.shared else None)
    assert w.volumes.layers.disks.content(str(w.volumes.volume_path(now))) == WRITTEN
    known = {one.uid for one in await w.objects.list(Volume)}
    assert set(w.volumes.pool.volumes) == known


def calls_of(world, spec) -> list[tuple[str, int]]:
    """Every call of an undisturbed create, as (name, nth)."""
    found: list[tuple[str, int]] = []

    async def scene(w):
        await w.start()
        await volume(w, **spec)
        await w.quiet()
        w.simulation.trace.clear()
        await w.ended(await create(w))
        seen: dict[str, int] = {}
        for call in w.simulation.trace:
            seen[call] = seen.get(call, 0) + 1
            found.append((call, seen[call]))

    world(scene)
    return [(call, nth) for call, nth in found if call not in ("storage.usage", "storage.allocations", "storage.found")]


@pytest.mark.parametrize("spec", [{}, SHARED], ids=["own", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_call_of_a_create_may_be_cut(world, kind, spec):
    for call, nth in calls_of(world, spec):

        async def scene(w, call=call, nth=nth):
            await w.start()
            made = await volume(w, **spec)
            await w.quiet()
            crashed = asyncio.Event()
            w.simulation.on_crash = crashed.set
            error = CorralError("store-unavailable" if call.startswith("store") else "storage-error", call, "injected")
            w.simulation.inject(Fault(kind, call, nth=nth, error=error))
            operation = await create(w)
            if "crash" in kind:
                try:
                    async with asyncio.timeout(3):
                        await crashed.wait()
                    await w.kill()
                    await w.start()
                except TimeoutError:
                    pass  # this time nobody made that call
            done = await w.ended(operation)
            await w.quiet()
            assert done.status.state in (OperationState.SUCCEEDED, OperationState.FAILED)
            assert bool(await w.objects.list(Vm)) is (done.status.state is OperationState.SUCCEEDED)
            await check(w, made)

        world(scene)


@pytest.mark.parametrize("spec", [{}, SHARED], ids=["own", "shared"])
def test_it_outlives_the_vm(world, spec):
    async def scene(w):
        await w.start()
        made = await volume(w, **spec)
        await w.ended(await create(w))
        if made.spec.shared:
            await w.ended(await create(w, "other"))
            shareable = [disk.shareable for domain in w.hypervisor.domains.values() for disk in domain.disks]
            assert shareable == [False, True] * 2
        else:
            with pytest.raises(CorralError, match="volume-in-use"):
                await create(w, "other")
        for vm in await w.objects.list(Vm):
            await w.ended(await w.wish(vm, DeleteVm(), delete=True))
        await w.quiet()
        await check(w, made)
        assert [one.uid for one in await w.objects.list(Volume)] == [made.uid]

    world(scene)
