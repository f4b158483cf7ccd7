"""Rows against the bare tools on real libvirt: creating against virt-install, starting against virDomainCreate."""

import contextlib
import secrets
import subprocess
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import libvirt
from rows_fork import fork_rows
from rows_memory import memory_rows
from rows_network import network_rows
from rows_snapshot import live_fork_row, snapshot_row
from rows_stack import apply_row
from rows_time import time_rows
from stage import CORRAL, Daemon, Row, daemon, median, process_s, say, timed

from corral.client import Client, raise_for_operation
from corral.client_types import Operation
from corral.hypervisor.base import StopCause
from corral.hypervisor.libvirt import domains
from corral.hypervisor.libvirt.pending import Left

IMAGE = "micro"
MEMORY_MIB = 128
ROUNDS = 8
START_ROUNDS = 12
# On a busy host a row ends earlier, after at least some rounds, so that the whole bench stays within minutes.
ROUNDS_LEAST = 4
ROW_S = 75.0
# Between two timings: what the one before left to do (events, cgroups, relabelling) is done by then.
SETTLE_S = 0.7
URI = "qemu:///system"
# The micro guest is up after three seconds; until it is, it does not let a disk go.
BARE_BOOT_S = 8.0
LIVE_AND_KEPT = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG


def rows() -> Iterator[Row]:
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    with daemon("libvirt") as one:
        say(f"building image {IMAGE}")
        one.run("image", "build", IMAGE)
        try:
            yield create_row(one)
            yield start_row(one)
            yield apply_row(one, IMAGE, _prefix(), URI, _bare_copy)
            yield snapshot_row(one, IMAGE, _prefix())
            yield live_fork_row(one, IMAGE, _prefix())
            yield from time_rows(one, IMAGE, _prefix())
            yield from memory_rows(one, IMAGE, _prefix(), URI, _bare_copy)
            yield from network_rows(one, _prefix(), URI)
            yield plug_row(one)
            yield screenshot_row(one)
        finally:
            _remove_all(one)
    yield from fork_rows(_prefix(), URI, _bare_copy, _remove_all)


def _prefix() -> str:
    return f"bench-{secrets.token_hex(2)}"


def _rounds(most: int) -> Iterator[int]:
    ends_at = time.monotonic() + ROW_S
    for number in range(most):
        if number >= ROUNDS_LEAST and time.monotonic() > ends_at:
            return
        yield number


def create_row(one: Daemon) -> Row:
    """`corral create` until libvirt says that it runs, and `virt-install --import` of the same: kernel, disk, network."""
    prefix = _prefix()
    with Client(one.socket) as client:
        network = _network_of(one, client)
    kernel, initrd, cmdline = _kernel_of(one)
    ours, theirs = [], []
    say(f"{ROUNDS} times corral create, virt-install")
    for number in _rounds(ROUNDS):
        name = f"{prefix}-{number}"
        ours.append(
            process_s(
                [CORRAL, "create", "--name", name, "--image", IMAGE, "--memory", str(MEMORY_MIB)], one.environment
            )
        )
        _expect_running(name)
        one.run("delete", name, "--yes")
        overlay = one.state_dir / f"{name}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(overlay), "1G"], check=True)
        argv = [
            "virt-install", "--connect", URI, "--import", "--name", f"{name}-bare", "--memory", str(MEMORY_MIB), "--vcpus", "1",
            "--disk", f"path={overlay},format=qcow2,bus=virtio", "--network", f"network={network},model=virtio",
            "--osinfo", "debian11", "--virt-type", _virt_type(one), "--noautoconsole", "--graphics", "vnc",
            "--boot", f"kernel={kernel},initrd={initrd},kernel_args={cmdline}",
        ]  # fmt: skip
        theirs.append(process_s(argv, one.environment))
        _expect_running(f"{name}-bare")
        _remove(f"{name}-bare")
        overlay.unlink()
    how = f"whole processes, interleaved, {len(ours)} times: {median(ours):.2f} s against {median(theirs):.2f} s"
    return Row("`corral create` against `virt-install --import`", 0.75, median(ours) / median(theirs), "", how)


