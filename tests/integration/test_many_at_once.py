"""Ten VMs at once on real libvirt, in each verb: what they share (the network, the pool, libvirt's documents, the ledger)
is changed by many workers at the same time, and nothing of it is lost, nothing fails, and nothing is left."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kept import put_findings
from walk import Walk, make_walk, virsh

from corral.client import Client

pytestmark = pytest.mark.timeout(600)

COUNT = 10
DONE_S = 300.0
DIRECTORIES = ("volumes", "seeds", "consoles", "run/vm")


@pytest.fixture
def walk() -> Iterator[Walk]:
    made = make_walk()
    made.environment["CORRAL_CPU_OVERCOMMIT"] = "100"  # some are still there while others come
    put_findings(made.state_dir)
    try:
        made("daemon", "start").ok()
        made("image", "build", "micro").ok()
        yield made
    finally:
        made.clear()


def at_once(walk: Walk, asks: list[Callable[[Client], Any]]) -> None:
    """Every request from a client of its own, in the same instant; each operation succeeds."""

    def one(ask: Callable[[Client], Any]) -> tuple[str, Any]:
        with walk.client() as client:
            operation = client.wait_operation(ask(client)["operation"]["uid"], timeout_s=DONE_S)
        return operation["spec"]["target_name"], operation["status"]

    with ThreadPoolExecutor(len(asks)) as pool:
        ended = list(pool.map(one, asks))
    assert [(name, status["error"]) for name, status in ended if status["state"] != "succeeded"] == []


def create(name: str) -> Callable[[Client], Any]:
    """Little of a processor each: nobody waits for these guests to come up."""
    body = {
        "name": name,
        "image": "micro",
        "memory_mib": 128,
        "graphics": "none",
        "hardware": {"cpu": {"quota_percent": 10}},
        "disks": [{}, {"size_bytes": 2**26, "name": "data"}],
    }
    return lambda client: client.create_vm(body)


def act(name: str, verb: str) -> Callable[[Client], Any]:
    return lambda client: client.vm_action(name, verb)


def delete(name: str) -> Callable[[Client], Any]:
    return lambda client: client.delete_vm(name)


def counted(walk: Walk) -> tuple[int, int, int]:
    host = walk.json("host", "info")["status"]
    return host["committed_vcpus"], host["committed_memory_mib"], host["vms_running"]


def vms_of(walk: Walk) -> dict[str, Any]:
    with walk.client() as client:
        return {str(vm["name"]): vm for vm in client.list_vms()}


def check_network(walk: Walk, names: set[str]) -> None:
    """Each VM has its reservation and its name, and nobody else has one, in the files that DHCP and DNS read."""
    network = next(found for found in walk.json("network", "list") if found["name"] == "default")
    cards = {name: vm["spec"]["nics"][0] for name, vm in vms_of(walk).items()}
    assert cards.keys() == names
    reservations = walk.state_dir / "reservations"
    files = {path.read_text().strip() for path in (reservations / network["uid"]).iterdir()}
    assert len(files) == len(cards)
    for name, nic in cards.items():
        assert any(nic["mac"] in line and nic["address"] in line and name in line for line in files), name
    lines = (path.read_text().split() for path in (reservations / f"{network['uid']}.names").iterdir())
    named = {address: name for address, name in lines}  # noqa: C416 -- two words, or it fails
    assert named == {nic["address"]: name for name, nic in cards.items()}


def check_domains(names: set[str], prefix: str, state: str) -> None:
    listed = virsh("list", "--all", "--name").split()
    assert {name for name in listed if name.startswith(f"{prefix}-")} == names
    assert {virsh("domstate", name) for name in names} <= {state}


def test_ten_are_made_started_stopped_and_deleted_at_once(walk: Walk) -> None:
    first = [walk.name(f"one{number}") for number in range(COUNT)]
    second = [walk.name(f"two{number}") for number in range(COUNT)]
    at_once(walk, [create(name) for name in first])
    check_domains({*first}, walk.prefix, "running")
    check_network(walk, {*first})
    made = vms_of(walk).values()
    for field in ("mac", "address"):
        assert len({vm["spec"]["nics"][0][field] for vm in made}) == COUNT
    assert len({vm["annotations"]["corral/dac-uid"] for vm in made}) == COUNT

    at_once(walk, [act(name, "destroy") for name in first])
    check_domains({*first}, walk.prefix, "shut off")
    at_once(walk, [act(name, "start") for name in first])
    check_domains({*first}, walk.prefix, "running")

    # Some go while others come.
    at_once(walk, [each for pair in zip(first, second, strict=True) for each in (delete(pair[0]), create(pair[1]))])
    check_domains({*second}, walk.prefix, "running")
    check_network(walk, {*second})

    at_once(walk, [delete(name) for name in second])
    check_domains(set(), walk.prefix, "")
    check_network(walk, set())
    assert walk.json("volume", "list") == []
    for directory in DIRECTORIES:
        assert list((walk.state_dir / directory).iterdir()) == [], directory
    # What the host says of itself follows at most once a second.
    walk.until("the host knows that nothing runs", lambda: counted(walk) == (0, 0, 0), timeout_s=30)
    assert walk.json("audit", "verify")["valid"] is True
    log = (walk.state_dir / "log" / "daemon.log").read_text()
    assert [line for line in log.splitlines() if re.search(r"\[(warning|error|critical)", line)] == []
    assert "Traceback" not in log
