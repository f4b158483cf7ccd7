"""A running guest's memory is kept while it runs on: what it does goes on, and whatever happens meanwhile, it is not left standing."""

import asyncio
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from guest_in_time import on_head, overlay, said, with_driver
from libvirt_fixtures import TEST_DAC_UID, Make

from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, DomainDisk
from corral.hypervisor.libvirt import LibvirtDriver, live_memory, monitor
from corral.hypervisor.libvirt.saved_image import MAGIC
from corral.hypervisor.points import PointTaken, PointWanted
from corral.model.vm import VmState

SLOW_S = 0.01
"""For each piece of 256 KiB: some 25 MiB/s, so that a small guest takes its time."""
# The longest time between two looks at the clock that a process in the guest has seen, in hundredths of a second.
WATCH = """
(last=; longest=0; n=0
while :; do
  read now rest </proc/uptime; now=${now%.*}${now#*.}; n=$((n+1))
  if [ -e /tmp/anew ]; then longest=0; rm /tmp/anew; fi
  if [ -n "$last" ] && [ $((now-last)) -gt $longest ]; then longest=$((now-last)); fi
  last=$now; echo "$longest $n" >/tmp/watch.new; mv /tmp/watch.new /tmp/watch; sleep 0.02
done) >/dev/null 2>&1 &
"""
TALK = """
ip link set lo up
(sleep 100000 | nc -l -p 4000 >/tmp/heard) >/dev/null 2>&1 &
sleep 1
(i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done | nc 127.0.0.1 4000) >/dev/null 2>&1 &
"""


