"""The host loses power at any instant of what is done with points in time, clones, templates and volumes: every point in time
that there was holds what it held, disks hold what they did or what was asked for, and nothing is left to be cleaned.

Played by copying the state directory at each instant and starting a daemon from the copy. A sample in an ordinary run, every
instant in a soak."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom

import pytest
from lost_power import Instants, content, context_of, equip, write
from points_in_time import forget, revert, take, taken

from corral.model.identity import Identity, Role
from corral.model.layer import Layer
from corral.model.operation import Operation, OperationState, StartVm
from corral.model.pool import Pool, PoolSpec
from corral.model.requests import CloneVmRequest
from corral.model.snapshot import Snapshot
from corral.model.template import Template
from corral.model.template_requests import CreateTemplateRequest, ForkRequest
from corral.model.vm import Power, Vm
from corral.model.volume import Volume
from corral.model.volume_requests import FlattenVolumeRequest, MoveVolumeRequest
from corral.names import new_uid
from corral.services.caller import Caller
from corral.services.clone import CloneService
from corral.services.template import TemplateService
from corral.services.volume_move import VolumeMover

SEED = int(os.environ.get("CORRAL_SEED") or SystemRandom().randrange(1 << 32))
SAMPLE = 2
ADMIN = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "request")
FIRST = (1, 0, 0, 0, 9)
SECOND = (1, 2, 0, 0, 9)
NOW = (1, 2, 3, 0, 9)
"""What each point in time, and the disk, are full of; the last block is the image's."""


@dataclass(frozen=True)
class Verb:
    """`power`: the VM's, while it is asked for. `after`: what the disk holds once it is done, if not what it held."""

    name: str
    power: Power
    request: Callable[..., Awaitable[Operation]]
    after: tuple[int, ...] = NOW
    gone: frozenset[str] = frozenset()


async def _clone(w, vm: Vm, **more: object) -> Operation:
    request = CloneVmRequest.model_validate({"names": ("copy",), **more})
    return (await CloneService(context_of(w)).clone(ADMIN, "default", vm.name, request))[1][0]


async def _freeze(w, vm: Vm, name: str = "new") -> Operation:
    request = CreateTemplateRequest(name=name, source=vm.name, hot=True)
    return (await TemplateService(context_of(w)).create(ADMIN, "default", request))[1]


async def _fork(w, vm: Vm) -> Operation:
    service = TemplateService(context_of(w))
    return (await service.fork(ADMIN, "default", "base", ForkRequest(names=("copy",))))[1][0]


async def _copys_disk(w) -> str:
    [copy] = [vm for vm in await w.objects.list(Vm) if vm.name == "copy"]
    return next(volume.name for volume in await w.objects.list(Volume) if volume.spec.vm_uid == copy.uid)


async def _move(w, vm: Vm) -> Operation:
    request = MoveVolumeRequest(pool="fast")
    return await VolumeMover(context_of(w)).move(ADMIN, "default", await _copys_disk(w), request)


async def _flatten(w, vm: Vm) -> Operation:
    return await VolumeMover(context_of(w)).flatten(ADMIN, "default", await _copys_disk(w), FlattenVolumeRequest())


