"""What every hypervisor driver does; one suite for the fake and for libvirt."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from libvirt_fixtures import Make

from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, HypervisorDriver, ObservedDomain, StopCause
from corral.model.vm import VmState
from corral.names import new_uid

PATIENCE_S = 40.0


@dataclass
class Subject:
    """A driver under test, and the hash its module offers."""

    open: Callable[[], Awaitable[HypervisorDriver]]
    definition_hash: Callable[[DomainDefinition], str]


@pytest.fixture(params=["fake", "libvirt"])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "fake":
        from corral.hypervisor import fake
        from corral.simulation import Simulation

        async def pretended() -> HypervisorDriver:
            return fake.FakeHypervisor(Simulation())

        return Subject(pretended, fake.definition_hash)
    from corral.hypervisor import libvirt

    async def real() -> HypervisorDriver:
        return await libvirt.LibvirtDriver.open("qemu:///system", timeout_s=30)

    return Subject(real, libvirt.definition_hash)


Body = Callable[[HypervisorDriver, DomainDefinition], Awaitable[None]]


@pytest.fixture
def on_driver(subject: Subject, micro_definition: Make) -> Callable[[Body], None]:
    """Runs a body with a driver and a definition of its own, and leaves nothing behind."""

    async def run(body: Body) -> None:
        driver = await subject.open()
        definition = micro_definition("contract")
        try:
            await body(driver, definition)
        finally:
            if await driver.observe(definition.uid) is not None:
                await driver.destroy(definition.uid)
                await driver.undefine(definition.uid)
            await driver.close()

    return lambda body: asyncio.run(run(body))


async def seen(driver: HypervisorDriver, uid: str) -> ObservedDomain:
    observed = await driver.observe(uid)
    assert observed is not None
    return observed


async def until(driver: HypervisorDriver, uid: str, wanted: Callable[[ObservedDomain], bool]) -> ObservedDomain:
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(observed := await seen(driver, uid)):
            await asyncio.sleep(0.1)
    return observed


async def refused(code: str, call: Awaitable[Any]) -> None:
    with pytest.raises(CorralError) as error:
        await call
    assert error.value.code == code


def test_define_is_repeatable_and_observed_with_its_hash(on_driver: Callable[[Body], None], subject: Subject) -> None:
    async def body(driver: HypervisorDriver, definition: DomainDefinition) -> None:
        assert await driver.observe(definition.uid) is None
        await driver.define(definition)
        await driver.define(definition)
        observed = await seen(driver, definition.uid)
        assert (observed.name, observed.state, observed.persistent) == (definition.name, VmState.SHUT_OFF, True)
        assert (observed.vcpus, observed.memory_mib) == (definition.vcpus, definition.memory_mib)
        assert observed.metadata == definition.metadata
        assert observed.stop_cause is StopCause.NONE
        assert observed.definition_hash == subject.definition_hash(definition)
        assert observed in await driver.observe_all()

        larger = replace(definition, memory_mib=192)
        await driver.define(larger)
        changed = await seen(driver, definition.uid)
        assert changed.definition_hash == subject.definition_hash(larger) != observed.definition_hash

    on_driver(body)


def test_a_clash_of_names_or_installations_is_refused(on_driver: Callable[[Body], None]) -> None:
    async def body(driver: HypervisorDriver, definition: DomainDefinition) -> None:
        await driver.define(definition)
        uid = new_uid()
        other = replace(definition, uid=uid, metadata=replace(definition.metadata, vm_uid=uid))
        await refused("domain-name-taken", driver.define(other))
        assert await driver.find(definition.name) == definition.uid
        assert await driver.find(f"{definition.name}-other") is None
        theirs = replace(definition, metadata=replace(definition.metadata, installation_id=new_uid()))
        await refused("domain-not-ours", driver.define(theirs))

    on_driver(body)


def test_what_is_not_there(on_driver: Callable[[Body], None]) -> None:
    async def body(driver: HypervisorDriver, definition: DomainDefinition) -> None:
        uid = definition.uid
        for call in (driver.start(uid), driver.destroy(uid), driver.rename(uid, "x"), driver.document(uid)):
            await refused("domain-not-found", call)
        await driver.undefine(uid)

    on_driver(body)


def test_one_life(on_driver: Callable[[Body], None]) -> None:
    """Start, talk, pause, save, resume, power off, destroy: everything repeatable, every stop with its cause."""

    async def body(driver: HypervisorDriver, definition: DomainDefinition) -> None:
        uid = definition.uid
        await driver.define(definition)
        async with aclosing(driver.events()) as events:  # type: ignore[type-var]
            started = asyncio.ensure_future(_first(events, uid, "started"))
            await asyncio.sleep(0)
            first = await driver.start(uid)
            second = await driver.start(uid)
            assert (first.uid, first.state, first.pid) == (uid, "running", second.pid)
            await asyncio.wait_for(started, 10)
        await refused("wrong-state", driver.rename(uid, f"{definition.name}-b"))
        await until(driver, uid, lambda domain: domain.agent_connected)

        result = await driver.guest_exec(
            uid, ["/bin/sh", "-c", "echo out"], stdin=b"", timeout_s=20, capture_max_bytes=100
        )
        assert (result.exit_code, result.truncated) == (0, False)
        assert (await driver.guest_facts(uid)).hostname

        await driver.suspend(uid)
        await driver.suspend(uid)
        assert (await seen(driver, uid)).state is VmState.PAUSED
        await driver.resume(uid)
        await driver.resume(uid)
        assert (await seen(driver, uid)).state is VmState.RUNNING

        newer = replace(definition.metadata, generation=2)
        await driver.set_metadata(uid, newer)
        assert (await seen(driver, uid)).metadata == newer

        await driver.save(uid)
        saved = await seen(driver, uid)
        assert (saved.state, saved.stop_cause, saved.has_managed_save) == (VmState.SHUT_OFF, StopCause.SAVED, True)
        await driver.start(uid)
        assert not (await seen(driver, uid)).has_managed_save

        await driver.shutdown(uid, "acpi")
        off = await until(driver, uid, lambda domain: domain.state is VmState.SHUT_OFF)
        assert off.stop_cause is StopCause.GUEST

        await driver.rename(uid, f"{definition.name}-b")
        renamed = await seen(driver, uid)
        assert renamed.name == f"{definition.name}-b"
        await driver.define(replace(definition, name=renamed.name))
        assert (
            await seen(driver, uid)
        ).definition_hash == renamed.definition_hash  # nobody takes it for somebody's change
        await driver.start(uid)
        await driver.destroy(uid)
        await driver.destroy(uid)
        assert (await seen(driver, uid)).stop_cause is StopCause.DESTROYED
        await driver.undefine(uid)
        await driver.undefine(uid)
        assert await driver.observe(uid) is None

    on_driver(body)


async def _first(events: Any, uid: str, kind: str) -> None:
    async for event in events:
        if event.uid == uid and event.kind == kind:
            return


def test_the_console_is_one_persons_until_it_is_forced(on_driver: Callable[[Body], None]) -> None:
    async def body(driver: HypervisorDriver, definition: DomainDefinition) -> None:
        await driver.define(definition)
        await driver.start(definition.uid)
        first = await driver.open_console(definition.uid, force=False)
        await refused("console-in-use", driver.open_console(definition.uid, force=False))
        second = await driver.open_console(definition.uid, force=True)
        async with asyncio.timeout(PATIENCE_S):
            while await first.read():
                pass
        await driver.destroy(definition.uid)
        async with asyncio.timeout(PATIENCE_S):
            while await second.read():
                pass
        assert await second.read() == b""
        await first.close()
        await second.close()
        await second.close()

    on_driver(body)
