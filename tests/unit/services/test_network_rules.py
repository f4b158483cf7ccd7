"""What a network may be: overlapping, tiny, huge and malformed wishes are refused, coded, with what is in the way."""

from typing import Any

import pytest
from pydantic import ValidationError

from corral.errors import CorralError
from corral.model.network import NetworkSpec
from corral.model.network_parts import DhcpOption, NetworkBoot, StaticReservation
from corral.model.network_requests import CreateNetworkRequest
from corral.network.base import HostCard
from corral.services.network_rules import check_card, mode_of, settled

MAC = "52:54:00:00:00:01"
OURS = NetworkSpec(subnet="10.20.0.0/24", domain="lab.internal", bridge="crl00000001")
CARDS = (HostCard("eth0", ("192.0.2.2/24",)), HostCard("eth1"), HostCard("eth2", (), "br0"))


def kept(name: str = "printer", mac: str = MAC, address: str = "10.20.0.9") -> StaticReservation:
    return StaticReservation(name=name, mac=mac, address=address)


def refused(spec: NetworkSpec) -> CorralError:
    with pytest.raises(CorralError) as error:
        settled(spec, "change network 'lab'")
    return error.value


@pytest.mark.parametrize(
    ("update", "code", "said"),
    [
        ({"dhcp_first": "10.21.0.9"}, "invalid-argument", "10.20.0.2 to 10.20.0.254"),
        ({"dhcp_last": "10.20.0.255"}, "invalid-argument", "10.20.0.254"),
        ({"dhcp_first": "10.20.0.1"}, "invalid-argument", "10.20.0.2"),
        ({"dhcp_first": "10.20.0.90", "dhcp_last": "10.20.0.80"}, "invalid-argument", "ends before it begins"),
        ({"dhcp_first": "$(id)"}, "invalid-argument", "$(id)"),
        ({"dns": ("1.2.3",)}, "invalid-argument", "no address"),
        ({"dns": ("0.0.0.0",)}, "invalid-argument", "no machine"),
        ({"dns": ("10.20.0.1",)}, "invalid-argument", "ask itself"),
        ({"dns": ("fe80::1%lo\naddress=evil.example",)}, "invalid-argument", "no machine"),
        ({"boot": NetworkBoot(file="x", server="fd00::1")}, "invalid-argument", "not an IPv4"),
        ({"dhcp_options": (DhcpOption(code=51, value="60"),)}, "invalid-argument", "follows from the network"),
        (
            {"dhcp_options": (DhcpOption(code=42, value="1"), DhcpOption(code=42, value="2"))},
            "invalid-argument",
            "twice",
        ),
        ({"reservations": (kept(address="10.21.0.9"),)}, "invalid-argument", "10.20.0.2"),
        ({"reservations": (kept(address="10.20.0.1"),)}, "invalid-argument", "10.20.0.2"),
        ({"reservations": (kept(), kept(name="other", mac="52:54:00:00:00:02"))}, "address-taken", "10.20.0.9"),
        ({"reservations": (kept(), kept(name="other", address="10.20.0.8"))}, "address-taken", MAC),
        ({"reservations": (kept(), kept(mac="52:54:00:00:00:02", address="10.20.0.8"))}, "address-taken", "printer"),
        ({"mtu": 1000, "subnet6": "fd00:1::/64", "ipv6": "dhcp"}, "invalid-argument", "1280"),
    ],
)
def test_what_does_not_hold_together_is_refused(update: dict[str, Any], code: str, said: str) -> None:
    error = refused(OURS.model_copy(update=update))
    assert (error.code, said in f"{error} {error.hint}") == (code, True), str(error)


def test_what_follows_from_the_rest_is_filled_in() -> None:
    both = OURS.model_copy(update={"subnet6": "fd00:1::/64", "ipv6": "dhcp", "reservations": (kept(),)})
    assert settled(both, "x").reservations[0].address6 == "fd00:1::9"


