"""libvirt's own event loop: one for the process, in one daemon thread; events and streams live on it."""

import functools
import threading

import libvirt


@functools.cache
def start_event_loop() -> threading.Thread:
    """Start it, once for the process (libvirt has one global implementation); before the first connection is opened.

    Also keeps libvirt from printing every error to standard error: errors are raised and logged where they belong.
    """
    libvirt.registerErrorHandler(_ignore, None)
    libvirt.virEventRegisterDefaultImpl()
    thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
    thread.start()
    return thread


def _ignore(_context: object, _error: object) -> None:
    return None


def _run() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