@pytest.fixture
def definition(micro_definition: Make, open_dir: Path) -> DomainDefinition:
    base = open_dir / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "64M"], check=True)
    return micro_definition("live", disks=(DomainDisk("root", str(base), "qcow2"),))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes its time."""
    real = os.splice

    def splice(source: int, target: int, count: int, **more: Any) -> int:
        time.sleep(SLOW_S)
        return real(source, target, min(count, 1 << 18), **more)

    monkeypatch.setattr(os, "splice", splice)


async def take(driver: LibvirtDriver, definition: DomainDefinition, disks: tuple[DomainDisk, ...]) -> PointTaken:
    directory = Path(disks[0].path).parent / "point"
    directory.mkdir(exist_ok=True)
    wanted = PointWanted(disks, directory, with_memory=True, dac_uid=TEST_DAC_UID)
    return await driver.points.take(definition.uid, wanted)


async def heard(driver: LibvirtDriver, uid: str) -> int:
    """How far the guest has counted over a TCP connection to itself."""
    return int(await said(driver, uid, "tail -n 1 /tmp/heard"))


async def settings(driver: LibvirtDriver, uid: str) -> tuple[int, int]:
    found = await driver._slow_on(uid, "ask", lambda domain: monitor.ask(domain, "query-migrate-parameters"))
    return found["downtime-limit"], found["max-bandwidth"]


async def files(driver: LibvirtDriver, uid: str) -> dict[str, str]:
    seen = await driver.observe(uid)
    assert seen is not None
    assert seen.state is VmState.RUNNING
    return dict(seen.files)


async def under_way(driver: LibvirtDriver, uid: str) -> None:
    async with asyncio.timeout(30):
        while (await driver._slow_on(uid, "ask", lambda d: monitor.ask(d, "query-migrate"))).get("status") != "active":
            await asyncio.sleep(0.02)


def test_a_guest_goes_on_meanwhile_and_from_there(definition: DomainDefinition, open_dir: Path, slow: None) -> None:
    """Its connections too. It stands still for a small part of the time that its memory takes."""

    async def scene(driver: LibvirtDriver) -> None:
        uid = definition.uid
        await driver.start(uid)
        await said(driver, uid, WATCH)
        await said(driver, uid, TALK)
        before = await settings(driver, uid)
        talked = await heard(driver, uid)
        disks = on_head(definition, open_dir / "head.qcow2")
        seen = int((await said(driver, uid, "cat /tmp/watch; touch /tmp/anew")).split()[1])
        began = time.monotonic()
        taken = await take(driver, definition, disks)
        took_s = time.monotonic() - began
        longest, looks = map(int, (await said(driver, uid, "cat /tmp/watch")).split())
        assert taken.pause_ms is not None
        assert taken.pause_ms / 1000 < took_s / 2, "it stood still while its memory was written"
        assert longest / 100 < took_s / 2
        assert looks > seen
        assert await heard(driver, uid) > talked
        assert await settings(driver, uid) == before
        await driver.destroy(uid)
        back = (replace(disks[0], path=str(open_dir / "back.qcow2")),)
        overlay(open_dir / "back.qcow2", Path(definition.disks[0].path))
        await driver.points.place(uid, back, TEST_DAC_UID)
        await driver.points.restore(uid, open_dir / "point", back, paused=False)
        first = await heard(driver, uid)
        await asyncio.sleep(1)
        assert await heard(driver, uid) > first > 0, "its connection is dead"
        assert (await files(driver, uid))["root"] == back[0].path

    with_driver(definition, scene)


def test_a_guest_that_outruns_its_disk_is_stopped_for_the_rest(
    definition: DomainDefinition, open_dir: Path, slow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_memory, "PATIENCE_S", 1.0)
    script = "(while :; do dd if=/dev/urandom of=/tmp/much bs=1M count=24 2>/dev/null; done) >/dev/null 2>&1 &"

    async def scene(driver: LibvirtDriver) -> None:
        await driver.start(definition.uid)
        await said(driver, definition.uid, script)
        disks = on_head(definition, open_dir / "head.qcow2")
        taken = await take(driver, definition, disks)
        assert taken.state is VmState.RUNNING
        assert taken.pause_ms is not None
        assert (await files(driver, definition.uid))["root"] == disks[0].path
        assert (open_dir / "point/memory").read_bytes()[:16] == MAGIC

    with_driver(definition, scene)


def test_what_nobody_waits_for_any_more_ends(definition: DomainDefinition, open_dir: Path, slow: None) -> None:
    async def scene(driver: LibvirtDriver) -> None:
        uid = definition.uid
        await driver.start(uid)
        before = await settings(driver, uid)
        await said(driver, uid, "echo here >/tmp/thought")
        disks = on_head(definition, open_dir / "head.qcow2")
        for _ in range(2):
            task = asyncio.create_task(take(driver, definition, disks))
            await under_way(driver, uid)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(20):
            while await settings(driver, uid) != before:
                await asyncio.sleep(0.05)
        assert (await files(driver, uid))["root"] == definition.disks[0].path
        assert (open_dir / "point/memory").read_bytes()[:16] != MAGIC
        assert (await take(driver, definition, disks)).state is VmState.RUNNING
        assert (await files(driver, uid))["root"] == disks[0].path
        await driver.save(uid)
        await driver.start(uid)
        assert await said(driver, uid, "cat /tmp/thought") == "here"

    with_driver(definition, scene)


def test_one_whose_qemu_dies_is_told(definition: DomainDefinition, open_dir: Path, slow: None) -> None:
    async def scene(driver: LibvirtDriver) -> None:
        uid = definition.uid
        await driver.start(uid)
        await said(driver, uid, "true")
        seen = await driver.observe(uid)
        assert seen is not None
        assert seen.pid is not None
        task = asyncio.create_task(take(driver, definition, on_head(definition, open_dir / "head.qcow2")))
        await under_way(driver, uid)
        os.kill(seen.pid, signal.SIGKILL)
        with pytest.raises(CorralError):
            await task

    with_driver(definition, scene)


def test_a_full_disk_leaves_a_guest_running(
    definition: DomainDefinition, open_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.splice, []

    def splice(source: int, target: int, count: int, **more: Any) -> int:
        calls.append(count)
        if len(calls) > 20:
            raise OSError(28, "No space left on device")
        return real(source, target, count, **more)

    async def scene(driver: LibvirtDriver) -> None:
        await driver.start(definition.uid)
        await said(driver, definition.uid, "true")
        monkeypatch.setattr(os, "splice", splice)
        with pytest.raises(CorralError) as caught:
            await take(driver, definition, on_head(definition, open_dir / "head.qcow2"))
        assert caught.value.code == "disk-full"
        monkeypatch.undo()
        assert (await files(driver, definition.uid))["root"] == definition.disks[0].path
        assert await said(driver, definition.uid, "echo on") == "on"

    with_driver(definition, scene)
