"""The typed client's calls for the disks, drives and cards of a VM."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from corral.client_guest import path_name
from corral.client_http import Transport

if TYPE_CHECKING:
    from corral import client_types as t


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

    def _device(self, method: str, name: str, kind: str, device: str = "", body: object = None) -> t.VmAccepted:
        path = f"/v1/vms/{path_name(name)}/{kind}" + (f"/{quote(device, safe='')}" if device else "")
        content = self._transport.request(method, path, query={"project": self.project}, body=body)
        return cast("t.VmAccepted", json.loads(content))
