"""A running guest's machine is changed, and the guest sees it: `corral set`, `disk` and `nic`, each looked at inside.

The tests stand in the order in which they run; one micro guest, that is never restarted until the last, lives through all.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from walk import PATIENCE, Walk, virsh

pytestmark = pytest.mark.timeout(900)

RESCUE_ISO = Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")
BLOCKS = "ls -d /sys/devices/system/memory/memory* | wc -l"
CPUS = "ls -d /sys/devices/system/cpu/cpu[0-9] | wc -l"
PCI = "cat /sys/bus/pci/devices/*/device"
VIRTIO_GPU = "0x1050"
MIB_SECTORS = 2048


class Hot:
    """The guest, and what its user says and sees."""

    def __init__(self, walk: Walk, name: str) -> None:
        self.walk = walk
        self.name = name
        self.first_qemu = self.qemu()

    def says(self, command: str) -> str:
        return self.walk.guest(self.name, command).strip()

    def comes_to_say(self, command: str, wanted: str) -> None:
        self.walk.until(f"{command!r} says {wanted!r}", lambda: self.says(command) == wanted)

    def change(self, *argv: str) -> str:
        """A command that succeeds; what it said."""
        return self.walk(*argv).ok()

    @property
    def waits(self) -> list[str]:
        return [str(reason) for reason in self.walk.info(self.name)["status"].get("pending_restart", ())]

    def disks(self) -> dict[str, int]:
        """What the guest has, by serial: sizes in MiB."""
        told = self.says('for d in /sys/block/vd*; do echo "$(cat $d/serial) $(cat $d/size)"; done')
        rows = [line.split() for line in told.splitlines()]
        return {row[0]: int(row[1]) // MIB_SECTORS for row in rows if len(row) == 2}  # a new one has no serial at first

    def device(self, serial: str) -> str:
        return "/dev/" + self.says(f"grep -lx {serial} /sys/block/vd*/serial").split("/")[3]

    def media(self) -> set[str]:
        """The labels of the media in its drives."""
        told = self.says("for d in /dev/sr*; do dd if=$d bs=1 skip=32808 count=32 2>/dev/null; echo; done")
        return {line.strip() for line in told.splitlines() if line.strip()}

    def qemu(self) -> str:
        return Path(f"/run/libvirt/qemu/{self.name}.pid").read_text()


@pytest.fixture(scope="module")
def iso(walk: Walk) -> tuple[str, str]:
    """A medium in the daemon: its image's name, and its label."""
    walk("image", "import", str(RESCUE_ISO), "--name", "rescue.iso").ok()
    return "rescue.iso", RESCUE_ISO.read_bytes()[32808:32840].decode().strip()


@pytest.fixture(scope="module")
def hot(walk: Walk) -> Iterator[Hot]:
    name = walk.name("hot")
    walk(
        *("create", "--name", name, "--image", "micro", "--memory", "256,maxmemory=1024", "--vcpus", "1,maxvcpus=2"),
        *("--disk", "size=1", "--disk", "device=cdrom,name=cd0", "--disk", "device=cdrom,name=cd1,bus=scsi"),
        *("--wait", "agent", "--timeout", PATIENCE),
    ).ok()
    yield Hot(walk, name)
    walk("delete", name).ok()


def test_a_disk_comes_grows_is_limited_and_goes(walk: Walk, hot: Hot) -> None:
    hot.change("disk", "add", hot.name, "size=1,name=data")
    walk.until("the guest has it", lambda: hot.disks() == {"root": 1024, "data": 1024})
    hot.says(f"echo kept >{hot.device('data')} && sync")
    assert hot.says(f"head -c 4 {hot.device('data')}") == "kept"
    hot.change("disk", "resize", hot.name, "data", "2G")
    walk.until("the guest sees its new size", lambda: hot.disks() == {"root": 1024, "data": 2048})
    hot.change("disk", "set", hot.name, "data", "--iops", "200")
    assert "200" in virsh("blkdeviotune", hot.name, "vdb")
    assert hot.waits == []

    [volume] = [found for found in walk.json("volume", "list") if "-data-" in found["name"]]
    hot.change("disk", "remove", hot.name, "data")
    walk.until("the guest has let it go", lambda: hot.disks() == {"root": 1024})
    walk.until("it is nobody's", lambda: not _volume(walk, volume["uid"])["spec"].get("vm_uid"))
    hot.change("disk", "add", hot.name, f"volume={volume['name']},name=back")
    walk.until("the guest has it again", lambda: hot.disks() == {"root": 1024, "back": 2048})
    assert hot.says(f"head -c 4 {hot.device('back')}") == "kept"
    walk("volume", "delete", volume["name"], "--yes").ends(4, "volume-in-use")
    hot.change("disk", "remove", hot.name, "back", "--delete")
    assert volume["uid"] not in [found["uid"] for found in walk.json("volume", "list")]


