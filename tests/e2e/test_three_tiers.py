"""The example of three tiers with real guests: each way that is allowed and each that is denied; then what hangs on its router."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from beyond_host import beyond_host, eventually, fetched, web_beyond
from walk import PATIENCE, Walk

pytestmark = pytest.mark.timeout(900)
EXAMPLE = Path(__file__).parents[2] / "examples" / "three-tier.yaml"
PORTS = {"web": 80, "app": 8080, "db": 5432}
# Of this run alone, below what the kernel gives to who asks for any.
HOST_PORT = 20000 + os.getpid() % 10000


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[str, str]]:
    with beyond_host("e2o") as found:
        yield found


@pytest.fixture(scope="module")
def tiers(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The stack is up, each guest serves its own name at its tier's port; the prefix of all of its names."""
    prefix = walk.name("tier")
    text = EXAMPLE.read_text().replace("tier-", f"{prefix}-").replace('"8080"', f'"{HOST_PORT}"', 1)
    text = text.replace("stack: three-tier", f"stack: {prefix}")
    document = tmp_path_factory.mktemp("stack") / "tiers.yaml"
    document.write_text(text)
    walk("apply", "-f", str(document), "--yes", "--set", "image=micro", "--set", "memory=128M").ok()
    namespace = ""
    try:
        namespace = walk.json("router", "show", f"{prefix}-edge")["status"]["namespace"]
        for tier, port in PORTS.items():
            walk("wait", f"{prefix}-{tier}", "--for", "agent", "--timeout", PATIENCE).ok()
            content = f"mkdir -p /srv && echo {tier} > /srv/index.html && httpd -p {port} -h /srv"
            walk.guest(f"{prefix}-{tier}", content)
        yield prefix
    finally:
        walk("down", "-f", str(document), "--yes").ok()
        left = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
        assert walk.json("router", "list") == []
        assert namespace
        assert namespace not in left.split()


def asks(walk: Walk, guest: str, address: str, port: int) -> str:
    """What the server there answers to a guest; empty where there is no way."""
    command = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 4 nc -w 3 {address} {port} | tail -n 1; true"
    return walk.guest(guest, command).strip()


def address_of(walk: Walk, guest: str) -> str:
    return str(walk.info(guest)["spec"]["nics"][0]["address"])


def uplink_of(walk: Walk, prefix: str) -> str:
    return str(walk.json("router", "show", f"{prefix}-edge")["spec"]["uplink_port"]["address"])


def test_each_path_is_open_or_shut_as_the_example_says(walk: Walk, tiers: str, outside: tuple[str, str]) -> None:
    guests = {tier: f"{tiers}-{tier}" for tier in PORTS}
    addresses = {tier: address_of(walk, guest) for tier, guest in guests.items()}
    assert eventually(lambda: fetched(*outside, HOST_PORT) == "web")
    assert asks(walk, guests["web"], addresses["app"], 8080) == "app"
    assert asks(walk, guests["app"], addresses["db"], 5432) == "db"
    denied = [("web", "db", 5432), ("db", "app", 8080), ("db", "web", 80), ("app", "db", 80), ("web", "app", 22)]
    for source, target, port in denied:
        assert asks(walk, guests[source], addresses[target], port) == "", (source, target)
    # Nobody outside reaches a tier by its own address, though it knows the way.
    for tier, port in PORTS.items():
        assert fetched(outside[0], addresses[tier], port) == "", tier


def test_the_way_out_is_the_router_and_only_for_who_may(walk: Walk, tiers: str, outside: tuple[str, str]) -> None:
    with web_beyond(outside) as there:
        for tier, gets_out in (("web", True), ("app", True), ("db", False)):
            command = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 4 nc -w 3 {there} 8000 | head -n 1; true"
            said = walk.guest(f"{tiers}-{tier}", command)
            assert ("HTTP/1.0" in said) is gets_out, (tier, said)


def test_it_goes_on_without_the_daemon_and_is_mended_by_it(walk: Walk, tiers: str, outside: tuple[str, str]) -> None:
    namespace = walk.json("router", "show", f"{tiers}-edge")["status"]["namespace"]
    walk("daemon", "stop").ok()
    assert fetched(*outside, HOST_PORT) == "web"
    walk("daemon", "start").ok()
    assert fetched(*outside, HOST_PORT) == "web"
    db = address_of(walk, f"{tiers}-db")
    subprocess.run(["ip", "netns", "del", namespace], check=True)
    assert eventually(lambda: fetched(*outside, HOST_PORT) == "web")
    assert asks(walk, f"{tiers}-web", db, 5432) == ""
    port = next(path.name for path in Path("/sys/class/net").glob("crr*") if _is_of(namespace, path.name))
    subprocess.run(["ip", "link", "del", port], check=True)
    assert eventually(lambda: _is_of(namespace, port) and fetched(*outside, HOST_PORT) == "web")


def _is_of(namespace: str, interface: str) -> bool:
    found = subprocess.run(["ip", "-n", namespace, "link", "show", interface], check=False, capture_output=True)
    return found.returncode == 0


def test_a_floating_address_moves_and_a_balancer_serves(walk: Walk, tiers: str, outside: tuple[str, str]) -> None:
    float_name, shop, edge = f"{tiers}-float", f"{tiers}-shop", f"{tiers}-edge"
    web, app = f"{tiers}-web", f"{tiers}-app"
    walk.guest(app, "httpd -p 80 -h /srv")
    walk("security-group", "rule", "add", f"{tiers}-app", "in tcp/80").ok()
    address = walk.json("address", "create", float_name, "--router", edge, "--to", web)["spec"]["address"]
    try:
        uplink = uplink_of(walk, tiers)
        host = subprocess.run(["ip", "-4", "route", "get", address], check=True, capture_output=True, text=True).stdout
        assert uplink.rsplit(".", 1)[0] in host
        assert eventually(lambda: _curl(address, 80) == "web")
        walk("address", "assign", float_name, app).ok()
        assert eventually(lambda: _curl(address, 80) == "app", 5.0)
        walk("router", "delete", edge).ends(4, "router-in-use")
        walk(
            "balancer", "create", shop, "--listen", "81", "--port", "80", "--to", f"{web},{app}", "--check", "http:/"
        ).ok()
        assert eventually(lambda: {_curl(uplink, 81) for _ in range(4)} == {"web", "app"})
        walk("forward", "add", "--balancer", shop, "18081").ok()
        assert eventually(lambda: fetched(*outside, 18081) in ("web", "app"))
        walk.guest(web, "killall httpd; true")
        assert eventually(lambda: {_curl(uplink, 81) for _ in range(4)} == {"app"})
        walk("balancer", "delete", shop).ends(4, "balancer-in-use")
    finally:
        walk("forward", "remove", "18081")
        walk("balancer", "delete", shop)
        walk("address", "delete", float_name)
        walk("daemon", "status")


def _curl(address: str, port: int) -> str:
    """From the host itself."""
    argv = ["curl", "-s", "-m", "3", f"http://{address}:{port}/"]
    return subprocess.run(argv, check=False, capture_output=True, text=True).stdout.strip()
