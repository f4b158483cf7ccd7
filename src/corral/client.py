"""The typed client: one method a route. Standard library alone, so that a command line over it starts at once.

Documents are the API's own JSON (`corral.client_types`, generated from the OpenAPI document); what goes wrong is a
CorralError with the API's code, or `daemon-unreachable`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from corral.client_devices import DeviceCalls
from corral.client_firewall import FirewallCalls
from corral.client_guest import path_name
from corral.client_hosts import HostCalls
from corral.client_http import Query, Transport
from corral.client_networks import NetworkCalls
from corral.client_routers import RouterCalls
from corral.client_snapshots import SnapshotCalls
from corral.client_stacks import StackCalls
from corral.client_stream import ExecEnd, ExecOutput, WatchEvent, exec_records, frames, until_done, watch_events
from corral.client_templates import TemplateCalls
from corral.client_volumes import VolumeCalls
from corral.errors import CorralError

if TYPE_CHECKING:
    from types import TracebackType

    from corral import client_types as t

__all__ = ["Client", "ExecEnd", "ExecOutput", "WatchEvent", "raise_for_operation"]

LONG_POLL_S: Final = 30.0
RECONNECT_S: Final = 20.0  # a restart takes about two seconds, and operations survive it
RECONNECT_INTERVAL_S: Final = 0.2
# Answers of calls that wait come a little after the time that they were given.
MARGIN_S: Final = 15.0
BACKUP_CHUNK_BYTES: Final = 1024 * 1024
_UNFINISHED: Final = ("accepted", "running")
_ENDS: Final = {
    "failed": "operation-failed",
    "cancelled": "operation-cancelled",
    "superseded": "operation-superseded",
    "interrupted": "operation-interrupted",
}


class Client(
    HostCalls,
    VolumeCalls,
    NetworkCalls,
    RouterCalls,
    FirewallCalls,
    DeviceCalls,
    SnapshotCalls,
    StackCalls,
    TemplateCalls,
):
    """A daemon, as a program sees it. `socket` None: where `corral.settings` says; `url` and `token`: over TLS."""

    def __init__(
        self,
        socket: Path | str | None = None,
        *,
        url: str = "",
        token: str = "",
        ca_file: str = "",
        project: str = "default",
        timeout_s: float = 30.0,
    ) -> None:
        if socket is None and not url:
            from corral.settings import client_socket  # noqa: PLC0415 -- only where nothing was given

            socket = client_socket()
        self.project = project
        self._transport = Transport(str(socket or ""), url, token, ca_file, timeout_s)
        self._timeout_s = timeout_s

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # ---- any route -------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, *, query: Query | None = None, body: object = None) -> Any:
        """The decoded answer of any route; `path` begins with `/v1`. None for an empty answer."""
        content = self._transport.request(method, path, query=query, body=body)
        return json.loads(content) if content else None

    def request_bytes(self, method: str, path: str, *, query: Query | None = None) -> bytes:
        """The answer as it came."""
        return self._transport.request(method, path, query=query)

    # ---- virtual machines ------------------------------------------------------------------------------------------

    def list_vms(self, selector: str = "", fields: str = "") -> list[t.Vm]:
        return self._pages("vms", selector, fields)

    def list_templates(self) -> list[t.Template]:
        return self._pages("templates", "", "")

    def get_vm(self, name: str) -> t.Vm:
        return cast("t.Vm", self._get(f"/vms/{path_name(name)}"))

    def clone_vm(self, name: str, body: t.CloneVmRequest, *, idempotency_key: str = "") -> t.ClonesAccepted:
        headers = {"Idempotency-Key": idempotency_key}
        return cast("t.ClonesAccepted", self._change("POST", f"/vms/{path_name(name)}/clones", body, headers))

    def create_vm(self, body: t.CreateVmRequest, *, idempotency_key: str = "") -> t.VmAccepted:
        return cast("t.VmAccepted", self._change("POST", "/vms", body, {"Idempotency-Key": idempotency_key}))

    def update_vm(self, name: str, body: t.UpdateVmRequest, *, if_match: str = "") -> t.VmAccepted:
        return cast("t.VmAccepted", self._change("PATCH", f"/vms/{path_name(name)}", body, {"If-Match": if_match}))

    def delete_vm(self, name: str, *, keep_disks: bool = False) -> t.VmAccepted:
        query: Query = {"keep_disks": "true"} if keep_disks else {}
        return cast("t.VmAccepted", self._change("DELETE", f"/vms/{path_name(name)}", query=query))

    def vm_action(
        self, name: str, verb: str, body: t.StartRequest | t.ShutdownRequest | t.RebootRequest | None = None
    ) -> t.VmAccepted:
        """`start`, `shutdown`, `destroy`, `save`, `pause`, `resume`, `reboot` or `reset`."""
        return cast(
            "t.VmAccepted", self._change("POST", f"/vms/{path_name(name)}/actions/{quote(verb, safe='')}", body)
        )

    def wait_vm(self, name: str, for_: str, timeout_s: float) -> t.WaitAnswer:
        """`for_`: `running`, `agent`, `ip`, `ssh`, `shutoff`, `cloud-init`. Raises `wait-timeout`."""
        query: Query = {"for": for_, "timeout_s": timeout_s}
        return cast("t.WaitAnswer", self._get(f"/vms/{path_name(name)}/wait", query, timeout_s + MARGIN_S))

    def usage(self) -> t.UsageReport:
        return cast("t.UsageReport", self._get("/usage"))

    def document(self, name: str) -> str:
        """The hypervisor's own document."""
        return self._bytes(f"/vms/{path_name(name)}/document").decode()

    def console_log(self, name: str) -> bytes:
        return self._bytes(f"/vms/{path_name(name)}/console/log")

    def exec(
        self, name: str, argv: list[str], *, stdin: bytes = b"", timeout_s: float = 60.0
    ) -> Generator[ExecOutput | ExecEnd, None, None]:
        """Run a command in the guest: what it wrote, then how it ended."""
        import base64  # noqa: PLC0415

        body = {"argv": argv, "stdin": base64.b64encode(stdin).decode(), "timeout_s": timeout_s}
        path = f"/v1/vms/{path_name(name)}/exec"
        with self._transport.stream("POST", path, query={"project": self.project}, body=body) as stream:
            yield from exec_records(stream)

    # ---- domains that are not ours ---------------------------------------------------------------------------------

    def list_domains(self) -> list[t.UnmanagedDomain]:
        return self._items("/domains")

    def adopt(self, name: str) -> t.VmAccepted:
        return cast("t.VmAccepted", self._change("POST", f"/domains/{quote(name, safe='')}/adopt"))

    # ---- images, networks, volumes, hosts --------------------------------------------------------------------------

    def list_images(self, selector: str = "", fields: str = "") -> list[t.Image]:
        return self._pages("images", selector, fields)

    def get_image(self, name: str) -> t.Image:
        return cast("t.Image", self._get(f"/images/{path_name(name)}"))

    def build_image(self, body: t.BuildImageRequest, *, idempotency_key: str = "") -> t.ImageAccepted:
        return cast("t.ImageAccepted", self._change("POST", "/images", body, {"Idempotency-Key": idempotency_key}))

    def delete_image(self, name: str) -> t.ImageAccepted:
        return cast("t.ImageAccepted", self._change("DELETE", f"/images/{path_name(name)}"))

    def catalogue(self) -> list[t.CatalogueEntry]:
        return self._items("/catalogue")

    def list_networks(self, selector: str = "", fields: str = "") -> list[t.Network]:
        return self._pages("networks", selector, fields)

    def list_volumes(self, selector: str = "", fields: str = "") -> list[t.Volume]:
        return self._pages("volumes", selector, fields)

    def list_pools(self, selector: str = "", fields: str = "") -> list[t.Pool]:
        return self._pages("pools", selector, fields)

    def list_hosts(self, selector: str = "", fields: str = "") -> list[t.Host]:
        return self._pages("hosts", selector, fields)

    # ---- operations ------------------------------------------------------------------------------------------------

    def list_operations(self, selector: str = "", fields: str = "") -> list[t.Operation]:
        return self._pages("operations", selector, fields)

    def get_operation(self, uid: str, *, wait_s: float = 0.0) -> t.Operation:
        """The operation; with `wait_s` when it has ended, or is late."""
        query = {"wait_s": round(wait_s, 3)} if wait_s else {}
        return cast("t.Operation", self._get(f"/operations/{path_name(uid)}", query, self._timeout_s + wait_s))

    def cancel_operation(self, uid: str) -> t.Operation:
        return cast("t.Operation", self._change("POST", f"/operations/{path_name(uid)}/cancel")["operation"])

    def wait_operation(
        self,
        uid: str,
        *,
        on_progress: Callable[[t.Operation], None] | None = None,
        timeout_s: float | None = None,
    ) -> t.Operation:
        """The operation when it has ended, however that was (`raise_for_operation` tells). Raises `wait-timeout`.

        With `on_progress`, which is called for each change, a stream is followed; else the daemon is asked rarely.
        A daemon that is restarted meanwhile is waited for."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        lost_at: float | None = None
        while True:
            left_s = LONG_POLL_S if deadline is None else deadline - time.monotonic()
            try:
                operation = self.get_operation(uid, wait_s=0 if on_progress else max(0.0, min(left_s, LONG_POLL_S)))
                lost_at = None
                if on_progress is not None:
                    operation = self._followed(operation, on_progress, deadline)
            except CorralError as error:
                lost_at = lost_at or time.monotonic()
                if error.code != "daemon-unreachable" or time.monotonic() - lost_at > RECONNECT_S:
                    raise
                time.sleep(RECONNECT_INTERVAL_S)
                continue
            if operation["status"]["state"] not in _UNFINISHED:
                return operation
            if deadline is not None and time.monotonic() >= deadline:
                raise CorralError(
                    "wait-timeout",
                    f"wait for operation {uid}",
                    f"it is still {operation['status']['state']} after {timeout_s:g} s",
                    f"it goes on: corral operation show {uid[:8]}",
                )

    def _followed(
        self, operation: t.Operation, on_progress: Callable[[t.Operation], None], deadline: float | None
    ) -> t.Operation:
        """The newest state seen on the stream: the end, or the last one before stream or time ran out."""
        on_progress(operation)
        if operation["status"]["state"] not in _UNFINISHED:
            return operation
        query: dict[str, str | int | float] = {"kind": "operations", "name": operation["uid"]}
        query.update(since=operation["revision"], project=operation["project"])
        try:
            with self._transport.stream("GET", "/v1/watch", query=query) as stream:
                for event in watch_events(stream, deadline):
                    operation = cast("t.Operation", event.document)
                    on_progress(operation)
                    if operation["status"]["state"] not in _UNFINISHED:
                        break
        except CorralError as error:
            if error.code not in ("compacted", "daemon-unreachable"):
                raise
        return operation

    # ---- what happens ----------------------------------------------------------------------------------------------

    def watch(self, kind: str, *, since: int | None = None, name: str = "") -> Generator[WatchEvent, None, None]:
        """Changes of the objects of a kind (`vms`, `operations` …) after revision `since`, or from now on; of one of
        them with `name`. Raises `compacted`: list again. Ends when the daemon stops."""
        query: dict[str, str | int | float] = {"kind": kind, "project": self.project}
        if since is not None:
            query["since"] = since
        if name:
            query["name"] = name
        opened = ExitStack()
        stream = opened.enter_context(self._transport.stream("GET", "/v1/watch", query=query))
        return until_done(opened, watch_events(stream))

    def events(self, after: int = 0) -> list[t.EventEntry]:
        """What happened, oldest first, each with its `sequence`."""
        return self._journal("/events", "sequence", after)

    def follow_events(self, after: int | None = None) -> Generator[t.EventEntry, None, None]:
        """What happens from now on, or after a sequence. Ends when the daemon stops."""
        query: dict[str, str | int | float] = {"follow": "true", "project": self.project}
        if after is not None:
            query["after"] = after
        opened = ExitStack()
        stream = opened.enter_context(self._transport.stream("GET", "/v1/events", query=query))
        entries = (cast("t.EventEntry", json.loads(frame.data)) for frame in frames(stream) if frame is not None)
        return until_done(opened, entries)

    # ---- administration --------------------------------------------------------------------------------------------

    def list_tokens(self) -> list[t.Token]:
        return self._pages("tokens")

    def create_token(self, body: t.CreateTokenRequest) -> t.NewToken:
        return cast("t.NewToken", self._change("POST", "/tokens", body))

    def delete_token(self, name: str) -> None:
        self._change("DELETE", f"/tokens/{path_name(name)}")

    def list_audit(self, after: int = 0) -> list[t.AuditEntry]:
        """The audit log, oldest first, each record with its `entry`."""
        return self._journal("/audit", "entry", after)

    def verify_audit(self) -> t.AuditVerification:
        return cast("t.AuditVerification", self._get("/audit/verify", timeout_s=300.0))

    def backup(self) -> Generator[bytes, None, None]:
        """The database, in pieces."""
        with self._transport.stream("POST", "/v1/admin/backup", timeout_s=300.0) as stream:
            while chunk := stream.read(BACKUP_CHUNK_BYTES):
                yield chunk

    def recover(self) -> t.RecoveryReport:
        return cast("t.RecoveryReport", json.loads(self._transport.request("POST", "/v1/admin/recover", timeout_s=600)))

    def daemon(self) -> t.DaemonStatus:
        return cast("t.DaemonStatus", self._get("/daemon"))

    def ready(self) -> t.Readiness:
        """Whether the daemon can work, and what is missing. Raises `daemon-unreachable` when there is none."""
        with self._transport.stream("GET", "/readyz", accept_status=(200, 503)) as stream:
            return cast("t.Readiness", json.loads(stream.read()))

    # ---- how -------------------------------------------------------------------------------------------------------

    def _journal(self, path: str, count: str, after: int) -> list[Any]:
        items: list[Any] = []
        while part := self._get(path, {"after": after})["items"]:
            items += part
            after = part[-1][count]
        return items


def raise_for_operation(operation: t.Operation) -> None:
    """Nothing if it succeeded; else the error that ended it, or `operation-<state>`."""
    status = operation["status"]
    if status["state"] in (*_UNFINISHED, "succeeded"):
        return
    asked = f"{operation['spec']['intent']['verb']} {operation['spec']['target_name']}"
    problem = status["error"]
    if problem is not None:
        raise CorralError(problem["code"], problem["asked"] or asked, problem["reason"], problem["hint"])
    raise CorralError(
        _ENDS[status["state"]],
        asked,
        status["detail"] or f"it was {status['state']}",
        context={"operation": operation["uid"]},
    )
