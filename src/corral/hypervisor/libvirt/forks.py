"""Templates and forks on libvirt: the ability's verbs, each of which may be repeated."""

import asyncio
import base64
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import libvirt
from pydantic import Field

from corral.errors import CorralError
from corral.hypervisor.base import Accelerator, DomainDefinition
from corral.hypervisor.forking import Fork, Freeze, Frozen, MemoryShare, Template
from corral.hypervisor.libvirt import confinement, fork_freeze, fork_memory, fork_start, holder
from corral.hypervisor.libvirt.guest_agent import Answer, Ask, tell
from corral.hypervisor.libvirt.host import Host

T = TypeVar("T")

# Restoring and copying a guest's memory takes as long as a save: minutes for a large one on a slow disk.
FREEZE_TIMEOUT_S: Final = 900.0
FORK_TIMEOUT_S: Final = 120.0
# The passing guest's agent answers at once, where it has one, and its script takes some seconds under emulation.
AGENT_PATIENCE_S: Final = 15.0
PREPARE_TIMEOUT_S: Final = 120.0
# Half a second, and two under emulation; a busy host takes its time, and a guest that is not told is a double.
SCRIPT_TIMEOUT_S: Final = 300.0
LOOK_S: Final = 0.03
LOOK_MAX_S: Final = 0.15


class OnDomain(Protocol):
    def __call__(
        self, uid: str, verb: str, act: Callable[[libvirt.virDomain], T], timeout_s: float | None = None
    ) -> Awaitable[T]: ...


class OnConnection(Protocol):
    def __call__(
        self, asked: str, function: Callable[[libvirt.virConnect], T], timeout_s: float | None = None
    ) -> Awaitable[T]: ...


class _Pid(Answer):
    pid: int


class _Ended(Answer):
    exited: bool
    exit_code: int | None = Field(default=None, alias="exitcode")


