"""One start from another device: the running document alone says so."""

from lxml.etree import fromstring

from corral.hypervisor.libvirt.redefinition import with_boot_device

DOCUMENT = """<domain><os><type>hvm</type><kernel>/k</kernel><cmdline>quiet</cmdline></os><devices>
<disk><target dev="vda"/><boot order="1"/><alias name="ua-disk-root"/></disk>
<disk device="cdrom"><target dev="sda"/><boot order="2"/><alias name="ua-disk-cd0"/></disk>
<interface><mac address="52:54:00:00:00:01"/><alias name="ua-nic-net0"/></interface>
</devices></domain>"""


def order(name: str) -> list[tuple[str, str]]:
    domain = fromstring(with_boot_device(fromstring(DOCUMENT), name))
    assert domain.find("os/kernel") is None  # it would be booted before any device
    assert domain.find("os/type") is not None
    found = [
        (boot.get("order"), boot.getparent().find("alias").get("name"))  # type: ignore[union-attr]
        for boot in domain.iter("boot")
    ]
    return sorted((str(number), str(alias)) for number, alias in found)


def test_the_chosen_device_is_first_and_the_others_follow_as_before() -> None:
    assert order("cd0") == [("1", "ua-disk-cd0"), ("2", "ua-disk-root")]
    assert order("net0") == [("1", "ua-nic-net0"), ("2", "ua-disk-root"), ("3", "ua-disk-cd0")]
    assert fromstring(DOCUMENT).find("os/kernel") is not None
