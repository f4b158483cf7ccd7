"""`corral drift accept` on real libvirt: what virsh changed becomes the spec, and the domain stays as virsh left it."""

from collections.abc import Iterator

import pytest
from kept import put_findings, put_image
from walk import Walk, make_walk, virsh


@pytest.fixture(scope="module")
def walk() -> Iterator[Walk]:
    made = make_walk()
    made.environment["CORRAL_RELIST_INTERVAL_S"] = "5"  # of some of virsh's changes libvirt tells nobody
    put_findings(made.state_dir)
    try:
        made("daemon", "start").ok()
        put_image("micro", made.state_dir)
        made("recover").ok()
        yield made
    finally:
        made.clear()


def drifted(walk: Walk, vm: str) -> bool:
    conditions = walk.info(vm)["status"]["conditions"]
    return any(found["type"] == "Drifted" and found["status"] == "true" for found in conditions)


def test_what_virsh_changed_is_accepted(walk: Walk) -> None:
    vm = walk.name("drift")
    walk(
        "create",
        "--name",
        vm,
        "--image",
        "micro",
        "--memory",
        "128",
        "--disk",
        "size=1",
        "--disk",
        "size=1",
        "--no-start",
    ).ok()
    assert walk("drift", "show", vm).ok() == f"{vm} is as defined\n"
    network = virsh("domiflist", vm).split()[2]

    # What cannot be taken over is named, and nothing else is taken either.
    virsh("setmaxmem", vm, "192M", "--config")
    walk.until("the drift is told", lambda: drifted(walk, vm))
    walk("drift", "accept", vm).ends(2, "unsupported")
    refused = walk("drift", "accept", vm).err
    assert f"virsh setmem {vm} 192M --config" in refused
    assert walk.info(vm)["spec"]["memory_mib"] == 128

    virsh("setmem", vm, "192M", "--config")
    virsh("setvcpus", vm, "2", "--config", "--maximum")
    virsh("setvcpus", vm, "2", "--config")
    virsh("desc", vm, "--config", "by hand")
    virsh("detach-disk", vm, "vdb", "--config")
    virsh("attach-interface", vm, "network", network, "--model", "virtio", "--config")
    before = virsh("dumpxml", "--inactive", vm)
    shown = {item["field"]: item["refusal"] for item in walk.json("drift", "show", vm)["items"]}
    assert set(shown.values()) == {""}
    assert {"memory", "vcpus", "description"} < set(shown)

    walk("drift", "accept", vm).ok()
    walk.until("nothing is drifted any more", lambda: not drifted(walk, vm))
    assert walk("drift", "show", vm).ok() == f"{vm} is as defined\n"
    spec = walk.info(vm)["spec"]
    assert (spec["memory_mib"], spec["vcpus"], spec["description"]) == (192, 2, "by hand")
    assert len(spec["disks"]) == 1
    assert [nic["mac"] in before for nic in spec["nics"]] == [True, True]
    assert spec["nics"][1]["address"]

    # The document is virsh's own but for the metadata, and a guest starts from it.
    def without_metadata(document: str) -> str:
        return document[: document.index("<metadata>")] + document[document.index("</metadata>") :]

    assert without_metadata(virsh("dumpxml", "--inactive", vm)) == without_metadata(before)
    walk("start", vm).ok()
    assert not drifted(walk, vm)
    walk("destroy", vm).ok()

    # The detached volume was kept, and comes back to the VM by virsh too.
    [volume] = [item for item in walk.json("volume", "list") if item["spec"]["vm_uid"] is None]
    virsh(
        "attach-disk", vm, volume["status"]["path"], "vdb", "--subdriver", "qcow2", "--targetbus", "virtio", "--config"
    )
    walk.until("the drift is told", lambda: drifted(walk, vm))
    walk("drift", "accept", vm).ok()
    walk.until("nothing is drifted any more", lambda: not drifted(walk, vm))
    assert walk.info(vm)["spec"]["disks"][1]["volume_uid"] == volume["uid"]
