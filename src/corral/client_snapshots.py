"""The typed client's calls for the points in time of a VM."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from corral.client_guest import path_name
from corral.client_http import Transport

if TYPE_CHECKING:
    from corral import client_types as t


DIFF_TIMEOUT_S: Final = 300.0
"""Tables of whole disks are read."""


class SnapshotCalls:
    """What `Client` can do with a VM's snapshots."""

    project: str
    _transport: Transport

    def list_snapshots(self, vm: str) -> list[t.Snapshot]:
        """Oldest first."""
        return list(cast("list[t.Snapshot]", self._snapshot("GET", vm)["items"]))

    def get_snapshot(self, vm: str, name: str) -> t.Snapshot:
        return cast("t.Snapshot", self._snapshot("GET", vm, name))

    def diff_snapshots(self, vm: str, name: str, to: str = "now") -> t.SnapshotDiff:
        """What was written between the two."""
        path = f"/v1/vms/{path_name(vm)}/snapshots/{quote(name, safe='')}/diff"
        content = self._transport.request(
            "GET", path, query={"project": self.project, "to": to}, timeout_s=DIFF_TIMEOUT_S
        )
        return cast("t.SnapshotDiff", json.loads(content))

    def create_snapshot(self, vm: str, body: t.CreateSnapshotRequest) -> t.SnapshotAccepted:
        return cast("t.SnapshotAccepted", self._snapshot("POST", vm, body=body))

    def revert_to_snapshot(self, vm: str, name: str) -> t.OperationAccepted:
        return cast("t.OperationAccepted", self._snapshot("POST", vm, name, "/revert"))

    def delete_snapshot(self, vm: str, name: str) -> t.OperationAccepted:
        return cast("t.OperationAccepted", self._snapshot("DELETE", vm, name))

    def _snapshot(self, method: str, vm: str, name: str = "", verb: str = "", body: object = None) -> Any:
        path = f"/v1/vms/{path_name(vm)}/snapshots" + (f"/{quote(name, safe='')}{verb}" if name else "")
        content = self._transport.request(method, path, query={"project": self.project}, body=body)
        return json.loads(content)
