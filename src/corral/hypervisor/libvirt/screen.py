"""The graphical console: VNC or SPICE, the video card, the pointer, sound."""

from collections.abc import Iterator
from typing import Final

from lxml.etree import Element, SubElement, _Element

from corral.hypervisor.base import DomainDefinition

VNC_SOCKET: Final = "vnc.sock"
SPICE_SOCKET: Final = "spice.sock"
SPICE_CHANNEL: Final = "com.redhat.spice.0"
SOCKETS: Final = {"vnc": VNC_SOCKET, "spice": SPICE_SOCKET}


def build_screen(definition: DomainDefinition) -> Iterator[_Element]:
    """On a Unix socket unless an address is given; standard VGA, which every firmware and kernel can draw on, and an
    absolute pointer, unless others are wished."""
    hardware = definition.hardware
    if definition.graphics == "none":
        yield _build_video("none")
    else:
        if definition.graphics == "spice":
            yield _build_spice_channel()
        yield Element("input", type="tablet", bus=hardware.tablet)
        yield _build_graphics(definition)
        yield _build_video(hardware.video)
    if hardware.sound != "none":
        yield Element("sound", model=hardware.sound)


def _build_graphics(definition: DomainDefinition) -> _Element:
    graphics = Element("graphics", type=definition.graphics)
    if definition.graphics_listen:
        graphics.set("autoport", "yes")
        SubElement(graphics, "listen", type="address", address=definition.graphics_listen)
    else:
        socket = f"{definition.run_dir}/{SOCKETS[definition.graphics]}"
        SubElement(graphics, "listen", type="socket", socket=socket)
    return graphics


def _build_video(model: str) -> _Element:
    video = Element("video")
    SubElement(video, "model", type=model)
    return video


def _build_spice_channel() -> _Element:
    """For SPICE's own agent in the guest: clipboard, and a screen that follows the viewer's size."""
    channel = Element("channel", type="spicevmc")
    SubElement(channel, "target", type="virtio", name=SPICE_CHANNEL)
    return channel
