"""A clone whose disks are being copied: what is wished of it meanwhile waits for that, unless it is to go; its origin waits for
nothing."""

import asyncio

import pytest
from points_in_time import reads, taken, write

from corral.model.identity import Identity, Role
from corral.model.operation import DeleteVm, DestroyVm, OperationState, StartVm, UpdateVm
from corral.model.requests import CloneVmRequest
from corral.model.vm import Power, Vm
from corral.services.caller import Caller
from corral.services.clone import CloneService
from corral.simulation import Fault, FaultKind

ADMIN = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "request")
DONE = OperationState.SUCCEEDED


async def copying(w):
    """The origin, and the operation that makes its clone, whose disk is being copied for a while."""
    await w.start()
    origin, create = await w.create(power=Power.ON)
    await w.ended(create)
    write(w, origin, 0, "a")
    await taken(w, origin, "kept")
    w.simulation.trace.clear()
    real = w.volumes.fill

    async def slowly(*args, **more):
        w.simulation.trace.append("copying")
        await asyncio.sleep(0.6)
        await real(*args, **more)

    w.volumes.fill = slowly
    request = CloneVmRequest(names=("copy",), full=True, from_snapshot="kept")
    operation = (await CloneService(w.devices._context).clone(ADMIN, "default", origin.name, request))[1][0]
    await w.until(lambda: "copying" in w.simulation.trace)
    return origin, operation


def test_wishes_wait_for_the_copy_and_do_not_begin_it_anew(world):
    async def scene(w):
        origin, operation = await copying(w)
        copy = await w.objects.get(Vm, operation.spec.target_uid)
        wishes = [await w.wish(copy, UpdateVm(), spec={"description": f"wish {number}"}) for number in range(5)]
        start = await w.wish(copy, StartVm(), Power.ON)
        # Its origin has turns of its own.
        assert (await w.ended(await w.wish(origin, DestroyVm(), Power.OFF), 0.5)).status.state is DONE
        assert (await w.ended(operation)).status.state is DONE
        for wish in (*wishes, start):
            assert (await w.ended(wish)).status.state is DONE
        assert w.simulation.trace.count("copying") == 1
        assert reads(w, copy) == {0: "a"}

    world(scene)


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_one_that_is_to_go_does_not_wait(world, how):
    async def scene(w):
        _, operation = await copying(w)
        w.simulation.inject(Fault(FaultKind.HANG, "storage.fill"))  # a copy that takes for ever
        copy = await w.objects.get(Vm, operation.spec.target_uid)
        if how == "cancelled":
            await w.cancel(operation)
            assert (await w.ended(operation, 5)).status.state is OperationState.CANCELLED
        else:
            assert (await w.ended(await w.wish(copy, DeleteVm(), delete=True), 5)).status.state is DONE
        assert await w.vm(copy.uid) is None

    world(scene)
