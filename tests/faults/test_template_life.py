"""Hot templates over time: said to be stale before anybody forks them, made anew, and given up without a trace."""

import asyncio

import pytest
from points_in_time import check_layers, reads, write

from corral.errors import CorralError
from corral.hypervisor.fake_forks import KEY
from corral.model.identity import Identity, Role
from corral.model.operation import DeleteVm, DestroyVm, Operation, OperationState, RefreshTemplate
from corral.model.template import Template
from corral.model.template_requests import CreateTemplateRequest, ForkRequest, RefreshTemplateRequest
from corral.model.vm import Power, Vm
from corral.services.caller import Caller
from corral.services.template import TemplateService

CALLER = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "r")
HELD = {0: "a"}


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr("corral.agent.template.LOOK_S", 0.01)
    monkeypatch.setattr("corral.agent.template.backoff_s", lambda attempts: 0.02 * attempts)


async def _base(w) -> tuple[TemplateService, Vm]:
    """A hot template `base` of a running VM."""
    await w.start()
    vm, create = await w.create()
    await w.ended(create)
    await w.quiet()
    write(w, vm, 0, HELD[0])
    service = TemplateService(w.devices._context)
    done = await w.ended(
        (await service.create(CALLER, "default", CreateTemplateRequest(name="base", source="web", hot=True)))[1]
    )
    assert done.status.state is OperationState.SUCCEEDED, done.status
    await w.quiet()
    write(w, vm, 0, "later")
    return service, vm


async def _template(w, name: str = "base") -> Template:
    return await w.objects.require(Template, "default", name)


async def _restarted(w, key: str) -> None:
    """The daemon was stopped, QEMU upgraded, and the daemon started."""
    await w.stop()
    w.hypervisor.forking.current_key = key
    await w.start()


async def _refresh(w, service: TemplateService, deadline_s: float = 30) -> Operation:
    return await service.refresh(CALLER, "default", "base", RefreshTemplateRequest(deadline_s=deadline_s))


async def _fork(w, service: TemplateService, name: str, *, boot: bool = False) -> Vm:
    _, [operation] = await service.fork(CALLER, "default", "base", ForkRequest(names=(name,), boot=boot))
    done = await w.ended(operation)
    assert done.status.state is OperationState.SUCCEEDED, done.status
    await w.quiet()
    return await w.objects.require(Vm, "default", name)


async def _clean(w) -> None:
    """Nothing is left over, as soon as the VMs' turns have seen to it."""
    problem: AssertionError | CorralError | None = None
    for _ in range(500):
        await w.quiet()
        try:
            await check_layers(w)
            return await w.check_whole()
        except (AssertionError, CorralError) as error:
            problem = error
        await asyncio.sleep(0.01)
    raise AssertionError("something is left over") from problem


def test_many_forks_at_once_all_run_first(world) -> None:
    """Those that run are held back meanwhile, and none of them for longer."""

    async def main(w) -> None:
        service, _ = await _base(w)
        w.simulation.trace.clear()
        names = tuple(f"fork-{number}" for number in range(12))
        held, forking = set[str](), w.hypervisor.forking
        w.simulation.latency_s = 0.005
        w.simulation.on_call = lambda _name: held.update(forking.held)
        _, operations = await service.fork(CALLER, "default", "base", ForkRequest(names=names))
        for operation in operations:
            done = await w.ended(operation)
            assert done.status.state is OperationState.SUCCEEDED, done.status
        calls = [name for name in w.simulation.trace if name in ("hypervisor.fork", "hypervisor.introduce")]
        assert calls == ["hypervisor.fork"] * len(names) + ["hypervisor.introduce"] * len(names)
        assert len(held) >= len(names) - 4
        assert not forking.held

    world(main)


def test_another_key_makes_it_stale_before_anybody_forks_it_and_a_refresh_makes_it_anew(world) -> None:
    async def main(w) -> None:
        service, vm = await _base(w)
        before = await _fork(w, service, "before")
        await _restarted(w, "fake-2")
        old = await _template(w)
        assert "another QEMU" in old.status.stale
        assert "TemplateStale" in await w.events()
        with pytest.raises(CorralError) as refused:
            await service.fork(CALLER, "default", "base", ForkRequest(names=("x",)))
        assert refused.value.code == "template-stale"
        assert "corral template refresh base" in refused.value.hint
        assert await w.objects.find(Vm, "default", "x") is None
        assert reads(w, await _fork(w, service, "booted", boot=True)) == HELD

        done = await w.ended(await _refresh(w, service))
        assert done.status.state is OperationState.SUCCEEDED, done.status
        await w.quiet()
        new = await _template(w)
        assert (new.status.stale, new.status.key) == ("", "fake-2-tcg")
        assert new.uid != old.uid
        assert {template.name for template in await w.objects.list(Template)} == {"base"}
        after = await _fork(w, service, "after")
        assert reads(w, after) == HELD
        # Those that were there went on: nobody started them, or loaded their memory, again.
        assert w.hypervisor.forking.loads == {before.uid: 1, after.uid: 1}
        assert w.hypervisor.domains[before.uid].starts == 1
        assert reads(w, before) == HELD
        assert reads(w, vm) == {0: "later"}
        await _clean(w)

    world(main)


