"""What a new VM gets for its system, media in drives, disks that are made at a path, dry runs."""

from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.model.image import Image
from corral.model.operation import Operation
from corral.model.os import OsInfo
from corral.model.requests import BuildImageRequest, CreateVmRequest
from corral.model.vm import Bus, Firmware, Vm
from corral.model.volume import Volume
from corral.names import GIB, MIB
from corral.services.creation import PreviewService
from corral.services.os import warnings_of
from corral.storage.seed import build_seed

EMPTY = {"disks": [{}]}


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the user's, apart from Corral's own."""
    return tmp_path_factory.mktemp("place")


async def create(world: Any, **request: Any) -> Vm:
    """By an administrator, who may use paths and open ports."""
    body = CreateVmRequest.model_validate({"name": "web", **request})
    vm, _ = await world.vms.create(world.admin(), "default", body)
    assert vm is not None
    return vm


async def refused(world: Any, **request: Any) -> CorralError:
    with pytest.raises(CorralError) as caught:
        await create(world, **request)
    assert await world.objects.list(Vm) == []
    return caught.value


async def medium(world: Any, name: str = "x.iso", **facts: Any) -> Image:
    return await world.image(name, **{"kind": "iso", "disk_format": "", "memory_min_mib": 0, **facts})


def test_what_is_left_open_is_chosen_for_the_system(play: Any) -> None:
    async def scene(world: Any) -> None:
        spec = (await create(world, os="win11", **EMPTY)).spec
        assert (spec.os, spec.firmware, spec.vcpus, spec.memory_mib) == ("win11", Firmware.UEFI, 2, 4096)
        hardware = spec.hardware
        assert (hardware.tpm, hardware.secure_boot, hardware.hyperv, hardware.vmgenid) == (True, True, True, True)
        assert (hardware.clock, hardware.tablet, hardware.video) == ("localtime", "usb", "vga")
        assert (spec.disks[0].bus, spec.nics[0].model) == (Bus.SATA, "e1000e")
        (volume,) = await world.objects.list(Volume)
        assert volume.spec.size_bytes == 64 * GIB

    play(scene)


def test_what_is_said_counts(play: Any) -> None:
    async def scene(world: Any) -> None:
        spec = (
            await create(
                world,
                os="windows11",
                firmware="bios",
                memory_mib=2048,
                vcpus=1,
                disks=[{"bus": "virtio", "size_bytes": GIB}],
                nics=[{"model": "virtio"}],
                hardware={
                    "tpm": False,
                    "clock": "utc",
                    "hyperv": False,
                    "vmgenid": False,
                    "tablet": "virtio",
                    "video": "virtio",
                },
            )
        ).spec
        assert (spec.os, spec.firmware, spec.vcpus, spec.memory_mib) == ("win11", Firmware.BIOS, 1, 2048)
        hardware = spec.hardware
        assert {hardware.tpm, hardware.secure_boot, hardware.hyperv, hardware.vmgenid} == {False}
        assert (hardware.clock, hardware.tablet, hardware.video) == ("utc", "virtio", "virtio")
        assert (spec.disks[0].bus, spec.nics[0].model) == (Bus.VIRTIO, "virtio")

    play(scene)


def test_an_image_decides_on_its_own_firmware_and_memory(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.image("w", os_id="win11", memory_min_mib=64)
        spec = (await create(world, image="w")).spec
        assert (spec.os, spec.firmware, spec.memory_mib, spec.vcpus) == ("win11", Firmware.BIOS, 1024, 1)
        assert (spec.disks[0].bus, spec.hardware.hyperv, spec.hardware.secure_boot) == (Bus.SATA, True, False)

    play(scene)


def test_an_unknown_system_is_refused_with_names_that_are_like_it(play: Any) -> None:
    async def scene(world: Any) -> None:
        error = await refused(world, os="ubunto22.04", **EMPTY)
        assert error.code == "invalid-argument"
        assert "ubuntu22.04" in error.hint

    play(scene)


def test_a_medium_is_put_into_a_drive_and_tells_the_system(play: Any) -> None:
    async def scene(world: Any) -> None:
        image = await medium(world, os_id="ubuntu22.04")
        vm = await create(world, disks=[{}, {"device": "cdrom", "image": "x.iso"}, {"device": "cdrom", "bus": "scsi"}])
        root, first, second = vm.spec.disks
        assert (root.name, root.device, root.volume_uid is not None) == ("root", "disk", True)
        assert (first.name, first.device, first.image_uid, first.bus) == ("cd0", "cdrom", image.uid, Bus.SATA)
        assert (first.read_only, first.image) == (True, "x.iso")
        assert (second.name, second.image_uid, second.bus) == ("cd1", None, Bus.SCSI)
        assert vm.spec.os == "ubuntu22.04"
        assert vm.spec.memory_mib == 1536
        assert vm.image_uids == {image.uid}
        with pytest.raises(CorralError) as caught:
            await world.images.delete(world.caller(), "default", "x.iso")
        assert caught.value.code == "image-in-use"
        assert "web" in caught.value.reason

    play(scene)


def test_a_vm_from_an_image_keeps_its_disk_before_its_drives(play: Any) -> None:
    async def scene(world: Any) -> None:
        await medium(world)
        vm = await create(world, image="micro", disks=[{"device": "cdrom", "image": "x.iso"}])
        assert [disk.name for disk in vm.spec.disks] == ["root", "cd0"]

    play(scene)


def test_a_medium_that_boots_by_uefi_alone_decides(play: Any) -> None:
    async def scene(world: Any) -> None:
        await medium(world, bios=False, uefi=True)
        vm = await create(world, disks=[{}, {"device": "cdrom", "image": "x.iso"}])
        assert vm.spec.firmware is Firmware.UEFI

    play(scene)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"image": "x.iso"}, "unsupported"),
        ({"disks": [{"device": "cdrom", "image": "micro"}]}, "unsupported"),
        ({"disks": [{"device": "cdrom", "image": "nothing.iso"}]}, "image-not-found"),
        ({"disks": [{"device": "cdrom", "path": "/etc/hostname"}]}, "invalid-argument"),
        ({"disks": [{"device": "cdrom", "size_bytes": GIB}]}, "invalid-argument"),
        ({"disks": [{"device": "cdrom", "bus": "virtio"}]}, "invalid-argument"),
        ({"disks": [{"image": "x.iso"}]}, "invalid-argument"),
        ({"disks": [{"format": "raw"}]}, "unsupported"),
        ({"disks": [{"create": True}]}, "invalid-argument"),
        ({"graphics_listen": "everywhere", **EMPTY}, "invalid-hardware"),
        ({"graphics_listen": "0.0.0.0", "graphics": "none", **EMPTY}, "invalid-hardware"),
        ({"hardware": {"secure_boot": True}, "firmware": "bios", **EMPTY}, "invalid-hardware"),
    ],
)
def test_what_does_not_fit_is_refused(play: Any, request_: dict[str, Any], code: str) -> None:
    async def scene(world: Any) -> None:
        await medium(world)
        assert (await refused(world, **request_)).code == code

    play(scene)


def test_a_disk_at_a_path_is_made_once_and_never_overwritten(play: Any, place: Path) -> None:
    async def scene(world: Any) -> None:
        path = place / "new.raw"
        disk = {"path": str(path), "size_bytes": 5 * MIB, "format": "raw", "create": True}
        vm = await create(world, disks=[disk])
        assert (vm.spec.disks[0].path, path.stat().st_size) == (str(path), 5 * MIB)
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_bytes(b"mine")
        await create(world, name="other", disks=[disk])
        assert path.read_bytes() == b"mine"
        assert [found.name for found in place.iterdir() if found.name.startswith(".")] == []

    play(scene)


def test_a_disk_that_was_made_goes_with_a_request_that_fails(play: Any, place: Path) -> None:
    async def scene(world: Any) -> None:
        path = place / "new.raw"
        disk = {"path": str(path), "size_bytes": MIB, "format": "raw", "create": True}
        error = await refused(world, disks=[disk], nics=[{"network": "nothing"}])
        assert error.code == "network-not-found"
        assert not path.exists()

    play(scene)


@pytest.mark.parametrize("path", ["/etc/corral-test.qcow2", "/nonexistent/x.qcow2", "relative.qcow2"])
def test_disks_are_made_in_no_place_of_the_systems(play: Any, path: str) -> None:
    async def scene(world: Any) -> None:
        error = await refused(world, disks=[{"path": path, "size_bytes": MIB, "create": True}])
        assert error.code == "invalid-argument"
        assert error.hint

    play(scene)


def test_opening_a_console_and_a_kernel_of_ones_own_are_for_administrators(play: Any) -> None:
    async def scene(world: Any) -> None:
        for more in ({"graphics_listen": "0.0.0.0"}, {"hardware": {"kernel": {"kernel": "/boot/vmlinuz"}}}):
            body = CreateVmRequest.model_validate({"name": "web", "image": "micro", **more})
            with pytest.raises(CorralError) as caught:
                await world.vms.create(world.caller(), "default", body)
            assert caught.value.code == "forbidden"

    play(scene)


def test_a_dry_run_makes_nothing(play: Any, place: Path) -> None:
    async def scene(world: Any) -> None:
        async def draw(vm: Vm, volumes: Any) -> str:
            return f"{vm.name} with {len(volumes)} volumes"

        iso = place / "any.iso"
        iso.write_bytes(build_seed({"a": b"b"}, "Debian 12.5.0 n"))
        previews = PreviewService(world.context, draw)
        body = {
            "name": "web",
            "dry_run": True,
            "graphics_listen": "0.0.0.0",
            "memory_mib": 128,
            "disks": [
                {},
                {"device": "cdrom", "path": str(iso)},
                {"path": str(place / "n"), "size_bytes": MIB, "create": True},
            ],
        }
        before = world.objects.store.revision
        found = await previews.create(world.admin(), "default", CreateVmRequest.model_validate(body))
        assert world.objects.store.revision == before
        assert not (place / "n").exists()
        assert found.document == "web with 1 volumes"
        assert found.vm.spec.os == "debian12"
        assert [disk.path for disk in found.vm.spec.disks] == [None, str(iso), str(place / "n")]
        assert len(found.warnings) == 2
        assert previews.warnings(found.vm) == found.warnings
        assert world.context.ledger.dac_uids.held == set()
        assert world.context.ledger.committed.memory_mib == 0

    play(scene)


@pytest.mark.parametrize("content", [None, b"", b"x" * 100_000])
def test_a_dry_run_refuses_what_is_no_medium(play: Any, place: Path, content: bytes | None) -> None:
    async def scene(world: Any) -> None:
        async def draw(_vm: Vm, _volumes: Any) -> str:
            raise AssertionError("it was drawn")

        iso = place / "any.iso"
        if content is not None:
            iso.write_bytes(content)
        body = {"name": "web", "dry_run": True, "disks": [{"device": "cdrom", "path": str(iso)}]}
        with pytest.raises(CorralError) as caught:
            await PreviewService(world.context, draw).create(
                world.admin(), "default", CreateVmRequest.model_validate(body)
            )
        assert caught.value.code == "image-invalid"

    play(scene)


def test_windows_with_virtio_is_told_of_its_drivers(play: Any) -> None:
    async def scene(world: Any) -> None:
        windows: OsInfo = world.context.systems.find("win11")
        vm = await create(world, os="win11", disks=[{"bus": "virtio"}], nics=[])
        assert any("virtio-win" in text for text in warnings_of(vm.spec, windows))
        vm = await create(world, name="other", os="win11", disks=[{}], nics=[])
        assert warnings_of(vm.spec, windows) == ()

    play(scene)


def test_answers_for_an_installer_are_kept_out_of_the_images_document(play: Any, place: Path) -> None:
    async def scene(world: Any) -> None:
        request = BuildImageRequest(name="a.iso", files={"user-data": "geheim"}, volume_id="cidata")
        image, operation = await world.images.build(world.caller(), "default", request)
        assert "geheim" not in image.model_dump_json() + operation.model_dump_json()
        assert b"geheim" in Path(image.spec.staged).read_bytes()
        assert Path(image.spec.staged).stat().st_mode & 0o777 == 0o600
        (place / "linux").write_bytes(b"k")
        request = BuildImageRequest(name="i.iso", location=str(place), cmdline="a b", files={"preseed.cfg": "geheim"})
        image, _ = await world.images.build(world.admin(), "default", request)
        assert (image.spec.source, image.spec.path, image.spec.cmdline) == ("installer", str(place), "a b")
        assert Path(image.spec.staged).read_bytes().startswith(b"070701")

    play(scene)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"location": "relative"}, "invalid-argument"),
        ({"location": "ftp://x.org/y"}, "invalid-argument"),
        ({"location": "/nonexistent/place"}, "invalid-argument"),
        ({"location": "/tmp", "cmdline": "a='b'"}, "invalid-argument"),
        ({"location": "/tmp", "kernel": "x"}, "invalid-argument"),
        ({"location": "/tmp", "path": "/x"}, "invalid-argument"),
        ({"cmdline": "quiet"}, "invalid-argument"),
        ({"files": {"a": "b"}}, "invalid-argument"),
        ({"volume_id": "cidata"}, "invalid-argument"),
    ],
)
def test_media_that_cannot_be_made_are_refused(play: Any, request_: dict[str, Any], code: str) -> None:
    async def scene(world: Any) -> None:
        with pytest.raises(CorralError) as caught:
            await world.images.build(world.admin(), "default", BuildImageRequest(name="x.iso", **request_))
        assert caught.value.code == code
        assert await world.objects.list(Operation) == []

    play(scene)


def test_an_installers_place_is_for_administrators(play: Any) -> None:
    async def scene(world: Any) -> None:
        with pytest.raises(CorralError) as caught:
            await world.images.build(world.caller(), "default", BuildImageRequest(name="x.iso", location="/tmp"))
        assert caught.value.code == "forbidden"

    play(scene)
