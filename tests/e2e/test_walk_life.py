"""What only the micro guest is quick enough for: made with every option, shown in every format, asked to go in every way."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from walk import PATIENCE, Walk, virsh

pytestmark = pytest.mark.timeout(900)

MAC = "52:54:00:e2:e2:01"
DEAF = "killall acpid qemu-ga"
"""After this the guest hears neither its agent's wish nor the power button."""


def test_create_with_every_option_and_delete(walk: Walk, vm: str, tmp_path: Path) -> None:
    name = walk.name("all")
    script, password, key = tmp_path / "script", tmp_path / "password", walk.home / ".ssh/id_ed25519.pub"
    script.write_text("#!/bin/sh\necho made >/run/made\n")
    password.write_text("let me in\n")
    network = tmp_path / "network"
    network.write_text("version: 2\nethernets: {any: {match: {name: 'e*'}, dhcp4: true}}\n")
    subnet = walk.json("network", "show", "default")["spec"]["subnet"].rpartition(".")[0]
    address = f"{subnet}.77"
    answer = walk.json(
        *("create", "--name", name, "--image", "micro", "--memory", "160M", "--vcpus", "2", "--disk", "size=1"),
        *("--disk", "size=64M,name=data,bus=scsi", "--network", f"network=default,mac={MAC},address={address}"),
        *("--ssh-key", str(key), "--user", "ann", "--password-file", str(password), "--hostname", "inside"),
        *("--user-data", str(script), "--network-config", str(network), "--firmware", "bios", "--graphics", "none"),
        *("--run-policy", "always", "--autostart", "--priority", "7", "--description", "of a test"),
        *("--label", "env=test", "--label", "e2e=yes", "--protect", "--no-start"),
    )
    spec, uid = answer["spec"], answer["uid"]
    assert (spec["vcpus"], spec["memory_mib"], spec["run_policy"], spec["graphics"]) == (2, 160, "always", "none")
    assert spec["boot"]["autostart"] is True
    assert spec["boot"]["priority"] == 7
    assert answer["labels"] == {"env": "test", "e2e": "yes"}
    # Secrets are taken and not told.
    assert "let me in" not in str(answer)
    assert virsh("domstate", name) == "shut off"
    assert virsh("domuuid", name) == uid
    assert walk.info(name)["status"]["state"] == "shut off"
    document = ET.fromstring(virsh("dumpxml", name))
    assert document.findtext("vcpu") == "2"
    assert document.findtext("memory") == str(160 * 1024)
    assert document.find(f".//interface/mac[@address='{MAC}']") is not None
    assert document.find(".//graphics") is None
    assert document.findtext("description") == "of a test"

    assert name not in walk("list", "-o", "name").ok().split()
    assert name in walk("list", "--all", "-o", "name").ok().split()
    assert walk("list", "--all", "-l", "env=test,e2e!=no", "-o", "name").ok().split() == [name]

    walk("start", name).ok()
    walk("wait", name, "--for", "cloud-init", "--timeout", PATIENCE).ok()
    assert walk.guest(name, "hostname; nproc; cat /run/made").split() == ["inside", "2", "made"]
    assert walk("domhostname", name).ok() == "inside\n"
    assert walk.guest(name, "cat /sys/block/vda/size /sys/block/sda/size").split() == ["2097152", "131072"]
    assert address in walk.guest(name, "ip -4 addr show eth0")
    assert walk("domifaddr", name).ok().split() == [address]
    assert walk.info(name)["status"]["cloud_init"] == "done"

    # Two VMs of one network find each other by name, in both directions.
    assert walk.guest(vm, f"ping -c 1 -W 20 {name}").count("1 packets received") == 1
    assert walk.guest(name, f"ping -c 1 -W 20 {vm}").count("1 packets received") == 1

    # run_policy=always: back after the guest has switched itself off.
    pid = qemu_pid(name)
    walk("exec", name, "--", "poweroff")
    walk.until("it runs again", lambda: qemu_pid(name) not in ("", pid) and virsh("domstate", name) == "running")

    walk("delete", name).ends(4, "vm-protected")
    walk("unprotect", name).ok()
    walk("destroy", name).ok()
    walk("undefine", name).ok()
    assert name not in virsh("list", "--all", "--name").split()
    walk("info", name).ends(3, "vm-not-found")
    kept = [volume for volume in walk.json("volume", "list") if volume["name"].startswith(f"{name}-")]
    assert len(kept) == 2
    for volume in kept:
        assert volume["spec"]["vm_uid"] is None
        assert Path(volume["status"]["path"]).is_file()


def qemu_pid(name: str) -> str:
    try:
        return Path(f"/run/libvirt/qemu/{name}.pid").read_text()
    except FileNotFoundError:
        return ""


def test_formats_and_aliases_show_the_same(walk: Walk, vm: str) -> None:
    uid = virsh("domuuid", vm)
    assert walk("dominfo", vm).ok().startswith("name:")
    assert walk("domstate", vm).ok() == "running\n"
    assert walk("domuuid", vm).ok().strip() == uid
    assert walk("info", vm, "-o", "name").ok() == f"{vm}\n"
    assert f"uid: {uid}" in walk("info", vm, "-o", "yaml").ok()
    assert walk.info(vm)["uid"] == uid
    assert walk.json("list")[0]["kind"] == "vm"
    assert walk("ls").ok().splitlines()[0].split() == ["NAME", "STATE", "VCPUS", "MEMORY", "ADDRESS", "AGE"]
    disk = virsh("domblklist", vm, "--details").split()
    assert any(path.endswith(".qcow2") and path in walk("domblklist", vm).ok() for path in disk)
    assert walk.info(vm)["spec"]["nics"][0]["mac"] in walk("domiflist", vm).ok()
    assert "<name>" + vm in walk("dumpxml", vm).ok()
    assert "Corral micro" in walk("guestinfo", vm).ok()
    facts = walk.info(vm)["status"]
    assert facts["addresses"] == [walk.info(vm)["spec"]["nics"][0]["address"]]
    assert facts["guest_os"] == "Corral micro guest"


def test_shutdown_by_the_agent_and_by_the_power_button(walk: Walk, vm: str) -> None:
    walk.guest(vm, "killall acpid")
    walk("shutdown", vm, "--timeout", PATIENCE).ok()
    assert virsh("domstate", vm, "--reason") == "shut off (shutdown)"
    assert walk.info(vm)["spec"]["power"] == "off"

    walk("start", vm).ok()
    walk("wait", vm, "--for", "agent", "--timeout", PATIENCE).ok()
    walk.guest(vm, "(sleep 1; killall qemu-ga) >/dev/null 2>&1 &")
    walk.until("the agent is gone", lambda: not walk.info(vm)["status"]["agent_connected"])
    walk("shutdown", vm, "--timeout", PATIENCE).ok()
    assert virsh("domstate", vm) == "shut off"


def test_a_guest_that_does_not_listen(walk: Walk, vm: str) -> None:
    walk.guest(vm, f"(sleep 1; {DEAF}) >/dev/null 2>&1 &")
    walk.until("the agent is gone", lambda: not walk.info(vm)["status"]["agent_connected"])
    walk("shutdown", vm, "--timeout", "2s").ends(1, "shutdown-timeout")
    assert virsh("domstate", vm) == "running"
    assert walk.info(vm)["spec"]["power"] == "on"

    walk("shutdown", vm, "--force-after", "2s").ok()
    assert virsh("domstate", vm) == "shut off"
