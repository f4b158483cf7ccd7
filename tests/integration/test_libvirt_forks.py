"""A running guest is frozen with its memory, and others go on from there: each itself, none in another's way."""

import asyncio
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import libvirt
import pytest
from libvirt_fixtures import TEST_DAC_UID, Make

from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, DomainDisk, DomainNic, ObservedDomain
from corral.hypervisor.forking import Fork, Freeze, Frozen, Template
from corral.hypervisor.libvirt import LibvirtDriver, confinement, fork_start, owned
from corral.hypervisor.libvirt.metadata import parse_document
from corral.model.hardware import HardwareSpec
from corral.model.vm import VmState
from corral.names import new_uid

URI = "qemu:///system"
PATIENCE_S = 90.0
# What the test's template leaves to be read in each of its forks.
MARK = "/tmp/of-the-template"


@pytest.fixture
def network() -> Iterator[str]:
    """A bridge of the test's own, gone with it."""
    name = f"cor-fork-{os.getpid()}"
    document = f"<network><name>{name}</name><bridge stp='off'/></network>"
    subprocess.run(["virsh", "-q", "-c", URI, "net-create", "/dev/stdin"], input=document, text=True, check=True)
    yield name
    subprocess.run(["virsh", "-q", "-c", URI, "net-destroy", name], check=True)


def overlay(path: Path, backing: Path | None = None) -> Path:
    below = [] if backing is None else ["-F", "qcow2", "-b", str(backing)]
    size = ["64M"] if backing is None else []
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *below, str(path), *size], check=True)
    return path


def frozen_file(path: Path) -> None:
    """As with all that lies below a head."""
    os.chown(path, 0, confinement.find_host(URI).dac_gid)
    path.chmod(0o440)


