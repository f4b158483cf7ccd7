"""Rows of forks on real libvirt, of a Debian guest: until it runs, cold and warm, until its address answers, fifty at once.

A daemon of its own, which promises more than two cores and their memory hold: fifty guests that do little are the point.
"""

import os
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import libvirt
from stage import Daemon, Row, daemon, median, say, timed

from corral.client import Client, raise_for_operation
from corral.client_types import Operation, Vm

IMAGE = "debian-12"
MEMORY_MIB = 512
ROUNDS = 6
WARM = 2
IDLE, MANY = 20, 50
SETTLE_S = 1.0
IDLE_S = 15.0
LATE_S = 600.0
LOOK_S = 0.01
ROOMY = {"CORRAL_CPU_OVERCOMMIT": "50", "CORRAL_MEMORY_OVERCOMMIT": "4", "CORRAL_WARM_MEMORY_MIB": "4096"}
EMULATED = "under emulation; "


@dataclass
class Ear:
    """Hears when a domain begins to run and gets a device, as libvirt tells it."""

    uri: str
    heard: dict[tuple[str, str], float] = field(default_factory=dict)
    told: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        libvirt.virEventRegisterDefaultImpl()
        self.connection = libvirt.open(self.uri)
        lifecycle, plugged = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED
        self.connection.domainEventRegisterAny(None, lifecycle, self._lifecycle, None)
        self.connection.domainEventRegisterAny(None, plugged, self._plugged, None)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    def _lifecycle(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, _detail: int, _more: object
    ) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_RESUMED:
            self._say(domain, "runs")

    def _plugged(self, _connection: libvirt.virConnect, domain: libvirt.virDomain, _name: str, _more: object) -> None:
        self._say(domain, "card")

    def _say(self, domain: libvirt.virDomain, what: str) -> None:
        now = time.perf_counter()
        with self.told:
            self.heard.setdefault((domain.UUIDString(), what), now)
            self.told.notify_all()

    def when(self, uid: str, what: str) -> float:
        with self.told:
            assert self.told.wait_for(lambda: (uid, what) in self.heard, LATE_S), f"{uid}: {what} was not heard of"
            return self.heard[(uid, what)]

    def domain(self, vm: Vm) -> libvirt.virDomain:
        return self.connection.lookupByUUIDString(vm["uid"])


@dataclass(frozen=True)
class Timed:
    """One fork, in seconds from the request."""

    vm: Vm
    runs: float
    card: float
    address: float
    own: float
    """Until the cable is in, without the step in which the guest's agent runs the script."""


@dataclass
class Stand:
    """One daemon with a template, and what measures it."""

    one: Daemon
    client: Client
    ear: Ear
    prefix: str
    bridge: str

    def done(self, operation: Operation) -> Operation:
        final = self.client.wait_operation(operation["uid"], timeout_s=LATE_S)
        raise_for_operation(final)
        return final

    def fork(self, template: str, name: str) -> Timed:
        began, at = time.perf_counter(), time.time()
        answer = self.client.fork_template(template, {"names": [name]})
        vm = answer["vms"][0]
        address = self.answers(vm) - began
        runs, card = (self.ear.when(vm["uid"], what) - began for what in ("runs", "card"))
        steps = {step["name"]: step for step in self.done(answer["operations"][0])["status"]["steps"]}
        told = _at(steps["introduce"]["ended_at"]) - _at(steps["introduce"]["started_at"])
        return Timed(vm, runs, card, address, _at(steps["connect"]["ended_at"]) - at - told)

    def answers(self, vm: Vm) -> float:
        """When its address does. Where its MAC is known, the host need not ask for it, once a second."""
        nic = vm["spec"]["nics"][0]
        argv = ["ip", "neigh", "replace", nic["address"], "lladdr", nic["mac"], "dev", self.bridge]
        subprocess.run(argv, check=True)
        deadline = time.perf_counter() + LATE_S
        while time.perf_counter() < deadline:
            try:
                socket.create_connection((nic["address"], 22), timeout=LOOK_S * 3).close()
                return time.perf_counter()
            except ConnectionRefusedError:  # by the guest itself
                return time.perf_counter()
            except OSError:
                time.sleep(LOOK_S)
        raise AssertionError(f"{vm['name']} does not answer at {nic['address']}")

    def delete(self, vms: Sequence[Vm]) -> None:
        for operation in [self.client.delete_vm(vm["name"])["operation"] for vm in vms]:
            self.done(operation)
        time.sleep(SETTLE_S)

    def warm(self, template: str, count: int) -> None:
        self.client.set_warm(template, count)
        deadline = time.monotonic() + LATE_S
        while self.client.get_template(template)["status"].get("waiting", 0) != count:
            assert time.monotonic() < deadline, "the pool is not filled"
            time.sleep(0.1)
        time.sleep(SETTLE_S)


def fork_rows(
    prefix: str, uri: str, bare_copy: Callable[[str, str], str], remove_all: Callable[[Daemon], None]
) -> Iterator[Row]:
    ear = Ear(uri)
    with daemon("libvirt", ROOMY) as one:
        _take_image(one)
        try:
            with Client(one.socket) as client:
                stand = Stand(one, client, ear, prefix, client.list_networks()[0]["spec"]["bridge"])
                boot_s, booted_bytes = _boot(stand)
                template = f"{prefix}-base"
                one.run("template", "create", template, "--from", f"{prefix}-src", "--hot")
                one.run("destroy", f"{prefix}-src")
                stand.delete([stand.fork(template, f"{prefix}-first").vm])  # from here on somebody holds the memory
                yield from _cold_rows(stand, template, bare_copy, boot_s)
                yield from _warm_rows(stand, template)
                yield _memory_row(stand, template, booted_bytes)
                yield _many_row(stand, template)
                stand.delete([client.get_vm(f"{prefix}-src")])
        finally:
            remove_all(one)


