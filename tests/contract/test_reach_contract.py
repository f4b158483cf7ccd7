"""What every driver lets be done with a running guest: its screen, keys, clock, password and files; fake and libvirt."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from libvirt_fixtures import Make

from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, HypervisorDriver
from corral.hypervisor.reach import GuestReader
from corral.images.build_micro import CMDLINE
from corral.model.keys import parse_chords

PATIENCE_S = 60.0
PNG = b"\x89PNG\r\n\x1a\n"
HASH = "$6$salt$" + "x" * 86


async def _fake() -> HypervisorDriver:
    from corral.hypervisor.fake import FakeHypervisor
    from corral.simulation import Simulation

    return FakeHypervisor(Simulation(), agent_delay_s=0.0)


async def _libvirt() -> HypervisorDriver:
    from corral.hypervisor.libvirt import LibvirtDriver

    return await LibvirtDriver.open("qemu:///system", timeout_s=30)


Body = Callable[[HypervisorDriver, DomainDefinition], Awaitable[None]]
OnDriver = Callable[..., None]


@pytest.fixture(params=[_fake, _libvirt], ids=["fake", "libvirt"])
def on_driver(request: pytest.FixtureRequest, micro_definition: Make) -> OnDriver:
    """Runs a body with a driver and a running guest that has a screen and an agent."""

    async def run(body: Body, graphics: str, *, agent: bool) -> None:
        driver = await request.param()
        definition = replace(micro_definition("reach", cmdline=f"{CMDLINE} console=tty0"), graphics=graphics)
        try:
            await driver.define(definition)
            await driver.start(definition.uid)
            async with asyncio.timeout(PATIENCE_S):
                while agent and not (await _seen(driver, definition.uid)).agent_connected:
                    await asyncio.sleep(0.1)
            await body(driver, definition)
        finally:
            if await driver.observe(definition.uid) is not None:
                await driver.destroy(definition.uid)
                await driver.undefine(definition.uid)
            await driver.close()

    return lambda body, graphics="vnc", agent=True: asyncio.run(run(body, graphics, agent=agent))


async def _seen(driver: HypervisorDriver, uid: str) -> Any:
    return await driver.observe(uid)


async def refused(code: str, call: Awaitable[Any]) -> None:
    with pytest.raises(CorralError) as error:
        await call
    assert error.value.code == code


async def _give_chpasswd(driver: HypervisorDriver, uid: str) -> None:
    """The program that the agent calls, which busybox has none of: it knows the guest's users and wants `name:hash`."""
    if (await driver.facts()).driver == "libvirt":
        writer = await driver.guests.open_write(uid, "/bin/chpasswd", "", 0o755, tree=False)
        await writer.write(b'#!/bin/sh\nIFS=: read -r n h; grep -q "^$n:" /etc/passwd && [ "${h#?6?}" != "$h" ]\n')
        await writer.commit()


async def _all_of(reader: GuestReader) -> bytes:
    content = b""
    while part := await reader.read():
        content += part
    await reader.close()
    return content


def test_screen_and_keys(on_driver: OnDriver) -> None:
    async def body(driver: HypervisorDriver, definition: DomainDefinition) -> None:
        uid = definition.uid
        before = await driver.screens.screenshot(uid)
        assert before.startswith(PNG)
        for chord in parse_chords(["h", "e", "l", "l", "o", "enter"]):
            await driver.screens.press(uid, chord, 10)
            await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE_S):
            while await driver.screens.screenshot(uid) == before:
                await asyncio.sleep(0.2)
        await driver.screens.inject_nmi(uid)

        address = await driver.screens.display(uid)
        assert address is not None
        assert (address.kind, address.socket != "") == ("vnc", True)
        first, second = await driver.screens.open_display(uid), await driver.screens.open_display(uid)
        assert (await first.read()).startswith(b"RFB 003.")
        assert (await second.read()).startswith(b"RFB 003.")
        await first.close()
        await first.close()
        await driver.destroy(uid)
        async with asyncio.timeout(PATIENCE_S):
            while await second.read():
                pass
        await second.close()
        for call in (driver.screens.screenshot(uid), driver.screens.open_display(uid), driver.screens.inject_nmi(uid)):
            await refused("wrong-state", call)

    on_driver(body)


def test_a_guest_without_a_screen(on_driver: OnDriver) -> None:
    async def body(driver: HypervisorDriver, definition: DomainDefinition) -> None:
        uid = definition.uid
        assert await driver.screens.display(uid) is None
        await refused("unsupported", driver.screens.screenshot(uid))
        await refused("unsupported", driver.screens.open_display(uid))

    on_driver(body, graphics="none", agent=False)


def test_clock_details_and_password(on_driver: OnDriver) -> None:
    async def body(driver: HypervisorDriver, definition: DomainDefinition) -> None:
        uid, guests = definition.uid, driver.guests
        told = await guests.details(uid)
        assert told.os_id
        assert told.kernel
        assert told.agent_version
        assert told.time_ns
        assert told.untold == ()

        then = 1_600_000_000 * 10**9
        await guests.set_time(uid, then)
        assert 0 <= await guests.time_ns(uid) - then < 60 * 10**9
        await _give_chpasswd(driver, uid)
        await guests.set_password(uid, "root", HASH)
        await refused("guest-agent-error", guests.set_password(uid, "nobody-here", HASH))

    on_driver(body)


def test_files(on_driver: OnDriver) -> None:
    async def body(driver: HypervisorDriver, definition: DomainDefinition) -> None:
        uid, guests = definition.uid, driver.guests
        content = zlib.compress(b"x") + bytes(range(256)) * 3000
        writer = await guests.open_write(uid, "/tmp", "x y", 0o640, tree=False)
        for start in range(0, len(content), 300_000):
            await writer.write(content[start : start + 300_000])
        await refused("guest-file-not-found", guests.open_read(uid, "/tmp/x y", tree=False))
        file = await writer.commit()
        await writer.close()
        assert (file.path, file.size_bytes, file.mode) == ("/tmp/x y", len(content), 0o640)

        reader = await guests.open_read(uid, "/tmp/x y", tree=False)
        assert (reader.file.size_bytes, reader.file.mode) == (len(content), 0o640)
        assert await _all_of(reader) == content

        again = await guests.open_write(uid, "/tmp/x y", "ignored", 0o600, tree=False)
        await again.write(b"half")
        await again.close()
        reader = await guests.open_read(uid, "/tmp/x y", tree=False)
        assert await _all_of(reader) == content

        empty = await guests.open_write(uid, "/tmp/empty", "ignored", 0o600, tree=False)
        await empty.commit()
        assert await _all_of(await guests.open_read(uid, "/tmp/empty", tree=False)) == b""

        await refused("guest-file-not-found", guests.open_read(uid, "/tmp/none", tree=False))
        await refused("guest-file-error", guests.open_read(uid, "/tmp", tree=False))
        await refused("guest-file-not-found", guests.open_write(uid, "/none/x", "x", 0o600, tree=False))

    on_driver(body)
