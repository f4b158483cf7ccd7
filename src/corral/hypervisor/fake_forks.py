"""Templates and forks of simulated domains: what is frozen is a name, what goes on from it a domain that was never booted."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.base import Accelerator
from corral.hypervisor.fake_domain import FakeDomain
from corral.hypervisor.forking import Fork, Freeze, Frozen, MemoryShare, Template
from corral.model.vm import VmState

KEY: Final = "fake-1"
FIRST_PID: Final = 100_000


class FakeForking:
    """The contract. `loads` counts how often a domain's memory was loaded, by uid."""

    def __init__(
        self,
        call: Callable[[str], AbstractAsyncContextManager[None]],
        domains: dict[str, FakeDomain],
        names: dict[str, str],
        changed: Callable[[FakeDomain, str], None],
    ) -> None:
        self._call, self._domains, self._names, self._changed = call, domains, names, changed
        self.current_key = KEY
        self.has_agent = True
        self.loads: dict[str, int] = {}
        self.scripts: dict[str, str] = {}

    async def key(self, accelerator: Accelerator) -> str:
        async with self._call("fork_key"):
            return f"{self.current_key}-{accelerator}"

    async def freeze(self, freeze: Freeze) -> Frozen:
        async with self._call("freeze"):
            return Frozen(512 << 20, 64 << 20, f"digest-of-{freeze.uid}", f"{self.current_key}-tcg", self.has_agent)

    async def discard(self, template: Template) -> None:
        async with self._call("discard_template"):
            pass

    async def fork(self, fork: Fork) -> None:
        async with self._call("fork"):
            definition = fork.definition
            if definition.uid in self._domains:
                return
            if definition.name in self._names:
                raise CorralError("domain-name-taken", f"fork {definition.name}", "another domain has this name")
            if fork.template.digest != f"digest-of-{fork.template.uid}":
                raise CorralError("template-damaged", f"fork {definition.name}", "it is not what was frozen")
            domain = FakeDomain(definition.uid, definition.name, definition.vcpus, definition.memory_mib, None)
            domain.take(definition)
            domain.boot()
            domain.state, domain.reason, domain.introduced = VmState.PAUSED, "user", False
            domain.pid, domain.agent_connected, domain.starts = FIRST_PID + len(self._domains), self.has_agent, 1
            self._domains[domain.uid], self._names[domain.name] = domain, domain.uid
            self.loads[domain.uid] = self.loads.get(domain.uid, 0) + 1
            self._changed(domain, "started")

    async def introduce(self, uid: str, script: str, patience_s: float) -> bool:
        async with self._call("introduce"):
            domain = self._domains.get(uid)
            if domain is None or not domain.active:
                raise CorralError("domain-not-found", f"introduce {uid}", "it has ended")
            if not domain.introduced:
                self.scripts[uid] = script
                domain.state, domain.reason, domain.introduced = VmState.RUNNING, "unpaused", True
                self._changed(domain, "resumed")
            return self.has_agent

    async def memory_shares(self, uids: Sequence[str]) -> tuple[MemoryShare, ...]:
        async with self._call("memory_shares"):
            found = [domain for uid in uids if (domain := self._domains.get(uid)) is not None and domain.active]
            return tuple(MemoryShare(d.uid, d.memory_mib << 20, 40 << 20, 48 << 20) for d in found)
