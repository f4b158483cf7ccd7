"""uvicorn's HTTP and WebSocket protocols, with what it leaves out: the peer's credentials, bounds on connections and on
the time a request's head may take, and refusals in our own words."""

import asyncio
from typing import Final, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from corral.api.errors import MEDIA_TYPE, problem_document
from corral.api.handshakes import Handshakes
from corral.api.peer import PeerSocket, peer_of
from corral.errors import CorralError

CONNECTIONS_MAX: Final = 1024
# From a connection's beginning, or a request's first byte, until its head is complete.
HEAD_TIMEOUT_S: Final = 20.0


class ListenerConfig(uvicorn.Config):
    """What one listener's protocols are made with."""

    handshakes: Handshakes | None = None
    """Where it speaks TLS: those who wait for it."""


class PeerHttpProtocol(H11Protocol):
    """`scope["state"]["peer"]` is the process at the other end, None over TCP."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if isinstance(self.config, ListenerConfig) and self.config.handshakes is not None:
            self.config.handshakes.done(connection.fileno())
        try:
            peer = peer_of(cast(PeerSocket | None, connection))
        except OSError:  # it has gone already
            transport.abort()
            return
        self.app_state = {**self.app_state, "peer": peer}
        if len(self.connections) > CONNECTIONS_MAX:
            self._refuse(
                CorralError("rate-limited", "connect", f"{CONNECTIONS_MAX} connections are open", "close some of them")
            )
            return
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            return
        if self._between_requests:
            if self.timeout_keep_alive_task is None and self._head_timer is None:
                self._start_head_timer()
        else:
            self._stop_head_timer()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_head_timer()  # the head is whole; the transport is another protocol's now, for hours perhaps
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        self._refuse(
            CorralError("invalid-argument", "read the request", "it is not HTTP/1.1, or its headers are too large")
        )

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self._between_requests:
            self.transport.close()

    def _refuse(self, error: CorralError) -> None:
        """Answer without a route, and hang up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = problem_document(error, "")
            headers = [
                (b"content-type", MEDIA_TYPE.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            response = h11.Response(status_code=error.http_status, headers=headers)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class PeerWebSocketProtocol(WebSocketsSansIOProtocol):
    """The same for WebSockets: uvicorn makes a new protocol for the same transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        try:
            peer = peer_of(cast(PeerSocket | None, transport.get_extra_info("socket")))
        except OSError:
            peer = None
        self.app_state = {**self.app_state, "peer": peer}

    def shutdown(self) -> None:
        """A console that is open is closed by its route, which says why; one that does not manage to is cut off by the
        server's bound on a graceful stop."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()
