"""Network documents, and what dnsmasq reads, against golden files; CORRAL_UPDATE_GOLDEN=1 writes them anew."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral.hypervisor.libvirt.network_document import build_network
from corral.hypervisor.libvirt.network_files import NetworkFiles, dhcp_host_line, names_text, settings_text
from corral.model.network import Network, NetworkSpec, Reservation
from corral.model.network_parts import DhcpOption, NetworkBoot
from corral.network.dnsmasq import advertised_lines, served_lines

GOLDEN = Path(__file__).parent / "networks"
UID = "0b5e6f0a-53b4-4c6e-9a52-000000000001"
OURS = NetworkSpec(subnet="192.168.150.0/24", domain="corral.internal", bridge="corral0")
BOTH = OURS.model_copy(update={"subnet6": "fd12:3456:789a:1::/64", "ipv6": "dhcp"})


def ours(**update: object) -> NetworkSpec:
    return OURS.model_copy(update=update)


def spec_fields(spec: NetworkSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in ("dns", "dhcp_first", "dhcp_options", "boot")}


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("CORRAL_UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text, "CORRAL_UPDATE_GOLDEN=1 writes the golden files anew"


CASES = {
    "nat": OURS,
    "routed": ours(mode="routed", mtu=9000),
    "isolated": ours(mode="isolated"),
    "behind-router": BOTH.model_copy(update={"mode": "isolated", "gateway_at": "router", "mtu": 1400}),
    "dhcpv6": BOTH,
    "slaac": BOTH.model_copy(update={"ipv6": "slaac", "mode": "routed"}),
    "narrow": ours(dhcp_first="192.168.150.100", dhcp_last="192.168.150.199"),
    "bridge": NetworkSpec(mode="bridge", bridge="br0"),
    "macvtap": NetworkSpec(mode="macvtap", bridge="", nic="eth1"),
}


@pytest.mark.parametrize("own_rules", [True, False], ids=["own", "libvirts"])
@pytest.mark.parametrize("case", CASES)
def test_a_network_of_each_kind(case: str, own_rules: bool) -> None:
    network = Network(name="default", uid=UID, created_at=datetime(2026, 1, 1, tzinfo=UTC), spec=CASES[case])
    options = NetworkFiles(Path("/var/lib/corral/reservations"), UID).dnsmasq_options()
    text = build_network(network, "corral-abcdef-default", options, own_rules=own_rules)
    compare(f"{case}{'' if own_rules else '-libvirts-rules'}.xml", text)


def test_what_dnsmasq_reads() -> None:
    spec = ours(
        dns=("9.9.9.9", "2620:fe::fe"),
        dhcp_first="192.168.150.100",
        dhcp_options=(DhcpOption(code=42, value="192.168.150.5"), DhcpOption(code=119, value="a.internal,b.internal")),
        boot=NetworkBoot(file="pxelinux.0"),
    )
    kept = Reservation(
        mac="52:54:00:00:00:01", address="192.168.150.10", address6="fd00::a", hostname="web", vm_uid=UID
    )
    behind = BOTH.model_copy(update={**spec_fields(spec), "mode": "isolated", "gateway_at": "router", "mtu": 1400})
    passing_on = behind.model_copy(update={"dhcp_relay": "10.0.0.9", "dns": (), "ipv6": "slaac"})
    texts = (served_lines(behind, "10.0.0.1"), served_lines(passing_on, "10.0.0.1"), advertised_lines(BOTH))
    compare("dnsmasq-of-routers.txt", "---\n".join("".join(f"{line}\n" for line in lines) for lines in texts))
    compare("dnsmasq.txt", f"{settings_text(spec)}---\n{dhcp_host_line(kept)}---\n{names_text(kept)}")
    assert settings_text(OURS) == ""
