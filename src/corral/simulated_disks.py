"""What simulated disks hold: a file for each layer, what lies below it, and which block was written with what.

A point in time is as good as what its blocks say. So the fakes keep them, as the real ones do: a file that is removed is
gone, one that is merged has what lay below it, and a guest writes to the file that its domain was given.
"""

from dataclasses import dataclass, field
from typing import Final

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.simulation import Simulation


@dataclass
class SimulatedFile:
    """`backing` is what its header says, as of a real overlay."""

    backing: str = ""
    blocks: dict[int, str] = field(default_factory=dict)


_FILE: Final = TypeAdapter(SimulatedFile)


class SimulatedDisks:
    """Files by their path. One that nobody made is taken for an empty disk, until it was removed."""

    def __init__(self, simulation: Simulation) -> None:
        self._kept = simulation.section("disks", _FILE)
        self.files = self._kept.restore()
        self.gone: set[str] = set()

    def make(self, path: str, backing: str) -> None:
        """Nothing happens to one that is there."""
        if path not in self.files:
            self.files[path] = SimulatedFile(backing)
            self.gone.discard(path)
            self._keep(path)

    def remove(self, path: str) -> None:
        self.files.pop(path, None)
        self.gone.add(path)
        self._kept.keep(path, None)

    def write(self, path: str, block: int, value: str) -> None:
        """As a guest does."""
        self.check(path)
        self.files.setdefault(path, SimulatedFile()).blocks[block] = value
        self._keep(path)

    def content(self, path: str) -> dict[int, str]:
        """What is read through the file and all that its header leads to."""
        self.check(path)
        file = self.files.get(path, SimulatedFile())
        below = self.content(file.backing) if file.backing else {}
        return {**below, **file.blocks}

    def below(self, path: str) -> tuple[str, ...]:
        """What it lies on, the nearest first."""
        found: list[str] = []
        while (file := self.files.get(path)) is not None and file.backing:
            path = file.backing
            found.append(path)
        return tuple(found)

    def check(self, path: str) -> None:
        """Raises `storage-error` for a file that was removed."""
        if path in self.gone:
            raise CorralError("storage-error", f"open {path}", "no such file")

    def merge(self, child: str, base: str) -> None:
        """All between `child` and `base` (empty: all there is) into `child`."""
        self.check(child)
        file = self.files.setdefault(child, SimulatedFile())
        below, between = file.backing, []
        while below and below != base:
            self.check(below)
            between.append(self.files.get(below, SimulatedFile()))
            below = between[-1].backing
        for layer in between:
            file.blocks = {**layer.blocks, **file.blocks}
        file.backing = base
        self._keep(child)

    def lay_on(self, above: str, below: str) -> None:
        if (file := self.files.get(above)) is not None:
            file.backing = below
            self._keep(above)

    def sink(self, top: str, base: str, above: str) -> None:
        """What `top` has into `base`; `above` lies on that then."""
        for path in (top, base, above):
            self.check(path)
        if self.files.get(above, SimulatedFile()).backing == base:
            return  # it was done before
        if self.files.get(top, SimulatedFile()).backing != base:
            raise CorralError("hypervisor-error", f"merge {top}", f"{base} is not in its chain")
        below = self.files.setdefault(base, SimulatedFile())
        below.blocks.update(self.files.get(top, SimulatedFile()).blocks)
        self._keep(base)
        self.files.setdefault(above, SimulatedFile()).backing = base
        self._keep(above)

    def _keep(self, path: str) -> None:
        self._kept.keep(path, self.files[path])


def disks_of(simulation: Simulation) -> SimulatedDisks:
    """The one set of files of a simulated world."""
    found = simulation.parts.get("disks")
    if not isinstance(found, SimulatedDisks):
        found = simulation.parts["disks"] = SimulatedDisks(simulation)
    return found
