"""Templates and forks of simulated domains: what is frozen is a name, what goes on from it a domain that was never booted."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.base import Accelerator, DomainDefinition
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
        self.rested: list[str] = []
        self.scripts: dict[str, str] = {}
        self.plugged: set[str] = set()
        self.held: set[str] = set()

    async def key(self, accelerator: Accelerator) -> str:
        async with self._call("fork_key"):
            return f"{self.current_key}-{accelerator}"

    async def freeze(self, freeze: Freeze) -> Frozen:
        async with self._call("freeze"):
            return Frozen(512 << 20, 64 << 20, f"digest-of-{freeze.uid}", f"{self.current_key}-tcg", self.has_agent)

    async def rest(self, template: Template) -> None:
        async with self._call("rest_template"):
            self.rested.append(template.uid)

    async def discard(self, template: Template) -> None:
        async with self._call("discard_template"):
            pass

    async def fork(self, fork: Fork, *, held: bool = False) -> None:
        async with self._call("fork"):
            definition = fork.definition
            domain = self._domains.get(definition.uid)
            if domain is not None and domain.persistent:
                return
            if domain is None or not domain.active:
                domain = self._made(fork)
            # Its name stays until it is off.
            domain.take(replace(definition, name=domain.name))
            domain.boot()
            domain.state, domain.reason, domain.introduced = VmState.RUNNING, "unpaused", False
            domain.waiting, domain.agent_connected, domain.starts = False, self.has_agent, 1
            if held:
                self.held.add(domain.uid)
            self.loads[domain.uid] = self.loads.get(domain.uid, 0) + 1
            self._changed(domain, "resumed")

    async def prepare(self, fork: Fork) -> None:
        async with self._call("prepare"):
            if fork.definition.uid in self._domains:
                return
            domain = self._made(fork)
            domain.metadata, domain.persistent, domain.waiting = fork.definition.metadata, False, True
            self._changed(domain, "started")

    def _made(self, fork: Fork) -> FakeDomain:
        """Paused, with nothing loaded."""
        definition = fork.definition
        if definition.name in self._names:
            raise CorralError("domain-name-taken", f"fork {definition.name}", "another domain has this name")
        if fork.template.digest != f"digest-of-{fork.template.uid}":
            raise CorralError("template-damaged", f"fork {definition.name}", "it is not what was frozen")
        domain = FakeDomain(definition.uid, definition.name, definition.vcpus, definition.memory_mib, None)
        domain.state, domain.reason = VmState.PAUSED, "starting up"
        domain.live_disks, domain.pid = definition.disks, FIRST_PID + len(self._domains)
        self._domains[domain.uid], self._names[domain.name] = domain, domain.uid
        return domain

    async def plug_cards(self, fork: Fork) -> None:
        async with self._call("plug_cards"):
            uid = fork.definition.uid
            domain = self._domains.get(uid)
            if domain is None or not domain.active:
                raise CorralError("domain-not-found", f"plug the cards of {uid}", "it has ended")
            self.plugged.add(uid)

    async def introduce(self, fork: Fork, script: str, patience_s: float) -> bool:
        async with self._call("introduce"):
            uid = fork.definition.uid
            domain = self._domains.get(uid)
            if domain is None or not domain.active:
                raise CorralError("domain-not-found", f"introduce {uid}", "it has ended")
            if not domain.introduced:
                assert uid in self.plugged, "a guest without cards cannot be told their addresses"
                self.scripts[uid] = script
                self.held.discard(uid)
            return self.has_agent

    async def connect(self, definition: DomainDefinition) -> None:
        async with self._call("connect"):
            domain = self._domains.get(definition.uid)
            if domain is None or not domain.active:
                raise CorralError("domain-not-found", f"connect {definition.name}", "it has ended")
            if not domain.introduced:
                domain.introduced, domain.live_spec_json = True, definition.metadata.spec_json
                self._changed(domain, "resumed")

    async def memory_shares(self, uids: Sequence[str]) -> tuple[MemoryShare, ...]:
        async with self._call("memory_shares"):
            found = [domain for uid in uids if (domain := self._domains.get(uid)) is not None and domain.active]
            return tuple(MemoryShare(d.uid, d.memory_mib << 20, 40 << 20, 48 << 20) for d in found)