def start_row(one: Daemon) -> Row:
    """What a start takes beside virDomainCreate: the client's whole wait, without the step that calls the driver by the
    operation's own record, and with what the driver asks libvirt in that step before it calls virDomainCreate.

    QEMU's own start varies by more than the promise, so the difference is taken within each start. Bare starts of the
    same document, interleaved, are measured and shown beside it.
    """
    name = _prefix()
    one.run("create", "--name", name, "--image", IMAGE, "--memory", str(MEMORY_MIB))
    connection = libvirt.open(URI)
    bare = connection.defineXML(
        _bare_copy(connection.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), name)
    )
    ours, theirs, beside = [], [], []
    left = Left()
    left.heard(connection.lookupByName(name).UUIDString(), "started")
    say(f"{START_ROUNDS} times start, virDomainCreate")
    try:
        with Client(one.socket) as client:
            for _ in _rounds(START_ROUNDS):
                _done(client, client.vm_action(name, "destroy")["operation"]["uid"])
                time.sleep(SETTLE_S)
                began = time.perf_counter()
                operation = client.wait_operation(client.vm_action(name, "start")["operation"]["uid"], timeout_s=60)
                ours.append(time.perf_counter() - began)
                raise_for_operation(operation)
                beside.append(ours[-1] - _step_s(operation, "start") + _asked_besides_s(connection, name, left))
                _done(client, client.vm_action(name, "destroy")["operation"]["uid"])
                time.sleep(SETTLE_S)
                theirs.append(timed(bare.create))
                bare.destroy()
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            bare.destroy()
        bare.undefine()
        connection.close()
    whole = f"{median(ours) * 1000:.0f} ms against {median(theirs) * 1000:.0f} ms"
    how = f"median of {len(ours)}, within each start; whole starts and bare ones, interleaved: {whole}"
    return Row("start over bare `virDomainCreate`", 15, median(beside) * 1000, "ms", how)


def plug_row(one: Daemon) -> Row:
    """A disk plugged into a running guest and kept, interleaved with `qemu-img create` and virDomainAttachDevice of its
    like to a domain of nobody's."""
    name, mib = _prefix(), 64
    one.run("create", "--name", name, "--image", IMAGE, "--memory", str(MEMORY_MIB), "--wait", "agent")
    connection = libvirt.open(URI)
    domain = connection.lookupByName(name)
    bare = connection.defineXML(_without_disks(_bare_copy(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), name)))
    bare_disk = one.state_dir / "volumes" / "bare.qcow2"
    ours, theirs = [], []
    say(f"{ROUNDS} times a disk, virDomainAttachDevice")
    try:
        bare.create()
        time.sleep(BARE_BOOT_S)
        with Client(one.socket) as client:
            for _ in _rounds(ROUNDS):
                began = time.perf_counter()
                accepted = client.attach_disk(name, {"name": "data", "size_bytes": mib * 2**20})
                operation = client.wait_operation(accepted["operation"]["uid"], timeout_s=60)
                ours.append(time.perf_counter() - began)
                raise_for_operation(operation)
                document = _disk_document(domain, "ua-disk-data", bare_disk)
                disks = client.get_vm(name)["spec"]["disks"]
                volume = next(disk["volume_uid"] for disk in disks if disk["name"] == "data")
                _done(client, client.detach_disk(name, "data")["operation"]["uid"])
                _done(client, client.delete_volume(str(volume))["operation"]["uid"])
                time.sleep(SETTLE_S)
                theirs.append(timed(lambda document=document: _plug_bare(bare, document, bare_disk, mib)))
                bare.detachDeviceFlags(document, LIVE_AND_KEPT)
                time.sleep(SETTLE_S)
                bare_disk.unlink()
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            bare.destroy()
        bare.undefine()
        connection.close()
    whole = f"{median(ours) * 1000:.0f} ms against {median(theirs) * 1000:.0f} ms"
    beside = (median(ours) - median(theirs)) * 1000
    return Row("a disk plugged in over bare libvirt", 30, beside, "ms", f"medians of {len(ours)}, interleaved: {whole}")


def _without_disks(document: str) -> str:
    """The micro guest needs none, and two may not have the same."""
    root = ET.fromstring(document)
    devices = root.find("devices")
    assert devices is not None
    for disk in devices.findall("disk"):
        devices.remove(disk)
    return ET.tostring(root, encoding="unicode")


def _disk_document(domain: libvirt.virDomain, alias: str, path: Path) -> str:
    """That disk of the running domain as a disk of its own, at another path and a free place."""
    for disk in ET.fromstring(domain.XMLDesc(0)).iterfind("devices/disk"):
        found, source, address = disk.find("alias"), disk.find("source"), disk.find("address")
        if found is not None and found.get("name") == alias and source is not None and address is not None:
            found.set("name", "ua-bare")
            source.attrib.clear()
            source.set("file", str(path))
            disk.remove(address)
            return ET.tostring(disk, encoding="unicode")
    raise AssertionError(f"no disk {alias}")


