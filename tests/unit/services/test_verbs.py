"""The verbs: what each writes, and what is refused in which state."""

import asyncio
from typing import Any

import pytest

from corral.errors import CorralError
from corral.hypervisor.fake import FakeDomain
from corral.model.identity import Role
from corral.model.operation import Operation, ShutdownVm, UpdateVm
from corral.model.requests import CreateVmRequest, RebootRequest, ShutdownRequest, StartRequest, UpdateVmRequest
from corral.model.vm import Power, RunPolicy, Vm, VmState
from corral.names import new_uid
from corral.services import rules
from corral.store.objects import name_claim


async def ask(world: Any, verb: str, name: str = "web", **arguments: Any) -> Operation:
    """Call a verb as an operator, with its smallest request."""
    requests: dict[str, tuple[Any, ...]] = {
        "start": (StartRequest(),),
        "shutdown": (ShutdownRequest(),),
        "reboot": (RebootRequest(),),
        "update": (UpdateVmRequest(description="new"),),
    }
    service = getattr(world.vms, verb)
    return await service(world.caller(), "default", name, *requests.get(verb, ()), **arguments)


@pytest.mark.parametrize(
    ("verb", "state", "power"),
    [
        ("start", VmState.RUNNING, Power.ON),
        ("shutdown", VmState.RUNNING, Power.OFF),
        ("destroy", VmState.RUNNING, Power.OFF),
        ("save", VmState.RUNNING, Power.OFF),
        ("pause", VmState.RUNNING, Power.PAUSED),
        ("resume", VmState.PAUSED, Power.ON),
        ("resume", VmState.RUNNING, Power.ON),
        ("shutdown", VmState.SHUT_OFF, Power.OFF),
        ("destroy", VmState.SHUT_OFF, Power.OFF),
        ("destroy", VmState.PAUSED, Power.OFF),
    ],
)
def test_a_power_verb_writes_the_wish_and_an_operation_that_tracks_it(
    play: Any, verb: str, state: VmState, power: Power
) -> None:
    async def scene(world: Any) -> None:
        before = await world.running("web")
        before = await world.see("web", state)
        operation = await ask(world, verb)
        after = await world.vm("web")
        assert (after.spec.power, after.generation) == (power, before.generation + 1)
        assert operation.spec.tracks_generation == after.generation
        assert operation.spec.previous_power == before.spec.power.value
        assert operation.spec.intent.verb == verb
        assert operation.revision == after.revision
        assert (await world.audit_outcomes())[-1] == (f"vm.{verb}", "accepted")

    play(scene)


@pytest.mark.parametrize("verb", ["reboot", "reset"])
def test_an_imperative_verb_writes_only_an_operation(play: Any, verb: str) -> None:
    async def scene(world: Any) -> None:
        before = await world.running("web")
        operation = await ask(world, verb)
        assert await world.vm("web") == before
        assert operation.spec.tracks_generation == 0

    play(scene)


@pytest.mark.parametrize(
    ("verb", "state", "power"),
    [
        ("start", VmState.PAUSED, Power.PAUSED),
        ("shutdown", VmState.PAUSED, Power.PAUSED),
        ("save", VmState.SHUT_OFF, Power.OFF),
        ("save", VmState.PENDING, Power.ON),
        ("pause", VmState.SHUT_OFF, Power.OFF),
        ("pause", VmState.PENDING, Power.ON),
        ("resume", VmState.SHUT_OFF, Power.OFF),
        ("reboot", VmState.SHUT_OFF, Power.OFF),
        ("reboot", VmState.PAUSED, Power.PAUSED),
        ("reset", VmState.SHUT_OFF, Power.OFF),
    ],
)
def test_the_wrong_state_is_said_with_a_hint_and_nothing_is_written(
    play: Any, verb: str, state: VmState, power: Power
) -> None:
    async def scene(world: Any) -> None:
        vm = await world.running("web")
        vm = await world.see("web", state)
        before = await world.put(vm.model_copy(update={"spec": vm.spec.model_copy(update={"power": power})}))
        operations = await world.objects.list(Operation)
        with pytest.raises(CorralError) as refused:
            await ask(world, verb)
        assert refused.value.code == "wrong-state"
        assert refused.value.hint
        assert await world.vm("web") == before
        assert await world.objects.list(Operation) == operations
        assert (await world.audit_outcomes())[-1] == (f"vm.{verb}", "wrong-state")

    play(scene)


@pytest.mark.parametrize(
    "verb", ["start", "shutdown", "destroy", "save", "pause", "resume", "reboot", "reset", "update"]
)
def test_a_vm_being_deleted_hears_no_other_verb(play: Any, verb: str) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        await ask(world, "delete")
        with pytest.raises(CorralError, match="vm-being-deleted"):
            await ask(world, verb)

    play(scene)


