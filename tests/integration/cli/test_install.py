"""The command lines of every KVM tutorial, word for word, against a daemon with the simulated hypervisor."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.storage.seed import build_seed


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an installer's ISO, to stand in."""
    (tmp_path / "ubuntu-22.04.iso").write_bytes(build_seed({"a": b"b"}, "Ubuntu 22.04"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line(text: str) -> list[str]:
    return text.replace("\\\n", " ").split()


def test_the_classic_walk_word_for_word(corral: Any, desk: Path) -> None:
    installed = corral(
        *line(
            f"""install --name my-vm --memory 2048 --vcpus 2 --disk path={desk}/my-vm.qcow2,size=20 \\
            --network network=default,model=virtio --graphics spice,listen=0.0.0.0 --os-variant ubuntu22.04 --cdrom ubuntu-22.04.iso"""
        )
    )
    installed.ok()
    assert "warning: the graphical console is open on every address" in installed.err
    assert "corral console my-vm" in installed.err
    assert (desk / "my-vm.qcow2").read_bytes().startswith(b"QFI\xfb")
    assert "my-vm" in corral("list", "--all").ok().out
    spec = corral("info", "my-vm", "-o", "json").json["spec"]
    assert (spec["os"], spec["memory_mib"], spec["vcpus"], spec["graphics"]) == ("ubuntu22.04", 2048, 2, "spice")
    (finding,) = [found for found in json.loads(corral("doctor", "-o", "json").out) if found["id"] == "open-consoles"]
    assert (finding["level"], "my-vm (spice on 0.0.0.0)" in finding["found"]) == ("warning", True)
    corral("start", "my-vm").ok()
    corral("shutdown", "my-vm").ok()
    corral("start", "my-vm").ok()
    corral("destroy", "my-vm").ok()
    assert "shut off" in corral("dominfo", "my-vm").ok().out
    in_use = corral("image", "delete", "ubuntu-22.04.iso")
    assert "[image-in-use]" in in_use.err
    corral("delete", "my-vm").ok()
    assert (desk / "my-vm.qcow2").exists()  # it is the user's own
    corral("image", "delete", "ubuntu-22.04.iso").ok()


def test_a_kept_volume_is_imported_as_a_file_is(corral: Any, desk: Path) -> None:
    corral("create", "first", "--image", "micro", "--memory", "128").ok()
    corral("delete", "first", "--keep-disks").ok()
    (volume,) = [name for name in corral("volume", "list", "-o", "name").ok().out.split() if name.startswith("first-")]
    corral("install", "--name", "second", "--import", "--memory", "128", "--disk", f"volume={volume}").ok()
    assert volume in corral("disk", "list", "second").ok().out
    corral("delete", "second").ok()
    corral("volume", "delete", volume).ok()


def test_a_medium_is_imported_once_whatever_it_is_called(corral: Any, desk: Path) -> None:
    corral("install", "--name", "one", "--cdrom", "ubuntu-22.04.iso", "--noautoconsole").ok()
    (desk / "same.iso").write_bytes((desk / "ubuntu-22.04.iso").read_bytes())
    corral("create", "two", "--disk", "5", "--cdrom", f"{desk}/same.iso").ok()
    corral("create", "three", "--disk", "5", "--cdrom", "ubuntu-22.04.iso", "--no-start").ok()
    (desk / "ubuntu-22.04.iso").write_bytes(build_seed({"a": b"c" * 9000}, "Other"))
    corral("create", "four", "--disk", "5", "--cdrom", "ubuntu-22.04.iso").ok()
    media = [image for image in corral("image", "list", "-o", "json").json if image["name"].endswith(".iso")]
    assert len(media) == 2
    uids = {
        name: corral("info", name, "-o", "json").json["spec"]["disks"][1]["image_uid"]
        for name in ("one", "two", "three", "four")
    }
    assert uids["one"] == uids["two"] == uids["three"] != uids["four"]
    assert corral("info", "one", "-o", "json").json["spec"]["os"] == "ubuntu22.04"
    corral("delete", "one", "two", "three", "four").ok()
    corral("image", "delete", *(image["name"] for image in media)).ok()


def test_a_medium_that_several_need_at_once_is_theirs(corral: Any, desk: Path) -> None:
    names = [f"sat-{number}" for number in range(4)]
    (desk / "shared.iso").write_bytes(build_seed({"a": b"b" * 9000}, "Shared"))
    argv = ("--cdrom", "shared.iso", "--disk", "5", "--memory", "64", "--no-start")
    running = [corral.start("create", name, *argv) for name in names]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in running]
    assert [status for _, status in ended] == [0] * len(names), ended
    digests = set()
    for name in names:
        uid = corral("info", name, "-o", "json").json["spec"]["disks"][1]["image_uid"]
        [image] = [image for image in corral("image", "list", "-o", "json").json if image["uid"] == uid]
        digests.add(image["status"]["facts"]["digest"])
    assert len(digests) == 1
    corral("delete", *names).ok()
    media = [image["name"] for image in corral("image", "list", "-o", "json").json if image["name"].endswith(".iso")]
    corral("image", "delete", *media).ok()


def test_a_refused_request_leaves_nothing(corral: Any, desk: Path) -> None:
    """No key, no medium, no file: what is in the way is found before anything is made."""
    nouns = ("image", "volume", "operation")
    corral("create", "taken", "--image", "micro", "--memory", "128", "--no-start").ok()
    poor = replace(corral, home=desk / "home")  # its owner has no key
    poor.home.mkdir()
    (desk / "answers.yaml").write_text("#cloud-config\nautoinstall:\n  version: 1\n")
    before = [corral(noun, "list", "-o", "json").json for noun in nouns]
    for argv, code in (
        ("create taken --image micro", "name-taken"),
        ("create fresh --image no-such-image", "image-not-found"),
        ("create fresh --image micro --memory 3T", "insufficient-memory"),
        ("create fresh --image micro --network lost", "network-not-found"),
        (f"install --name taken --cdrom ubuntu-22.04.iso --disk path={desk}/new.qcow2,size=3", "name-taken"),
        ("install --name taken --cdrom ubuntu-22.04.iso --disk 3 --unattended answers.yaml", "name-taken"),
    ):
        refused = poor(*line(argv))
        assert (refused.status != 0, f"[{code}]" in refused.err) == (True, True), refused.err
    assert [corral(noun, "list", "-o", "json").json for noun in nouns] == before
    assert not (poor.home / ".ssh").exists()
    assert not (desk / "new.qcow2").exists()
    assert "made" in poor("create", "fresh", "--image", "micro", "--memory", "128", "--no-start").ok().err
    assert (poor.home / ".ssh" / "corral_ed25519.pub").exists()
    corral("delete", "taken", "fresh").ok()


def test_a_dry_run_makes_nothing(corral: Any, desk: Path) -> None:
    def state() -> list[Any]:
        return [corral(noun, "list", "-o", "json").json for noun in ("image", "volume", "operation")]

    before = state()
    argv = ["install", "--name", "dry", "--cdrom", "ubuntu-22.04.iso", "--disk", f"path={desk}/dry.qcow2,size=3"]
    assert "nothing was made" in corral(*argv, "--dry-run").ok().out
    assert corral(*argv, "--dry-run", "-o", "json").json["spec"]["os"] == "ubuntu22.04"
    assert corral(*argv, "--print-xml").ok().out.startswith("<domain")
    assert corral(*argv, "--dry-run", "--os-variant", "nothing").status == 2
    assert corral("create", "dry", "--image", "micro", "--print-xml").ok().out.startswith("<domain")
    assert state() == before
    assert not (desk / "dry.qcow2").exists()


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        ("install --name x", 2, "nothing says what it boots"),
        ("install --name x --import --disk size=3", 2, "no disk with a system"),
        ("install --name x --cdrom missing --disk 3", 3, "corral image list"),
        ("install --name x --cdrom ./missing.iso --disk 3", 3, "No such file"),
        ("install --name x --cdrom https://x.org/y.iso --disk 3", 2, "download it"),
        ("install --name x --cdrom /etc/hostname --disk 3", 2, "it ends too early"),
        ("install --name x --pxe --disk 3 --extra-args quiet", 2, "--location"),
        ("install --name x --pxe --disk 3 --network bridge=br9", 2, "this host has no bridge br9"),
        ("install --name x --pxe --disk 3 --unattended", 2, "--unattended FILE"),
        ("install --name x --pxe --disk 3 --unattended profile=jeos", 2, "write the answers yourself"),
        ("install --name x --location ftp://x.org/y --disk 3", 2, "no https URL"),
        ("install --name x --smartcard host --pxe", 2, "--smartcard"),
        ("install", 2, "--name NAME"),
    ],
)
def test_what_cannot_be_done_is_said(corral: Any, desk: Path, argv: str, status: int, said: str) -> None:
    before = corral("list", "--all", "-o", "name").ok().out
    ran = corral(*argv.split())
    assert (ran.status, said in ran.err) == (status, True), ran.err
    assert corral("list", "--all", "-o", "name").ok().out == before
    assert "failed" not in corral("image", "list").ok().out