class LibvirtForking:
    """`Forking` over libvirt, on the driver's own connection."""

    def __init__(
        self,
        host: Host,
        call: OnConnection,
        on: OnDomain,
        agent: Callable[[str], Ask],
        changed: Callable[[str], None],
    ) -> None:
        self._host = host
        self._changed = changed
        self._call = call
        self._on = on
        self._agent = agent
        self._keys: dict[Accelerator, str] = {}
        self._lending: Counter[str] = Counter()
        self._resting: dict[str, asyncio.Future[None]] = {}

    async def key(self, accelerator: Accelerator) -> str:
        if accelerator not in self._keys:
            versions = await self._call(
                "ask for versions", lambda handle: (handle.getLibVersion(), handle.getVersion())
            )
            self._keys[accelerator] = await asyncio.to_thread(_key, versions, accelerator)
        return self._keys[accelerator]

    def forget_key(self) -> None:
        """The connection is another: libvirt and QEMU may be too."""
        self._keys.clear()

    # ---- templates -------------------------------------------------------------------------------------------------

    async def freeze(self, freeze: Freeze) -> Frozen:
        asked = "freeze a guest"
        await self._call(asked, lambda handle: fork_freeze.start_maker(handle, freeze, self._host), FREEZE_TIMEOUT_S)
        try:
            agent = await self._prepared(freeze.uid, freeze.script)
            await self._on(freeze.uid, "unplug what is one machine's of", fork_freeze.unplug, FREEZE_TIMEOUT_S)
            found = await self._on(
                freeze.uid, "keep", lambda domain: fork_freeze.keep(domain, freeze.directory), FREEZE_TIMEOUT_S
            )
        finally:
            await self._call(asked, lambda handle: fork_freeze.destroy_maker(handle, freeze.uid))
        await asyncio.to_thread(fork_freeze.give_back, freeze.disks, self._host)
        await asyncio.to_thread(shutil.rmtree, freeze.run_dir / "maker", True)
        document = fork_start.read_document(freeze.directory / fork_start.DOCUMENT)
        accelerator: Accelerator = "kvm" if document.get("type") == "kvm" else "tcg"
        memory_bytes, digest, stored = found
        return Frozen(memory_bytes, stored, digest, await self.key(accelerator), agent)

    async def _prepared(self, uid: str, script: str) -> bool:
        """Whether the passing guest's agent answers; then it is made ready, as far as it can be."""
        answers = False
        try:
            async with asyncio.timeout(AGENT_PATIENCE_S):
                await tell(self._agent(uid), "guest-ping", Answer)
            answers = True
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                await self._run_script(uid, script)
        except TimeoutError:
            pass
        except CorralError as error:
            if not error.code.startswith("guest-agent-"):
                raise
        return answers

    async def rest(self, template: Template) -> None:
        """Not while it is lent; who comes meanwhile waits until nobody holds it, and has it held again."""
        if self._lending[template.uid]:
            return
        resting = asyncio.ensure_future(asyncio.to_thread(holder.release, template.run_dir))
        self._resting[template.uid] = resting
        try:
            await asyncio.shield(resting)
        finally:
            self._resting.pop(template.uid, None)

    @asynccontextmanager
    async def _lent(self, template: Template) -> AsyncIterator[None]:
        if (resting := self._resting.get(template.uid)) is not None:
            await asyncio.wait([resting])
        self._lending[template.uid] += 1
        try:
            yield
        finally:
            self._lending[template.uid] -= 1

    async def discard(self, template: Template) -> None:
        await self._call("remove a template", lambda handle: fork_freeze.destroy_maker(handle, template.uid))
        await asyncio.to_thread(holder.release, template.run_dir)
        for directory in (template.run_dir, template.directory):
            await asyncio.to_thread(shutil.rmtree, directory, True)

    # ---- forks -----------------------------------------------------------------------------------------------------

    async def fork(self, fork: Fork, *, held: bool = False) -> None:
        definition = fork.definition
        await asyncio.to_thread(confinement.give_files, definition, self._host)
        asked = f"fork {definition.name}"
        async with self._lent(fork.template):
            await self._call(
                asked, lambda handle: fork_start.start_fork(handle, fork, self._host, held=held), FORK_TIMEOUT_S
            )

    async def prepare(self, fork: Fork) -> None:
        definition = fork.definition
        await asyncio.to_thread(confinement.give_files, definition, self._host)
        asked = f"prepare {definition.name}"
        async with self._lent(fork.template):
            await self._call(asked, lambda handle: fork_start.prepare_fork(handle, fork, self._host), FORK_TIMEOUT_S)

    async def plug_cards(self, fork: Fork) -> None:
        uid = fork.definition.uid
        await self._on(uid, "plug the cards of", lambda domain: fork_start.plug_cards(domain, fork))

    async def introduce(self, fork: Fork, script: str, patience_s: float) -> bool:
        uid = fork.definition.uid
        if not await self._on(uid, "introduce", lambda domain: fork_start.let_go(domain, fork)):
            return True
        told = False
        try:
            async with asyncio.timeout(SCRIPT_TIMEOUT_S):
                if patience_s:
                    await self._told(uid, script, patience_s)
                    told = True
        except TimeoutError:
            pass
        except CorralError as error:
            if not error.code.startswith("guest-agent-"):
                raise
        return told

    async def connect(self, definition: DomainDefinition) -> None:
        await self._on(definition.uid, "connect", lambda domain: fork_start.connect(domain, definition))
        self._changed(definition.uid)

    async def _told(self, uid: str, script: str, patience_s: float) -> None:
        """The agent is not connected at the first instant, and slow on a busy host: the script may be run again, and knows
        that it was."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while True:
            try:
                await self._run_script(uid, script)
                return
            except CorralError as error:
                late = error.code in ("guest-agent-unavailable", "guest-agent-timeout")
                if not late or loop.time() >= deadline:
                    raise
                await asyncio.sleep(LOOK_S)

    async def _run_script(self, uid: str, script: str) -> None:
        """By the guest's shell; `guest-agent-error` if it ends badly."""
        ask = self._agent(uid)
        arguments: dict[str, Any] = {
            "path": "/bin/sh",
            "arg": ["-s"],
            "input-data": base64.b64encode(script.encode()).decode(),
            "capture-output": False,
        }
        pid = (await tell(ask, "guest-exec", _Pid, arguments)).pid
        status, pause_s, late = _Ended(exited=False), LOOK_S, None
        while not status.exited:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LOOK_MAX_S)  # of fifty guests, each is asked in its turn
            try:
                status = await tell(ask, "guest-exec-status", _Ended, {"pid": pid})
            except CorralError as error:
                # It is busy with the script: whoever calls bounds the time. That it ended is told once, and may be what was late.
                if error.code != "guest-agent-timeout":
                    raise late or error from error
                late = error
        if status.exit_code != 0:
            reason = f"the script that was run there ended with status {status.exit_code}"
            raise CorralError("guest-agent-error", "prepare the guest", reason)

    async def memory_shares(self, uids: Sequence[str]) -> tuple[MemoryShare, ...]:
        pids = await self._call("read memory", lambda handle: _pids(handle, frozenset(uids)))
        found = [await asyncio.to_thread(fork_memory.read_share, uid, pid) for uid, pid in pids]
        return tuple(share for share in found if share is not None)


def _pids(handle: libvirt.virConnect, wanted: frozenset[str]) -> list[tuple[str, int]]:
    active = handle.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    known = [(domain.UUIDString(), fork_memory.pid_of(domain.name())) for domain in active]
    return [(uid, pid) for uid, pid in known if pid is not None and uid in wanted]


def _key(versions: tuple[int, int], accelerator: Accelerator) -> str:
    """Emulated processors are QEMU's own; under KVM a guest sees the host's."""
    parts: dict[str, Any] = {"libvirt": versions[0], "qemu": versions[1], "accelerator": accelerator}
    if accelerator == "kvm":
        parts["cpu"] = _host_cpu()
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _host_cpu() -> list[str]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    wanted = ("model name", "flags", "microcode")
    first = text.split("\n\n", 1)[0].splitlines()
    return [line for line in first if line.startswith(wanted)] + [os.uname().machine]
