"""The planner over a model world: it converges, repeats nothing, and never removes the only copy of anything."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.agent import steps as s
from corral.agent.planner import plan
from corral.agent.view import ACTIVE
from corral.hypervisor.base import StopCause
from corral.model.operation import (
    AdoptVm,
    CreateVm,
    DeleteVm,
    DestroyVm,
    OperationState,
    Problem,
    RebootVm,
    ResetVm,
    SaveVm,
    ShutdownVm,
    StartVm,
    StepKind,
    StepRecord,
    UpdateVm,
)
from corral.model.vm import Power, RunPolicy, VmState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STATES = (VmState.RUNNING, VmState.PAUSED, VmState.SHUT_OFF, VmState.CRASHED)
POWERED = {Power.ON: VmState.RUNNING, Power.PAUSED: VmState.PAUSED, Power.OFF: VmState.SHUT_OFF}


def names(plan_):
    return [step.NAME for step in plan_.steps]


def test_a_create_makes_everything_in_order(fresh):
    decided = plan(fresh.view())
    assert names(decided) == ["make-volume", "make-volume", "write-seed", "reserve", "define", "start"]
    fresh.run()
    assert set(fresh.ended.values()) == {OperationState.SUCCEEDED}
    assert all(volume.status.ready for volume in fresh.volumes.values())


def test_a_failed_create_is_undone_but_older_disks_stay(fresh, model):
    problem = Problem(code="disk-full", asked="", reason="full")
    world = model(observed=0, domain=VmState.SHUT_OFF)
    world.request(CreateVm(), tracks=1, error=problem)
    uid = next(iter(world.volumes))
    world.volumes[uid] = world.volumes[uid].model_copy(
        update={"status": world.volumes[uid].status.model_copy(update={"ready": True})}
    )
    world.run()
    assert world.vm is None
    assert world.domain is None
    assert world.disks == {uid} == set(world.volumes)
    assert set(world.ended.values()) == {OperationState.FAILED}


def test_delete_without_an_operation_keeps_the_disks(model):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, deleting=True, ready=True)
    world.run()
    assert world.vm is None
    assert len(world.disks) == 2


@pytest.mark.parametrize("policy", list(RunPolicy))
def test_a_domain_that_is_gone_is_made_again_and_runs_unless_manual(model, policy):
    world = model(was=VmState.RUNNING, policy=policy, ready=True)
    first = world.once()
    assert first.steps == ()
    assert (first.settle.power, first.settle.restarts) == (
        (Power.OFF, None) if policy is RunPolicy.MANUAL else (None, 1)
    )
    world.run()
    assert world.domain.state is (VmState.SHUT_OFF if policy is RunPolicy.MANUAL else VmState.RUNNING)


def test_a_domain_that_was_seen_to_stop_before_it_went_keeps_that_cause(model):
    world = model(was=VmState.RUNNING, ready=True)
    world.known = replace(world.known, stop_cause=StopCause.DESTROYED)
    world.run()
    assert world.vm.spec.power is Power.OFF
    assert world.domain.state is VmState.SHUT_OFF


def test_after_a_host_reboot_the_order_decides_about_a_domain_that_is_gone_too(model):
    world = model(was=VmState.RUNNING, autostart=True, ready=True)
    world.boot_id = "next"
    world.run()
    assert world.domain.state is VmState.RUNNING
    assert world.vm.status.restarts == 0


def test_a_stop_is_on_record_before_the_document_is_made_anew(model):
    world = model(was=VmState.RUNNING, domain=VmState.SHUT_OFF, ready=True)
    world.domain = replace(
        world.domain, stop_cause=StopCause.GUEST, metadata=replace(world.domain.metadata, spec_json="old")
    )
    first = world.once()
    assert (first.steps, first.settle.power) == ((), Power.OFF)
    world.run()
    assert world.domain.state is VmState.SHUT_OFF


def test_another_installations_domain_is_never_touched(model):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, power=Power.OFF, ready=True)
    metadata = replace(world.domain.metadata, installation_id="other")
    world.domain = replace(world.domain, metadata=metadata)
    world.request(DestroyVm(), tracks=1)
    world.run()
    assert world.taken == []
    assert set(world.ended.values()) == {OperationState.FAILED}


def test_a_newer_epoch_is_obeyed(model):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, power=Power.OFF, ready=True)
    world.domain = replace(world.domain, metadata=replace(world.domain.metadata, epoch=2))
    world.request(DestroyVm(), tracks=1)
    world.run()
    assert world.taken == []


def test_a_once_step_cut_by_a_crash_is_interrupted_and_not_repeated(model):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, ready=True)
    record = StepRecord(name="reset", kind=StepKind.ONCE, started_at=NOW)
    world.request(ResetVm(), steps=(record,), state=OperationState.RUNNING)
    world.run()
    assert world.taken == []
    assert set(world.ended.values()) == {OperationState.INTERRUPTED}


def test_a_guest_that_ignores_the_button_is_pressed_again_and_then_given_up(model):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, power=Power.OFF, generation=2, observed=1, ready=True)
    world.obeys = False
    world.request(ShutdownVm(deadline_s=60), tracks=2, previous="on")
    world.run()
    assert [step.NAME for step in world.taken].count("ask-shutdown") >= 3
    assert not any(isinstance(step, s.Destroy) for step in world.taken)
    assert set(world.ended.values()) == {OperationState.FAILED}
    assert world.vm.spec.power is Power.ON


def test_the_wish_is_not_restored_if_somebody_wished_since(model):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, power=Power.OFF, generation=3, observed=1, ready=True)
    world.obeys = False
    world.request(ShutdownVm(deadline_s=10), tracks=2, previous="on")
    for _ in range(8):
        world.once()
    assert world.vm.spec.power is Power.OFF


def test_adoption_takes_the_domain_as_it_is(model):
    world = model(was=VmState.PENDING, domain=VmState.SHUT_OFF, observed=0)
    world.vm = world.vm.model_copy(update={"spec": world.vm.spec.model_copy(update={"adopted": True, "disks": ()})})
    world.volumes = {}
    world.domain = replace(world.domain, metadata=None, definition_hash="theirs")
    world.request(AdoptVm(), tracks=1)
    world.run()
    assert [step.NAME for step in world.taken if step.NAME != "reserve"] == ["set-metadata"]
    assert world.vm.spec.power is Power.OFF


def test_a_foreign_edit_is_drift_and_is_left_alone(model):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, ready=True)
    world.domain = replace(world.domain, definition_hash="edited")
    world.run()
    assert world.taken == []
    assert any(c.type == "Drifted" and c.status == "true" for c in world.vm.status.conditions)


def test_a_drifted_definition_is_changed_by_a_reset_alone(model):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, ready=True)
    world.domain = replace(world.domain, definition_hash="edited")
    world.run()
    changed = world.vm.spec.model_copy(update={"protected": True})
    world.vm = world.vm.model_copy(update={"spec": changed, "generation": 2})
    world.request(UpdateVm(), tracks=2)
    world.run()
    assert [step.NAME for step in world.taken if step.NAME != "reserve"] == ["set-metadata"]
    assert world.domain.definition_hash == "edited"
    world.vm = world.vm.model_copy(update={"generation": 3})
    world.request(UpdateVm(redefine=True), tracks=3)
    world.run()
    assert [step.NAME for step in world.taken[-2:]] == ["define", "apply-live"]
    assert world.domain.definition_hash == "hash"
    assert set(world.ended.values()) == {OperationState.SUCCEEDED}
    assert any(c.type == "Drifted" and c.status == "false" for c in world.vm.status.conditions)


@pytest.mark.parametrize("cut_after", ["", "define"])
def test_a_running_guest_is_changed_wherever_the_change_was_cut(model, cut_after):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, ready=True)
    world.run()
    changed = world.vm.spec.model_copy(update={"vcpus": 2})
    world.vm = world.vm.model_copy(update={"spec": changed, "generation": 2})
    world.domain = replace(world.domain, definition_hash="before")
    world.request(UpdateVm(), tracks=2)
    for step in plan(world.view()).steps if cut_after else ():
        world.apply(step)
        if cut_after == step.NAME:
            break
    world.applied = ""
    world.known = replace(world.known, started=False)
    world.run()
    assert world.applied == world.domain.live_spec_json == world.view().wanted_json
    assert set(world.ended.values()) == {OperationState.SUCCEEDED}


def test_a_label_on_a_guest_that_is_off_is_only_written_down(model):
    world = model(was=VmState.SHUT_OFF, domain=VmState.SHUT_OFF, ready=True, power=Power.OFF)
    world.vm = world.vm.model_copy(update={"labels": {"tier": "web"}, "generation": 2})
    world.request(UpdateVm(), tracks=2)
    world.run()
    assert [step.NAME for step in world.taken if step.NAME != "reserve"] == ["set-metadata"]


@pytest.mark.parametrize("autostart", [False, True])
def test_host_reboot(model, autostart):
    world = model(was=VmState.RUNNING, domain=VmState.SHUT_OFF, autostart=autostart, ready=True)
    world.boot_id = "next boot"
    world.run()
    assert world.vm.spec.power is (Power.ON if autostart else Power.OFF)
    assert world.domain.state is (VmState.RUNNING if autostart else VmState.SHUT_OFF)


INTENTS = st.sampled_from(
    [
        StartVm(),
        ShutdownVm(deadline_s=30),
        ShutdownVm(deadline_s=30, force_after_s=10),
        DestroyVm(),
        SaveVm(),
        UpdateVm(),
        ResetVm(),
        RebootVm(deadline_s=5),
    ]
)
WISHED = {"start": Power.ON, "shutdown": Power.OFF, "destroy": Power.OFF, "save": Power.OFF}


@st.composite
def worlds(draw):
    """Any record, any domain, any queue of requests, any cause, a guest that obeys or does not."""
    was = draw(st.sampled_from([VmState.PENDING, *STATES]))
    return {
        "power": draw(st.sampled_from(list(Power))),
        "was": was,
        "domain": draw(st.sampled_from([None, *STATES])) if was is not VmState.PENDING else None,
        "policy": draw(st.sampled_from(list(RunPolicy))),
        "autostart": draw(st.booleans()),
        "ready": was is not VmState.PENDING,
        "delete_with_vm": draw(st.booleans()),
    }, {
        "intents": draw(st.lists(INTENTS, max_size=4)),
        "delete": draw(st.sampled_from([None, DeleteVm(), DeleteVm(keep_disks=True)])),
        "cancel": draw(st.booleans()),
        "cause": draw(st.sampled_from(list(StopCause))),
        "obeys": draw(st.booleans()),
        "rebooted": draw(st.booleans()),
    }


def _arranged(model, arguments, more):
    world = model(**arguments)
    ready = arguments["ready"]
    if not ready:
        world.request(CreateVm(), tracks=1)
        world.vm = world.vm.model_copy(update={"status": world.vm.status.model_copy(update={"observed_generation": 0})})
    for intent in more["intents"]:
        previous = world.vm.spec.power
        tracks = 0
        if intent.verb in WISHED or intent.verb == "update":
            tracks = world.vm.generation + 1
            spec = world.vm.spec.model_copy(update={"power": WISHED.get(intent.verb, previous)})
            world.vm = world.vm.model_copy(update={"generation": tracks, "spec": spec})
        world.request(intent, tracks, previous)
    if more["delete"] is not None:
        world.vm = world.vm.model_copy(update={"deletion_requested_at": NOW, "generation": world.vm.generation + 1})
        world.request(more["delete"], world.vm.generation)
    if more["cancel"] and world.operations:
        last = world.operations[-1]
        spec = last.spec.model_copy(update={"cancel_requested_at": NOW})
        world.operations[-1] = last.model_copy(update={"spec": spec})
    world.known = replace(world.known, stop_cause=more["cause"])
    world.obeys = more["obeys"]
    world.boot_id = "next boot" if more["rebooted"] else "boot"
    if ready:
        world.disks = set(world.volumes)
    return world


@given(drawn=worlds())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_converges_and_never_removes_the_only_copy(model, drawn):
    arguments, more = drawn
    world = _arranged(model, arguments, more)
    before = dict(world.volumes)
    world.run()
    assert all(operation.uid in world.ended for operation in world.operations)
    removed = {step.volume_uid for step in world.taken if isinstance(step, s.RemoveVolume)}
    made = {step.volume_uid for step in world.taken if isinstance(step, s.MakeVolume)}
    for uid, volume in before.items():
        if volume.status.ready:
            assert uid not in made, "an existing disk is never made again"
            may_go = isinstance(more["delete"], DeleteVm) and not more["delete"].keep_disks
            assert uid not in removed or (may_go and volume.spec.delete_with_vm)
    assert world.disks == set(world.volumes)
    if world.vm is None:
        assert world.domain is None
        return
    assert world.domain is not None
    assert world.vm.status.state is world.domain.state
    assert (world.domain.state in ACTIVE) == (world.vm.spec.power is not Power.OFF)
    again = plan(world.view())
    assert again.steps == ()
    assert again.settle.endings == ()
    assert again.settle.power is None


def test_an_address_is_reserved_again_only_where_its_card_or_the_name_is_new(model):
    world = model(was=VmState.RUNNING, domain=VmState.RUNNING, ready=True)
    world.run()
    more = world.vm.spec.nics[0].model_copy(update={"name": "net1", "mac": "52:54:00:00:00:77", "address": "10.0.0.77"})
    world.vm = world.vm.model_copy(
        update={"spec": world.vm.spec.model_copy(update={"nics": (*world.vm.spec.nics, more)}), "generation": 2}
    )
    assert [step.nic for step in plan(world.view()).steps if step.NAME == "reserve"] == ["net1"]
    world.run()
    world.vm = world.vm.model_copy(update={"name": "renamed", "generation": 3})
    assert [step.nic for step in plan(world.view()).steps if step.NAME == "reserve"] == ["net0", "net1"]
