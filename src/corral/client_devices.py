"""The typed client's calls for the disks, drives and cards of a VM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

from corral.client_guest import path_name
from corral.client_http import Transport

if TYPE_CHECKING:
    from corral import client_types as t

CAPTURE_DURATION_DEFAULT_S: Final = 600.0  # the daemon's, where nothing is said
CAPTURE_MARGIN_S: Final = 30.0
CAPTURE_PIECE_BYTES: Final = 64 * 1024


class DeviceCalls:
    """What `Client` can do with a VM's devices. Each answers with the operation that carries it out."""

    project: str
    _transport: Transport

    def attach_disk(self, name: str, body: t.AttachDiskRequest) -> t.VmAccepted:
        return self._device("POST", name, "disks", body=body)

    def change_disk(self, name: str, disk: str, body: t.ChangeDiskRequest) -> t.VmAccepted:
        return self._device("PATCH", name, "disks", disk, body)

    def detach_disk(self, name: str, disk: str) -> t.VmAccepted:
        return self._device("DELETE", name, "disks", disk)

    def attach_nic(self, name: str, body: t.NicRequest) -> t.VmAccepted:
        return self._device("POST", name, "nics", body=body)

    def change_nic(self, name: str, nic: str, body: t.ChangeNicRequest) -> t.VmAccepted:
        return self._device("PATCH", name, "nics", nic, body)

    def detach_nic(self, name: str, nic: str) -> t.VmAccepted:
        return self._device("DELETE", name, "nics", nic)

    @contextmanager
    def capture(self, name: str, nic: str, body: t.CaptureRequest) -> Iterator[Iterator[bytes]]:
        """A capture file of the card, in pieces of whole packets as they pass. Leaving the block ends it."""
        path = f"/v1/vms/{path_name(name)}/nics/{quote(nic, safe='')}/capture"
        timeout_s = body.get("duration_s", CAPTURE_DURATION_DEFAULT_S) + CAPTURE_MARGIN_S
        query = {"project": self.project}
        with self._transport.stream("POST", path, query=query, body=body, timeout_s=timeout_s) as stream:
            yield iter(lambda: stream.read_some(CAPTURE_PIECE_BYTES), b"")

    def _device(self, method: str, name: str, kind: str, device: str = "", body: object = None) -> t.VmAccepted:
        path = f"/v1/vms/{path_name(name)}/{kind}" + (f"/{quote(device, safe='')}" if device else "")
        content = self._transport.request(method, path, query={"project": self.project}, body=body)
        return cast("t.VmAccepted", json.loads(content))
