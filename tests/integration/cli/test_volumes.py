"""`corral volume` and `corral pool`: every verb as people type it, and what is refused before anything is made."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

MIB = 2**20


def volume(corral: Any, name: str) -> Any:
    return corral("volume", "show", name, "-o", "json").json


def test_a_volume_s_life(corral: Any) -> None:
    assert corral("volume", "create", "life", "--size", "2").ok().out == "life: made\n"
    corral("create", "liver", "--image", "micro", "--memory", "128M", "--disk", "volume=life").ok()
    vm = corral("info", "liver", "-o", "json").json
    assert [disk["name"] for disk in vm["spec"]["disks"]] == ["root", "disk1"]  # the image still has its own disk
    assert volume(corral, "life")["spec"]["vm_uid"] == vm["uid"]
    assert "liver" in corral("volume", "list").ok().out
    corral("volume", "resize", "life", "+1G").ok()
    assert volume(corral, "life")["spec"]["size_bytes"] == 3 * 2**30
    for verb in (("delete", "life"), ("resize", "life", "1", "--shrink"), ("move", "life", "fast")):
        refused = corral("volume", *verb)
        assert refused.status in (3, 4), verb
    assert "shutdown liver" in corral("volume", "copy", "life", "twin").err
    assert corral("volume", "detach", "life").ok().out == "liver: gave volume life back\n"
    corral("volume", "attach", "life", "liver", "--name", "data").ok()
    corral("delete", "liver", "-y").ok()
    assert volume(corral, "life")["spec"]["vm_uid"] is None  # it outlives its VM
    corral("volume", "copy", "life", "twin", "--format", "raw").ok()
    assert volume(corral, "twin")["spec"]["format"] == "raw"
    corral("volume", "resize", "life", "1", "--shrink").ok()
    corral("volume", "delete", "life", "twin").ok()
    assert corral("volume", "show", "life").status == 3


def test_several_vms_share_a_volume(corral: Any) -> None:
    refused = corral("volume", "create", "ours", "--size", "1", "--shared")
    assert (refused.status, "[unsupported]" in refused.err, "--format raw" in refused.err) == (2, True, True)
    corral("volume", "create", "ours", "--size", "1", "--shared", "--format", "raw").ok()
    for name in ("one", "two"):
        corral("create", name, "--image", "micro", "--memory", "128M", "--disk", "volume=ours").ok()
    assert "one, two" in corral("volume", "list").ok().out
    for verb, word in (
        (("delete", "ours"), "VM "),
        (("detach", "ours"), "several VMs"),
        (("resize", "ours", "2"), "VM "),
    ):
        refused = corral("volume", *verb)
        assert refused.status != 0
        assert word in refused.err
    corral("volume", "detach", "ours", "two").ok()
    assert corral("volume", "attach", "ours", "one").status == 4  # it has it already
    corral("delete", "one", "two", "-y").ok()
    corral("volume", "create", "readable", "--size", "1", "--shared", "--read-only").ok()
    corral("create", "reader", "--image", "micro", "--memory", "128M", "--disk", "volume=readable").ok()
    assert corral("info", "reader", "-o", "json").json["spec"]["disks"][1]["read_only"] is True
    corral("delete", "reader", "-y").ok()
    corral("volume", "delete", "ours", "readable").ok()


def test_files_go_up_and_come_down(corral: Any, tmp_path: Path) -> None:
    disk = tmp_path / "old.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    assert corral("volume", "upload", str(disk), "old").ok().out == "old: uploaded\n"
    assert volume(corral, "old")["spec"]["size_bytes"] == 64 * MIB
    target = tmp_path / "down.qcow2"
    assert corral("volume", "download", "old", str(target)).ok().out == f"{target}\n"
    assert target.read_bytes() == b"a disk of the fake world"
    assert target.stat().st_mode & 0o777 == 0o600
    leaning, untold = tmp_path / "leaning.qcow2", tmp_path / "untold.img"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(disk), str(leaning)]
    subprocess.run(argv, check=True)
    refused = corral("volume", "upload", str(leaning), "leaning")
    assert (refused.status, "[image-invalid]" in refused.err, "old.qcow2" in refused.err) == (2, True, True)
    untold.write_bytes(b"\0" * MIB)
    assert "--format" in corral("volume", "upload", str(untold), "untold").err
    assert corral("volume", "upload", str(untold), "untold", "--format", "qcow2").status == 2
    corral("volume", "upload", str(untold), "untold", "--format", "raw").ok()
    assert corral("volume", "upload", str(tmp_path / "nothing.raw"), "nothing").status == 2
    assert corral("volume", "download", "old", str(tmp_path / "no" / "where")).status == 2
    corral("volume", "delete", "old", "untold").ok()


def test_pools_are_made_used_and_deleted_once_empty(corral: Any) -> None:
    [default] = corral("pool", "list", "-o", "json").json
    assert (default["name"], default["status"]["level"]) == ("default", "ok")
    assert corral("pool", "create", "fast", "--path", "/srv/fast").ok().out == "fast: made\n"
    assert corral("pool", "create", "fast", "--path", "/srv/faster").status == 4
    for path in ("relative", "/etc/corral", "/", "/srv/../etc", default["spec"]["path"]):
        refused = corral("pool", "create", "bad", "--path", path)
        assert (refused.status, "[invalid-argument]" in refused.err) == (2, True), path
    corral("volume", "create", "data", "--size", "1", "--pool", "fast").ok()
    assert volume(corral, "data")["status"]["path"].startswith("/srv/fast/")
    assert corral("volume", "create", "data2", "--size", "1", "--pool", "slow").status == 3
    corral("create", "pooled", "--image", "micro", "--memory", "128M", "--disk", "size=1,pool=fast").ok()
    root = corral("info", "pooled", "-o", "json").json["spec"]["disks"][0]["volume_uid"]
    assert volume(corral, root)["spec"]["pool"] == "fast"
    corral("delete", "pooled", "-y").ok()
    refused = corral("pool", "delete", "fast")
    assert (refused.status, "data" in refused.err) == (4, True)
    corral("volume", "move", "data", "default").ok()
    assert volume(corral, "data")["spec"]["pool"] == "default"
    assert corral("pool", "delete", "fast").ok().out == "fast: deleted\n"
    assert corral("pool", "delete", "default").status == 4
    assert "overcommit" in corral("pool", "show").ok().out
    corral("volume", "delete", "data").ok()


def test_bad_names_and_sizes_are_told(corral: Any) -> None:
    for argv, code in (
        (("create", "Data", "--size", "1"), "invalid-name"),
        (("create", "5d2e8c1a-0000-4000-8000-000000000000", "--size", "1"), "invalid-name"),
        (("create", "x" * 64, "--size", "1"), "invalid-name"),
        (("create", "nosize"), "invalid-argument"),
        (("create", "tiny", "--size", "1K"), "invalid-document"),
        (("create", "huge", "--size", "900T"), "invalid-document"),
        (("create", "made", "--from-image", "nothing"), "image-not-found"),
        (("resize", "nothing", "2"), "volume-not-found"),
        (("copy", "nothing", "other"), "volume-not-found"),
        (("download", "nothing", "/tmp/nothing.raw"), "volume-not-found"),
        (("attach", "nothing", "nobody"), "vm-not-found"),
        (("detach", "nothing"), "volume-not-found"),
    ):
        refused = corral("volume", *argv)
        assert refused.status != 0, argv
        assert f"[{code}]" in refused.err, (argv, refused.err)
    corral("volume", "create", "twice", "--size", "1").ok()
    assert "[name-taken]" in corral("volume", "create", "twice", "--size", "1").err
    assert "[invalid-size]" in corral("volume", "resize", "twice", "512M").err
    corral("volume", "delete", "twice").ok()


@pytest.mark.parametrize("verb", [("move", "--pool", "default"), ("flatten",)])
def test_a_bandwidth_beyond_all_bounds_is_refused(corral: Any, verb: tuple[str, ...]) -> None:
    corral("volume", "create", "quick", "--size", "1")
    ran = corral("volume", verb[0], "quick", *verb[1:], "--bandwidth", "999999999999999T")
    assert (ran.status, "bytes_per_s" in ran.err) == (2, True), ran.err
