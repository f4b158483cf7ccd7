"""PCI and USB devices from a made-up sysfs: groups, bridges, and why a device can or cannot be given away."""

from pathlib import Path

from corral.hypervisor.iommu import explain, has_iommu, read_pci_devices, read_usb_devices

GPU, GPU_SOUND, CARD, BRIDGE, LONELY = (
    "0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "0000:00:01.0", "0000:03:00.0",
)  # fmt: skip


def add_pci(root: Path, address: str, pci_class: str, group: int | None, driver: str = "", boot_vga: str = "") -> None:
    place = root / "sys/bus/pci/devices" / address
    place.mkdir(parents=True)
    for name, text in {"class": f"0x{pci_class}\n", "vendor": "0x10de\n", "device": "0x1234\n"}.items():
        (place / name).write_text(text)
    if boot_vga:
        (place / "boot_vga").write_text(f"{boot_vga}\n")
    for name, target in (("driver", f"drivers/{driver}"), ("iommu_group", f"iommu_groups/{group}")):
        if target.endswith(("/", "None")):
            continue
        (place / name).symlink_to(root / "sys" / target)
    if group is not None:
        (root / f"sys/kernel/iommu_groups/{group}").mkdir(parents=True, exist_ok=True)


def machine(root: Path) -> Path:
    add_pci(root, BRIDGE, "060400", 1)
    add_pci(root, GPU, "030000", 1, driver="vfio-pci")
    add_pci(root, GPU_SOUND, "040300", 1, driver="snd_hda_intel")
    add_pci(root, CARD, "020000", 2, driver="e1000e")
    add_pci(root, LONELY, "030000", None, boot_vga="1")
    return root


def test_devices_know_their_group(tmp_path: Path) -> None:
    devices = {device.address: device for device in read_pci_devices(machine(tmp_path))}
    assert has_iommu(tmp_path)
    assert devices[GPU].group == (BRIDGE, GPU, GPU_SOUND)
    assert (devices[CARD].iommu_group, devices[CARD].driver, devices[CARD].group) == (2, "e1000e", (CARD,))
    assert devices[BRIDGE].bridge
    assert devices[LONELY].iommu_group is None


def test_why_a_device_cannot_be_given(tmp_path: Path) -> None:
    devices = read_pci_devices(machine(tmp_path))
    by_address = {device.address: device for device in devices}

    def why(address: str, *given: str) -> str:
        return "; ".join(explain(by_address[address], devices, frozenset(given)))

    assert "shares IOMMU group 1 with 0000:01:00.1 (snd_hda_intel)" in why(GPU, GPU)
    assert why(GPU, GPU, GPU_SOUND) == ""
    assert why(GPU_SOUND, GPU_SOUND) == ""  # the other one is held for guests already
    assert why(CARD) == ""  # in use by the host, alone in its group: libvirt takes it over
    assert "is a bridge" in why(BRIDGE, GPU, GPU_SOUND)
    assert "no IOMMU group" in why(LONELY)
    assert "own screen" in why(LONELY)


def test_usb_devices_without_hubs(tmp_path: Path) -> None:
    for name, vendor, product, kind in (("usb1", "1d6b", "0002", "09"), ("1-1", "046d", "c52b", "00")):
        place = tmp_path / "sys/bus/usb/devices" / name
        place.mkdir(parents=True)
        for file, text in {"idVendor": vendor, "idProduct": product, "bDeviceClass": kind, "product": "x"}.items():
            (place / file).write_text(f"{text}\n")
    (tmp_path / "sys/bus/usb/devices/1-0:1.0").mkdir()
    assert [(device.vendor, device.product) for device in read_usb_devices(tmp_path)] == [("046d", "c52b")]


def test_a_machine_without_any(tmp_path: Path) -> None:
    assert read_pci_devices(tmp_path) == ()
    assert read_usb_devices(tmp_path) == ()
    assert not has_iommu(tmp_path)
