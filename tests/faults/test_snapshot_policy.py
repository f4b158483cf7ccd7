"""A VM's snapshot policy over days, hurried: what is taken, what goes, and a daemon that dies on the way."""

from datetime import UTC, datetime, timedelta

from points_in_time import check_layers, holds, reads, take, taken, write

from corral.clock import ManualClock
from corral.model.operation import DestroyVm, OperationState, UpdateVm
from corral.model.snapshot import Snapshot
from corral.model.snapshot_policy import SnapshotPolicy
from corral.model.vm import Power

START = datetime(2030, 1, 1, 0, 30, tzinfo=UTC)
POLICY = SnapshotPolicy(hourly=2, daily=2)


async def begin(w, clock: ManualClock):
    await w.start()
    vm, create = await w.create()
    await w.ended(create)
    w.agent.snapshot_keeper.clock = clock
    assert (await w.ended(await w.wish(vm, UpdateVm(), spec={"snapshot_policy": POLICY}))).status.state is (
        OperationState.SUCCEEDED
    )
    await w.quiet()
    return vm


async def look(w, clock: ManualClock) -> None:
    w.agent.snapshot_keeper.clock = clock
    for _ in range(2):  # what the first look takes makes others old
        await w.agent.snapshot_keeper.look()
        await w.quiet()


async def kept(w) -> list[datetime]:
    found = [one for one in await w.objects.list(Snapshot) if one.name.startswith("auto-")]
    return sorted(one.created_at for one in found)


def test_days_go_by(world):
    async def scene(w):
        clock = ManualClock(START)
        vm = await begin(w, clock)
        await taken(w, vm, "own")
        for hour in range(30):
            write(w, vm, hour % 3, f"hour{hour}")
            await look(w, clock)
            await look(w, clock)  # one an hour, however often it is looked
            clock.advance(3600)
        hours = [(at - START) // timedelta(hours=1) for at in await kept(w)]
        assert hours == [23, 28, 29]  # the last of yesterday, and two hours
        assert (await holds(w, "own")) == {}
        assert reads(w, vm) == {0: "hour27", 1: "hour28", 2: "hour29"}
        await check_layers(w)
        # While it is off nothing changes, and nothing is taken; the hours that were missed are caught up once.
        await w.ended(await w.wish(vm, DestroyVm(), Power.OFF))
        await w.quiet()
        clock.advance(5 * 3600)
        await look(w, clock)
        assert len(await kept(w)) == 3
        await w.check_whole()

    world(scene)


def test_a_daemon_that_dies_goes_on_with_it(world):
    async def scene(w):
        clock = ManualClock(START)
        vm = await begin(w, clock)
        await look(w, clock)
        for _ in range(3):
            clock.advance(3600)
            await w.agent.snapshot_keeper.look()  # asked, and at once
            await w.kill()
            await w.start()
            await w.quiet()
            await look(w, clock)
        assert [(at - START) // timedelta(hours=1) for at in await kept(w)] == [2, 3]
        assert (await w.ended(await take(w, vm, "own"))).status.state is OperationState.SUCCEEDED
        await w.quiet()
        await check_layers(w)

    world(scene)


def test_a_full_disk_is_left_alone(world):
    async def scene(w):
        clock = ManualClock(START)
        await begin(w, clock)
        w.volumes.full = True
        await look(w, clock)
        assert await kept(w) == []
        assert sum("SnapshotSkipped" in event for event in await w.events()) == 1

    world(scene)
