"""The nouns beside the VM on real libvirt: images, networks, volumes, host, operations, events, audit, tokens over TLS."""

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from walk import Walk, virsh

pytestmark = pytest.mark.timeout(600)


def test_images(walk: Walk, vm: str) -> None:
    assert "micro" in walk("image", "list", "-o", "name").ok().split()
    assert walk.json("image", "show", "micro")["status"]["state"] == "ready"
    ran = walk("image", "delete", "micro")
    ran.ends(4, "image-in-use")
    assert vm in ran.err
    walk("image", "show", "nothing").ends(3, "image-not-found")
    walk("image", "build", "no-such-entry").ends(3)
    assert {"debian-12", "debian-13", "ubuntu-24.04"} <= set(walk("image", "catalogue", "-o", "name").ok().split())
    walk("create", "--name", walk.name("x"), "--image", "nothing").ends(3, "image-not-found")

    # What is no disk of the format that was said is not imported, and says so until it is.
    disk = walk.home / "blank.raw"
    with disk.open("wb") as stream:
        stream.truncate(1 << 20)
    walk("image", "build", "mine", "--path", str(disk)).ends(2, "image-invalid")
    failed = walk.json("image", "show", "mine")["status"]
    assert (failed["state"], failed["last_error_code"]) == ("failed", "image-invalid")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)
    walk("image", "build", "mine", "--path", str(disk)).ok()
    assert walk.json("image", "show", "mine")["spec"]["source"] == "import"
    walk("image", "delete", "mine").ok()


def test_networks_volumes_and_host(walk: Walk, vm: str) -> None:
    network = next(item for item in walk.json("net-list") if item["name"] == "default")
    assert walk("net-info", "default", "-o", "name").ok() == "default\n"
    assert virsh("net-info", network["uid"]).count("yes") >= 2
    assert "<bridge name=" in virsh("net-dumpxml", network["uid"])
    assert "stp='off'" in virsh("net-dumpxml", network["uid"])
    volume = next(item for item in walk.json("vol-list") if item["name"].startswith(f"{vm}-root"))
    assert walk.json("vol-info", volume["name"])["uid"] == volume["uid"]
    assert vm in walk("volume", "list").ok()

    shown = walk.json("host", "info")
    host = shown["status"]
    assert host["accelerator"] in ("kvm", "tcg")
    assert {finding["name"] for finding in host["accelerators"]} == {"kvm", "tcg"}
    assert all(finding["reason"] for finding in host["accelerators"])
    assert host["committed_memory_mib"] >= 128
    assert host["hypervisor_connected"] is True
    assert "committed cpu:" in walk("nodeinfo").ok()
    assert walk("host", "list", "-o", "name").ok().strip() == shown["name"]


def test_doctor_says_what_to_do(walk: Walk, vm: str) -> None:
    ran = walk("doctor", "-o", "json")
    findings = {finding["id"]: finding for finding in json.loads(ran.out)}
    errors = [finding for finding in findings.values() if finding["level"] == "error"]
    assert ran.status == (1 if errors else 0)
    assert {"accelerator", "disk-space", "subnets", "seccomp", "guest-uids", "state-directory"} <= set(findings)
    assert findings["guest-uids"]["level"] == "ok"
    assert all(finding["action"] for finding in findings.values() if finding["level"] in ("warning", "error"))


def test_events_are_followed(walk: Walk, vm: str) -> None:
    newest = walk.json("events", "-n", "1")[-1]["sequence"]
    follower = walk.spawn("events", "--follow", "--after", str(newest), "-o", "json")
    try:
        walk("pause", vm).ok()
        walk("resume", vm).ok()
        assert follower.stdout is not None
        seen = json.loads(follower.stdout.readline())
        assert seen["object_name"] == vm
        assert seen["sequence"] == newest + 1
    finally:
        follower.terminate()
        follower.communicate(timeout=20)


def test_bad_input_is_refused_before_anything_happens(walk: Walk) -> None:
    before = _ours(walk)
    name, image = walk.name("bad"), ("--image", "micro")
    for bad in ("x" * 300, "../up", "a;reboot", "$(reboot)", "UPPER", "-dash"):
        assert walk("create", "--name", bad, *image).status == 2, bad
    assert walk("create", "--name", name, *image, "--memory", "0").status == 2
    walk("create", "--name", name, *image, "--memory", "4T").ends(4, "insufficient-memory")
    walk("create", "--name", name, *image, "--memory", "128", "--disk", "size=60T").ends(4, "insufficient-disk")
    walk("create", "--name", name, *image, "--network", "nowhere").ends(3, "network-not-found")
    spoilt = walk.home / "spoilt"
    spoilt.write_text("#cloud-config\n{ not yaml")
    walk("create", "--name", name, *image, "--user-data", str(spoilt)).ends(2, "invalid-cloud-init")
    spoilt.write_text("#cloud-config\n#" + "x" * 10_000_000)
    assert walk("create", "--name", name, *image, "--user-data", str(spoilt)).status == 2
    assert walk("frobnicate").status == 2
    assert _ours(walk) == before


