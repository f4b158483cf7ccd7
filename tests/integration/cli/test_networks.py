"""Networks from the command line: made, used, refused, deleted; the fake host has a bridge `br0`."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

STACK = """\
stack: tiers
networks:
  - default
  - {name: back, mode: isolated, subnet: 10.31.0.0/24}
vms:
  web: {image: micro, memory: 128M, nics: [default, back]}
  db: {image: micro, memory: 128M, nics: [{network: back, address: 10.31.0.20}]}
"""


def test_a_network_is_made_used_and_deleted(corral: Any) -> None:
    corral("network", "create", "lab", "--subnet", "10.30.0.0/24").ok()
    made = corral("network", "show", "lab", "-o", "json").json
    assert (made["spec"]["mode"], made["spec"]["domain"], made["status"]["active"]) == ("nat", "lab.internal", True)
    assert "10.30.0.0/24" in corral("net-list").ok().out
    corral("create", "--name", "inlab", "--image", "micro", "--network", "lab", "--network", "default").ok()
    cards = corral("info", "inlab", "-o", "json").json["spec"]["nics"]
    assert [card["network"] for card in cards] == ["lab", "default"]
    assert cards[0]["address"].startswith("10.30.0.")

    refused = corral("network", "delete", "lab")
    assert (refused.status, "VMs are on it: inlab" in refused.err) == (4, True), refused.err
    corral("nic", "remove", "inlab", "net0").ok()
    assert corral("network", "delete", "lab").ok().out == "lab: deleted\n"
    assert corral("network", "show", "lab").status == 3
    again = corral("network", "create", "lab", "--subnet", "10.30.0.0/24", "-o", "json").json
    assert again["uid"] != made["uid"]
    corral("network", "delete", "lab").ok()
    corral("delete", "inlab", "--yes").ok()


def test_a_bridge_of_the_hosts_stands_for_a_network(corral: Any) -> None:
    corral("install", "--name", "onbr", "--pxe", "--disk", "1", "--network", "bridge=br0", "--noautoconsole").ok()
    (card,) = corral("info", "onbr", "-o", "json").json["spec"]["nics"]
    assert (card["network"], card["address"]) == ("br0", "")
    network = corral("network", "show", "br0", "-o", "json").json
    assert (network["spec"]["mode"], network["spec"]["bridge"], network["spec"]["subnet"]) == ("bridge", "br0", "")
    corral("nic", "add", "onbr", "bridge=br0").ok()
    again = corral("network", "create", "lan", "--bridge", "br0")
    assert (again.status, "network 'br0' has the bridge br0" in again.err) == (4, True), again.err
    wanted = corral("create", "--name", "x", "--disk", "1", "--network", "br0,address=10.0.0.9")
    assert (wanted.status, "where others give addresses" in wanted.err) == (2, True), wanted.err
    corral("delete", "onbr", "--yes").ok()
    corral("network", "delete", "br0").ok()


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (("lab9", "--subnet", "10.30.0.0/33"), 2, "10.30.0.0/33"),
        (("lab9", "--subnet", "8.8.8.0/24"), 2, "private"),
        (("lab9", "--subnet", "10.30.0.0/30"), 2, "/29"),
        (("lab9", "--subnet", "10.0.0.0/8"), 2, "/16"),
        (("lab9", "--subnet", "$(id)"), 2, "$(id)"),
        (("lab9", "--mode", "bridge"), 2, "--bridge br0"),
        (("lab9", "--bridge", "br9"), 2, "there is br0"),
        (("lab9", "--bridge", "../etc"), 2, "bridge"),
        (("lab9", "--bridge", "br0", "--subnet", "10.3.0.0/24"), 2, "whoever serves them"),
        (("lab9", "--bridge", "br0", "--mode", "nat"), 2, "makes its own bridge"),
        (("lab9", "--nic", "eth0"), 2, "corral host network bridge eth0"),
        (("lab9", "--nic", "eth9"), 2, "no card eth9"),
        (("lab9", "--nic", "eth1; id"), 2, "nic"),
        (("lab9", "--mode", "macvtap"), 2, "--nic eth1"),
        (("lab9", "--mode", "macvtap", "--nic", "eth1", "--vlan", "7"), 2, "--vlan"),
        (("lab9", "--nic", "eth1", "--vlan", "4095"), 2, "vlan"),
        (("lab9", "--subnet6", "fd00::/48"), 2, "/64"),
        (("lab9", "--subnet6", "fe80::/64"), 2, "unique local"),
        (("lab9", "--ipv6", "dhcp", "--mtu", "1000"), 2, "1280"),
        (("lab9", "--mtu", "70000"), 2, "mtu"),
        (("lab9", "--dns", "nine"), 2, "no address"),
        (("lab9", "--dhcp-range", "10.30.0.9"), 2, "no range"),
        (("lab9", "--subnet", "10.30.0.0/24", "--dhcp-range", "10.30.1.2-10.30.1.9"), 2, "10.30.0.2 to 10.30.0.254"),
        (("lab9", "--dhcp-option", "ntp=1.2.3.4"), 2, "NUMBER=VALUE"),
        (("lab9", "--dhcp-option", "42=1\n2"), 2, "value"),
        (("lab9", "--boot", "$(id)"), 2, "file"),
        (("lab9", "--reserve", "name=a,mac=b"), 2, "a machine, its MAC and address"),
        (("lab9; nft flush ruleset",), 2, "name"),
        (("lab9", "--domain", "a b"), 2, "domain"),
        (("../x",), 2, "name"),
        (("x" * 300,), 2, "name"),
        (("default",), 4, "choose another name"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    corral: Any, argv: tuple[str, ...], status: int, said: str
) -> None:
    before = corral("network", "list", "-o", "name").ok().out
    ran = corral("network", "create", *argv)
    assert (ran.status, said in ran.err) == (status, True), ran.err
    assert corral("network", "list", "-o", "name").ok().out == before


def test_what_a_network_serves_changes_and_is_taken_away_again(corral: Any) -> None:
    corral(
        *("network", "create", "srv", "--mode", "routed", "--subnet", "10.33.0.0/24", "--ipv6", "dhcp"),
        *("--dhcp-range", "10.33.0.100-10.33.0.149", "--dns", "9.9.9.9", "--mtu", "1400"),
    ).ok()
    corral("create", "--name", "insrv", "--image", "micro", "--network", "srv").ok()
    spec = corral("network", "show", "srv", "-o", "json").json["spec"]
    card = corral("info", "insrv", "-o", "json").json["spec"]["nics"][0]
    assert card["address"] == "10.33.0.100"
    assert card["address6"] == f"{spec['subnet6'].removesuffix('/64')}64"  # .100 is its 0x64th, too
    corral("network", "reserve", "srv", "printer", "00:11:22:33:44:55", "10.33.0.9").ok()
    corral("network", "set", "srv", "--dhcp-option", "42=10.33.0.5", "--boot", "pxelinux.0@10.33.0.5").ok()
    corral("network", "set", "srv", "--dns", "none", "--dhcp-range", "all").ok()
    spec = corral("network", "show", "srv", "-o", "json").json["spec"]
    assert (spec.get("dns"), spec.get("dhcp_first"), spec["boot"]["server"]) == (None, None, "10.33.0.5")
    assert spec["reservations"][0]["address6"].endswith("::9")
    for argv, status, said in (
        (("create", "--name", "thief", "--disk", "1", "--network", "srv,address=10.33.0.9"), 4, "another VM"),
        (("create", "--name", "thief", "--disk", "1", "--network", "srv,mac=00:11:22:33:44:55"), 4, "MAC"),
        (("network", "reserve", "srv", "other", "00:11:22:33:44:66", "10.33.0.100"), 4, "10.33.0.100"),
        (("network", "reserve", "srv", "other", "00:11:22:33:44:66", "10.34.0.1"), 2, "10.33.0.2 to"),
        (("network", "unreserve", "srv", "nobody"), 2, "none of that name"),
        (("network", "set", "srv", "--ipv6", "none"), 4, "VMs are on it: insrv"),
        (("network", "set", "srv"), 2, "say what is to change"),
    ):
        ran = corral(*argv)
        assert (ran.status, said in ran.err) == (status, True), (argv, ran.err)
    corral("network", "unreserve", "srv", "printer").ok()
    corral("create", "--name", "heir", "--disk", "1", "--network", "srv,address=10.33.0.9").ok()
    corral("delete", "insrv", "heir", "--yes").ok()
    corral("network", "set", "srv", "--ipv6", "slaac", "--mode", "nat").ok()
    corral("network", "delete", "srv").ok()


def test_networks_on_a_card_of_the_hosts(corral: Any) -> None:
    corral("network", "create", "wire", "--nic", "eth1").ok()
    corral("network", "create", "tagged", "--nic", "eth0", "--vlan", "20").ok()
    corral("network", "create", "past", "--mode", "macvtap", "--nic", "eth0").ok()
    again = corral("network", "create", "wire2", "--nic", "eth1")
    assert (again.status, "network 'wire' is on eth1 already" in again.err) == (4, True), again.err
    shown = {one["name"]: one["spec"] for one in corral("network", "list", "-o", "json").json}
    assert (shown["wire"]["mode"], shown["wire"]["bridge"][:3], shown["tagged"]["vlan"]) == ("bridge", "crl", 20)
    assert (shown["past"]["bridge"], shown["past"]["nic"]) == ("", "eth0")
    ran = corral("network", "set", "wire", "--dns", "9.9.9.9")
    assert (ran.status, "others serve" in ran.err) == (2, True), ran.err
    refused = corral("create", "--name", "x", "--disk", "1", "--network", "past,group=default")
    assert (refused.status, "passes by every filter" in refused.err) == (2, True), refused.err
    corral("create", "--name", "mover", "--image", "micro", "--network", "wire,group=default").ok()
    refused = corral("nic", "set", "mover", "net0", "--network", "past")
    assert (refused.status, "passes by every filter" in refused.err) == (2, True), refused.err
    corral("nic", "set", "mover", "net0", "--network", "default").ok()
    corral("delete", "mover", "--yes").ok()
    corral("network", "delete", "wire", "tagged", "past").ok()


def test_a_subnet_that_overlaps_another_is_refused_by_name(corral: Any) -> None:
    taken = corral("network", "show", "default", "-o", "json").json["spec"]["subnet"]
    wide = f"{taken.rsplit('.', 2)[0]}.0.0/16"
    ran = corral("network", "create", "wide", "--subnet", wide)
    assert (ran.status, f"{taken} is in use" in ran.err) == (4, True), ran.err
    assert corral("network", "delete", "default").status == 4


def test_many_at_once_get_subnets_of_their_own(corral: Any) -> None:
    names = [f"many-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert all(ran.status == 0 for ran in pool.map(lambda name: corral("network", "create", name), names))
    networks = {one["name"]: one["spec"]["subnet"] for one in corral("network", "list", "-o", "json").json}
    assert len({networks[name] for name in names}) == len(names)
    corral("network", "delete", *names).ok()


def test_a_stack_brings_its_networks_and_takes_them_away(corral: Any, tmp_path: Path) -> None:
    file = tmp_path / "tiers.yaml"
    file.write_text(STACK)
    planned = corral("diff", "-f", str(file))
    assert "back" in planned.out
    assert corral("network", "show", "back").status == 3  # looked at, not made
    corral("apply", "-f", str(file)).ok()
    assert corral("info", "db", "-o", "json").json["spec"]["nics"][0]["address"] == "10.31.0.20"
    assert "unchanged" in corral("apply", "-f", str(file)).ok().out
    file.write_text(STACK.replace("mode: isolated", "mode: nat"))
    ran = corral("apply", "-f", str(file))
    assert (ran.status, "isolated → nat" in ran.out + ran.err) == (4, True), (ran.out, ran.err)
    file.write_text(STACK)
    corral("down", "-f", str(file), "--yes").ok()
    assert corral("network", "show", "back").status == 3
    assert corral("network", "show", "default").status == 0


def test_a_daemon_that_is_killed_leaves_each_network_whole_or_gone(place: Any) -> None:
    place("daemon", "start", "--hypervisor", "fake").ok()
    for number, pause_s in enumerate((0.0, 0.1, 0.3)):
        for verb in ("create", "delete"):
            command = place.start("network", verb, f"net{number}")
            time.sleep(0.25 + pause_s)
            os.kill(place("daemon", "status", "-o", "json").json["pid"], signal.SIGKILL)
            command.communicate(timeout=60)
            place("daemon", "start", "--hypervisor", "fake").ok()
            place("network", verb, f"net{number}")  # done already, or done now
            there = {one["name"]: one for one in place("network", "list", "-o", "json").json}
            assert (f"net{number}" in there) == (verb == "create")
            assert all(one["status"]["active"] and not one["deletion_requested_at"] for one in there.values())
    assert len({one["spec"]["subnet"] for one in there.values()}) == len(there) == 1