def test_the_bridge_of_a_network_stands_for_it(corral: Any, desk: Path) -> None:
    (network,) = corral("network", "list", "-o", "json").json
    body = corral(
        "create", "b", "--disk", "1", "--network", f"bridge={network['spec']['bridge']}", "--dry-run", "-o", "json"
    )
    assert body.json["spec"]["nics"][0]["network"] == "default"


def test_answers_come_on_a_second_medium(corral: Any, desk: Path) -> None:
    (desk / "user-data").write_text("#cloud-config\nautoinstall:\n  version: 1\n")
    (desk / "ks.cfg").write_text("rootpw --lock\n%packages\n%end\n")
    (desk / "preseed.cfg").write_text("d-i debian-installer/locale string en_US\n")
    media = ["--cdrom", "ubuntu-22.04.iso", "--disk", "5"]
    corral("install", "--name", "auto", *media, "--unattended", "user-data").ok()
    corral("install", "--name", "kick", *media, "--unattended", "file=ks.cfg").ok()
    labels = {
        image["name"]: image["status"]["facts"]["volume_id"]
        for image in corral("image", "list", "-o", "json").json
        if "answers" in image["name"]
    }
    assert labels == {"auto-answers.iso": "cidata", "kick-answers.iso": "OEMDRV"}
    disks = corral("info", "auto", "-o", "json").json["spec"]["disks"]
    assert [disk["name"] for disk in disks] == ["root", "cd0", "cd1"]
    refused = corral("install", "--name", "pre", *media, "--unattended", "preseed.cfg")
    assert (refused.status, "--location ubuntu-22.04.iso" in refused.err) == (2, True)
    corral("delete", "auto", "kick").ok()