def _plug_bare(domain: libvirt.virDomain, document: str, path: Path, mib: int) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), f"{mib}M"], check=True)
    path.chmod(0o666)
    domain.attachDeviceFlags(document, LIVE_AND_KEPT)


def screenshot_row(one: Daemon) -> Row:
    """A text screen, as a whole process."""
    name = _prefix()
    one.run("create", "--name", name, "--image", IMAGE, "--memory", str(MEMORY_MIB))
    time.sleep(SETTLE_S)
    say(f"{ROUNDS} screenshots")
    argv = [CORRAL, "screenshot", name, "-o", "/dev/null"]
    times = [process_s(argv, one.environment) for _ in _rounds(ROUNDS)]
    return Row(
        "`corral screenshot`", 0.5, median(times), "s", f"whole process, median of {len(times)}, PNG of 720 x 400"
    )


def _step_s(operation: Operation, name: str) -> float:
    """How long a step took, by the operation's record."""
    step = next(step for step in operation["status"]["steps"] if step["name"] == name)
    assert step["ended_at"] is not None
    return (datetime.fromisoformat(step["ended_at"]) - datetime.fromisoformat(step["started_at"])).total_seconds()


def _asked_besides_s(connection: libvirt.virConnect, name: str, left: Left) -> float:
    """What the driver asks within the step before it starts a domain, and after it."""
    persistent = connection.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)

    def ask() -> None:
        domain = connection.lookupByName(name)
        ET.fromstring(domain.XMLDesc(0))
        domain.hasManagedSaveImage(0)
        domains.observe(domain, lambda _uid: StopCause.NONE, left, persistent)

    return timed(ask)


def _done(client: Client, uid: str) -> None:
    raise_for_operation(client.wait_operation(uid, timeout_s=60))


def _bare_copy(document: str, name: str) -> str:
    """The same machine as nobody's: another name, UUID and MAC, without Corral's metadata, its sockets where libvirt puts them."""
    root = ET.fromstring(document)
    root.find("name").text = f"{name}-bare"  # type: ignore[union-attr]
    root.find("uuid").text = str(uuid.uuid4())  # type: ignore[union-attr]
    metadata = root.find("metadata")
    if metadata is not None:
        root.remove(metadata)
    devices = root.find("devices")
    assert devices is not None
    for mac in devices.iter("mac"):
        mac.set("address", "52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)))
    for card in devices.findall("interface"):  # libvirt's own name for its port, which nobody guards
        for element in (*card.findall("target"), *card.findall("port")):
            card.remove(element)
    for graphics in devices.findall("graphics"):
        for element in (graphics, *graphics.findall("listen")):
            element.attrib.pop("socket", None)
    for source in devices.iterfind("channel/source"):
        source.attrib.pop("path", None)
    for serial in (*devices.findall("serial"), *devices.findall("console")):
        for log in serial.findall("log"):
            serial.remove(log)
    return ET.tostring(root, encoding="unicode")


def _network_of(one: Daemon, client: Client) -> str:
    assert any(network["name"] == "default" for network in client.list_networks())
    installation = (one.state_dir / "installation-id").read_text().strip()
    return f"corral-{installation[:6]}-default"


def _kernel_of(one: Daemon) -> tuple[Path, Path, str]:
    with Client(one.socket) as client:
        facts = client.get_image(IMAGE)["status"]["facts"]
    assert facts is not None
    directory = one.state_dir / "images" / facts["digest"]
    return directory / "kernel", directory / "initrd", facts["cmdline"]


def _virt_type(one: Daemon) -> str:
    with Client(one.socket) as client:
        return "kvm" if client.get_host("self")["status"]["accelerator"] == "kvm" else "qemu"


def _expect_running(name: str) -> None:
    connection = libvirt.open(URI)
    try:
        assert connection.lookupByName(name).isActive(), f"{name} does not run"
    finally:
        connection.close()


def _remove(name: str) -> None:
    connection = libvirt.open(URI)
    try:
        domain = connection.lookupByName(name)
        domain.destroy()
        domain.undefine()
    finally:
        connection.close()


def _remove_all(one: Daemon) -> None:
    """What the bench made in libvirt: VMs through the daemon, then its network."""
    with Client(one.socket) as client:
        for vm in client.list_vms():
            _done(client, client.delete_vm(vm["name"])["operation"]["uid"])
        name = _network_of(one, client)
    one.stop()
    connection = libvirt.open(URI)
    try:
        with contextlib.suppress(libvirt.libvirtError):
            network = connection.networkLookupByName(name)
            network.destroy()
            network.undefine()
    finally:
        connection.close()
