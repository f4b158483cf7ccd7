"""virt-install's command lines, each with the request that it comes to: tests/golden/install.json holds them all."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from corral.cli import create, install, vm_options
from corral.cli.main import main
from corral.cli.media import check_readable, medium_name, take_file
from corral.cli.syntax import split_commas
from corral.cli.unattended import kind_of
from corral.cli.vm_request import request_body
from corral.errors import CorralError

GOLDEN = Path(__file__).parents[2] / "golden" / "install.json"
# `python -m pytest tests/unit/cli/test_install.py` with this set writes the golden file anew; read its difference.
REGENERATE = bool(os.environ.get("CORRAL_UPDATE_GOLDEN"))

# Every option, and every key of every option, that is understood.
LINES = (
    "--memory 2048 --vcpus 2 --disk path=/vm/my-vm.qcow2,size=20 --network network=default,model=virtio --graphics spice,listen=0.0.0.0 --os-variant ubuntu22.04 --cdrom ubuntu-22.04.iso",
    "--ram 2G,maxmemory=4G,hugepages=yes --disk size=20,format=qcow2,bus=scsi,cache=none,io=native,discard=ignore --import",
    "--memory memory=1024,maxmemory=2048 --vcpus 4,sockets=2,cores=4,threads=1,maxvcpus=8,cpuset=0-3",
    "--vcpus sockets=2,cores=3",
    "--vcpus 2,cpuset=auto",
    "--cpu host-passthrough",
    "--cpu host",
    "--cpu EPYC,+svm,-x2apic,require=avx2,disable=hle",
    "--cpu mode=host-model,topology.sockets=1,topology.cores=4",
    "--disk /vm/a.raw --disk path=/vm/b.qcow2,readonly=on,perms=ro --disk 20 --disk 5G",
    "--disk size=5,pool=default,sparse=yes,iothread=1,iops=500,bytes_per_s=1000000,name=fast,keep=yes --iothreads 2",
    "--disk size=1,total_iops_sec=10,total_bytes_sec=20,driver.io=threads,driver.cache=unsafe,driver.discard=unmap",
    "--disk size=1,device=disk,type=file,target.bus=virtio,driver.type=qcow2",
    "--disk device=cdrom,path=virtio-win.iso,bus=scsi --disk device=cdrom --disk device=cdrom,image=rescue.iso",
    "--disk size=1,boot_order=2 --disk device=cdrom,image=x.iso,boot_order=1 --network default,boot_order=3",
    "--disk none --network none",
    "--nodisks --pxe",
    "--network default --network network=lab,mac=52:54:00:AA:00:01,model=e1000e,link=down,queues=4,pxe=yes",
    "--network default,mac=RANDOM,model.type=rtl8139,link_state=up,driver.queues=2,address=192.168.1.9,type=network",
    "--graphics none",
    "--graphics vnc,listen=localhost",
    "--graphics type=vnc,listen=socket --video virtio",
    "--nographics --serial pty --serial pty,log=x --console pty",
    "--video model.type=qxl --sound ac97 --tpm emulator,version=2.0,model=tpm-crb --watchdog i6300esb,action=poweroff",
    "--sound default --tpm none --watchdog default --rng none --panic none --clock offset=localtime",
    "--watchdog none --rng /dev/urandom --panic default --clock utc --tpm tpm-crb",
    "--controller usb --controller scsi,model=virtio-scsi",
    "--controller usb3,model=none",
    "--filesystem /srv/data,data --filesystem source=/srv/more,target=more,readonly=no,driver.type=virtiofs,accessmode=passthrough",
    "--hostdev 0000:01:00.0 --hostdev 02:00.1 --hostdev pci_0000_03_00_0 --hostdev 046d:c52b --hostdev 0x0781:0x5567",
    "--boot uefi",
    "--boot firmware=efi,loader.secure=yes,menu=on",
    "--boot hd,cdrom,network,menu=off --disk 5 --cdrom x.iso",
    "--boot cdrom,hd --image debian-12 --cdrom x.iso --no-ssh-key",
    "--boot 'kernel=/boot/vmlinuz,initrd=/boot/initrd,kernel_args=\"console=ttyS0,115200 quiet\"'",
    "--os-variant detect=on,require=off",
    "--osinfo name=win11",
    "--osinfo short-id=debian12,require=on",
    "--os-variant auto",
    "--machine q35 --virt-type kvm --arch x86_64 --connect qemu:///system --hvm --memballoon virtio --input tablet,bus=usb",
    "--channel unix,target.name=org.qemu.guest_agent.0 --quiet --debug",
    "--description text --autostart --no-start --label a=b --run-policy always --firmware uefi --force --protect",
)  # fmt: skip


def body(line: str, command: Any = install.install) -> dict[str, Any]:
    context = command.make_context("install", ["vm", *shlex.split(line)])
    return request_body("vm", {**context.params, "dry_run": False})


def test_every_line_comes_to_its_request() -> None:
    found = {line: body(line) for line in LINES}
    if REGENERATE:
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("line", LINES)
def test_create_understands_them_too(line: str) -> None:
    assert body(line, create.create) == body(line)


@pytest.mark.parametrize("line", LINES)
def test_the_requests_are_valid_ones(line: str) -> None:
    from corral.model.requests import CreateVmRequest

    request = body(line)
    for disk in request.get("disks", []):
        if medium := disk.pop("medium", None):
            disk["image"] = medium.lower()
    CreateVmRequest.model_validate(request)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--disk vol=a/b,size=1", "unsupported"),
        ("--disk size=1,backing_store=/x", "unsupported"),
        ("--disk size=1,bus=ide", "unsupported"),
        ("--disk size=1,format=vmdk", "unsupported"),
        ("--disk size=1,device=floppy", "unsupported"),
        ("--disk size=1,sparse=no", "unsupported"),
        ("--disk size=1,type=network", "unsupported"),
        ("--disk size=1,cdrom", "invalid-argument"),
        ("--disk device=cdrom,size=1", "invalid-argument"),
        ("--disk bus=virtio", "invalid-argument"),
        ("--disk size=1,size=2", "invalid-argument"),
        ("--disk size=1,", "invalid-argument"),
        ("--disk 'size=1,name=\"x'", "invalid-argument"),
        ("--network user", "unsupported"),
        ("--network type=direct,source=eth0", "unsupported"),
        ("--network default,model=ne2k", "unsupported"),
        ("--network default,filterref=x", "unsupported"),
        ("--network none --network default", "invalid-argument"),
        ("--network default,bridge=br0", "invalid-argument"),
        ("--graphics spice,port=5900", "unsupported"),
        ("--graphics vnc,password=x", "unsupported"),
        ("--graphics sdl", "unsupported"),
        ("--boot fd", "unsupported"),
        ("--boot loader=/x", "unsupported"),
        ("--boot machine=pc-i440fx-7.2", "unsupported"),
        ("--boot initrd=/x", "invalid-argument"),
        ("--boot hd,cdrm", "invalid-argument"),
        ("--pxe --network none", "invalid-argument"),
        ("--vcpus two", "invalid-argument"),
        ("--vcpus 2,dies=2", "unsupported"),
        ("--memory 1024,slots=4", "invalid-argument"),
        ("--cpu EPYC,numa.cell0.id=0", "unsupported"),
        ("--tpm /dev/tpm0", "unsupported"),
        ("--tpm emulator,version=1.2", "unsupported"),
        ("--watchdog ib700", "unsupported"),
        ("--watchdog default,action=dump", "unsupported"),
        ("--video cirrus", "unsupported"),
        ("--sound sb16", "unsupported"),
        ("--rng egd", "unsupported"),
        ("--serial tcp,host=:1", "unsupported"),
        ("--controller ide", "unsupported"),
        ("--controller scsi,model=lsilogic", "unsupported"),
        ("--filesystem /srv", "invalid-argument"),
        ("--filesystem /srv,data,driver.type=path", "unsupported"),
        ("--hostdev 001.003", "unsupported"),
        ("--clock offset=timezone", "unsupported"),
        ("--os-variant nme=x", "invalid-argument"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_reason(line: str, code: str) -> None:
    with pytest.raises(CorralError) as caught:
        body(line)
    assert caught.value.code == code
    assert caught.value.reason
    assert line.partition(" ")[0] in caught.value.asked


@pytest.mark.parametrize("option", sorted(vm_options.REFUSED))
def test_every_other_option_of_virt_install_is_known_and_says_what_is_instead(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "vm", "--import", "--disk", "/x", option, "something,x=1"]) == 2
    said = capsys.readouterr().err
    assert option in said
    assert "[unsupported]" in said
    assert vm_options.REFUSED[option] in said


def test_quotes_keep_commas_together() -> None:
    assert split_commas("a=1,b=\"2,3\",c='4,5'", "--x") == ["a=1", "b=2,3", "c=4,5"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("ubuntu-22.04.iso", "ubuntu-22.04.iso"),
        ("Win11_22H2 (x64).ISO", "win11-22h2-x64.iso"),
        ("-..-.iso", "medium.iso"),
        ("a..b", "a.b.iso"),
        ("x" * 200 + ".iso", "x" * 59 + ".iso"),
    ],
)
def test_a_medium_is_called_as_its_file(file: str, name: str) -> None:
    assert medium_name(Path("/iso") / file) == name


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("#cloud-config\nautoinstall:\n  version: 1\n", "autoinstall"),
        ("autoinstall:\n  version: 1\n", "autoinstall"),
        ("# a preseed file\nd-i debian-installer/locale string en_US\n", "preseed"),
        ("lang en_US\nrootpw --lock\n%packages\n%end\n", "kickstart"),
        ('<?xml version="1.0"?>\n<unattend xmlns="urn:schemas-microsoft-com:unattend"/>', "answer-file"),
        ("hello\n", ""),
        ("", ""),
    ],
)
def test_answers_are_known_by_what_they_say(text: str, kind: str) -> None:
    assert kind_of(text) == kind


class _Daemon:
    """What `take_file` may see of a daemon that lets nobody name files of its host."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.sent = b""

    def build_image(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        if "path" in body:
            raise CorralError("forbidden", "host.use-path", "you are an operator")
        return {"operation": {"uid": "u"}}

    def upload(self, pieces: Any, _on_written: Any) -> str:
        self.sent = b"".join(pieces)
        return "t" * 32


@pytest.mark.parametrize("remote", [False, True])
def test_a_file_is_sent_to_who_cannot_read_it_for_us(tmp_path: Path, remote: bool) -> None:
    daemon = _Daemon()

    class Session:
        is_remote = remote

        def client(self) -> _Daemon:
            return daemon

    (tmp_path / "x.iso").write_bytes(b"x" * 600_000)
    take_file(Session(), tmp_path / "x.iso", {"name": "x.iso", "format": "iso"})  # type: ignore[arg-type]
    assert daemon.sent == b"x" * 600_000
    assert daemon.asked[-1] == {"name": "x.iso", "format": "iso", "upload": "t" * 32}
    assert len(daemon.asked) == (1 if remote else 2)


def test_a_file_that_its_user_may_not_read_is_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CorralError) as caught:
        check_readable(tmp_path / "missing.iso")
    assert caught.value.code == "image-invalid"
    assert "the right to read it yourself" in caught.value.hint
