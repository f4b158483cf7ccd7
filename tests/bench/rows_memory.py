"""Rows of memory that is kept and brought back, on real libvirt against virsh and a domain of nobody's of the same shape."""

import contextlib
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
from stage import Daemon, Row, median, say, timed

from corral.client import Client, raise_for_operation
from corral.client_types import Operation

ROUNDS = 9
MEMORY_MIB = 256
LATE_S = 120.0
# What the timing before left to do (a layer to be merged, events, cgroups) is done by then.
REST_LOOK_S = 0.2
SETTLE_S = 0.7
# The micro guest is up after three seconds; nobody asks the bare one's agent.
BARE_BOOT_S = 8.0


@dataclass
class Times:
    kept: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    back_from_off: list[float] = field(default_factory=list)
    saved: list[float] = field(default_factory=list)
    restored: list[float] = field(default_factory=list)
    restored_anew: list[float] = field(default_factory=list)
    destroyed: list[float] = field(default_factory=list)


def memory_rows(one: Daemon, image: str, prefix: str, uri: str, bare_copy: Callable[[str, str], str]) -> Iterator[Row]:
    name, times = f"{prefix}-mem", Times()
    one.run("create", "--name", name, "--image", image, "--memory", str(MEMORY_MIB), "--wait", "agent")
    connection = libvirt.open(uri)
    domain = connection.lookupByName(name)
    disk = one.state_dir / "volumes" / "bare-memory.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1G"], check=True)
    disk.chmod(0o666)
    document = bare_copy(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), name)
    bare = connection.defineXML(_on_disk(document, disk))
    say(f"{ROUNDS} times memory kept and brought back, virsh save, restore and destroy")
    try:
        bare.create()
        time.sleep(BARE_BOOT_S)
        with Client(one.socket) as client:
            for number in range(ROUNDS):
                _ours(client, domain, f"m{number}", times)
                _theirs(uri, bare, one.state_dir / "bare.save", times)
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            bare.destroy()
        bare.undefine()
        connection.close()
        disk.unlink()
    one.run("delete", name, "--yes")
    yield from _rows(times)


def _rows(times: Times) -> Iterator[Row]:
    which = f"medians of {ROUNDS}, interleaved, micro guest of {MEMORY_MIB} MiB"

    def row(promise: str, limit: float, ours: list[float], theirs: list[float], more: str = "") -> Row:
        how = f"{which}: {median(ours):.2f} s against {median(theirs):.2f} s{more}"
        return Row(promise, limit, median(ours) / median(theirs), "", how)

    yield row("a snapshot with memory against `virsh save`", 1.15, times.kept, times.saved)
    yield row(
        "back to a snapshot with memory against `virsh restore`, of a VM that is off",
        1.2,
        times.back_from_off,
        times.restored,
    )
    stop = f", of which `virsh destroy` takes {median(times.destroyed):.2f} s"
    yield row(
        "back to a snapshot with memory against `virsh destroy` and `restore`, of a VM that runs",
        1.2,
        times.back,
        times.restored_anew,
        stop,
    )


def _ours(client: Client, domain: libvirt.virDomain, point: str, times: Times) -> None:
    name = domain.name()
    _rest(domain)
    times.kept.append(
        timed(lambda: _done(client, client.create_snapshot(name, {"name": point, "memory": True})["operation"]))
    )
    _rest(domain)
    times.back.append(timed(lambda: _done(client, client.revert_to_snapshot(name, point)["operation"])))
    client.wait_vm(name, "agent", LATE_S)
    _done(client, client.vm_action(name, "destroy")["operation"])
    time.sleep(SETTLE_S)
    times.back_from_off.append(timed(lambda: _done(client, client.revert_to_snapshot(name, point)["operation"])))
    client.wait_vm(name, "agent", LATE_S)
    _done(client, client.delete_snapshot(name, point)["operation"])
    _rest(domain)


def _theirs(uri: str, bare: libvirt.virDomain, file: Path, times: Times) -> None:
    """The guest goes on twice from the same file, as it does from a snapshot."""
    name = bare.name()
    times.saved.append(_virsh(uri, "save", name, str(file)))
    time.sleep(SETTLE_S)
    times.restored.append(_virsh(uri, "restore", str(file)))
    time.sleep(SETTLE_S)
    times.destroyed.append(_virsh(uri, "destroy", name))
    times.restored_anew.append(times.destroyed[-1] + _virsh(uri, "restore", str(file)))
    file.unlink()
    time.sleep(SETTLE_S)


def _rest(domain: libvirt.virDomain) -> None:
    """Until no layer is merged any more."""
    deadline = time.monotonic() + LATE_S
    time.sleep(SETTLE_S)
    while any(domain.blockJobInfo(target, 0) for target in _targets(domain)):
        assert time.monotonic() < deadline, f"a layer of {domain.name()} is merged for ever"
        time.sleep(REST_LOOK_S)


def _targets(domain: libvirt.virDomain) -> list[str]:
    disks = ET.fromstring(domain.XMLDesc(0)).iterfind("devices/disk")
    targets = (disk.find("target") for disk in disks if disk.get("device", "disk") == "disk")
    return [str(target.get("dev")) for target in targets if target is not None]


def _on_disk(document: str, path: Path) -> str:
    """Its one disk that is written is this file."""
    root = ET.fromstring(document)
    for disk in root.iterfind("devices/disk"):
        source = disk.find("source")
        if source is None or disk.find("readonly") is not None:
            continue
        source.set("file", str(path))
        for below in disk.findall("backingStore"):
            disk.remove(below)
    return ET.tostring(root, encoding="unicode")


def _done(client: Client, operation: Operation) -> None:
    raise_for_operation(client.wait_operation(operation["uid"], timeout_s=LATE_S))


def _virsh(uri: str, *words: str) -> float:
    return timed(lambda: subprocess.run(["virsh", "-q", "-c", uri, *words], check=True, stdout=subprocess.DEVNULL))