@pytest.mark.parametrize(
    "wish",
    [
        {"mtu": 100},
        {"mtu": 70000},
        {"vlan": 4095, "nic": "eth1"},
        {"nic": "eth1; reboot"},
        {"nic": "../../etc"},
        {"boot": {"file": 'x"\ndhcp-script=/bin/sh'}},
        {"boot": {"file": "x,y"}},
        {"dhcp_options": [{"code": 300, "value": "x"}]},
        {"dhcp_options": [{"code": 42, "value": "10.0.0.1\nlog-queries"}]},
        {"dhcp_options": [{"code": 42, "value": "#"}]},
        {"dhcp_options": [{"code": 0, "value": "x"}]},
        {"reservations": [{"name": "a b", "mac": MAC, "address": "10.20.0.9"}]},
        {"reservations": [{"name": "a", "mac": "no", "address": "10.20.0.9"}]},
        {"reservations": [{"name": f"m{n}", "mac": MAC, "address": "10.20.0.9"} for n in range(40)]},
        {"domain": "a{b}"},
        {"ipv6": "maybe"},
        {"mode": "libvirt"},
        {"name": "x; nft flush ruleset"},
        {"name": "libvirt:default"},
    ],
)
def test_what_cannot_be_written_is_no_request(wish: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CreateNetworkRequest.model_validate({"name": "lab", **wish})


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"mode": "bridge"}, "--bridge br0"),
        ({"bridge": "br0", "nic": "eth1"}, "one of the two"),
        ({"mode": "macvtap"}, "needs a card"),
        ({"mode": "macvtap", "nic": "eth1", "bridge": "br0"}, "needs a card"),
        ({"mode": "nat", "nic": "eth1"}, "makes its own bridge"),
        ({"bridge": "br0", "vlan": 7}, "--vlan"),
        ({"mode": "macvtap", "nic": "eth1", "vlan": 7}, "--vlan"),
        ({"nic": "eth1", "subnet": "10.0.0.0/24"}, "whoever serves them"),
        ({"bridge": "br0", "dns": ["9.9.9.9"]}, "whoever serves them"),
        ({"mode": "macvtap", "nic": "eth1", "mtu": 1400}, "whoever serves them"),
    ],
)
def test_modes_that_contradict_the_rest(wish: dict[str, Any], said: str) -> None:
    with pytest.raises(CorralError) as error:
        mode_of(CreateNetworkRequest.model_validate({"name": "lab", **wish}), "make network 'lab'")
    assert said in f"{error.value} {error.value.hint}"


def test_modes_that_follow_from_the_rest() -> None:
    wishes: list[dict[str, Any]] = [
        {},
        {"bridge": "br0"},
        {"nic": "eth1"},
        {"nic": "eth1", "vlan": 7},
        {"mode": "routed"},
    ]
    made = [mode_of(CreateNetworkRequest.model_validate({"name": "lab", **wish}), "x") for wish in wishes]
    assert made == ["nat", "bridge", "bridge", "bridge", "routed"]


@pytest.mark.parametrize(
    ("name", "mode", "vlan", "said"),
    [
        ("eth9", "bridge", None, "there is eth0, eth1, eth2"),
        ("eth0", "bridge", None, "corral host network bridge eth0"),
        ("eth2", "bridge", None, "--bridge br0"),
        ("eth2", "macvtap", None, "--bridge br0"),
    ],
)
def test_a_card_that_the_host_lives_on_is_not_taken_from_it(name: str, mode: str, vlan: int | None, said: str) -> None:
    with pytest.raises(CorralError) as error:
        check_card(CARDS, name, mode, vlan, "x")
    assert said in f"{error.value} {error.value.hint}"


def test_cards_that_can_be_used() -> None:
    check_card(CARDS, "eth1", "bridge", None, "x")
    check_card(CARDS, "eth0", "bridge", 7, "x")  # tagged frames pass beside the host's own
    check_card(CARDS, "eth0", "macvtap", None, "x")