def _ours(walk: Walk) -> list[str]:
    """The VMs of this daemon: others share the host's libvirt."""
    return [vm["name"] for vm in walk.json("list", "--all") if not vm.get("unmanaged")]


def test_a_token_opens_what_its_role_may(walk: Walk, vm: str) -> None:
    """Over TLS; without a token, with a wrong one, or with one of another role the door stays shut."""
    viewer = walk("admin", "token", "create", "viewer", "--role", "viewer", "-o", "name").ok().strip()
    operator = walk("admin", "token", "create", "operator", "--role", "operator", "-o", "name").ok().strip()
    url = f"https://{walk.environment['CORRAL_LISTEN']}"
    remote = ("--url", url, "--ca-file", walk.environment["CORRAL_TLS_CERT"])
    # The client goes where CORRAL_STATE_DIR says unless a URL was given.
    assert vm in walk(*remote, "list", "-o", "name", CORRAL_TOKEN=viewer).ok().split()
    walk(*remote, "pause", vm, CORRAL_TOKEN=viewer).ends(5, "forbidden")
    walk(*remote, "exec", vm, "--", "true", CORRAL_TOKEN=viewer).ends(5, "forbidden")
    walk(*remote, "console", vm, CORRAL_TOKEN=viewer).ends(5, "forbidden")
    assert virsh("domstate", vm) == "running"
    walk(*remote, "pause", vm, CORRAL_TOKEN=operator).ok()
    walk(*remote, "resume", vm, CORRAL_TOKEN=operator).ok()
    assert walk(*remote, "exec", vm, "--", "echo", "far", CORRAL_TOKEN=operator).ok() == "far\n"
    walk(*remote, "admin", "token", "create", "more", "--role", "admin", CORRAL_TOKEN=operator).ends(5, "forbidden")
    walk(*remote, "list", CORRAL_TOKEN="corral_nonsense").ends(5, "unauthenticated")
    walk(*remote, "list", CORRAL_TOKEN="").ends(5, "unauthenticated")
    assert walk("--url", url, "list", CORRAL_TOKEN=viewer).status == 6  # nobody vouches for its certificate

    trust = ssl.create_default_context(cafile=walk.environment["CORRAL_TLS_CERT"])
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/v1/vms", context=trust, timeout=30)
    assert refused.value.code == 401
    assert json.loads(refused.value.read())["code"] == "unauthenticated"

    walk("admin", "token", "revoke", "viewer").ok()
    walk(*remote, "list", CORRAL_TOKEN=viewer).ends(5, "unauthenticated")

    # All of it stands in the audit log, the denials too, and the log is whole.
    said = {(entry["action"], entry["outcome"]) for entry in walk.json("audit", "list")}
    assert ("vm.pause", "denied") in said
    assert ("vm.exec", "accepted") in said
    assert walk.json("audit", "verify")["valid"] is True
    assert viewer not in walk("audit", "list", "-o", "json").ok()


def test_a_key_is_made_where_there_is_none_and_said(walk: Walk, tmp_path: Path) -> None:
    name = walk.name("key")
    create = ("create", "--name", name, "--image", "micro", "--memory", "128", "--no-start")
    ran = walk(*create, HOME=str(tmp_path))
    ran.ok()
    [public] = (tmp_path / ".ssh").glob("*.pub")
    assert str(public.with_suffix("")) in ran.err
    assert public.with_suffix("").stat().st_mode & 0o777 == 0o600
    [user] = walk.info(name)["spec"]["cloud_init"]["users"]
    assert user["ssh_keys"] == [public.read_text().strip()]
    walk(*create).ends(4, "name-taken")
    walk("delete", name).ok()


def test_shells_complete_names(walk: Walk, vm: str) -> None:
    assert "_CORRAL_COMPLETE" in walk("completion", "bash").ok()
    said = walk(_CORRAL_COMPLETE="bash_complete", COMP_WORDS="corral start ", COMP_CWORD="2").out
    assert vm in said