@dataclass
class World:
    """A guest that was frozen, and whoever was forked from it."""

    driver: LibvirtDriver
    directory: Path
    make: Make
    network: str
    made: list[str]
    template: Template | None = None
    chain: tuple[tuple[str, str], ...] = ()

    def definition(self, name: str, disk: DomainDisk, number: int, hardware: HardwareSpec) -> DomainDefinition:
        card = DomainNic("net0", f"52:54:00:f0:{os.getpid() % 256:02x}:{number:02x}", self.network)
        definition = self.make(name, disks=(disk,), nics=(card,), dac_uid=TEST_DAC_UID - number)
        self.made.append(definition.uid)
        return replace(definition, hardware=hardware)

    async def source(self, hardware: HardwareSpec) -> DomainDefinition:
        disk = DomainDisk("root", str(overlay(self.directory / "source.qcow2")), "qcow2")
        definition = self.definition("source", disk, 0, hardware)
        await self.driver.define(definition)
        await self.driver.start(definition.uid)
        await self.answers(definition.uid)
        await self.says(definition.uid, f"echo precious > {MARK}; printf firm | dd of=/dev/vda 2>/dev/null; sync")
        return definition

    async def freeze(self, source: DomainDefinition) -> Frozen:
        """As the agent does: the memory and the disk at one instant, then an overlay for what the passing guest writes."""
        uid = new_uid()
        saved, head = self.directory / f"{uid[:8]}.memory", self.directory / f"{uid[:8]}.head"
        below = Path(source.disks[0].path)
        overlay(head, below)
        os.chown(head, source.dac_uid or 0, confinement.find_host(URI).dac_gid)
        await asyncio.to_thread(take_point, source.uid, saved, head)
        frozen_file(below)
        layer = overlay(self.directory / f"{uid[:8]}.layer", below)
        self.chain = ((str(layer), "qcow2"), (str(below), "qcow2"))
        self.template = Template(uid, self.directory / f"t-{uid[:8]}", self.directory / "r" / uid[:8], "")
        frozen = await self.driver.forking.freeze(
            Freeze(
                uid=uid,
                saved=saved,
                disks=(DomainDisk("root", str(layer), "qcow2", backing=self.chain[1:]),),
                directory=self.template.directory,
                run_dir=self.template.run_dir,
            )
        )
        saved.unlink()
        self.template = replace(self.template, digest=frozen.digest)
        return frozen

    async def fork(self, name: str, number: int, hardware: HardwareSpec = HardwareSpec()) -> DomainDefinition:  # noqa: B008
        assert self.template is not None
        path = overlay(self.directory / f"{name}.qcow2", Path(self.chain[0][0]))
        disk = DomainDisk("root", str(path), "qcow2", backing=self.chain)
        definition = self.definition(name, disk, number, hardware)
        await self.driver.forking.fork(Fork(definition, self.template), held=True)
        return definition

    async def introduced(self, name: str, number: int) -> DomainDefinition:
        definition = await self.fork(name, number)
        assert await self.told(definition, f"hostname {name}\n")
        return definition

    async def told(self, definition: DomainDefinition, script: str) -> bool:
        assert self.template is not None
        fork = Fork(definition, self.template)
        await self.driver.forking.plug_cards(fork)
        told = await self.driver.forking.introduce(fork, script, PATIENCE_S)
        await self.driver.forking.connect(definition)
        return told

    async def answers(self, uid: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                await self.driver.guest_facts(uid)
                return
            except CorralError as error:
                if not error.code.startswith("guest-agent-"):
                    raise
                await asyncio.sleep(0.2)
        raise AssertionError("the guest's agent does not answer")

    async def says(self, uid: str, script: str) -> str:
        done = await self.driver.guest_exec(
            uid, ["sh", "-c", script], stdin=b"", timeout_s=PATIENCE_S, capture_max_bytes=65536
        )
        return done.stdout.decode().strip()

    async def shares(self, uid: str) -> int:
        """Of the processors, as it runs."""
        return int(parse_document(await self.driver.document(uid)).findtext("cputune/shares") or 0)

    async def seen(self, uid: str) -> ObservedDomain:
        found = await self.driver.observe(uid)
        assert found is not None
        return found

    def held(self) -> str:
        """Digest of the memory as the holder has it now."""
        found = hashlib.sha256()
        with Path(f"/proc/{self.holder()}/fd/{self.descriptor()}").open("rb") as stream:
            while block := stream.read(1 << 20):
                found.update(block)
        return found.hexdigest()

    def holder(self) -> int:
        assert self.template is not None
        wanted = str(self.template.run_dir / "memory.sock").encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            words = path.read_bytes().split(b"\0") if path.exists() else []
            if wanted in words and b"-S" in words:
                return int(path.parent.name)
        raise AssertionError("nobody holds the memory")

    def descriptor(self) -> str:
        links = Path(f"/proc/{self.holder()}/fd").iterdir()
        return next(link.name for link in links if "corral-template" in str(link.readlink()))


def take_point(uid: str, memory: Path, head: Path) -> None:
    handle = libvirt.open(URI)
    document = (
        f"<domainsnapshot><memory snapshot='external' file='{memory}'/><disks>"
        f"<disk name='vda' snapshot='external'><driver type='qcow2'/><source file='{head}'/></disk></disks></domainsnapshot>"
    )
    flags = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    )
    try:
        handle.lookupByUUIDString(uid).snapshotCreateXML(document, flags)
    finally:
        handle.close()


@asynccontextmanager
async def opened(make: Make, directory: Path, network: str) -> AsyncIterator[World]:
    driver = await LibvirtDriver.open(URI, timeout_s=30)
    world = World(driver, directory, make, network, [])
    try:
        yield world
    finally:
        for uid in world.made:
            if await driver.observe(uid) is not None:
                await driver.destroy(uid)
                await driver.undefine(uid)
        if world.template is not None:
            await driver.forking.discard(world.template)
        await driver.close()


def run(make: Make, directory: Path, network: str, body: Callable[[World], Awaitable[None]]) -> None:
    async def life() -> None:
        async with opened(make, directory, network) as world:
            await body(world)

    asyncio.run(life())


