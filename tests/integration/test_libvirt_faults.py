"""libvirtd restarted, killed and hung: calls fail with a code and in time, guests live on, the driver comes back."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from libvirt_fixtures import Make
from private_libvirtd import PrivateLibvirtd

from corral.errors import CorralError
from corral.hypervisor.base import DomainEvent, StopCause
from corral.hypervisor.libvirt import LibvirtDriver
from corral.hypervisor.libvirt.confinement import find_host
from corral.hypervisor.libvirt.monitor import ask
from corral.model.vm import VmState
from corral.names import new_uid

TIMEOUT_S = 5.0


@asynccontextmanager
async def listening(driver: LibvirtDriver) -> AsyncIterator[Callable[[str], "asyncio.Future[DomainEvent]"]]:
    seen: asyncio.Queue[DomainEvent] = asyncio.Queue()
    stream = driver.events()

    async def pump() -> None:
        async for event in stream:
            seen.put_nowait(event)

    async def expect(kind: str) -> DomainEvent:
        while (event := await seen.get()).kind != kind:
            pass
        return event

    task = asyncio.create_task(pump())
    try:
        yield lambda kind: asyncio.ensure_future(asyncio.wait_for(expect(kind), 40))
    finally:
        task.cancel()


def test_a_restarted_a_killed_and_a_hung_libvirtd(private_libvirtd: PrivateLibvirtd, micro_definition: Make) -> None:
    async def run() -> None:
        driver = await LibvirtDriver.open(private_libvirtd.uri, timeout_s=TIMEOUT_S)
        definition = micro_definition("faults")
        try:
            async with listening(driver) as next_event:
                await driver.define(definition)
                await until_answered(lambda: driver.start(definition.uid))
                (pid,) = private_libvirtd.qemu_pids()

                private_libvirtd.restart()
                await next_event("connected")
                assert await state(driver, definition.uid) == VmState.RUNNING

                private_libvirtd.kill()
                await next_event("disconnected")
                with pytest.raises(CorralError) as away:
                    await driver.observe(definition.uid)
                assert away.value.code == "hypervisor-unavailable"
                assert not (await driver.facts()).connected
                private_libvirtd.start()
                await next_event("connected")
                assert await state(driver, definition.uid) == VmState.RUNNING
                os.kill(pid, 0)  # the guest never noticed
                # A guest that is stopped while libvirtd still looks for it again stops without an event.
                await until_answered(
                    lambda: driver._slow_on(definition.uid, "ask", partial(ask, command="query-status"))
                )

                private_libvirtd.hang()
                with pytest.raises(CorralError) as hung:
                    await driver.observe_all()
                assert hung.value.code == "hypervisor-timeout"
                with pytest.raises(CorralError) as still:  # at once, not after another time-out
                    await asyncio.wait_for(driver.observe_all(), TIMEOUT_S / 2)
                assert still.value.code == "hypervisor-unavailable"
                private_libvirtd.resume()
                await next_event("connected")
                assert await state(driver, definition.uid) == VmState.RUNNING

                await until_answered(lambda: driver.destroy(definition.uid))
                event = await next_event("stopped")
                assert event.stop_cause is StopCause.DESTROYED
                private_libvirtd.restart()
                await next_event("connected")
                observed = await driver.observe(definition.uid)
                assert observed is not None
                # libvirtd has forgotten why; the driver, which heard it, has not.
                assert (observed.reason, observed.stop_cause) == ("unknown", StopCause.DESTROYED)
        finally:
            await driver.close()

    asyncio.run(run())


SILENT_S = 25.0  # longer than libvirt's keep-alive would bear it


@pytest.mark.soak
def test_several_wait_for_a_libvirtd_that_is_silent(
    private_libvirtd: PrivateLibvirtd, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither their number nor the length of it is anybody's end: libvirt's client says on stderr that it spoils memory."""

    async def run() -> None:
        driver = await LibvirtDriver.open(private_libvirtd.uri, timeout_s=4 * SILENT_S)
        try:
            for _ in range(2):
                private_libvirtd.hang()
                waiting = [asyncio.ensure_future(driver.observe_all()) for _ in range(4)]
                await asyncio.sleep(SILENT_S)
                assert not any(call.done() for call in waiting)
                private_libvirtd.resume()
                await asyncio.gather(*waiting)
        finally:
            private_libvirtd.resume()
            await driver.close()

    asyncio.run(run())
    assert "GLib" not in capfd.readouterr().err


def test_a_call_right_after_the_start_waits_for_its_connection(private_libvirtd: PrivateLibvirtd) -> None:
    """The one for what takes its time may be opened later than the one for what answers at once."""

    async def run() -> None:
        driver = LibvirtDriver(private_libvirtd.uri, TIMEOUT_S, find_host(private_libvirtd.uri))
        driver._quick.start()
        assert await driver._quick.wait_connected(TIMEOUT_S)
        driver._slow.start()
        try:
            with pytest.raises(CorralError) as missing:
                await driver.start(new_uid())
            assert missing.value.code == "domain-not-found"
        finally:
            await driver.close()

    asyncio.run(run())


async def until_answered(call: Callable[[], Awaitable[None]]) -> None:
    """Repeat a call that may be late: libvirt can take longer over a QEMU than these tests' short time-out."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            return await call()
        except CorralError as error:
            late = asyncio.get_running_loop().time() > deadline
            if late or error.code not in ("hypervisor-timeout", "hypervisor-unavailable"):
                raise
        await asyncio.sleep(0.1)


async def state(driver: LibvirtDriver, uid: str) -> VmState | None:
    observed = await driver.observe(uid)
    return observed and observed.state


def test_a_driver_opens_while_libvirtd_is_away(private_libvirtd: PrivateLibvirtd) -> None:
    async def run() -> None:
        private_libvirtd.kill()
        opening = asyncio.create_task(LibvirtDriver.open(private_libvirtd.uri, timeout_s=TIMEOUT_S))
        driver = await asyncio.wait_for(opening, 10)
        try:
            with pytest.raises(CorralError) as away:
                await driver.usage_all()
            assert away.value.code == "hypervisor-unavailable"
            async with listening(driver) as next_event:
                private_libvirtd.start()
                await next_event("connected")
            assert await driver.observe_all() == ()
        finally:
            await driver.close()

    asyncio.run(run())
