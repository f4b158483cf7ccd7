"""Whether a network runs as it is wanted, whatever libvirt has added to its document."""

from lxml import etree

from corral.hypervisor.libvirt.network_document import holds, in_use

WANTED = """<network><name>n</name><bridge name="b" stp="off"/><dns><host ip="10.0.0.2"/></dns>
<ip address="10.0.0.1"><dhcp><range start="10.0.0.2" end="10.0.0.9"/></dhcp></ip></network>"""
LIVE = """<network connections="2"><name>n</name><mac address="52:54:00:00:00:01"/><bridge delay="0" name="b" stp="off"/>
<dns/><ip address="10.0.0.1"><dhcp><range start="10.0.0.2" end="10.0.0.9"><lease expiry="1"/></range></dhcp></ip></network>"""


def test_what_libvirt_adds_and_other_reservations_are_no_difference() -> None:
    assert holds(etree.fromstring(LIVE), etree.fromstring(WANTED))


def test_what_is_missing_or_other_is_a_difference() -> None:
    for old, new in (('stp="off"', 'stp="on"'), ("10.0.0.9", "10.0.0.8"), ("<name>n<", "<name>m<"), ("<dns/>", "")):
        assert not holds(etree.fromstring(LIVE.replace(old, new)), etree.fromstring(WANTED)), old


def test_guests_that_are_plugged_in() -> None:
    assert in_use(etree.fromstring(LIVE))
    assert not in_use(etree.fromstring(WANTED))