def _take_image(one: Daemon) -> None:
    """One that a test has built, or built now."""
    cache = Path(os.environ.get("CORRAL_TEST_CACHE", "/var/cache/corral-test"))
    for manifest in cache.glob("images/*/manifest.json"):
        if f'"name": "{IMAGE}"' in manifest.read_text():
            return one.run("image", "import", str(manifest.with_name("disk.qcow2")), "--name", IMAGE)
    say(f"building image {IMAGE}")
    return one.run("image", "build", IMAGE)


def _boot(stand: Stand) -> tuple[float, int]:
    """Seconds until its address answers, and what its QEMU takes when it is idle."""
    name = f"{stand.prefix}-src"
    say(f"booting {IMAGE}")
    began = time.perf_counter()
    body = {"name": name, "image": IMAGE, "memory_mib": MEMORY_MIB}
    accepted = stand.client.create_vm(body)  # type: ignore[arg-type]  # a literal of its own
    vm = accepted["vm"]
    assert vm is not None
    boot_s = stand.answers(vm) - began
    stand.client.wait_vm(name, "cloud-init", LATE_S)
    time.sleep(IDLE_S)
    return boot_s, _proportional_bytes(stand.ear.domain(vm))


def _cold_rows(stand: Stand, template: str, bare_copy: Callable[[str, str], str], boot_s: float) -> Iterator[Row]:
    ours, theirs = [], []
    say(f"{ROUNDS} cold forks, virDomainCreate")
    for number in range(ROUNDS):
        name = f"{stand.prefix}-c{number}"
        fork = stand.fork(template, name)
        ours.append(fork.runs)
        document = stand.ear.domain(fork.vm).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        stand.done(stand.client.vm_action(name, "destroy")["operation"])
        time.sleep(SETTLE_S)
        bare = stand.ear.connection.defineXML(bare_copy(document, name))
        try:
            theirs.append(timed(bare.create))
            bare.destroy()
        finally:
            bare.undefine()
        stand.delete([fork.vm])
    which = f"Debian 12, {MEMORY_MIB} MiB, {EMULATED}"
    how = f"{which}interleaved, {ROUNDS} times: {median(ours):.2f} s against {median(theirs):.2f} s"
    yield Row("a cold fork runs, against bare `virDomainCreate`", 1.25, median(ours) / median(theirs), "", how)
    yield Row("a cold fork runs", 0.6, median(ours), "s", f"{which}from the request, median of {ROUNDS}")
    how = f"{which}{boot_s:.1f} s from the request until the booted guest's address answers"
    yield Row("a fork runs, against booting the same image", 40, boot_s / median(ours), "", how, least=True)


def _warm_rows(stand: Stand, template: str) -> Iterator[Row]:
    found = []
    say(f"{ROUNDS} warm forks")
    for number in range(ROUNDS):
        stand.warm(template, WARM)
        found.append(stand.fork(template, f"{stand.prefix}-w{number}"))
        stand.delete([found[-1].vm])
    stand.warm(template, 0)
    which = f"{EMULATED}from the request, median of {ROUNDS}"
    runs, card, address, own = ([getattr(fork, name) for fork in found] for name in ("runs", "card", "address", "own"))
    yield Row("a warm fork runs", 60, median(runs) * 1000, "ms", which)
    yield Row("a warm fork has its card", 90, median(card) * 1000, "ms", which)
    yield Row("a warm fork's address answers", 2.5, median(address), "s", which)
    how = f"{which}, until the cable is in, without what the guest's agent takes for the script"
    yield Row("of that, Corral's own share", 0.3, median(own), "s", how)


def _memory_row(stand: Stand, template: str, booted_bytes: int) -> Row:
    say(f"{IDLE} forks that do nothing")
    vms = _fork_many(stand, template, "i", IDLE)[0]
    time.sleep(IDLE_S)
    found = [_proportional_bytes(stand.ear.domain(vm)) for vm in vms]
    stand.delete(vms)
    each = statistics.median(found)
    how = f"PSS of QEMU, {IDLE} forks: {each / 2**20:.0f} MiB against {booted_bytes / 2**20:.0f} MiB"
    return Row("memory of an idle fork, of the booted guest's", 12, 100 * each / booted_bytes, "%", how)


def _many_row(stand: Stand, template: str) -> Row:
    say(f"{MANY} forks at once")
    stand.warm(template, MANY)
    vms, took, told = _fork_many(stand, template, "m", MANY)
    stand.delete(vms)
    how = f"{EMULATED}warm, one request, until the last one runs; all told who they are after {told:.0f} s"
    return Row(f"{MANY} forks run", 20, took, "s", how)


def _fork_many(stand: Stand, template: str, letter: str, count: int) -> tuple[list[Vm], float, float]:
    """With the seconds until the last one runs, and until the last one knows who it is."""
    began = time.perf_counter()
    answer = stand.client.fork_template(template, {"names": [f"{stand.prefix}-{letter}{n}" for n in range(count)]})
    stand.client.set_warm(template, 0)  # those that were taken are taken
    took = max(stand.ear.when(vm["uid"], "runs") for vm in answer["vms"]) - began
    for operation in answer["operations"]:
        stand.done(operation)
    return answer["vms"], took, time.perf_counter() - began


def _proportional_bytes(domain: libvirt.virDomain) -> int:
    pid = Path(f"/run/libvirt/qemu/{domain.name()}.pid").read_text()
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _at(text: str | None) -> float:
    assert text is not None
    return datetime.fromisoformat(text).timestamp()
