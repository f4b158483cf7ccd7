"""What a running domain waits for its next start with, told from its two documents."""

import pytest
from lxml.etree import _Element, fromstring

from corral.hypervisor.libvirt.pending import pending


def document(genid: str = "<genid>1</genid>", vcpus: str = "<vcpu>1</vcpu>", rest: str = "") -> _Element:
    return fromstring(f"<domain>{genid}<memory unit='MiB'>64</memory>{vcpus}{rest}<devices/></domain>")


def test_a_new_generation_id_is_no_change_and_a_missing_one_is() -> None:
    """A guest that was saved and goes on has another id than its definition."""
    assert pending(document("<genid>2</genid>"), document("<genid>1</genid>"), {}) == ()
    assert len(pending(document(""), document(), {})) == 1
    assert len(pending(document(), document(""), {})) == 1


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        (document(), document(vcpus="<vcpu>2</vcpu>")),
        (document(), document(rest="<clock offset='localtime'/>")),
        (document(rest="<cpu><model>EPYC</model></cpu>"), document(rest="<cpu><model>Nehalem</model></cpu>")),
    ],
)
def test_a_difference_is_told(live: _Element, wanted: _Element) -> None:
    assert len(pending(live, wanted, {})) == 1
    assert pending(wanted, wanted, {}) == ()


def test_what_libvirt_turned_off_at_the_start_is_no_difference() -> None:
    off = "<cpu><model>EPYC</model><feature policy='disable' name='monitor'/></cpu>"
    assert pending(document(rest=off), document(rest="<cpu><model>EPYC</model></cpu>"), {}) == ()
