"""A bridge over a host's card, in the words of each program that may configure it; CORRAL_UPDATE_GOLDEN=1 writes them anew."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from corral.errors import CorralError
from corral.host.bridging.choose import managers_of, plan_bridge
from corral.host.bridging.plan import Facts, Identity, NicFacts, Plan, TextFile
from corral.host.bridging.sections import read_sections

GOLDEN = Path(__file__).parent / "host_bridges"
NIC = NicFacts("eth0", "52:54:00:01:02:03", addresses=("10.0.0.5/24",), default_route=True, index=2)
BARE = Facts(NIC, frozenset({"lo", "eth0", "eth1"}))


def interfaces(text: str, path: str = "/etc/network/interfaces") -> Facts:
    return replace(BARE, ifupdown=(TextFile(path, text),))


def netplan(text: str, path: str = "/etc/netplan/50-cloud-init.yaml") -> Facts:
    return replace(BARE, netplan=(TextFile(path, text, 0o600),))


def networkd(text: str, *drop_ins: str, path: str = "/etc/systemd/network/20-wired.network") -> Facts:
    more = (TextFile(f"{path}.d/{number}.conf", drop_in) for number, drop_in in enumerate(drop_ins))
    return replace(BARE, networkd=(TextFile(path, text), *more))


def network_manager(text: str) -> Facts:
    path = "/etc/NetworkManager/system-connections/wired.nmconnection"
    return replace(BARE, network_manager=TextFile(path, text, 0o600))


KEYFILE = """\
[connection]
id=Wired connection 1
uuid=8b5e4a0c-2f5e-4d5c-9a52-1f7c7cf1f001
type=ethernet
interface-name=eth0

[ethernet]
mtu=1400

[ipv4]
method=manual
address1=10.0.0.5/24,10.0.0.1
dns=10.0.0.2;