def _volume(walk: Walk, uid: str) -> dict[str, dict[str, object]]:
    [found] = [volume for volume in walk.json("volume", "list") if volume["uid"] == uid]
    return dict(found)


def test_media_come_and_go(walk: Walk, hot: Hot, iso: tuple[str, str]) -> None:
    """The micro guest has no driver for SATA: its own eyes see the SCSI drive, libvirt's the SATA one."""
    image, label = iso
    assert label not in hot.media()
    hot.change("disk", "insert", hot.name, "cd1", image)
    walk.until("the guest reads it", lambda: label in hot.media())
    hot.change("disk", "eject", hot.name, "cd1")
    walk.until("the guest misses it", lambda: label not in hot.media())
    hot.change("disk", "insert", hot.name, "cd0", image)
    assert [line.split()[0] for line in virsh("domblklist", hot.name).splitlines() if "/images/" in line] == ["sda"]
    hot.change("disk", "eject", hot.name, "cd0")
    assert "/images/" not in virsh("domblklist", hot.name)
    assert hot.waits == []


def test_a_card_comes_moves_is_unplugged_and_goes(walk: Walk, hot: Hot) -> None:
    hot.change("nic", "add", hot.name, "default")
    hot.comes_to_say("ls /sys/class/net | grep -c ^eth", "2")
    card = walk.info(hot.name)["spec"]["nics"][1]
    assert hot.says("cat /sys/class/net/eth1/address") == card["mac"]
    assert _leased(hot) == card["address"]
    head, _, last = card["address"].rpartition(".")
    moved = f"{head}.{int(last) + 40}"
    hot.change("nic", "set", hot.name, card["name"], "--address", moved)
    walk.until("the guest gets its new address", lambda: _leased(hot) == moved)
    hot.change("nic", "link", hot.name, card["name"], "down")
    hot.comes_to_say("cat /sys/class/net/eth1/carrier", "0")
    hot.change("nic", "link", hot.name, card["name"], "up")
    hot.comes_to_say("cat /sys/class/net/eth1/carrier", "1")
    hot.change("nic", "remove", hot.name, card["name"])
    hot.comes_to_say("ls /sys/class/net | grep -c ^eth", "1")
    assert hot.waits == []


def _leased(hot: Hot) -> str:
    """The address that the guest's second card is given."""
    asked = "ip link set eth1 up; udhcpc -i eth1 -n -q -t 10 -s /bin/true 2>&1 | sed -n 's/.*lease of \\([0-9.]*\\).*/\\1/p'"
    return hot.says(asked).splitlines()[-1]


def test_processors_and_memory_within_what_it_was_started_with(walk: Walk, hot: Hot) -> None:
    assert hot.says(CPUS) == "1"
    blocks = int(hot.says(BLOCKS))
    hot.change("set", hot.name, "vcpus=2")
    hot.comes_to_say(CPUS, "2")
    hot.change("set", hot.name, "memory=512")
    hot.comes_to_say(BLOCKS, str(blocks + 2))  # of 128 MiB
    hot.change("set", hot.name, "cpu.quota=150", "cpu-shares=2048")
    told = virsh("schedinfo", hot.name)
    assert "2048" in told
    assert "150000" in told
    assert hot.waits == []
    assert hot.qemu() == hot.first_qemu


def test_what_waits_is_there_after_a_reboot(walk: Walk, hot: Hot) -> None:
    assert VIRTIO_GPU not in hot.says(PCI)
    said = hot.change("set", hot.name, "video=virtio")
    assert "video" in said or "video" in " ".join(hot.waits)
    assert [reason.partition(":")[0] for reason in hot.waits] == ["video"]
    assert "video" in walk("info", hot.name).ok()
    hot.change("reboot", hot.name, "--timeout", PATIENCE)
    walk("wait", hot.name, "--for", "agent", "--timeout", PATIENCE).ok()
    assert VIRTIO_GPU in hot.says(PCI)
    assert hot.waits == []
    assert hot.says(CPUS) == "2"
    assert hot.qemu() != hot.first_qemu
    again = hot.qemu()
    hot.change("reboot", hot.name, "--timeout", PATIENCE)
    walk("wait", hot.name, "--for", "agent", "--timeout", PATIENCE).ok()
    assert hot.qemu() == again, "with nothing to wait for, the guest reboots by itself"


def test_a_guest_that_sleeps_is_left_alone(walk: Walk, hot: Hot) -> None:
    hot.change("save", hot.name)
    walk("disk", "add", hot.name, "size=1").ends(4, "wrong-state")
    hot.change("start", hot.name)
