"""The fake world's ground: calls that can be traced, delayed, broken and cut short, and a file that outlives the process.

The fakes of the hypervisor, the storage, the images and the network share one `Simulation`. A *fault* is aimed at the
n-th call of a kind; a *crash* makes this incarnation of the process silent for ever, as `kill -9` does: nothing that
it calls afterwards has any effect or returns.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.files import read_limited, write_atomic

SAVE_DELAY_S: Final = 0.2
# Of a world of thousands, saving may take this part of the time: a tenth of a second every five.
SAVE_SHARE: Final = 0.02
SAVED_MAX_BYTES: Final = 256 * 2**20


class FaultKind(StrEnum):
    ERROR = "error"  # refused, nothing was done
    LATE_ERROR = "late-error"  # done, yet the answer is an error (a timeout whose call went through)
    HANG = "hang"  # no answer until the caller gives up; nothing was done
    LATE_HANG = "late-hang"  # done, but no answer until the caller gives up
    CRASH_BEFORE = "crash-before"
    CRASH_AFTER = "crash-after"


@dataclass(frozen=True)
class Fault:
    """`call` is a name like `hypervisor.start`, or `*` for any; `nth` counts calls that match, from 1."""

    kind: FaultKind
    call: str = "*"
    nth: int = 1
    times: int = 1
    error: CorralError | None = None

    def problem(self, call: str) -> CorralError:
        return self.error or CorralError("hypervisor-error", call, "a fault was injected")


@dataclass
class Simulation:
    """What all fakes of one world share. `latency_s` is waited in every call."""

    save_path: Path | None = None
    latency_s: float = 0.0
    trace: list[str] | None = None
    """Names of calls in order, where a test asked for them."""
    faults: list[Fault] = field(default_factory=list)
    connected: bool = True
    crashed: bool = False
    on_call: Callable[[str], None] | None = None
    """Hears of each call before it has an effect."""
    on_crash: Callable[[], None] | None = None
    sections: dict[str, Callable[[], object]] = field(default_factory=dict)
    _counts: dict[int, int] = field(default_factory=dict)
    _saving: asyncio.TimerHandle | None = None
    _save_took_s: float = 0.0

    def inject(self, fault: Fault) -> None:
        self.faults.append(fault)

    def clear(self) -> None:
        """No more faults."""
        self.faults.clear()
        self._counts.clear()

    def revive(self) -> None:
        """A new process over the same world."""
        self.crashed = False

    @asynccontextmanager
    async def call(self, name: str, *, changes: bool = True, connection: bool = False) -> AsyncIterator[None]:
        """Around one call's effect. With `changes` the world is saved afterwards; with `connection` it is refused
        while the hypervisor is away."""
        if self.crashed:
            await self.hang()
        if self.trace is not None:
            self.trace.append(name)
        if self.on_call is not None:
            self.on_call(name)
        fault = self._fault(name) if self.faults else None
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if fault is not None:
            await self._before(fault, name)
        if connection and not self.connected:
            raise CorralError("hypervisor-unavailable", name, "not connected to the hypervisor", "start libvirtd")
        yield
        if changes and self.save_path is not None:
            self.save_soon()
        if fault is not None:
            await self._after(fault, name)

    async def hang(self) -> None:
        """Never return; only the caller's own cancellation ends it."""
        await asyncio.get_running_loop().create_future()

    def crash(self) -> None:
        """`kill -9` of this incarnation."""
        self.crashed = True
        if self.on_crash is not None:
            self.on_crash()

    def _fault(self, name: str) -> Fault | None:
        hit: Fault | None = None
        for index, fault in enumerate(self.faults):
            if fault.call not in ("*", name):
                continue
            self._counts[index] = seen = self._counts.get(index, 0) + 1
            if hit is None and fault.nth <= seen < fault.nth + fault.times:
                hit = fault
        return hit

    async def _before(self, fault: Fault, name: str) -> None:
        if fault.kind is FaultKind.ERROR:
            raise fault.problem(name)
        if fault.kind is FaultKind.HANG:
            await self.hang()
        if fault.kind is FaultKind.CRASH_BEFORE:
            self.crash()
            await self.hang()

    async def _after(self, fault: Fault, name: str) -> None:
        if fault.kind is FaultKind.LATE_ERROR:
            raise fault.problem(name)
        if fault.kind is FaultKind.LATE_HANG:
            await self.hang()
        if fault.kind is FaultKind.CRASH_AFTER:
            self.crash()
            await self.hang()

    # ---- persistence ----

    def restore(self, section: str) -> object | None:
        """What a former process saved under `section`; None without a file."""
        if self.save_path is None or not self.save_path.exists():
            return None
        saved = json.loads(read_limited(self.save_path, SAVED_MAX_BYTES))
        return saved.get(section) if isinstance(saved, dict) else None

    def save_soon(self) -> None:
        """Write the world a moment later, once for many changes."""
        if self._saving is None:
            delay_s = max(SAVE_DELAY_S, self._save_took_s / SAVE_SHARE)
            self._saving = asyncio.get_running_loop().call_later(delay_s, self.save)

    def save(self) -> None:
        """Write the world now."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        if self.save_path is not None:
            began_s = time.thread_time()
            content = json.dumps({name: dump() for name, dump in self.sections.items()})
            write_atomic(self.save_path, content.encode())
            self._save_took_s = time.thread_time() - began_s
