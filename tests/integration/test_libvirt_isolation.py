"""Each QEMU under its own uid: who breaks out of one guest gets at that guest's files and at no other's.

Two micro guests run; a process takes on the first one's uid and groups, as a broken QEMU would, and tries the second's
disk, seed, sockets, monitor, console log and memory. The same tries on its own files succeed where they should.
"""

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from libvirt_fixtures import Make

from corral import qemu_img
from corral.hypervisor.base import DomainDefinition, DomainDisk
from corral.hypervisor.libvirt import LibvirtDriver
from corral.model.vm import DAC_UID_FIRST
from corral.services.ledger import DAC_UIDS
from corral.storage.seed import build_seed

LIBVIRT_DIR = Path("/var/lib/libvirt/qemu")
UIDS = (DAC_UID_FIRST + DAC_UIDS - 2, DAC_UID_FIRST + DAC_UIDS - 1)


@dataclass(frozen=True)
class Guest:
    definition: DomainDefinition
    pid: int
    uid: int
    groups: tuple[int, ...]

    def secrets(self) -> dict[str, Path]:
        """Its files, by what they are."""
        private = next(path for path in LIBVIRT_DIR.glob("domain-*") if path.stat().st_uid == self.uid)
        run_dir = Path(self.definition.run_dir)
        assert self.definition.seed_path is not None
        return {
            "disk": Path(self.definition.disks[0].path),
            "seed": Path(self.definition.seed_path),
            "console log": Path(self.definition.console_log),
            "memory": Path(f"/proc/{self.pid}/mem"),
            "environment": Path(f"/proc/{self.pid}/environ"),
            "master key": private / "master-key.aes",
            "monitor": private / "monitor.sock",
            "agent": run_dir / "agent.sock",
            "vnc": run_dir / "vnc.sock",
        }


def _as_qemu(guest: Guest, attempt: Callable[[], str]) -> str:
    """What `attempt` says when a process with the uid and groups of the guest's QEMU makes it."""
    assert os.geteuid() == 0, "becoming another QEMU takes root: run the tests as root"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(guest.groups)
            os.setresgid(guest.groups[0], guest.groups[0], guest.groups[0])
            os.setresuid(guest.uid, guest.uid, guest.uid)
            try:
                answer = attempt()
            except OSError as error:
                answer = f"refused {type(error).__name__}"
            os.write(writing, answer.encode())
        finally:
            os._exit(0)
    os.close(writing)
    answer = os.read(reading, 4096).decode()
    os.close(reading)
    os.waitpid(child, 0)
    return answer


def _reach(path: Path) -> str:
    """Open it in the way that fits it: sockets are connected to, all else is read."""
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except PermissionError:
        is_socket = path.suffix == ".sock"
    if is_socket:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
        return "connected"
    with path.open("rb"):
        return "opened"


def _write(path: Path) -> str:
    with path.open("ab"):
        return "opened"


def _kill(pid: int) -> str:
    os.kill(pid, 0)
    return "allowed"


def _groups(pid: int) -> tuple[int, ...]:
    """Its effective gid, then its supplementary groups (proc(5))."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return (int(lines["Gid"].split()[1]), *(int(group) for group in lines["Groups"].split()))


async def _start(driver: LibvirtDriver, definition: DomainDefinition) -> Guest:
    await driver.define(definition)
    await driver.start(definition.uid)
    observed = await driver.observe(definition.uid)
    assert observed is not None
    assert observed.pid is not None
    assert definition.dac_uid is not None
    assert Path(f"/proc/{observed.pid}").stat().st_uid in (definition.dac_uid, 0)  # not dumpable: proc shows root
    return Guest(definition, observed.pid, definition.dac_uid, _groups(observed.pid))


async def _definitions(make: Make, directory: Path, image: Path) -> list[DomainDefinition]:
    made = []
    for uid in UIDS:
        disk, seed = directory / f"{uid}.qcow2", directory / f"{uid}.iso"
        await qemu_img.create_overlay(disk, image, "qcow2", 2**20)
        seed.write_bytes(build_seed({"meta-data": b"{}", "user-data": b"#cloud-config\n{}\n"}))
        disks = (DomainDisk("root", str(disk), "qcow2", backing=((str(image), "qcow2"),)),)
        definition = make("isolated", disks=disks, dac_uid=uid)
        made.append(replace(definition, seed_path=str(seed), graphics="vnc", memory_mib=96))
    return made


def test_a_broken_qemu_gets_at_no_other_guests_files(micro_definition: Make, open_dir: Path) -> None:
    async def run() -> None:
        image = open_dir / "image.qcow2"
        await qemu_img.create_empty(image, 2**20)
        image.chmod(0o444)
        driver = await LibvirtDriver.open("qemu:///system", timeout_s=30)
        definitions = await _definitions(micro_definition, open_dir, image)
        try:
            one, other = [await _start(driver, definition) for definition in definitions]
            _check(one, other, image)
        finally:
            for definition in definitions:
                if await driver.observe(definition.uid) is not None:
                    await driver.destroy(definition.uid)
                    await driver.undefine(definition.uid)
            await driver.close()

    asyncio.run(run())


def _check(one: Guest, other: Guest, image: Path) -> None:
    status = Path(f"/proc/{one.pid}/status").read_text()
    assert "Seccomp:\t2" in status  # QEMU's own filter is on
    assert "CapEff:\t0000000000000000" in status
    for thief, owner in ((one, other), (other, one)):
        for what, path in owner.secrets().items():
            assert path.exists(), f"there is no {what} at {path}: the test looks in the wrong place"
            told = _as_qemu(thief, lambda path=path: _reach(path))  # type: ignore[misc]
            assert told.startswith("refused"), f"a broken QEMU reaches another guest's {what}: {told}"
        assert _as_qemu(thief, lambda owner=owner: _kill(owner.pid)).startswith("refused")  # type: ignore[misc]
        assert _as_qemu(thief, lambda: _write(image)).startswith("refused")
        # The tries themselves are sound: what is its own, and the image that all share, can be opened.
        own = thief.secrets()
        for path in (own["disk"], own["seed"], image):
            assert _as_qemu(thief, lambda path=path: _reach(path)) == "opened"  # type: ignore[misc]
