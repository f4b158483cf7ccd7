"""A running guest's memory goes into libvirt's kind of file while the guest runs on; it stands still for the end alone.

QEMU's own migration, into a pipe that is read here. When this process dies, QEMU has nobody to write to, gives up, and the
guest goes on by itself. Only from the instant in which all is written until it is resumed does it depend on us.
"""

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path
from typing import Any, Final

import libvirt
from lxml.etree import Element, tostring

from corral.errors import CorralError
from corral.files import storage_error
from corral.hypervisor.libvirt import domains, monitor
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.saved_image import begin_saved_image, finish_saved_image

# The guest is stopped once what is left can be written in so long; the disks' switch and its resumption come on top.
LAST_PART_MS: Final = 50
# A guest that changes its memory faster than it is written is slowed down by QEMU ever more; it gets as long again as the
# first pass over its memory took, at least this. Then it is stopped with whatever is left.
PATIENCE_S: Final = 8.0
NO_LIMIT_MS: Final = 2_000_000
# QEMU's own settings (7.2), which later migrations find again.
QEMU_LIMIT_MS: Final = 300
QEMU_BANDWIDTH: Final = 128 << 20
BANDWIDTH_MAX: Final = 1 << 60

PIPE_BYTES: Final = 1 << 20
LOOK_S: Final = 0.25
WAKE_MS: Final = 100
END_S: Final = 10.0
_DESCRIPTOR: Final = "corral-memory"
_UNDER_WAY: Final = ("setup", "active", "cancelling", "pre-switchover", "device", "wait-unplug")


@contextmanager
def captured(domain: libvirt.virDomain, path: Path, cut: threading.Event) -> Iterator[None]:
    """The block runs while the guest stands still and all of its memory is in the file; then the guest goes on, whatever
    happened. `cut`, from another thread, ends it before that. The file is durable only after the block."""
    settle(domain)
    try:
        target = _begin(domain, path)
        try:
            with _at_rest(domain, target, cut):
                yield
        finally:
            os.close(target)
    except OSError as error:
        raise storage_error(f"write {path}", error) from error


def _begin(domain: libvirt.virDomain, path: Path) -> int:
    """As libvirt writes it: the document as it would be sent to another host, and the processor as it was worked out."""
    secure = libvirt.VIR_DOMAIN_XML_SECURE
    processor = parse_document(domain.XMLDesc(secure)).find("cpu")
    cookie = Element("cookie")
    if processor is not None:
        cookie.append(processor)
    document = domain.XMLDesc(secure | libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    return begin_saved_image(path, document, tostring(cookie, encoding="unicode"))


@contextmanager
def _at_rest(domain: libvirt.virDomain, target: int, cut: threading.Event) -> Iterator[None]:
    try:
        _write(domain, target, cut)
        try:
            finish_saved_image(target)
            yield
        finally:
            domains.resume(domain)
    finally:
        settle(domain)


def settle(domain: libvirt.virDomain) -> None:
    """No migration of ours is left, also of a former process, and the guest, which is to run, does."""
    if monitor.ask(domain, "query-migrate").get("status") in _UNDER_WAY:
        monitor.ask(domain, "migrate_cancel")
        reason = "QEMU does not end what it writes"
        monitor.wait_until(lambda: not _is_under_way(domain), END_S, f"let {domain.name()} run on", reason)
    domains.resume(domain)
    _set(domain, QEMU_LIMIT_MS, QEMU_BANDWIDTH, slow_down=False)


def _is_under_way(domain: libvirt.virDomain) -> bool:
    return monitor.ask(domain, "query-migrate").get("status") in _UNDER_WAY


def _set(domain: libvirt.virDomain, limit_ms: int, bandwidth: int, *, slow_down: bool) -> None:
    capability = {"capability": "auto-converge", "state": slow_down}
    monitor.ask(domain, "migrate-set-capabilities", capabilities=[capability])
    monitor.ask(domain, "migrate-set-parameters", **{"downtime-limit": limit_ms, "max-bandwidth": bandwidth})


def _write(domain: libvirt.virDomain, target: int, cut: threading.Event) -> None:
    """Until all is written; the guest stands still then."""
    _set(domain, LAST_PART_MS, BANDWIDTH_MAX, slow_down=True)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            with suppress(OSError):  # more than this user may have; the usual size does
                fcntl(reader, F_SETPIPE_SZ, PIPE_BYTES)
            monitor.hand_over(domain, _DESCRIPTOR, writer)
        finally:
            os.close(writer)
        monitor.ask(domain, "migrate", uri=f"fd:{_DESCRIPTOR}")
        pump = _Pump(reader, target)
        try:
            patience = _Patience(domain)
            while not pump.ended(LOOK_S):
                _go_on_unless(cut)
                patience.look()
            _go_on_unless(cut)
        finally:
            pump.stop()
    finally:
        os.close(reader)
    status = monitor.ask(domain, "query-migrate")
    if status.get("status") != "completed":
        reason = str(status.get("error-desc") or f"QEMU says {status.get('status')}")
        raise CorralError("hypervisor-error", f"keep the memory of {domain.name()}", reason)


def _go_on_unless(cut: threading.Event) -> None:
    if cut.is_set():
        raise CorralError("operation-cancelled", "keep a guest's memory", "nobody waits for it any more")


class _Pump:
    """From the pipe into the file, in a thread of its own: when QEMU writes the last part it answers no question until
    that is read."""

    def __init__(self, reader: int, target: int) -> None:
        self._reader, self._target = reader, target
        self._stopped = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        try:
            while not self._stopped.is_set():
                if poll.poll(WAKE_MS) and not os.splice(self._reader, self._target, PIPE_BYTES):
                    return  # QEMU has closed its end: it is done, or has failed
        except OSError as error:
            self._error = error

    def ended(self, timeout_s: float) -> bool:
        """Raises what the file's disk did."""
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


class _Patience:
    """With a guest whose memory changes faster than it is written."""

    def __init__(self, domain: libvirt.virDomain) -> None:
        self._domain = domain
        self._began = time.monotonic()
        self._until: float | None = None

    def look(self) -> None:
        now = time.monotonic()
        if self._until is None:
            if self._passes() > 1:
                self._until = now + max(PATIENCE_S, now - self._began)
        elif now >= self._until:
            self._until = float("inf")
            monitor.ask(self._domain, "migrate-set-parameters", **{"downtime-limit": NO_LIMIT_MS})

    def _passes(self) -> int:
        memory: dict[str, Any] = monitor.ask(self._domain, "query-migrate").get("ram", {})
        return int(memory.get("dirty-sync-count", 0)) - 1