def test_an_installers_kernel_becomes_a_medium(corral: Any, desk: Path) -> None:
    (desk / "preseed.cfg").write_text("d-i debian-installer/locale string en_US\n")
    (desk / "tree").mkdir()
    (desk / "tree" / "linux").write_bytes(b"kernel")
    argv = ["install", "--name", "loc", "--location", "tree", "--disk", "5", "--unattended", "preseed.cfg"]
    corral(*argv, "--extra-args", "console=ttyS0", "--initrd-inject", "preseed.cfg", "--dry-run").ok()
    corral(*argv, "--extra-args", "console=ttyS0").ok()
    (image,) = [image for image in corral("image", "list", "-o", "json").json if image["name"] == "loc-installer.iso"]
    assert image["spec"]["path"] == str(desk / "tree")
    assert image["spec"]["cmdline"] == "console=ttyS0 auto=true priority=critical"
    iso = corral("install", "--name", "iso", "--location", "ubuntu-22.04.iso,kernel=a,initrd=b", "--disk", "5").ok()
    assert "iso-installer.iso" in iso.err
    names = [disk.get("image_uid") is not None for disk in corral("info", "iso", "-o", "json").json["spec"]["disks"]]
    assert names == [False, True, True]  # the disk, the made medium, the ISO that the installer reads packages from
    corral("delete", "loc", "iso").ok()


def test_waiting_for_the_end_of_an_installation(corral: Any, desk: Path) -> None:
    waiting = corral.start("install", "--name", "w", "--pxe", "--disk", "1", "--wait", "--noautoconsole")
    try:
        _until_there(corral, "w")
        corral("destroy", "w").ok()
        assert waiting.wait(60) == 0
    finally:
        if waiting.poll() is None:
            waiting.kill()
        waiting.communicate()
    corral("delete", "w").ok()


def _until_there(corral: Any, name: str) -> None:
    for _ in range(200):
        if (
            subprocess.run(corral.argv("info", name), env=corral.environ, capture_output=True, check=False).returncode
            == 0
        ):
            corral("wait", name, "--for", "running").ok()
            return
    raise AssertionError(f"{name} never came")


def test_systems(corral: Any) -> None:
    assert "win11" in corral("os", "list", "-o", "name").ok().out
    assert corral("os", "show", "windows11", "-o", "json").json["tpm"] is True
    assert corral("os", "show", "nothing").status == 2


def test_who_may_not_name_files_of_the_host_sends_them(corral: Any, desk: Path) -> None:
    import os

    from corral.client import Client

    content = (desk / "ubuntu-22.04.iso").read_bytes()
    with Client(corral.state_dir / "run" / "corral.sock", timeout_s=60) as client:
        token = client.upload([content[:1000], content[1000:]])
        assert client.build_image({"name": "sent.iso", "format": "iso", "upload": token})["operation"]["uid"]
        with pytest.raises(Exception, match="none of that token"):
            client.build_image({"name": "other.iso", "format": "iso", "upload": "0" * 32})
    for _ in range(100):
        (image,) = [found for found in corral("image", "list", "-o", "json").json if found["name"] == "sent.iso"]
        if image["status"]["state"] == "ready":
            break
    assert image["status"]["facts"]["volume_id"] == "Ubuntu 22.04"
    assert [name for name in os.listdir(corral.state_dir / "images") if name.startswith(".staged")] == []
    corral("image", "delete", "sent.iso").ok()
