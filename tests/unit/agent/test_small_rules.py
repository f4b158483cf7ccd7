"""The agent's small pure rules."""

from datetime import UTC, datetime, timedelta

import pytest

from corral.agent.boot import boot_queue, shutdown_groups
from corral.agent.failures import ATTEMPTS_MAX, BACKOFF_MAX_S, Verdict, backoff_s, judge
from corral.agent.guest import parse_cloud_init
from corral.agent.orphans import removed_vms
from corral.agent.queue import problem_of, sorted_operations
from corral.agent.steps import AskShutdown
from corral.agent.view import Known, asked_ago_s, remembered
from corral.errors import CorralError
from corral.model.operation import (
    CreateVm,
    DeleteVm,
    DestroyVm,
    Operation,
    OperationSpec,
    OperationState,
    ResetVm,
    ShutdownVm,
    StartVm,
    StepRecord,
    UpdateVm,
)
from corral.model.vm import BootOrder, CloudInitStatus, VmState


def test_back_off_doubles_and_is_bounded():
    assert [backoff_s(n, jitter=0.0) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert backoff_s(1000, jitter=0.0) == BACKOFF_MAX_S
    assert 0.75 <= backoff_s(1) <= 1.0


def test_what_is_waited_for_and_what_is_given_up():
    def error(code):
        return CorralError(code, "", "")

    assert judge(error("hypervisor-unavailable"), 1000, removing=False) is Verdict.RETRY
    assert judge(error("disk-full"), 1, removing=False) is Verdict.RETRY
    assert judge(error("disk-full"), ATTEMPTS_MAX, removing=False) is Verdict.GIVE_UP
    assert judge(error("hypervisor-error"), 1, removing=False) is Verdict.GIVE_UP
    assert judge(error("hypervisor-error"), 1000, removing=True) is Verdict.RETRY
    assert judge(error("hypervisor-error"), 1, removing=False, inherited=True) is Verdict.RETRY
    assert judge(error("hypervisor-error"), ATTEMPTS_MAX, removing=False, inherited=True) is Verdict.GIVE_UP


@pytest.mark.parametrize(
    ("code", "said", "status"),
    [
        (0, b'{"status": "done", "errors": []}', CloudInitStatus.DONE),
        (2, b'{"status": "done", "errors": ["odd"]}', CloudInitStatus.DEGRADED),
        (2, b'{"extended_status": "degraded done", "status": "done"}', CloudInitStatus.DEGRADED),
        (1, b'{"status": "error", "errors": ["broken"]}', CloudInitStatus.ERROR),
        (0, b'{"status": "running"}', CloudInitStatus.RUNNING),
        (0, b"status: done\n", CloudInitStatus.DONE),
        (127, b"", CloudInitStatus.UNKNOWN),
        (0, b"[]", CloudInitStatus.UNKNOWN),
    ],
)
def test_cloud_init_s_answers(code, said, status):
    assert parse_cloud_init(code, said)[0] is status


def test_a_delete_supersedes_everything_and_power_verbs_their_elders(model):
    world = model()
    create, start, update = world.request(CreateVm()), world.request(StartVm()), world.request(UpdateVm())
    reset, destroy = world.request(ResetVm()), world.request(DestroyVm())
    queue = sorted_operations(tuple(world.operations))
    assert (queue.create, queue.power, queue.document, queue.imperative) == (create, destroy, (update,), (reset,))
    assert queue.superseded == (start,)
    delete = world.request(DeleteVm())
    queue = sorted_operations(tuple(world.operations))
    assert queue.delete is delete
    assert {o.uid for o in queue.superseded} == {o.uid for o in (create, start, update, reset, destroy)}


def test_only_an_ended_operation_proves_that_a_vm_is_gone(model):
    world = model()
    failed = world.request(CreateVm(), state=OperationState.FAILED)
    assert removed_vms([failed]) == {failed.spec.target_uid: True}
    kept = world.request(DeleteVm(keep_disks=True), state=OperationState.SUCCEEDED)
    assert removed_vms([kept]) == {kept.spec.target_uid: False}
    assert removed_vms([world.request(DeleteVm()), world.request(CreateVm(), state=OperationState.SUCCEEDED)]) == {}


def test_boot_and_shutdown_orders(model):
    def vm(name, priority, state):
        made = model(was=state, autostart=True).vm
        spec = made.spec.model_copy(update={"boot": BootOrder(autostart=True, priority=priority)})
        return made.model_copy(update={"name": name, "uid": name, "spec": spec})

    vms = [vm("b", 20, VmState.RUNNING), vm("a", 10, VmState.RUNNING), vm("c", 20, VmState.RUNNING)]
    assert [found.name for found in boot_queue(vms, {}, "another boot")] == ["a", "b", "c"]
    assert boot_queue(vms, {}, "boot") == []
    assert [[found.name for found in group] for group in shutdown_groups(vms)] == [["b", "c"], ["a"]]


def test_a_problem_carries_its_causes():
    try:
        try:
            try:
                raise OSError("no space")
            except OSError as error:
                raise CorralError("disk-full", "write", "full") from error
        except CorralError as error:
            raise CorralError("storage-error", "create", "failed") from error
    except CorralError as error:
        problem = problem_of(error)
    assert (problem.code, problem.cause.code, problem.cause.cause.code) == ("storage-error", "disk-full", "internal")


@pytest.mark.parametrize(
    ("intent", "asked_before_s", "expected"),
    [
        (ShutdownVm(deadline_s=120), None, 0),
        (ShutdownVm(deadline_s=120), 50, 50),
        (ShutdownVm(deadline_s=120), 3600, 110),  # the clock jumped, or the daemon was away: the guest is asked anew
        (ShutdownVm(deadline_s=120), -3600, 0),
        (ShutdownVm(deadline_s=120, force_after_s=30), 25, 20),
        (ShutdownVm(deadline_s=5), 3, 0),
        (DestroyVm(), 50, 0),
    ],
)
def test_a_deadline_goes_on_after_a_restart_of_the_daemon(intent, asked_before_s, expected):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    uid = "00000000-0000-4000-8000-000000000001"
    spec = OperationSpec(
        intent=intent, target_kind="vm", target_uid=uid, target_name="web", requested_by="local:root", request_id="r"
    )
    operation = Operation(name=uid, uid=uid, created_at=now, spec=spec)
    if asked_before_s is not None:
        step = StepRecord(name="ask-shutdown", started_at=now - timedelta(seconds=asked_before_s))
        operation = operation.model_copy(update={"status": operation.status.model_copy(update={"steps": (step,)})})
    assert asked_ago_s(operation, now) == expected
    known = remembered(Known(), AskShutdown("acpi"), operation.uid, 1000.0, asked_ago_s(operation, now))
    assert known.asked is not None
    assert known.asked.since_s == 1000.0 - expected
