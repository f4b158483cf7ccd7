"""The truth table is whole, and says what the documentation promises."""

import itertools

import pytest

from corral.model.power import TABLE, Stopped, Then, decide
from corral.model.vm import RunPolicy


def test_every_combination_has_an_answer():
    assert set(TABLE) == set(itertools.product(RunPolicy, (False, True)))
    assert all(set(row) == set(Stopped) for row in TABLE.values())


@pytest.mark.parametrize("autostart", [False, True])
def test_a_guest_that_powers_itself_off_stays_off_unless_always(autostart):
    for policy in RunPolicy:
        expected = Then.RESTART if policy is RunPolicy.ALWAYS else Then.STAY_OFF
        assert decide(policy, autostart, Stopped.BY_GUEST) is expected
        assert decide(policy, autostart, Stopped.BY_VIRSH) is expected


@pytest.mark.parametrize("autostart", [False, True])
def test_a_killed_qemu_comes_back_unless_manual(autostart):
    for policy in RunPolicy:
        expected = Then.STAY_OFF if policy is RunPolicy.MANUAL else Then.RESTART
        assert decide(policy, autostart, Stopped.QEMU_KILLED) is expected


@pytest.mark.parametrize("autostart", [False, True])
def test_a_domain_that_is_gone_was_not_powered_off(autostart):
    for policy in RunPolicy:
        expected = Then.STAY_OFF if policy is RunPolicy.MANUAL else Then.RESTART
        assert decide(policy, autostart, Stopped.GONE) is expected


def test_after_a_host_reboot_autostart_or_always_boot_in_order():
    for policy in RunPolicy:
        assert decide(policy, True, Stopped.HOST_REBOOTED) is Then.BOOT
        assert decide(policy, False, Stopped.HOST_REBOOTED) is (
            Then.BOOT if policy is RunPolicy.ALWAYS else Then.STAY_OFF
        )


def test_an_unknown_cause_brings_back_only_what_its_owner_wants_up():
    assert decide(RunPolicy.ON_FAILURE, True, Stopped.UNKNOWN) is Then.RESTART
    assert decide(RunPolicy.ON_FAILURE, False, Stopped.UNKNOWN) is Then.STAY_OFF
    assert decide(RunPolicy.ALWAYS, False, Stopped.UNKNOWN) is Then.RESTART
    assert decide(RunPolicy.MANUAL, True, Stopped.UNKNOWN) is Then.STAY_OFF