def test_forks_are_each_their_own(micro_definition: Make, open_dir: Path, network: str) -> None:
    async def body(world: World) -> None:
        source = await world.source(HardwareSpec())
        frozen = await world.freeze(source)
        assert frozen.agent
        assert frozen.memory_bytes == 128 << 20
        assert await world.says(source.uid, f"cat {MARK}; ls /sys/class/net | grep -c eth") == "precious\n1"
        await world.driver.destroy(source.uid)

        one = await world.fork("one", 1)
        waiting = await world.seen(one.uid)
        assert (waiting.state, waiting.introduced, waiting.persistent) == (VmState.RUNNING, False, True)
        assert await world.shares(one.uid) == fork_start.HELD_SHARES
        assert await world.told(one, "hostname one\n")
        assert await world.shares(one.uid) == one.cpu_shares
        # What is the template's is nobody's own, though one alone has it mapped.
        [alone] = await world.driver.forking.memory_shares([one.uid])
        assert alone.private + (10 << 20) < alone.proportional
        two = await world.introduced("two", 2)
        before = world.held()
        ran = await world.seen(one.uid)
        assert (ran.state, ran.introduced, ran.pending) == (VmState.RUNNING, True, ())
        assert ran.definition_hash == owned.definition_hash(one)
        assert ran.metadata == one.metadata

        for uid, name, number in ((one.uid, "one", 1), (two.uid, "two", 2)):
            said = await world.says(
                uid, f"hostname; cat {MARK}; cat /sys/class/net/eth0/address; dd if=/dev/vda count=1"
            )
            assert said.startswith(f"{name}\nprecious\n52:54:00:f0:{os.getpid() % 256:02x}:{number:02x}\nfirm")

        # One of them writes all over its memory and gives it back: neither the template nor its sibling notices.
        await world.says(
            one.uid, "head -c 50000000 /dev/urandom > /tmp/much; rm /tmp/much; echo 3 > /proc/sys/vm/drop_caches"
        )
        await world.says(one.uid, f"echo mine > {MARK}; printf mine | dd of=/dev/vda 2>/dev/null; sync")
        with pytest.raises(libvirt.libvirtError):
            await asyncio.to_thread(balloon, one.uid)
        assert world.held() == before
        assert await world.says(two.uid, f"cat {MARK}; dd if=/dev/vda bs=4 count=1 2>/dev/null") == "precious\nfirm"
        listed = subprocess.run(["virsh", "-c", URI, "list", "--name"], check=True, capture_output=True, text=True)
        assert {one.name, two.name} <= set(listed.stdout.split())
        shares = {share.uid: share for share in await world.driver.forking.memory_shares([one.uid, two.uid])}
        assert shares[two.uid].private < shares[two.uid].proportional < shares[two.uid].resident

        # The holder may die: guests have the memory mapped, and the next fork finds another holder.
        os.kill(world.holder(), signal.SIGKILL)
        assert await world.says(two.uid, f"cat {MARK}") == "precious"
        await world.driver.destroy(one.uid)
        three = await world.introduced("three", 3)
        assert await world.says(three.uid, f"hostname; cat {MARK}") == "three\nprecious"

    run(micro_definition, open_dir, network, body)


def test_a_fork_becomes_the_domain_that_waits(micro_definition: Make, open_dir: Path, network: str) -> None:
    """Under another name until it is off. One that has died, or was never there, makes it a cold one."""

    async def body(world: World) -> None:
        source = await world.source(HardwareSpec())
        await world.freeze(source)
        await world.driver.destroy(source.uid)
        assert world.template is not None
        disk = DomainDisk(
            "root", str(overlay(world.directory / "warm.qcow2", Path(world.chain[0][0]))), "qcow2", backing=world.chain
        )
        fork = world.definition("warm", disk, 1, HardwareSpec())
        slot = Fork(replace(fork, name=f"{fork.name}-slot", nics=()), world.template)
        for _ in range(2):
            await world.driver.forking.prepare(slot)
        waiting = await world.seen(fork.uid)
        assert (waiting.state, waiting.waiting, waiting.persistent) == (VmState.PAUSED, True, False)
        pid = waiting.pid
        os.kill(world.holder(), signal.SIGKILL)  # it has its memory
        await world.driver.forking.fork(Fork(fork, world.template))
        assert await world.told(fork, "hostname warm\n")
        ran = await world.seen(fork.uid)
        assert (ran.pid, ran.name, ran.state, ran.introduced) == (pid, f"{fork.name}-slot", VmState.RUNNING, True)
        assert (ran.waiting, ran.persistent, ran.pending) == (False, True, ())
        assert ran.definition_hash == owned.definition_hash(replace(fork, name=ran.name))
        assert ran.live_spec_json == fork.metadata.spec_json
        said = await world.says(fork.uid, f"hostname; cat {MARK}; ls /sys/class/net | grep -c eth")
        assert said == "warm\nprecious\n1"
        titles = await asyncio.to_thread(titled, fork.uid)
        assert titles == (fork.name, None)
        await world.driver.save(fork.uid)
        await world.driver.start(fork.uid)
        await world.answers(fork.uid)
        assert await world.says(fork.uid, f"cat {MARK}") == "precious"
        await world.driver.destroy(fork.uid)
        await world.driver.rename(fork.uid, fork.name)
        await world.driver.start(fork.uid)
        await world.answers(fork.uid)
        assert await world.says(fork.uid, "ls /sys/class/net | grep -c eth") == "1"

        path = overlay(world.directory / "dead.qcow2", Path(world.chain[0][0]))
        dead = world.definition("dead", DomainDisk("root", str(path), "qcow2", backing=world.chain), 2, HardwareSpec())
        await world.driver.forking.prepare(Fork(replace(dead, name=f"{dead.name}-slot", nics=()), world.template))
        await world.driver.destroy(dead.uid)
        assert await world.driver.observe(dead.uid) is None
        await world.driver.forking.fork(Fork(dead, world.template))
        assert await world.told(dead, "hostname dead\n")
        assert (await world.seen(dead.uid)).name == dead.name

    run(micro_definition, open_dir, network, body)