[ipv6]
method=auto
"""

CASES = {
    "ifupdown-dhcp": interfaces("auto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet dhcp\n"),
    "ifupdown-static": interfaces(
        "auto lo eth0\niface lo inet loopback\n\n# the office\niface eth0 inet static\n\taddress 10.0.0.5/24\n"
        "\tgateway 10.0.0.1\n\tmtu 1400\n\tup ip route add 10.9.0.0/16 \\\n\t  via 10.0.0.9 dev $IFACE\n\n"
        "iface eth0 inet6 static\n\taddress fd00::5/64\n\nauto eth1\niface eth1 inet manual\n"
    ),
    "ifupdown-cloud": replace(
        interfaces("auto eth0\niface eth0 inet dhcp\n", "/etc/network/interfaces.d/50-cloud-init"), cloud_init=True
    ),
    "networkd": networkd(
        "[Match]\nName=en* eth*\n\n[Link]\nMTUBytes=1400\n\n[Network]\nAddress=10.0.0.5/24\nGateway=10.0.0.1\n"
        "DNS=10.0.0.2\nDNS=10.0.0.3\n\n[Route]\nDestination=10.9.0.0/16\nGateway=10.0.0.9\n",
        "[Network]\nDomains=example.org\n",
    ),
    "networkd-dhcp": networkd("[Match]\nName=eth0\n[Network]\nDHCP=yes\n[DHCPv4]\nUseDNS=no\n"),
    "netplan-dhcp": replace(
        netplan(
            "# by cloud-init\nnetwork:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n"
            '      match: {macaddress: "52:54:00:01:02:03"}\n      set-name: eth0\n'
        ),
        cloud_init=True,
    ),
    "netplan-static": netplan(
        "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    lan:\n      match: {name: eth0}\n      mtu: 1400\n"
        "      addresses: [10.0.0.5/24]\n      routes: [{to: default, via: 10.0.0.1}]\n"
        "      nameservers: {addresses: [10.0.0.2]}\n    eth1: {dhcp4: true}\n",
        "/etc/netplan/01-lan.yaml",
    ),
    "network-manager": network_manager(KEYFILE),
    "networkd-known": replace(
        networkd("[Match]\nName=eth0\n[Network]\nDHCP=yes\n[DHCPv6]\nIAID=7\n"), identity=Identity("0x2b506735", "0x7")
    ),
    "netplan-known": replace(
        netplan("network: {ethernets: {eth0: {dhcp4: true}}}\n"),
        networkd=(TextFile("/run/systemd/network/10-netplan-eth0.network", "[Network]\nDHCP=ipv4\n"),),
        identity=Identity("0x2b506735"),
    ),
    "netplan-network-manager": replace(
        netplan(
            "network: {renderer: NetworkManager, ethernets: {eth0: {dhcp4: true, dhcp4-overrides: {route-metric: 7}}}}\n"
        ),
        network_manager=TextFile("/run/NetworkManager/system-connections/netplan-eth0.nmconnection", ""),
        identity=Identity(iaid_v6="2b:50:67:35", route_metric="100"),
    ),
    "network-manager-known": replace(
        network_manager(KEYFILE.replace("method=auto", "method=auto\naddr-gen-mode=stable-privacy\nroute-metric=50")),
        identity=Identity(iaid_v6="2b:50:67:35", route_metric="100"),
    ),
}


def rendered(plan: Plan) -> Iterator[str]:
    yield f"manager: {plan.manager.value}"
    yield from (f"note: {note}" for note in plan.notes)
    for change in plan.files:
        yield f"==== {change.path} {change.mode:o}{' (new)' if change.before is None else ''}"
        yield (change.after or "").rstrip("\n")
    for phase in ("before", "after", "undo_before", "undo_after"):
        for command in getattr(plan, phase):
            yield f"{phase}: {' '.join(command.argv)}{'' if command.needed else '  (may fail)'}"


@pytest.mark.parametrize("name", CASES)
def test_plan(name: str) -> None:
    plan = plan_bridge(CASES[name], "br0")
    text = "\n".join(rendered(plan)) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("CORRAL_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, "CORRAL_UPDATE_GOLDEN=1 writes the golden files anew"
    for change in plan.files:
        if change.path.endswith(".yaml"):
            yaml.safe_load(change.after or "")
        elif not change.path.startswith(("/etc/network", "/etc/cloud")):
            assert read_sections(change.after or "")
    # What was made by a plan is not planned over once more.
    assert all(change.before != change.after for change in plan.files)


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


DHCP = "auto eth0\niface eth0 inet dhcp\n"

REFUSED = {
    "nobody configures it": BARE,
    "two do": replace(interfaces(DHCP), networkd=(TextFile("/etc/systemd/network/20-a.network", "[Network]\n"),)),
    "wireless": replace(interfaces(DHCP), nic=replace(NIC, wireless=True)),
    "no Ethernet": replace(interfaces(DHCP), nic=replace(NIC, ethernet=False)),
    "part of a bond": replace(interfaces(DHCP), nic=replace(NIC, master="bond0")),
    "a bridge": replace(interfaces(DHCP), nic=replace(NIC, virtual="bridge")),
    "a VLAN on it": interfaces(DHCP + "iface eth0.5 inet dhcp\n"),
    "an alias": interfaces(DHCP + "iface eth0:1 inet static\n address 10.0.0.6/24\n"),
    "in another's bridge": interfaces(DHCP + "iface br7 inet dhcp\n bridge_ports eth0\n"),
    "the bridge is there": interfaces(DHCP + "iface br0 inet dhcp\n"),
    "named in a command": interfaces(DHCP + "  up ethtool -K eth0 tso off\n"),
    "wpa": interfaces("iface eth0 inet dhcp\n wpa-ssid home\n"),
    "a method": interfaces("iface eth0 inet ppp\n"),
    "a mapping": interfaces(DHCP + "mapping eth0\n script /x\n"),
    "networkd: part of a bond": networkd("[Match]\nName=eth0\n[Network]\nBond=bond0\n"),
    "networkd: a VLAN": networkd("[Match]\nName=eth0\n[Network]\nDHCP=yes\nVLAN=v5\n"),
    "networkd: read before": networkd("[Network]\nDHCP=yes\n", path="/etc/systemd/network/00-a.network"),
    "netplan: a VLAN": netplan("network:\n  ethernets: {eth0: {dhcp4: true}}\n  vlans: {v5: {id: 5, link: eth0}}\n"),
    "netplan: a drop-in": replace(
        netplan("network: {ethernets: {eth0: {dhcp4: true}}}\n"),
        networkd=tuple(
            TextFile(f"/etc/systemd/network/{name}", "[Network]\n") for name in ("a.network", "a.network.d/b.conf")
        ),
    ),
    "netplan: a bridge": netplan("network:\n  ethernets: {eth0: {}}\n  bridges: {br0: {interfaces: [eth1]}}\n"),
    "netplan: twice": replace(
        BARE,
        netplan=tuple(
            TextFile(f"/etc/netplan/{number}.yaml", "network: {ethernets: {eth0: {dhcp4: true}}}\n") for number in "12"
        ),
    ),
    "NetworkManager: 802.1X": network_manager(KEYFILE + "[802-1x]\neap=tls\n"),
    "NetworkManager: a port": network_manager(KEYFILE.replace("type=ethernet", "type=ethernet\nmaster=br9")),
    "NetworkManager: no card": network_manager(KEYFILE.replace("type=ethernet", "type=wireguard")),
}


SAID = {
    "nobody configures it": "neither netplan",
    "two do": "both configure eth0",
    "wireless": "it is wireless",
    "no Ethernet": "no Ethernet card",
    "part of a bond": "part of bond0",
    "a bridge": "it is a bridge itself",
    "a VLAN on it": "puts eth0.5 on",
    "an alias": "puts eth0:1 on",
    "in another's bridge": "names eth0: bridge_ports",
    "the bridge is there": "configures br0 already",
    "named in a command": "names eth0: up ethtool",
    "wpa": ":2: eth0 is wireless",
    "a method": "a method that is not known",
    "a mapping": "has a mapping for eth0",
    "networkd: part of a bond": "has Bond= on",
    "networkd: a VLAN": "has VLAN= on",
    "networkd: read before": "is read before",
    "netplan: a VLAN": "puts v5 (vlans) on",
    "netplan: a drop-in": "a.network.d/b.conf adds to what netplan says",
    "netplan: a bridge": "has br0 already",
    "netplan: twice": "both have eth0",
    "NetworkManager: 802.1X": "logs in by 802.1X",
    "NetworkManager: a port": "part of something",
    "NetworkManager: no card": "of type wireguard",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_a_person_can_decide_is_refused_with_instructions(name: str) -> None:
    with pytest.raises(CorralError) as found:
        plan_bridge(REFUSED[name], "br0")
    assert found.value.code == "unsupported"
    assert SAID[name] in found.value.reason
    assert found.value.hint


def test_a_name_that_is_taken() -> None:
    with pytest.raises(CorralError) as found:
        plan_bridge(CASES["networkd"], "eth1")
    assert found.value.code == "name-taken"


def test_netplan_speaks_for_those_it_writes_for() -> None:
    facts = replace(CASES["netplan-dhcp"], networkd=(TextFile("/run/systemd/network/10-netplan-eth0.network", ""),))
    assert [manager.value for manager in managers_of(facts)] == ["netplan"]


@pytest.mark.parametrize(
    "text", ["", "{", "network: [", "network: {ethernets: 5}", "- a\n- b\n", "network: {ethernets: {eth0: null}}"]
)
def test_netplans_files_may_say_anything(text: str) -> None:
    managers_of(netplan(text))
