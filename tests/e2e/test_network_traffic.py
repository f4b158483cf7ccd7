"""Traffic of a real guest's card: limited while it runs, counted, captured, drawn."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from lxml import etree
from walk import Walk

from corral.names import ifb_name, tap_name

pytestmark = pytest.mark.timeout(600)


def queues(device: str) -> list[str]:
    """Kinds of a device's queues; none where there is no such device."""
    done = subprocess.run(["tc", "-j", "qdisc", "show", "dev", device], check=False, capture_output=True, timeout=30)
    return [str(each["kind"]) for each in json.loads(done.stdout or b"[]")] if done.returncode == 0 else []


def soon(walk: Walk, device: str, kind: str, *, there: bool) -> None:
    end = time.monotonic() + 30
    while (kind in queues(device)) is not there:
        assert time.monotonic() < end, queues(device)
        time.sleep(0.1)


def test_a_limit_comes_and_goes_while_the_guest_runs(walk: Walk, vm: str) -> None:
    tap = tap_name(walk.info(vm)["uid"], "net0")
    walk("nic", "set", vm, "net0", "--in", "8mbit", "--out", "average=4mbit,peak=8mbit,burst=1M").ok()
    soon(walk, tap, "htb", there=True)
    soon(walk, ifb_name(tap), "htb", there=True)
    assert "8 Mbit/s" in walk("nic", "list", vm).ok()
    # Nobody was cut off, by the firewall either, which tells cards by where their packets come in.
    walk("exec", vm, "--", "ping", "-c", "2", "-W", "5", gateway(walk)).ok()
    # And a guest that starts anew has its limits.
    walk("destroy", vm).ok()
    walk("start", vm).ok()
    soon(walk, tap, "htb", there=True)
    walk("wait", vm, "--for", "agent", "--timeout", "240s").ok()
    walk("nic", "set", vm, "net0", "--in", "none", "--out", "none").ok()
    soon(walk, tap, "htb", there=False)
    soon(walk, ifb_name(tap), "htb", there=False)
    walk("nic", "set", vm, "net0", "--in", "floor=8mbit").ends(2, "invalid-argument")  # its network has no limit
    walk("nic", "set", vm, "net0", "--in", "much").ends(2, "invalid-size")


def test_a_network_is_limited_and_a_card_is_promised_a_part(walk: Walk, vm: str) -> None:
    with walk.client() as client:
        bridge = client.get_network("default")["spec"]["bridge"]
    started = walk.uptime_s(vm)
    walk("network", "set", "default", "--in", "800mbit", "--out", "800mbit").ok()
    soon(walk, bridge, "htb", there=True)
    walk("nic", "set", vm, "net0", "--in", "floor=8mbit", "--out", "floor=8mbit").ok()

    def promised() -> bool:
        shown = [
            subprocess.run(["tc", "class", "show", "dev", device], check=True, capture_output=True, timeout=30).stdout
            for device in (bridge, ifb_name(bridge))
        ]
        return all(b"c0a1:3 parent c0a1:1 prio 0 rate 8Mbit ceil 800Mbit" in text for text in shown)

    walk.until("the promise has a class of its own, both ways", promised, 30)
    walk("nic", "set", vm, "net0", "--in", "floor=900mbit").ends(4, "insufficient-bandwidth")
    walk("network", "set", "default", "--in", "4mbit").ends(4, "insufficient-bandwidth")
    walk("nic", "set", vm, "net0", "--in", "none", "--out", "none").ok()
    walk("network", "set", "default", "--in", "none", "--out", "none").ok()
    soon(walk, bridge, "htb", there=False)
    assert walk.uptime_s(vm) > started  # nobody was cut off


def test_what_passes_is_counted_and_captured(walk: Walk, vm: str, tmp_path: Path) -> None:
    before = card(walk, vm)
    target = tmp_path / "x.pcap"
    what = ("--filter", f"icmp and host {gateway(walk)}", "--packets", "4", "--time", "120s")
    capture = walk.spawn("capture", vm, *what, "-o", str(target))
    try:
        while capture.poll() is None:
            walk("exec", vm, "--", "ping", "-c", "2", gateway(walk)).ok()
    finally:
        capture.kill()
        assert capture.wait() == 0
    done = subprocess.run(["tcpdump", "-n", "-r", str(target)], check=True, capture_output=True, text=True, timeout=30)
    assert len(done.stdout.splitlines()) == 4
    assert "ICMP echo request" in done.stdout
    assert "ICMP echo reply" in done.stdout
    after = card(walk, vm)
    assert after["sent_packets"] > before["sent_packets"]
    assert after["received_bytes"] > before["received_bytes"]
    assert vm in walk("network", "top", "--once").ok()
    with walk.client() as client:
        assert "corral_nic_received_bytes_total" in client.request_bytes("GET", "/metrics").decode()
        entries = [each for each in client.list_audit() if each["action"] == "vm.capture"]
    assert {"accepted", "ended"} <= {each["outcome"] for each in entries}
    walk("capture", vm, "--filter", "tcp prt", "-o", str(target)).ends(2, "invalid-argument")
    walk("capture", vm, "--nic", "net9", "-o", str(target)).ends(3, "device-not-found")


def gateway(walk: Walk) -> str:
    with walk.client() as client:
        subnet = str(client.get_network("default")["spec"]["subnet"])
    return subnet.rpartition(".")[0] + ".1"


def card(walk: Walk, vm: str) -> dict[str, int]:
    with walk.client() as client:
        report = client.network_usage()
    return next(dict(each) for each in report["nics"] if each["vm"] == vm)  # type: ignore[misc]


def test_the_map_has_the_guest_on_its_network(walk: Walk, vm: str, tmp_path: Path) -> None:
    text = walk("network", "map").ok()
    assert f"── {vm}  net0" in text
    assert text.startswith("default  (nat, ")
    walk("network", "map", "default", "--svg", str(tmp_path / "map.svg")).ok()
    root = etree.parse(str(tmp_path / "map.svg")).getroot()
    assert vm in {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