def test_what_was_wished_of_a_template_holds_for_its_successor(world) -> None:
    async def main(w) -> None:
        service, _vm = await _base(w)
        found = await _template(w)
        spec = found.spec.model_copy(update={"description": "of ours", "published_to": ("lab",)})
        transaction = w.objects.transaction()
        transaction.update(found.model_copy(update={"spec": spec, "labels": {"team": "a"}}))
        await transaction.commit()
        assert (await w.ended(await _refresh(w, service))).status.state is OperationState.SUCCEEDED
        new = await _template(w)
        assert (new.spec.description, new.spec.published_to, new.labels) == ("of ours", ("lab",), {"team": "a"})
        assert new.spec.source == "web"
        assert new.spec.vm_spec is not None

    world(main)


def test_a_host_that_stays_what_it_is_is_asked_at_a_look_alone_and_nothing_is_written(world) -> None:
    """An earlier look at this woke itself again and again."""

    async def main(w) -> None:
        await _base(w)
        await _restarted(w, KEY)
        before = await _template(w)
        assert before.status.stale == ""
        w.simulation.trace.clear()
        for _ in range(3):
            w.agent._relist.set()
            await asyncio.sleep(0.1)
        assert w.simulation.trace.count("hypervisor.fork_key") <= 3
        assert await _template(w) == before

    world(main)


def test_a_host_that_is_again_what_it_was_makes_it_fresh_again(world) -> None:
    async def main(w) -> None:
        service, _vm = await _base(w)
        await _restarted(w, "fake-2")
        assert (await _template(w)).status.stale
        await _restarted(w, KEY)
        assert not (await _template(w)).status.stale
        await _fork(w, service, "fine")

    world(main)


def test_a_guest_that_does_not_boot_in_time_leaves_the_template_as_it_was(world) -> None:
    async def main(w) -> None:
        service, _vm = await _base(w)
        old = await _template(w)
        w.hypervisor.agent_delay_s = 3600.0
        done = await w.ended(await _refresh(w, service, deadline_s=0.3))
        assert done.status.state is OperationState.FAILED
        assert done.status.error is not None
        assert done.status.error.code == "wait-timeout"
        assert "agent" in done.status.error.reason
        await _clean(w)
        assert (await _template(w)).uid == old.uid
        assert [vm.name for vm in await w.objects.list(Vm)] == ["web"]
        await _fork(w, service, "still")

    world(main)


def test_a_refresh_is_cancelled_wherever_it_is(world) -> None:
    async def main(w) -> None:
        service, _vm = await _base(w)
        old = await _template(w)
        for phase in ("accepted", "booting", "frozen"):
            operation = await _refresh(w, service)
            intent = operation.spec.intent
            assert isinstance(intent, RefreshTemplate)
            if phase == "booting":
                await w.until(lambda: intent.vm_uid in w.hypervisor.domains)  # noqa: B023
            elif phase == "frozen":
                await w.until(lambda: w.objects.get(Template, intent.successor_uid))  # noqa: B023
            await w.cancel(operation)
            done = await w.ended(operation)
            assert done.status.state is OperationState.CANCELLED, (phase, done.status)
            await _clean(w)
            assert (await _template(w)).uid == old.uid, phase
            assert len(await w.objects.list(Template)) == 1
        await _fork(w, service, "still")

    world(main)


def test_its_vm_is_deleted_by_somebody(world) -> None:
    async def main(w) -> None:
        service, _vm = await _base(w)
        w.hypervisor.agent_delay_s = 3600.0
        operation = await _refresh(w, service)
        intent = operation.spec.intent
        assert isinstance(intent, RefreshTemplate)
        await w.until(lambda: intent.vm_uid in w.hypervisor.domains)
        vm = await w.vm(intent.vm_uid)
        assert vm is not None
        await w.wish(vm, DeleteVm(), delete=True)
        done = await w.ended(operation)
        assert done.status.error is not None
        assert done.status.error.code == "vm-not-found"
        await _clean(w)

    world(main)


