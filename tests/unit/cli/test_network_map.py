"""The map of networks: from documents to text and to a well-formed picture."""

from typing import Any

import pytest
from lxml import etree

from corral.cli.network_svg import SVG, draw_svg
from corral.cli.topology import Documents, draw_text, read_topology


def network(name: str, mode: str, subnet: str = "", *, active: bool = True) -> dict[str, Any]:
    spec = {"mode": mode, "subnet": subnet, "bridge": f"b-{name}"}
    return {"project": "default", "uid": f"u-{name}", "name": name, "spec": spec, "status": {"active": active}}


def vm(name: str, *cards: tuple[str, str], state: str = "running") -> dict[str, Any]:
    nics = [
        {"name": f"net{number}", "network_uid": f"u-{on}", "address": address}
        for number, (on, address) in enumerate(cards)
    ]
    return {"project": "default", "uid": f"u-{name}", "name": name, "spec": {"nics": nics}, "status": {"state": state}}


@pytest.fixture
def shop() -> Documents:
    port = {"network_uid": "u-front", "address": "10.1.0.1"}
    router = {
        "project": "default",
        "uid": "u-edge",
        "name": "edge",
        "status": {"active": True},
        "spec": {
            "ports": [port, {"network_uid": "u-back", "address": "10.2.0.1"}],
            "uplink": "nat",
            "uplink_port": {"network_uid": "u-default", "address": "192.168.150.9"},
        },
    }
    target = {"vm": "web", "vm_uid": "u-web"}
    balancer = {"name": "shop", "spec": {"router_uid": "u-edge", "listen": 80, "port": 80, "targets": [target]}}
    forward = {"spec": {"protocol": "tcp", "host_port": 8080, "port": 80, "vm_uid": "u-web"}}
    address = {"spec": {"address": "192.168.150.50", "vm_uid": "u-web"}}
    return Documents(
        networks=[
            network("front", "isolated", "10.1.0.0/24"),
            network("back", "isolated", "10.2.0.0/24", active=False),
            network("default", "nat", "192.168.150.0/24"),
        ],
        vms=[
            vm("web", ("front", "10.1.0.5"), ("back", "10.2.0.5")),
            vm("db", ("back", "10.2.0.6"), state="shut off"),
            vm("apart"),
        ],
        routers=[router],
        forwards=[forward],
        addresses=[address],
        balancers=[balancer],
    )


def test_as_text_each_network_has_what_is_on_it(shop: Documents) -> None:
    assert "\n".join(draw_text(read_topology(shop))).splitlines() == [
        "default  (nat, 192.168.150.0/24)",
        "├── outside, by NAT",
        "└── router edge  192.168.150.9 uplink, nat",
        "      balancer shop :80 → web",
        "",
        "back  (isolated, 10.2.0.0/24, not up)",
        "├── router edge  10.2.0.1",
        "├── db  net0 10.2.0.6  off",
        "└── web  net1 10.2.0.5",
        "      tcp 8080 of the host → 80",
        "      address 192.168.150.50",
        "",
        "front  (isolated, 10.1.0.0/24)",
        "├── router edge  10.1.0.1",
        "└── web  net0 10.1.0.5",
        "",
        "on no network: apart",
    ]


def test_some_of_it(shop: Documents) -> None:
    text = "\n".join(draw_text(read_topology(shop, ["front"])))
    assert "back" not in text
    assert "apart" not in text
    assert "web" in text


def test_as_a_picture(shop: Documents) -> None:
    root = etree.fromstring(draw_svg(read_topology(shop), "a map"))
    texts = [element.text for element in root.iter(f"{{{SVG}}}text")]
    assert {"default", "front", "back", "router edge", "web", "db", "outside"} <= set(texts)
    lines = list(root.iter(f"{{{SVG}}}line"))
    assert len(lines) == 3 + 1 + 3  # the router's three, the world's one, the VMs' three
    width = float(root.get("width", "0"))
    assert all(0 <= float(line.get("x1", "-1")) <= width for line in lines)


@pytest.mark.parametrize("name", ['"><script>alert(1)</script>', "a\x00b\x1b[31m", "ü" * 200, "&amp;]]>"])
def test_nothing_in_a_name_breaks_the_picture(name: str) -> None:
    documents = Documents([network(name, "isolated", name)], [vm(name, (name, name))])
    root = etree.fromstring(draw_svg(read_topology(documents), name))
    assert {etree.QName(element).localname for element in root.iter()} <= {
        "svg",
        "g",
        "title",
        "rect",
        "text",
        "line",
        "circle",
    }


def test_nothing_there() -> None:
    assert list(draw_text(read_topology(Documents([], [])))) == []
    etree.fromstring(draw_svg(read_topology(Documents([], [])), "empty"))
