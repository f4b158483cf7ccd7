"""The capability matrix: symmetric, with a reason for each refusal."""

import itertools

import pytest

from corral.errors import CorralError
from corral.hypervisor.capabilities import MATRIX, Ability, check_together, refusal


def test_the_order_of_abilities_does_not_matter() -> None:
    for pair, reason in MATRIX.items():
        assert len(pair) == 2
        assert reason
        for order in itertools.permutations(pair):
            assert refusal(*order) == reason
            assert refusal(*order, *(other for other in Ability if other not in pair)) != ""


def test_what_is_not_in_it_works() -> None:
    assert refusal() == ""
    assert refusal(Ability.SATA_DISK) == ""
    assert refusal(Ability.SATA_DISK, Ability.RENAME) == ""
    check_together("do it", "", Ability.SATA_DISK, Ability.RENAME)


def test_a_refusal_is_coded_and_says_what_to_do() -> None:
    with pytest.raises(CorralError) as refused:
        check_together("create VM 'web'", "take virtio", Ability.SATA_DISK, Ability.READ_ONLY_DISK)
    assert (refused.value.code, refused.value.hint) == ("unsupported", "take virtio")
