"""What the accelerator probe found is kept for the boot, unless QEMU itself could not be run."""

import asyncio
from pathlib import Path
from typing import cast

from corral.agent.host import HostIdentity, HostKeeper
from corral.clock import SystemClock
from corral.hypervisor.base import HypervisorDriver, HypervisorFacts
from corral.model.host import AcceleratorFinding
from corral.settings import Settings
from corral.storage.base import VolumeStore
from corral.store.objects import Objects


class Probed:
    """The two questions that a look asks of a driver."""

    def __init__(self, *, usable: bool) -> None:
        self.usable = usable
        self.probes = 0

    async def facts(self) -> HypervisorFacts:
        return HypervisorFacts("libvirt", True, "9.0.0", "7.2.22", "qemu:///system", max_vcpus=8)

    async def probe_accelerators(self) -> tuple[AcceleratorFinding, ...]:
        self.probes += 1
        return (AcceleratorFinding(name="tcg", usable=self.usable, reason="tried"),)


def look_twice(state_dir: Path, driver: Probed) -> int:
    for _ in range(2):  # two daemons, one after the other
        keeper = HostKeeper(
            cast(Objects, None),
            cast(HypervisorDriver, driver),
            cast(VolumeStore, None),
            Settings(state_dir=state_dir),
            HostIdentity.load(state_dir),
            SystemClock(),
        )
        asyncio.run(keeper.look())
    return driver.probes


def test_a_measurement_is_kept_for_the_boot(tmp_path: Path) -> None:
    assert look_twice(tmp_path, Probed(usable=True)) == 1


def test_a_probe_in_which_even_emulation_failed_is_repeated(tmp_path: Path) -> None:
    """A daemon that was kept from running QEMU called every accelerator unusable until the machine's next boot."""
    assert look_twice(tmp_path, Probed(usable=False)) == 2
