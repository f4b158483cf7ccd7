"""The micro image, built and booted for real: shell, DHCP, seed, guest agent, and both ways to switch it off."""

import asyncio
import base64
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corral.images.cloud_init import build_seed_files
from corral.images.library import DirLibrary
from corral.model.image import ImageFacts, ImageSource, ImageSpec
from corral.model.vm import CloudInitSpec
from corral.storage.seed import build_seed

BOOT_TIMEOUT_S = 90.0


async def silent(_phase: str, _part: float | None) -> None:
    return None


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> DirLibrary:
    return DirLibrary(tmp_path_factory.mktemp("library") / "images")


@pytest.fixture(scope="module")
def micro(library: DirLibrary) -> ImageFacts:
    spec = ImageSpec(catalogue="micro", source=ImageSource.BUILD)
    return asyncio.run(library.make("micro", spec, silent))


class Guest:
    """A micro guest under plain QEMU, with its serial log and its agent's socket."""

    def __init__(self, library: DirLibrary, facts: ImageFacts, place: Path, user_data: str) -> None:
        files = library.files(facts)
        seed = CloudInitSpec(hostname="tiny", instance_id="i-1", user_data=user_data)
        (place / "seed.iso").write_bytes(build_seed(build_seed_files(seed)))
        self.log, self._agent, self._monitor = place / "serial.log", place / "a", place / "m"
        self._process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-M", "q35,accel=tcg", "-m", str(facts.memory_min_mib), "-nodefaults"),
                *(
                    "-display",
                    "none",
                    "-serial",
                    f"file:{self.log}",
                    "-qmp",
                    f"unix:{self._monitor},server=on,wait=off",
                ),
                *("-kernel", str(files.kernel), "-initrd", str(files.initrd), "-append", facts.cmdline),
                *("-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", "-device", "virtio-serial"),
                *("-drive", f"file={place}/seed.iso,format=raw,if=none,id=s,readonly=on"),
                *("-device", "virtio-blk-pci,drive=s"),
                *("-chardev", f"socket,path={self._agent},server=on,wait=off,id=a"),
                *("-device", "virtserialport,chardev=a,name=org.qemu.guest_agent.0"),
            ]
        )

    def wait_for(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while not ready():
            assert self._process.poll() is None, f"QEMU ended before {what}:\n{self.text()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.text()}"
            time.sleep(0.1)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def agent(self, command: str, **arguments: object) -> dict[str, object]:
        """One agent command; the answer's `return`."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._agent))
            connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            if command == "guest-shutdown":
                return {}
            with connection.makefile() as stream:
                return json.loads(stream.readline())["return"]

    def shell(self, script: str) -> str:
        started = self.agent("guest-exec", path="sh", arg=["-c", script], **{"capture-output": True})
        done: dict[str, object] = {}

        def ended() -> bool:
            done.update(self.agent("guest-exec-status", pid=started["pid"]))
            return bool(done["exited"])

        self.wait_for(ended, f"end of {script}")
        return base64.b64decode(str(done.get("out-data", ""))).decode()

    def press_power_button(self) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._monitor))
            with connection.makefile("rw") as stream:
                for command in ("qmp_capabilities", "system_powerdown"):
                    stream.write(json.dumps({"execute": command}) + "\n")
                    stream.flush()
                    while "return" not in json.loads(stream.readline()):
                        pass

    def wait_for_end(self) -> int:
        return self._process.wait(30)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def guest(library: DirLibrary, micro: ImageFacts, tmp_path: Path) -> Iterator[Guest]:
    running = Guest(library, micro, tmp_path, "#!/bin/sh\necho from the user data\n")
    yield running
    running.stop()


def test_boots_with_seed_network_and_agent(guest: Guest) -> None:
    guest.wait_for(lambda: "micro: tiny is up after" in guest.text(), "shell")
    guest.wait_for(lambda: "micro: eth0 has 10.0.2.15" in guest.text(), "address")
    assert guest.agent("guest-get-host-name") == {"host-name": "tiny"}
    assert json.loads(guest.shell("cloud-init status --wait --format json"))["status"] == "done"
    assert guest.shell("cat /run/cloud-init/output.log") == "from the user data\n"
    assert guest.shell("ip route").startswith("default via 10.0.2.2")
    guest.agent("guest-shutdown")
    assert guest.wait_for_end() == 0


def test_powers_off_on_the_power_button(guest: Guest) -> None:
    guest.wait_for(lambda: "micro: eth0 has" in guest.text(), "boot")
    guest.press_power_button()
    assert guest.wait_for_end() == 0


def test_sealed(library: DirLibrary, micro: ImageFacts) -> None:
    assert asyncio.run(library.verify(micro))
    assert micro.disk_format == ""
    for path in (library.files(micro).kernel, library.files(micro).initrd):
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o444
