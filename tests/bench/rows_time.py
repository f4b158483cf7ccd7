"""Rows of clones, on real libvirt against qemu-img."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from stage import Daemon, Row, median, process_s, say

from corral.client import Client, raise_for_operation
from corral.client_types import Operation

ROUNDS = 8
FULL_ROUNDS = 4
MEMORY_MIB = 128
FULL_MIB = 512
LATE_S = 120.0


def time_rows(one: Daemon, image: str, prefix: str) -> Iterator[Row]:
    name = f"{prefix}-vm"
    one.run("create", "--name", name, "--image", image, "--memory", str(MEMORY_MIB), "--wait", "agent")
    with Client(one.socket) as client:
        yield _clone_row(client, name)
        yield _full_row(one, client, name)
    one.run("delete", name, "--yes")


def _done(client: Client, operation: Operation) -> Operation:
    final = client.wait_operation(operation["uid"], timeout_s=LATE_S)
    raise_for_operation(final)
    return final


def _clone_row(client: Client, name: str) -> Row:
    say(f"{ROUNDS} linked clones of a VM that is off")
    _done(client, client.vm_action(name, "destroy")["operation"])
    _done(client, client.create_snapshot(name, {"name": "origin"})["operation"])
    times = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        accepted = client.clone_vm(name, {"names": [f"{name}-{number}"], "from_snapshot": "origin"})
        _done(client, accepted["operations"][0])
        times.append(time.perf_counter() - began)
        _done(client, client.delete_vm(f"{name}-{number}")["operation"])
    how = f"from the request until it is defined, from a snapshot, median of {ROUNDS}"
    return Row("a linked clone, without its start", 50, median(times) * 1000, "ms", how)


def _full_row(one: Daemon, client: Client, name: str) -> Row:
    """Against qemu-img convert of the same frozen chain, once that is on disk as well: a clone that is reported outlives a loss
    of power, and what qemu-img leaves behind lies in memory for half a minute more."""
    say(f"full clones of {FULL_MIB} MiB, qemu-img convert")
    _done(client, client.delete_snapshot(name, "origin")["operation"])
    head = _head(one, client, name)
    _fill(head)
    _done(client, client.create_snapshot(name, {"name": "full"})["operation"])
    layer = client.get_snapshot(name, "full")["spec"]["disks"][0]["layer_uid"]
    frozen, target = one.state_dir / "volumes" / f"{layer}.qcow2", one.state_dir / "bare.qcow2"
    ours, theirs, in_memory = [], [], []
    for number in range(FULL_ROUNDS):
        copy = f"{name}-full-{number}"
        began = time.perf_counter()
        _done(client, client.clone_vm(name, {"names": [copy], "from_snapshot": "full", "full": True})["operations"][0])
        ours.append(time.perf_counter() - began)
        _done(client, client.delete_vm(copy)["operation"])
        argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", str(frozen), str(target)]
        in_memory.append(process_s(argv, one.environment))
        theirs.append(in_memory[-1] + process_s(["sync", str(target)], one.environment))
        target.unlink()
    _done(client, client.delete_snapshot(name, "full")["operation"])
    how = (
        f"from the request until it is defined, interleaved, {len(ours)} times, {FULL_MIB} MiB of data, on disk in the end: "
        f"{median(ours):.2f} s against {median(theirs):.2f} s, of which qemu-img takes {median(in_memory):.2f} s and leaves the data in memory"
    )
    return Row("a full clone against `qemu-img convert` and `sync`", 1.0, median(ours) / median(theirs), "", how)


def _fill(head: Path) -> None:
    """Once nobody merges a layer into it any more."""
    argv = ["qemu-io", "-f", "qcow2", "-c", f"write -q -P 7 0 {FULL_MIB}M", str(head)]
    deadline = time.monotonic() + LATE_S
    while subprocess.run(argv, check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, f"{head} stays locked"
        time.sleep(0.2)


def _head(one: Daemon, client: Client, name: str) -> Path:
    uid = client.get_vm(name)["spec"]["disks"][0]["volume_uid"]
    volume = next(volume for volume in client.list_volumes() if volume["uid"] == uid)
    return Path(volume["status"]["path"])