@pytest.mark.parametrize("verb", ["start", "destroy", "delete", "reset", "update", "shutdown"])
def test_a_viewer_may_not_and_it_is_written_down(play: Any, verb: str) -> None:
    async def scene(world: Any) -> None:
        before = await world.running("web")
        world.caller = lambda: type(world).caller(Role.VIEWER)
        with pytest.raises(CorralError) as refused:
            await ask(world, verb)
        assert refused.value.code == "forbidden"
        assert refused.value.context["role_wanted"] == "operator"
        assert await world.vm("web") == before
        assert (await world.audit_outcomes())[-1] == (f"vm.{verb}", "denied")

    play(scene)


def test_a_role_in_another_project_is_no_role_here(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        with pytest.raises(CorralError, match="forbidden"):
            await world.vms.start(world.caller(Role.ADMIN, "other"), "default", "web", StartRequest())
        with pytest.raises(CorralError, match="project-not-found"):
            await world.vms.start(world.admin(), "other", "web", StartRequest())

    play(scene)


def test_shutdown_carries_its_deadlines(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        request = ShutdownRequest(deadline_s=5, force_after_s=9)
        operation = await world.vms.shutdown(world.caller(), "default", "web", request)
        assert operation.spec.intent == ShutdownVm(deadline_s=5, force_after_s=9)

    play(scene)


def test_a_stale_revision_changes_nothing(play: Any) -> None:
    async def scene(world: Any) -> None:
        old = await world.running("web")
        new = await world.see("web", VmState.RUNNING, guest_os="Debian")
        for verb in ("shutdown", "reset", "delete", "update"):
            with pytest.raises(CorralError) as refused:
                await ask(world, verb, if_revision=old.revision)
            assert refused.value.code == "stale-revision"
            assert refused.value.context["revision"] == new.revision
        assert await world.vm("web") == new
        await ask(world, "shutdown", if_revision=new.revision)

    play(scene)


def test_without_if_match_a_lost_race_is_tried_again(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")

        async def observe() -> None:
            for index in range(20):
                await world.see("web", VmState.RUNNING, guest_os=f"seen {index}")
                await asyncio.sleep(0)

        await asyncio.gather(observe(), *(ask(world, verb) for verb in ("update", "shutdown", "start", "destroy")))
        vm = await world.vm("web")
        assert vm.generation == 5
        assert vm.status.guest_os == "seen 19"

    play(scene)


def test_start_is_admitted_again(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.follow()
        await world.running("big", memory_mib=6000)
        await ask(world, "destroy", "big")
        await world.see("big", VmState.SHUT_OFF)
        await world.running("other", memory_mib=6000)
        with pytest.raises(CorralError) as refused:
            await ask(world, "start", "big")
        assert refused.value.code == "insufficient-memory"
        await ask(world, "destroy", "other")
        with pytest.raises(CorralError, match="insufficient-memory"):
            await ask(world, "start", "big")  # the other one still runs
        await world.see("other", VmState.SHUT_OFF)
        await asyncio.sleep(0.01)
        await ask(world, "start", "big")

    play(scene)


def test_update_changes_what_is_given_and_nothing_else(play: Any) -> None:
    async def scene(world: Any) -> None:
        before = await world.running("web", labels={"a": "1", "b": "2"})
        request = UpdateVmRequest(
            protected=True, run_policy=RunPolicy.ALWAYS, add_labels={"c": "3"}, remove_labels=("a",), description="d"
        )
        await world.vms.update(world.caller(), "default", "web", request)
        after = await world.vm("web")
        assert after.labels == {"b": "2", "c": "3"}
        assert (after.spec.protected, after.spec.run_policy, after.spec.description) == (True, RunPolicy.ALWAYS, "d")
        assert after.spec.power is before.spec.power
        await world.vms.update(world.caller(), "default", "web", UpdateVmRequest(labels={}, protected=False))
        assert (await world.vm("web")).labels == {}
        assert not (await world.vm("web")).spec.protected

    play(scene)


def test_a_protected_vm_is_not_deleted(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web", protected=True)
        with pytest.raises(CorralError, match="vm-protected"):
            await ask(world, "delete")
        assert not (await world.vm("web")).being_deleted

    play(scene)


def test_rename_moves_the_name(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        rename = UpdateVmRequest(name="shop")
        with pytest.raises(CorralError, match="wrong-state"):
            await world.vms.update(world.caller(), "default", "web", rename)
        await ask(world, "destroy")
        vm = await world.see("web", VmState.SHUT_OFF)
        operation = await world.vms.update(world.caller(), "default", "web", rename)
        assert operation.spec.intent == UpdateVm(previous_name="web")
        assert (await world.vm("shop")).uid == vm.uid
        assert await world.objects.owner(name_claim("vm", "default", "web")) is None
        await world.vms.create(world.caller(), "default", CreateVmRequest(name="web", image="micro", start=False))
        with pytest.raises(CorralError, match="name-taken"):
            await world.vms.update(world.caller(), "default", "shop", UpdateVmRequest(name="web"))
        for bad in ("../x", "x" * 300, "X"):
            with pytest.raises(CorralError, match="invalid-name"):
                await world.vms.update(world.caller(), "default", "shop", UpdateVmRequest(name=bad))

    play(scene)


def test_the_same_key_answers_with_the_same_operation(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        first = await world.vms.destroy(world.caller(key="k"), "default", "web")
        again = await world.vms.destroy(world.caller(key="k"), "default", "web")
        assert again.uid == first.uid
        assert (await world.vm("web")).generation == 2
        with pytest.raises(CorralError, match="idempotency-key-reused"):
            await world.vms.start(world.caller(key="k"), "default", "web", StartRequest())
        other = await world.vms.start(world.caller(key="k", name="token:other"), "default", "web", StartRequest())
        assert other.uid != first.uid
        for bad in ("a/b", "x" * 1000, "a\nb"):
            with pytest.raises(CorralError, match="invalid-argument"):
                await world.vms.destroy(world.caller(key=bad), "default", "web")

    play(scene)


def test_many_repeats_at_once_make_one_operation(play: Any) -> None:
    async def scene(world: Any) -> None:
        request = CreateVmRequest(name="web", image="micro", password="secret")
        ends = await asyncio.gather(
            *(world.vms.create(world.caller(key="k"), "default", request) for _ in range(50)),
        )
        assert len({operation.uid for _, operation in ends}) == 1
        deleted = await asyncio.gather(*(world.vms.delete(world.caller(key="d"), "default", "web") for _ in range(50)))
        assert len({operation.uid for operation in deleted}) == 1
        transaction = world.objects.transaction()
        transaction.delete(await world.vm("web"))
        await transaction.commit()
        again = await world.vms.delete(world.caller(key="d"), "default", "web")
        assert again.uid == deleted[0].uid
        vm, operation = await world.vms.create(world.caller(key="k"), "default", request)
        assert vm is None
        assert operation.uid == ends[0][1].uid

    play(scene)


def test_rename_is_refused_while_memory_is_saved() -> None:
    """The saved state names the domain."""
    vm = Vm.model_validate(
        {
            "name": "web",
            "uid": "33333333-3333-4333-8333-333333333333",
            "created_at": "2026-01-01T00:00:00Z",
            "spec": {"power": "off"},
            "status": {"state": "shut off", "has_saved_memory": True},
        }
    )
    with pytest.raises(CorralError, match="wrong-state"):
        rules.check_rename(vm)


def test_what_others_changed_is_shown_and_reset(play: Any) -> None:
    async def scene(world: Any) -> None:
        vm = await world.running("web", vcpus=2)
        domain = FakeDomain(vm.uid, "web", 4, vm.spec.memory_mib, None, state=VmState.RUNNING)
        world.hypervisor.add_foreign(domain)
        found = await world.vms.drift(world.caller(), "default", "web")
        assert found.drifted
        words = {item.field: (item.wished, item.found) for item in found.items}
        assert words["vcpus"] == ("2", "4")
        assert [there for field, (_, there) in words.items() if field.startswith("network card")] == [""]
        assert "memory" not in words
        operation = await world.vms.update(world.caller(), "default", "web", UpdateVmRequest(reset_drift=True))
        assert operation.spec.intent == UpdateVm(redefine=True)

    play(scene)


def test_an_adopted_definition_is_not_reset(play: Any) -> None:
    async def scene(world: Any) -> None:
        world.hypervisor.add_foreign(FakeDomain(new_uid(), "legacy", 1, 128, None, state=VmState.RUNNING))
        await world.domains.adopt(world.admin(), "default", "legacy")
        assert not (await world.vms.drift(world.caller(), "default", "legacy")).drifted
        with pytest.raises(CorralError, match="wrong-state"):
            await world.vms.update(world.caller(), "default", "legacy", UpdateVmRequest(reset_drift=True))

    play(scene)


def test_one_start_may_try_another_device_first(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        caller = world.caller()
        for state, code in ((VmState.RUNNING, "wrong-state"), (VmState.SHUT_OFF, "")):
            await world.see("web", state)
            call = world.vms.start(caller, "default", "web", StartRequest(boot_from="net0"))
            if code:
                with pytest.raises(CorralError, match=code):
                    await call
            else:
                assert (await call).spec.intent.boot_from == "net0"
        with pytest.raises(CorralError, match="device-not-found"):
            await world.vms.start(caller, "default", "web", StartRequest(boot_from="cd9"))
        await world.see("web", VmState.SHUT_OFF, has_saved_memory=True)
        with pytest.raises(CorralError, match="wrong-state"):
            await world.vms.start(caller, "default", "web", StartRequest(boot_from="root"))

    play(scene)
