"""The typed client's calls for volumes and pools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from corral.client_guest import PIECE_TIMEOUT_S, GuestCalls, GuestFile, message, path_name, pieces_of, send_pieces

if TYPE_CHECKING:
    from corral import client_types as t


class VolumeCalls(GuestCalls):
    """What `Client` can do with volumes and pools; their content goes the way that guests' files go."""

    def get_volume(self, name: str) -> t.Volume:
        return cast("t.Volume", self._storage("GET", f"/volumes/{path_name(name)}"))

    def create_volume(self, body: t.CreateVolumeRequest, *, idempotency_key: str = "") -> t.VolumeAccepted:
        return cast("t.VolumeAccepted", self._storage("POST", "/volumes", body, idempotency_key))

    def copy_volume(self, name: str, body: t.CopyVolumeRequest, *, idempotency_key: str = "") -> t.VolumeAccepted:
        path = f"/volumes/{path_name(name)}/actions/copy"
        return cast("t.VolumeAccepted", self._storage("POST", path, body, idempotency_key))

    def resize_volume(self, name: str, body: t.ResizeVolumeRequest) -> t.OperationAccepted:
        return cast("t.OperationAccepted", self._storage("PATCH", f"/volumes/{path_name(name)}", body))

    def move_volume(self, name: str, body: t.MoveVolumeRequest) -> t.OperationAccepted:
        path = f"/volumes/{path_name(name)}/actions/move"
        return cast("t.OperationAccepted", self._storage("POST", path, body))

    def flatten_volume(self, name: str, body: t.FlattenVolumeRequest) -> t.OperationAccepted:
        path = f"/volumes/{path_name(name)}/actions/flatten"
        return cast("t.OperationAccepted", self._storage("POST", path, body))

    def delete_volume(self, name: str) -> t.OperationAccepted:
        return cast("t.OperationAccepted", self._storage("DELETE", f"/volumes/{path_name(name)}"))

    def upload_disk(self, pieces: Iterable[bytes], on_written: Callable[[int], None] | None = None) -> str:
        """A file for a volume, to the daemon's host; returns the token for a `CreateVolumeRequest`'s `upload`."""
        return send_pieces(self._socket("/volumes/upload", {}), "the file", pieces, on_written).path

    @contextmanager
    def download_volume(
        self,
        name: str,
        disk_format: Literal["qcow2", "raw"] = "qcow2",
        on_prepared: Callable[[float], None] = lambda _share: None,
    ) -> Iterator[tuple[GuestFile, Iterator[bytes]]]:
        """The whole disk: what it is, and its content in pieces; the last of them has come when they end without an
        error. `on_prepared` hears how much of it was flattened before."""
        socket = self._socket(f"/volumes/{path_name(name)}/download", {"format": disk_format})
        try:
            while "file" not in (said := message(socket, name, PIECE_TIMEOUT_S)):
                on_prepared(said["preparing"])
            yield GuestFile(**said["file"]), pieces_of(socket, name)
        finally:
            socket.close()

    # ---- pools -----------------------------------------------------------------------------------------------------

    def get_pool(self, name: str) -> t.Pool:
        return cast("t.Pool", self._storage("GET", f"/pools/{path_name(name)}"))

    def create_pool(self, body: t.CreatePoolRequest) -> t.Pool:
        return cast("t.Pool", self._storage("POST", "/pools", body))

    def delete_pool(self, name: str) -> None:
        self._storage("DELETE", f"/pools/{path_name(name)}")

    # ---- how -------------------------------------------------------------------------------------------------------

    def _storage(self, method: str, path: str, body: object = None, key: str = "") -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        content = self._transport.request(
            method, f"/v1{path}", query={"project": self.project}, body=body, headers=headers
        )
        return json.loads(content) if content else None
