"""Chains that something is wrong with: too long, lying on themselves, with a layer missing. They are refused, and by name: a disk
without one of its layers reads what was long ago, and a guest that writes on top of that destroys it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from points_in_time import found, taken, write

from corral.errors import CorralError
from corral.model import limits
from corral.model.layer import Layer, LayerSpec, chain_of
from corral.model.operation import DestroyVm, OperationState, StartVm
from corral.model.snapshot_rules import check_take
from corral.model.vm import DiskSpec, Power, Vm, VmSpec
from corral.model.volume import Volume, VolumeSpec
from corral.names import new_uid
from corral.services.ledger import Ledger
from corral.services.recover import recover
from corral.store.memory import MemoryStore
from corral.store.objects import Objects

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def chain(length: int) -> list[Layer]:
    """The lowest first."""
    layers: list[Layer] = []
    for _ in range(length):
        uid, below = new_uid(), layers[-1].uid if layers else None
        spec = LayerSpec(pool="default", size_bytes=2**30, parent_uid=below, volume_uid=new_uid())
        layers.append(Layer(name=uid, uid=uid, created_at=NOW, spec=spec))
    return layers


def broken(layers: list[Layer], head: Layer) -> CorralError:
    with pytest.raises(CorralError) as refused:
        chain_of({layer.uid: layer for layer in layers}, head.uid)
    assert refused.value.code == "chain-broken"
    return refused.value


def test_a_missing_layer_is_named_with_the_one_that_lies_on_it():
    layers = chain(4)
    error = broken([layers[0], *layers[2:]], layers[3])
    assert layers[1].uid in error.reason
    assert layers[2].uid in error.reason


@pytest.mark.parametrize("lies_on", [0, 2])
def test_a_ring_is_refused(lies_on):
    layers = chain(3)
    spec = layers[0].spec.model_copy(update={"parent_uid": layers[lies_on].uid})
    layers[0] = layers[0].model_copy(update={"spec": spec})
    assert "lies on itself" in broken(layers, layers[2]).reason


def test_a_disk_has_so_many_layers_and_no_more():
    layers = chain(limits.CHAIN_LAYERS_MAX)
    uid, head = new_uid(), layers[-1]
    volume = Volume(name="v", uid=uid, created_at=NOW, spec=VolumeSpec(size_bytes=2**30, layer_uid=head.uid))
    vm = Vm(name="web", uid=new_uid(), created_at=NOW, spec=VmSpec(disks=(DiskSpec(name="root", volume_uid=uid),)))
    known = {layer.uid: layer for layer in layers}
    with pytest.raises(CorralError) as refused:
        check_take(vm, {uid: volume}, known, with_memory=False, active=False, saved=False)
    assert refused.value.code == "chain-too-long"
    assert "root" in refused.value.reason
    spec = volume.spec.model_copy(update={"layer_uid": layers[-2].uid})
    fewer = volume.model_copy(update={"spec": spec})
    check_take(vm, {uid: fewer}, known, with_memory=False, active=False, saved=False)
    layers = chain(limits.CHAIN_LAYERS_MAX + 2)
    assert str(limits.CHAIN_LAYERS_MAX) in broken(layers, layers[-1]).reason


@pytest.mark.parametrize("gone", ["the lowest", "the head's own record"])
def test_a_disk_that_lacks_a_layer_after_recovery_is_not_written_to(world, gone):
    """A host that lost its database and a file besides."""

    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        for number, name in enumerate(("first", "second")):
            write(w, vm, number, name)
            await taken(w, vm, name)
        await w.ended(await w.wish(vm, DestroyVm(), Power.OFF))
        await w.quiet()
        lowest = (await found(w, "first")).spec.disks[0].layer_uid
        head = (await w.objects.list(Volume))[0].head_uid
        lost = lowest if gone == "the lowest" else head
        await w.kill()
        del w.volumes.layers.layers[lost]
        if gone == "the lowest":
            w.hypervisor.disks.remove(str(w.volumes.path(lost)))
        w.store = MemoryStore()
        w.objects = Objects(w.store)
        transaction = w.objects.transaction()
        transaction.create(w.network)
        await transaction.commit()
        context = replace(
            w.devices._context,
            objects=w.objects,
            ledger=Ledger(w.objects),
            hypervisor=w.hypervisor,
            volumes=w.volumes,
            networks=w.networks,
        )
        w.simulation.revive()
        report = await recover(context)
        assert any(lost in line for line in report.lost), report
        await w.start()
        await w.quiet()
        before = w.hypervisor.domains[vm.uid].disks
        done = await w.ended(await w.wish(vm, StartVm(), Power.ON), 20)
        assert done.status.state is OperationState.FAILED, done.status
        assert done.status.error.code == "chain-broken"
        assert lost in done.status.error.reason
        assert w.hypervisor.domains[vm.uid].disks == before
        assert not w.hypervisor.domains[vm.uid].active

    world(scene)