VERBS = (
    Verb("take", Power.ON, lambda w, vm: take(w, vm, "new", memory=True)),
    Verb("take off", Power.OFF, lambda w, vm: take(w, vm, "new")),
    Verb("revert", Power.ON, lambda w, vm: revert(w, vm, "first"), FIRST),
    Verb("delete and merge", Power.OFF, lambda w, vm: forget(w, vm, "first"), gone=frozenset({"first"})),
    Verb("delete and merge live", Power.ON, lambda w, vm: forget(w, vm, "second"), gone=frozenset({"second"})),
    Verb("clone", Power.ON, _clone),
    Verb("clone whole", Power.OFF, lambda w, vm: _clone(w, vm, full=True)),
    Verb("clone then", Power.OFF, lambda w, vm: _clone(w, vm, from_snapshot="first")),
    Verb("freeze", Power.ON, _freeze),
    Verb("fork", Power.ON, _fork),
    Verb("move", Power.OFF, _move),
    Verb("flatten", Power.OFF, _flatten),
)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Waiting between tries is not the subject. (Undone and set again: an instant's own patches are undone with all.)"""
    with pytest.MonkeyPatch.context() as own:
        own.setattr("corral.agent.vm.backoff_s", lambda attempts: 0.02 * attempts)
        own.setattr("corral.agent.template.backoff_s", lambda attempts: 0.02 * attempts)
        own.setattr("corral.agent.template.LOOK_S", 0.01)
        own.setattr("corral.agent.vm.TIDY_AGAIN_S", 0.05)
        yield


async def _ready(new_world, directory: Path, verb: Verb):
    """Two points in time, and what came after; where it is asked of one, a clone or a template too."""
    w = new_world()
    await equip(w, directory)
    await w.start()
    vm, create = await w.create(power=Power.OFF)
    assert (await w.ended(create)).status.state is OperationState.SUCCEEDED
    for number, name in enumerate(("first", "second")):
        write(_path(w, vm.uid), number, number + 1)
        await taken(w, vm, name)
    write(_path(w, vm.uid), 2, 3)
    if verb.name in ("move", "flatten"):
        fast_place = directory / "fast"
        fast_place.mkdir(mode=0o711)
        fast = Pool(name="fast", uid=new_uid(), created_at=w.clock.now(), spec=PoolSpec(path=str(fast_place)))
        transaction = w.objects.transaction()
        transaction.create(fast)
        await transaction.commit()
        await w.volumes.open_pool(fast)
        await w.ended(await _clone(w, vm))
    if verb.power is Power.ON or verb.name == "fork":
        await w.ended(await w.wish(vm, StartVm(), Power.ON))
        await w.until(lambda: _has_agent(w, vm))
        await w.quiet(20)
    if verb.name == "fork":
        assert (await w.ended(await _freeze(w, vm, "base"))).status.state is OperationState.SUCCEEDED
    await w.quiet(20)
    return w, vm


async def _has_agent(w, vm: Vm) -> bool:
    return (await w.vm(vm.uid)).status.agent_connected


def _path(w, vm_uid: str) -> Path:
    domain = w.hypervisor.domains[vm_uid]
    return Path((domain.live_disks if domain.active else domain.disks)[0].path)


async def _cut(new_world, directory: Path, copies: Path, verb: Verb, random: Random) -> Instants:
    """The verb, done to its end; a copy of each instant on the way."""
    w, vm = await _ready(new_world, directory, verb)
    instants = Instants(directory, copies, random)
    with pytest.MonkeyPatch.context() as own, instants.watching(own, w.simulation):
        done = await w.ended(await verb.request(w, vm), 30)
        assert done.status.state is OperationState.SUCCEEDED, done.status
        await w.quiet(30)
        await asyncio.sleep(0.1)
        await w.quiet(30)
    await _judge(w, verb, vm.uid)
    await w.kill()
    await w.store.close()
    return instants


async def _begin_again(new_world, directory: Path, verb: Verb, label: str) -> None:
    w = new_world()
    await equip(w, directory)
    w.reboot_host()
    try:
        await w.start()
        [vm] = [found for found in await w.objects.list(Vm) if found.name == "web"]
        problem: AssertionError | None = None
        try:
            async with asyncio.timeout(30):
                while True:
                    await w.quiet(30)
                    try:
                        return await _judge(w, verb, vm.uid)
                    except AssertionError as error:
                        problem = error
                    await asyncio.sleep(0.05)
        except TimeoutError:
            shown = [
                (o.spec.intent.verb, o.status.state, o.status.phase, o.status.error)
                for o in await w.objects.list(Operation)
            ]
            raise AssertionError(f"{verb.name}, cut {label}: {problem}; {shown}") from problem
    finally:
        await w.kill()
        await w.store.close()


async def _judge(w, verb: Verb, vm_uid: str) -> None:
    snapshots = {snapshot.name: snapshot for snapshot in await w.objects.list(Snapshot)}
    assert {"first", "second"} - verb.gone <= set(snapshots) <= {"first", "second", "new"}
    held = {"first": FIRST, "second": SECOND, "new": NOW}
    for name, snapshot in snapshots.items():
        assert snapshot.status.ready
        assert content(w.volumes.path(snapshot.spec.disks[0].layer_uid)) == held[name], name
    for vm in await w.objects.list(Vm):
        expected = (FIRST,) if verb.name == "clone then" and vm.name == "copy" else (NOW, verb.after)
        [volume] = [v for v in await w.objects.list(Volume) if v.spec.vm_uid == vm.uid]
        assert content(w.volumes.volume_path(volume)) in expected, vm.name
        assert str(_path(w, vm.uid)) == str(w.volumes.volume_path(volume))
    for template in await w.objects.list(Template):
        assert template.status.ready
        assert content(w.volumes.path(template.spec.disks[0].layer_uid)) == NOW
    assert all(operation.status.state.final for operation in await w.objects.list(Operation))
    await _check_nothing_lies_about(w)


async def _check_nothing_lies_about(w) -> None:
    layers, volumes = await w.objects.list(Layer), await w.objects.list(Volume)
    assert all(layer.status.ready for layer in layers)
    assert all(volume.status.ready for volume in volumes)
    wanted = {str(w.volumes.path(layer.uid, layer.spec.pool)) for layer in layers}
    wanted |= {str(w.volumes.volume_path(volume)) for volume in volumes}
    there = {str(path) for place in w.volumes.pools().values() for path in place.glob("*.qcow2")}
    assert there == wanted
    state = w.settings.state_dir
    assert {path.name for path in (state / "snapshots").iterdir()} == {s.uid for s in await w.objects.list(Snapshot)}
    assert not list(state.rglob(".*.tmp"))
    assert not list((state / "inherited").glob("*"))


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a guest's QEMU could pass through."""
    with tempfile.TemporaryDirectory(prefix="flt-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


async def _all(new_world, place: Path, verb: Verb, sample: int) -> None:
    directory, copies = place / "state", place / "copies"
    directory.mkdir(mode=0o711)
    copies.mkdir()
    random = Random(f"{SEED}/{verb.name}")
    instants = await _cut(new_world, directory, copies, verb, random)
    numbers = range(len(instants.labels))
    assert len(numbers) > SAMPLE
    chosen = sorted(random.sample(numbers, sample)) if sample else list(numbers)
    for number in chosen:
        label = instants.labels[number]
        instants.begin_from(number)
        try:
            await _begin_again(new_world, directory, verb, label)
        except Exception as error:
            raise AssertionError(f"CORRAL_SEED={SEED}: {verb.name}, cut {label} ({number}): {error!r}") from error


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_sample_of_instants(new_world, place, verb):
    asyncio.run(_all(new_world, place, verb, SAMPLE))


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_instant(new_world, place, verb):
    asyncio.run(_all(new_world, place, verb, 0))