def titled(uid: str) -> tuple[str | None, ...]:
    """Of the running domain, and of its definition."""
    handle = libvirt.open(URI)

    def title(flag: int) -> str | None:
        try:
            return str(handle.lookupByUUIDString(uid).metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None, flag))
        except libvirt.libvirtError:
            return None

    try:
        return tuple(title(flag) for flag in (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG))
    finally:
        handle.close()


def balloon(uid: str) -> None:
    handle = libvirt.open(URI)
    try:
        handle.lookupByUUIDString(uid).setMemoryFlags(65536, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    finally:
        handle.close()


def test_a_fork_is_a_guest_like_others(micro_definition: Make, open_dir: Path, network: str) -> None:
    """Saved and resumed, twice; reset; off, and on again from its own disk."""

    async def body(world: World) -> None:
        source = await world.source(HardwareSpec())
        await world.freeze(source)
        await world.driver.destroy(source.uid)
        fork = await world.introduced("life", 1)
        await world.driver.forking.fork(Fork(fork, world.template))  # type: ignore[arg-type]  # it was frozen
        assert await world.told(fork, "hostname again\n")
        for _ in range(2):
            await world.driver.save(fork.uid)
            await world.driver.start(fork.uid)
            await world.answers(fork.uid)
            assert await world.says(fork.uid, f"hostname; cat {MARK}") == "life\nprecious"
        await world.says(fork.uid, "printf kept | dd of=/dev/vda 2>/dev/null; sync")
        await world.driver.reset(fork.uid)
        await asyncio.sleep(1)
        await world.answers(fork.uid)
        assert await world.says(fork.uid, f"cat {MARK}; dd if=/dev/vda bs=4 count=1 2>/dev/null") == "kept"
        await world.driver.destroy(fork.uid)
        await world.driver.start(fork.uid)
        await world.answers(fork.uid)
        assert (
            await world.says(fork.uid, "dd if=/dev/vda bs=4 count=1 2>/dev/null; ls /sys/class/net | grep -c eth")
            == "kept1"
        )
        document = await world.driver.document(fork.uid)
        assert "commandline" not in document
        assert "freePageReporting" in document

    run(micro_definition, open_dir, network, body)


def test_a_damaged_template_makes_no_fork(micro_definition: Make, open_dir: Path, network: str) -> None:
    async def body(world: World) -> None:
        source = await world.source(HardwareSpec())
        await world.freeze(source)
        await world.driver.destroy(source.uid)
        assert world.template is not None
        with (world.template.directory / "memory").open("r+b") as stream:
            stream.seek(50 << 20)
            stream.write(b"damage")
        with pytest.raises(CorralError) as caught:
            await world.fork("one", 1)
        assert caught.value.code == "template-damaged"
        assert await world.driver.observe(world.made[-1]) is None

    run(micro_definition, open_dir, network, body)
