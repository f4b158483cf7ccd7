"""libvirt's events as `DomainEvent`s, brought from its thread into the asyncio loop, to everyone who listens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import libvirt

from corral.hypervisor.base import DomainEvent, StopCause
from corral.hypervisor.libvirt.observe import EVENT_STOP_CAUSES
from corral.hypervisor.libvirt.pending import Left

Kind = Literal["defined", "undefined", "started", "suspended", "resumed", "stopped", "shutdown", "crashed"]

_KINDS: Final[Mapping[int, Kind]] = MappingProxyType(
    {
        libvirt.VIR_DOMAIN_EVENT_DEFINED: "defined",
        libvirt.VIR_DOMAIN_EVENT_UNDEFINED: "undefined",
        libvirt.VIR_DOMAIN_EVENT_STARTED: "started",
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "suspended",
        libvirt.VIR_DOMAIN_EVENT_RESUMED: "resumed",
        libvirt.VIR_DOMAIN_EVENT_STOPPED: "stopped",
        libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: "shutdown",
        libvirt.VIR_DOMAIN_EVENT_CRASHED: "crashed",
    }
)

# A listener that is this far behind is told `connected`: look at everything again.
QUEUE_MAX: Final = 10_000


class Events:
    """Fans events out, and remembers why each domain stopped, which libvirtd forgets when it restarts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, left: Left) -> None:
        self._loop = loop
        self._left = left
        self._queues: set[asyncio.Queue[DomainEvent]] = set()
        self._stops: dict[str, StopCause] = {}

    def remembered_stop(self, uid: str) -> StopCause | None:
        """Why `uid` stopped, NONE if it never ran, None if that was not seen."""
        return self._stops.get(uid)

    def never_ran(self, uid: str) -> None:
        """Remember that `uid` was defined just now."""
        self._stops[uid] = StopCause.NONE

    def publish(self, event: DomainEvent) -> None:
        """To every listener; in the loop's thread."""
        self._left.heard(event.uid, event.kind)
        if event.kind in ("started", "undefined"):
            self._stops.pop(event.uid, None)
        elif event.kind == "stopped":
            self._stops[event.uid] = event.stop_cause
        for queue in self._queues:
            if queue.qsize() >= QUEUE_MAX:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(DomainEvent("", "", "connected"))
            queue.put_nowait(event)

    def listen(self) -> AsyncIterator[DomainEvent]:
        """Registered at once, not at the first step: nothing that happens after this call is missed."""
        queue: asyncio.Queue[DomainEvent] = asyncio.Queue()
        self._queues.add(queue)

        async def events() -> AsyncIterator[DomainEvent]:
            try:
                while True:
                    yield await queue.get()
            finally:
                self._queues.discard(queue)

        return events()

    def register(self, handle: libvirt.virConnect) -> Sequence[int]:
        """Subscribe to all domains' events on a new connection; called before it is used. Returns the subscriptions."""
        wanted = (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._on_io_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._on_agent),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._on_unplugged),
        )
        return [handle.domainEventRegisterAny(None, event_id, callback, None) for event_id, callback in wanted]

    def _send(self, event: DomainEvent) -> None:
        """From libvirt's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.publish, event)

    def _on_lifecycle(self, _h: object, domain: libvirt.virDomain, event: int, detail: int, _o: object) -> None:
        kind = _KINDS.get(event)
        if kind is None:
            return
        cause = StopCause.NONE
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            cause = EVENT_STOP_CAUSES.get(detail, StopCause.UNKNOWN)
        self._send(DomainEvent(domain.UUIDString(), domain.name(), kind, cause))

    def _on_reboot(self, _h: object, domain: libvirt.virDomain, _o: object) -> None:
        self._send(DomainEvent(domain.UUIDString(), domain.name(), "reboot"))

    def _on_io_error(self, _h: object, domain: libvirt.virDomain, *_details: object) -> None:
        self._send(DomainEvent(domain.UUIDString(), domain.name(), "io-error"))

    def _on_unplugged(self, _h: object, domain: libvirt.virDomain, _alias: str, _o: object) -> None:
        """The guest has let a device go, maybe long after it was asked to."""
        self._send(DomainEvent(domain.UUIDString(), domain.name(), "unplugged"))

    def _on_agent(self, _h: object, domain: libvirt.virDomain, _state: int, _reason: int, _o: object) -> None:
        self._send(DomainEvent(domain.UUIDString(), domain.name(), "agent"))
