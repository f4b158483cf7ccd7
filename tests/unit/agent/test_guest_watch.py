"""What a guest tells is kept even where the slowest of its answers, cloud-init's, does not come in time."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from corral.agent.guest import BOOTING_POLL_MAX_S, BOOTING_POLLS, FORKED_POLLS, POLL_MAX_S, GuestWatch, _pause_s, _Poll
from corral.agent.status import GuestKnown
from corral.errors import CorralError
from corral.hypervisor.base import GuestFacts
from corral.model.vm import CloudInitSpec, Vm, VmSpec, VmState, VmStatus
from corral.names import new_uid


class SlowGuest:
    """Its agent answers at once, its programs never."""

    async def guest_facts(self, uid: str) -> GuestFacts:
        return GuestFacts(hostname="web", os="Debian", addresses=("192.168.150.7",))

    async def guest_exec(self, uid: str, *_argv: Any, **_options: Any) -> Any:
        raise CorralError("guest-agent-timeout", "run cloud-init in the guest", "it did not end in time")


def test_addresses_are_known_though_cloud_init_is_slow() -> None:
    vm = Vm(
        uid=new_uid(),
        name="web",
        created_at="2026-01-01T00:00:00Z",
        spec=VmSpec(cloud_init=CloudInitSpec(hostname="web", instance_id="i-1")),
        status=VmStatus(state=VmState.RUNNING, agent_connected=True),
    )
    nothing: Any = SimpleNamespace(vms={}, networks={})
    drivers: Any = SimpleNamespace(hypervisor=SlowGuest())
    watch = GuestWatch(nothing, drivers, nothing, nothing, lambda _error: None)
    known = asyncio.run(watch._asked(vm, GuestKnown()))
    assert known == GuestKnown(addresses=("192.168.150.7",), guest_os="Debian")


def test_a_booting_guest_is_asked_often_and_then_seldom() -> None:
    timer: Any = None
    assert _pause_s(_Poll(timer, 0, True)) == 5.0
    assert _pause_s(_Poll(timer, BOOTING_POLLS - 1, True)) == BOOTING_POLL_MAX_S
    assert _pause_s(_Poll(timer, BOOTING_POLLS, True)) == POLL_MAX_S
    assert _pause_s(_Poll(timer, BOOTING_POLLS - 1, False)) == POLL_MAX_S


def test_a_new_fork_is_left_alone_until_its_address_is_known() -> None:
    """Its processor has enough to do: its network's server knows the address, too."""
    now = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)
    clock: Any = SimpleNamespace(now=lambda: now)
    nothing: Any = SimpleNamespace(vms={}, networks={})
    watch = GuestWatch(nothing, nothing, nothing, clock, lambda _error: None)
    timer: Any = None
    fork = Vm(uid=new_uid(), name="f", created_at="2026-01-01T00:00:00Z", spec=VmSpec(template_uid=new_uid()))
    assert watch._is_new_fork(fork, _Poll(timer, 0, True), GuestKnown())
    assert not watch._is_new_fork(fork, _Poll(timer, FORKED_POLLS, True), GuestKnown())
    assert not watch._is_new_fork(fork, _Poll(timer, 1, True), GuestKnown(addresses=("192.168.150.7",)))
    old = fork.model_copy(update={"created_at": datetime(2025, 1, 1, tzinfo=UTC)})
    assert not watch._is_new_fork(old, _Poll(timer, 0, True), GuestKnown())
    booted = fork.model_copy(update={"spec": VmSpec()})
    assert not watch._is_new_fork(booted, _Poll(timer, 0, True), GuestKnown())
