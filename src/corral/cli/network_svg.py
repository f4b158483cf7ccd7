"""The drawing of a topology as SVG: networks are bars, what is on them hangs above, one column each. Pure."""

from collections.abc import Iterator
from typing import Final

from lxml.etree import Element, SubElement, _Element, indent, tostring

from corral.cli.topology import Thing, Topology, Wire

SVG: Final = "http://www.w3.org/2000/svg"
MARGIN: Final = 24
COLUMN: Final = 168
BOX_WIDTH: Final = 148
BOX_HEIGHT: Final = 44
NOTE_HEIGHT: Final = 15
ROW: Final = 64
BAR: Final = 10
LEGEND: Final = 190
"""Left of the bars: the networks' names."""
# About as wide as a character of 12 px is; longer texts are cut, and whole in the tooltip.
_CHARACTER: Final = 6.7
_FONT: Final = "DejaVu Sans, Verdana, sans-serif"
_COLOURS: Final = {
    "nat": "#2a6fb0",
    "routed": "#2f855a",
    "isolated": "#805ad5",
    "bridge": "#b7791f",
    "macvtap": "#c05621",
    "libvirt": "#718096",
}
_FILLS: Final = {"vm": "#ffffff", "router": "#fefcbf", "world": "#e2e8f0"}
_INK: Final = "#1a202c"
_GREY: Final = "#718096"


def draw_svg(topology: Topology, title: str) -> bytes:
    """A document of its own, with its XML declaration."""
    notes = max((len(thing.notes) for thing in topology.things), default=0)
    top = MARGIN + BOX_HEIGHT + notes * NOTE_HEIGHT + MARGIN
    width = MARGIN * 2 + LEGEND + COLUMN * max(1, len(topology.things))
    height = top + ROW * max(1, len(topology.wires)) + MARGIN
    root = Element(f"{{{SVG}}}svg", nsmap={None: SVG})  # type: ignore[dict-item]  # a default namespace, which the stubs lack
    for name, value in (("width", width), ("height", height), ("viewBox", f"0 0 {width} {height}")):
        root.set(name, str(value))
    root.set("font-family", _FONT)
    root.set("font-size", "12")
    _child(root, "title").text = _plain(title)
    _child(root, "rect", width=width, height=height, fill="#ffffff")
    rows = {wire.uid: top + ROW * number + ROW // 2 for number, wire in enumerate(topology.wires)}
    for wire in topology.wires:
        _bar(root, wire, rows[wire.uid], width)
    for number, thing in enumerate(topology.things):
        _thing(root, thing, MARGIN + LEGEND + COLUMN * number, rows, {wire.uid: wire for wire in topology.wires})
    indent(root)
    return tostring(root, xml_declaration=True, encoding="utf-8")


def _bar(root: _Element, wire: Wire, y: int, width: int) -> None:
    group = _child(root, "g")
    _child(group, "title").text = _plain(f"{wire.name}: {wire.mode} {wire.subnet}")
    colour = _COLOURS.get(wire.mode, _GREY)
    left = MARGIN + LEGEND
    bar = _child(group, "rect", x=left, y=y - BAR // 2, width=width - left - MARGIN, height=BAR, rx=4, fill=colour)
    if not wire.active:
        bar.set("opacity", "0.35")
    _text(group, wire.name, MARGIN, y, LEGEND - 12, weight="bold", fill=colour)
    _text(group, f"{wire.mode} {wire.subnet}", MARGIN, y + 15, LEGEND - 12, fill=_GREY)


def _thing(root: _Element, thing: Thing, x: int, rows: dict[str, int], wires: dict[str, Wire]) -> None:
    group = _child(root, "g")
    _child(group, "title").text = _plain("\n".join([thing.name, *(plug.label for plug in thing.plugs), *thing.notes]))
    bottom = MARGIN + BOX_HEIGHT + len(thing.notes) * NOTE_HEIGHT
    for index, plug in enumerate(thing.plugs):
        line_x = x + _plug_offset(index, len(thing.plugs))
        y, colour = rows[plug.network], _COLOURS.get(wires[plug.network].mode, _GREY)
        line = _child(group, "line", x1=line_x, y1=bottom, x2=line_x, y2=y, stroke=colour)
        line.set("stroke-width", "2")
        _child(group, "circle", cx=line_x, cy=y, r=5, fill="#ffffff", stroke=colour)
        _text(group, plug.label, line_x + 7, y - 10, COLUMN - _plug_offset(index, len(thing.plugs)) - 9, fill=_INK)
    box = _child(group, "rect", x=x, y=MARGIN, width=BOX_WIDTH, height=bottom - MARGIN, rx=6, fill=_FILLS[thing.kind])
    box.set("stroke", _INK if thing.active else _GREY)
    if not thing.active:
        box.set("stroke-dasharray", "4 3")
    heading = thing.name if thing.kind != "router" else f"router {thing.name}"
    _text(group, heading, x + 8, MARGIN + 18, BOX_WIDTH - 12, weight="bold", fill=_INK)
    if thing.kind == "vm":
        _text(group, "running" if thing.active else "off", x + 8, MARGIN + 34, BOX_WIDTH - 12, fill=_GREY)
    for index, note in enumerate(thing.notes):
        _text(group, note, x + 8, MARGIN + BOX_HEIGHT + 4 + index * NOTE_HEIGHT, BOX_WIDTH - 12, fill=_GREY)


def _plug_offset(index: int, count: int) -> int:
    """Where a thing's lines leave its box, side by side."""
    return 14 if count == 1 else 14 + index * (BOX_WIDTH - 28) // max(1, count - 1) // 2


def _text(parent: _Element, text: str, x: int, y: int, room: int, *, fill: str, weight: str = "") -> None:
    text = _plain(text)
    most = max(1, int(room / _CHARACTER))
    element = _child(parent, "text", x=x, y=y, fill=fill)
    if weight:
        element.set("font-weight", weight)
    element.text = text if len(text) <= most else f"{text[: most - 1]}…"


def _child(parent: _Element, tag: str, **attributes: str | int) -> _Element:
    element = SubElement(parent, f"{{{SVG}}}{tag}")
    for name, value in attributes.items():
        element.set(name, str(value))
    return element


def _plain(text: str) -> str:
    """XML carries no control characters."""
    return "".join(_characters(text))


def _characters(text: str) -> Iterator[str]:
    for character in text:
        yield character if character == "\n" or character.isprintable() else "?"
