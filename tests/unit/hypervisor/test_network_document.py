"""Whether a network runs as it is wanted, whatever libvirt has added to its document."""

from lxml import etree

from corral.hypervisor.libvirt.network_document import holds, in_use
from corral.hypervisor.libvirt.network_files import dhcp_host_line, parse_dhcp_host
from corral.model.network import Reservation
from corral.names import new_mac, new_uid

WANTED = """<network><name>n</name><bridge name="b" stp="off"/><dns><host ip="10.0.0.2"/></dns>
<ip address="10.0.0.1"><dhcp><range start="10.0.0.2" end="10.0.0.9"/></dhcp></ip></network>"""
LIVE = """<network connections="2"><name>n</name><mac address="52:54:00:00:00:01"/><bridge delay="0" name="b" stp="off"/>
<dns/><ip address="10.0.0.1"><dhcp><range start="10.0.0.2" end="10.0.0.9"><lease expiry="1"/></range></dhcp></ip></network>"""


def test_what_libvirt_adds_and_other_reservations_are_no_difference() -> None:
    assert holds(etree.fromstring(LIVE), etree.fromstring(WANTED))


def test_what_is_missing_or_other_is_a_difference() -> None:
    for old, new in (('stp="off"', 'stp="on"'), ('10.0.0.1"', '10.0.0.3"'), ("<name>n<", "<name>m<")):
        assert not holds(etree.fromstring(LIVE.replace(old, new)), etree.fromstring(WANTED)), old


def test_guests_that_are_plugged_in() -> None:
    assert in_use(etree.fromstring(LIVE))
    assert not in_use(etree.fromstring(WANTED))


def test_an_address_is_given_although_somebody_who_is_gone_has_it_leased() -> None:
    wanted = Reservation(mac=new_mac(), address="10.0.0.2", hostname="web", vm_uid=new_uid())
    line = dhcp_host_line(wanted, ["52:54:00:00:00:09", wanted.mac])
    assert line == f"{wanted.mac},52:54:00:00:00:09,10.0.0.2,web\n"
    assert parse_dhcp_host(line) == parse_dhcp_host(dhcp_host_line(wanted)) == (wanted.mac, "10.0.0.2", "", "web")
    both = wanted.model_copy(update={"address6": "fd00::2"})
    assert parse_dhcp_host(dhcp_host_line(both)) == (wanted.mac, "10.0.0.2", "fd00::2", "web")