def test_what_cannot_be_refreshed_or_deleted_is_refused(world) -> None:
    async def main(w) -> None:
        service, vm = await _base(w)
        w.hypervisor.agent_delay_s = 3600.0
        first = await _refresh(w, service)
        for refused in (lambda: _refresh(w, service), lambda: service.delete(CALLER, "default", "base")):
            with pytest.raises(CorralError) as error:
                await refused()
            assert error.value.code == "template-in-use"
            assert first.uid in error.value.hint
        await w.cancel(first)
        await w.ended(first)
        await w.ended(await w.wish(vm, DestroyVm(), Power.OFF))
        made = await service.create(CALLER, "default", CreateTemplateRequest(name="cold", source="web"))
        await w.ended(made[1])
        with pytest.raises(CorralError) as error:
            await service.refresh(CALLER, "default", "cold", RefreshTemplateRequest())
        assert error.value.code == "unsupported"

    world(main)


def test_the_host_goes_down_while_the_guest_boots(world) -> None:
    async def main(w) -> None:
        service, _vm = await _base(w)
        old = await _template(w)
        w.hypervisor.agent_delay_s = 3600.0
        operation = await _refresh(w, service, deadline_s=2)
        intent = operation.spec.intent
        assert isinstance(intent, RefreshTemplate)
        await w.until(lambda: intent.vm_uid in w.hypervisor.domains)
        await w.kill()
        w.reboot_host()
        w.simulation.clear()
        await w.start()
        done = await w.ended(operation)
        assert done.status.state.final
        await _clean(w)
        assert (await _template(w)).uid == old.uid

    world(main)


def test_the_memory_of_a_template_that_nobody_uses_is_let_go(world) -> None:
    """What is not counted is not held."""

    async def main(w) -> None:
        service, _vm = await _base(w)
        base, rested = await _template(w), w.hypervisor.forking.rested

        async def look(times: int) -> None:
            for _ in range(times):
                await w.agent.template_keeper.watch.look()

        vm = await _fork(w, service, "user")
        await look(3)
        assert rested == []
        await w.ended(await w.wish(vm, DestroyVm(), Power.OFF))
        await w.quiet()
        await look(1)
        assert rested == []
        await look(3)
        assert rested == [base.uid]
        await _fork(w, service, "another")
        await look(3)
        assert rested == [base.uid]

    world(main)


def test_templates_outlive_a_reboot_of_the_host(world) -> None:
    async def main(w) -> None:
        service, _vm = await _base(w)
        before = await _template(w)
        await w.kill()
        w.reboot_host()
        w.simulation.clear()
        await w.start()
        await w.quiet()
        assert (await _template(w)).status == before.status
        assert reads(w, await _fork(w, service, "after")) == HELD
        await _clean(w)

    world(main)


def test_its_source_is_deleted_at_any_call_of_the_freeze(new_world) -> None:
    """The template is whole, or was never made; the VM goes, and nothing of it stays that nobody refers to."""

    async def one(w, instant: int) -> tuple[bool, OperationState]:
        await w.prepare()
        await w.start()
        try:
            vm, create = await w.create()
            await w.ended(create)
            await w.quiet()
            write(w, vm, 0, HELD[0])
            deletions: list[asyncio.Future[Operation]] = []
            calls = 0

            def on_call(_name: str) -> None:
                nonlocal calls
                calls += 1
                if calls == instant:
                    deletions.append(asyncio.ensure_future(w.wish(vm, DeleteVm(), delete=True)))

            service = TemplateService(w.devices._context)
            request = CreateTemplateRequest(name="base", source="web", hot=True)
            operation = (await service.create(CALLER, "default", request))[1]
            w.simulation.on_call = on_call
            done = await w.ended(operation)
            w.simulation.on_call = None
            for deletion in deletions:
                gone = await w.ended(await deletion)
                assert gone.status.state is OperationState.SUCCEEDED, gone.status
                assert await w.vm(vm.uid) is None
            if done.status.state is OperationState.SUCCEEDED:
                fork = await _fork(w, service, "fork")
                assert reads(w, fork) == HELD
            else:
                assert done.status.error is not None
                assert not await w.objects.list(Template)
            await _clean(w)
            return bool(deletions), done.status.state
        finally:
            await w.kill()

    instant, outcomes, deleted = 0, set[OperationState](), True
    while deleted:
        instant += 1
        deleted, state = asyncio.run(one(new_world(), instant))
        outcomes.add(state)
    assert instant > 5
    assert OperationState.SUCCEEDED in outcomes
