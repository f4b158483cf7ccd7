"""A guest that went on from a snapshot with memory is told the time, also where the daemon dies before it could be."""

import asyncio

from points_in_time import revert, taken

from corral.model.operation import OperationState


def test_the_next_daemon_tells_it(world, monkeypatch):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await taken(w, vm, "warm", memory=True)
        guests, set_time, asked = w.hypervisor.guests, w.hypervisor.guests.set_time, asyncio.Event()
        told: list[str] = []

        async def hang(_uid: str, _time_ns: int | None) -> None:
            asked.set()
            await asyncio.Event().wait()

        async def tell(uid: str, time_ns: int | None) -> None:
            await set_time(uid, time_ns)
            told.append(uid)

        monkeypatch.setattr(guests, "set_time", hang)
        done = await w.ended(await revert(w, vm, "warm"))
        assert done.status.state is OperationState.SUCCEEDED, "nobody waits for the clock"
        async with asyncio.timeout(10):
            await asked.wait()
        assert (await w.vm(vm.uid)).status.clock_behind
        await w.kill()
        monkeypatch.setattr(guests, "set_time", tell)
        await w.start()
        await w.quiet()
        assert told == [vm.uid]
        assert not (await w.vm(vm.uid)).status.clock_behind
        await w.kill()
        await w.start()
        await w.quiet()
        assert told == [vm.uid], "once"

    world(scene)
