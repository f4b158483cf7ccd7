"""What VMs of templates are promised and what they share: all of their memory, and the template's own once for all."""

from typing import Any

import pytest

from corral.errors import CorralError
from corral.model.layer import Layer, LayerSpec, LayerStatus
from corral.model.network import Network
from corral.model.operation import CreateVm, Operation
from corral.model.template import Template, TemplateDisk, TemplateSpec, TemplateStatus
from corral.model.template_requests import ForkRequest
from corral.model.vm import DiskSpec, NicSpec, Power, VmSpec, VmState
from corral.names import MIB, new_mac, new_uid
from corral.services.session import SessionService
from corral.services.template import TemplateService
from corral.services.usage import UsageMeter


async def _template(world: Any, name: str = "base", *, memory_mib: int = 1024, stored_mib: int = 300) -> Template:
    network = await world.objects.require(Network, "default", "default")
    uid, volume_uid, now = new_uid(), new_uid(), world.clock.now()
    layer_spec = LayerSpec(size_bytes=2**30, volume_uid=volume_uid)
    card = NicSpec(name="net0", network_uid=network.uid, mac=new_mac(), address="")
    await world.put(Layer(name=uid, uid=uid, created_at=now, spec=layer_spec, status=LayerStatus(ready=True)))
    spec = TemplateSpec(
        hot=True,
        source="web",
        source_uid=new_uid(),
        snapshot_uid=new_uid(),
        disks=(TemplateDisk(name="root", layer_uid=uid, size_bytes=2**30),),
        vm_spec=VmSpec(memory_mib=memory_mib, disks=(DiskSpec(name="root", volume_uid=volume_uid),), nics=(card,)),
    )
    status = TemplateStatus(ready=True, agent=True, memory_bytes=memory_mib * MIB, stored_bytes=stored_mib * MIB)
    made: Template = await world.put(Template(name=name, uid=new_uid(), created_at=now, spec=spec, status=status))
    return made


def _names(start: int, count: int) -> ForkRequest:
    return ForkRequest(names=tuple(f"f{number}" for number in range(start, start + count)))


def test_forks_are_promised_all_of_their_memory_and_their_templates_once(play: Any) -> None:
    async def scene(world: Any) -> None:
        template = await _template(world)
        await world.follow()
        forks, ledger = TemplateService(world.context), world.context.ledger
        # 8 GiB may be promised: eight of 1 GiB would fit if their template took nothing.
        with pytest.raises(CorralError, match="insufficient-memory"):
            await forks.fork(world.admin(), "default", "base", _names(0, 8))
        assert ledger.committed.memory_mib == 0
        await forks.fork(world.admin(), "default", "base", _names(0, 3))
        assert ledger.committed.memory_mib == 3 * 1024 + 300
        await forks.fork(world.admin(), "default", "base", _names(3, 4))
        assert ledger.committed.memory_mib == 7 * 1024 + 300
        with pytest.raises(CorralError, match="insufficient-memory"):
            await forks.fork(world.admin(), "default", "base", _names(7, 1))
        # The last of its VMs gives the template's own back.
        for number in range(7):
            vm = await world.vm(f"f{number}")
            spec = vm.spec.model_copy(update={"power": Power.OFF})
            off = vm.status.model_copy(update={"state": VmState.SHUT_OFF})
            ledger.observe(await world.put(vm.model_copy(update={"spec": spec, "status": off})))
            left = 6 - number
            assert ledger.committed.memory_mib == left * 1024 + (300 if left else 0)
        assert ledger.held_for(template.uid).memory_mib == 300
        assert ledger.held_for(None).memory_mib == 0

    play(scene)


def test_the_same_is_counted_after_a_restart(play: Any) -> None:
    async def scene(world: Any) -> None:
        await _template(world)
        await world.follow()
        await TemplateService(world.context).fork(world.admin(), "default", "base", _names(0, 2))
        before = world.context.ledger.committed
        await world.context.ledger.prime()
        assert world.context.ledger.committed == before
        assert before.memory_mib == 2 * 1024 + 300

    play(scene)


def test_operations_say_what_a_vm_was_made_of(play: Any) -> None:
    async def scene(world: Any) -> None:
        template = await _template(world)
        forks = TemplateService(world.context)
        await forks.fork(world.admin(), "default", "base", _names(0, 1))
        await forks.fork(world.admin(), "default", "base", ForkRequest(names=("booted",), boot=True))
        intents = {o.spec.target_name: o.spec.intent for o in await world.objects.list(Operation)}
        assert intents == {
            "f0": CreateVm(fork_of=template.uid, made_of="template"),
            "booted": CreateVm(made_of="template"),
        }

    play(scene)


def test_of_a_vm_that_has_ended_there_is_nothing_to_tell(play: Any) -> None:
    async def scene(world: Any) -> None:
        sessions = SessionService(world.context, UsageMeter(world.context))
        await world.running("web")  # as far as the agent saw: its domain has just ended
        with pytest.raises(CorralError, match="wrong-state"):
            await sessions.memory(world.caller(), "default", "web")
        with pytest.raises(CorralError, match="vm-not-found"):
            await sessions.memory(world.caller(), "default", "nobody")

    play(scene)
