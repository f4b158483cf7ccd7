"""Packets of one card of a running VM, for whoever has the right to read what others send. Written down at both ends."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from corral.errors import CorralError
from corral.model import limits
from corral.model.capture import CaptureRequest
from corral.model.network import Network
from corral.names import plain_text, tap_name
from corral.services.access import audited, authorize, record
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.device_parts import nic_of
from corral.services.talk import begin

ACTION: Final = "vm.capture"


class CaptureService:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._running = 0

    async def open(
        self, caller: Caller, project: str, name: str, nic: str, request: CaptureRequest
    ) -> AsyncGenerator[bytes, None]:
        """A capture file in pieces. All that can be refused is refused before; closed early, it stops."""
        pieces = self._pieces(caller, project, name, nic, request)
        await anext(pieces)
        return pieces

    async def _pieces(
        self, caller: Caller, project: str, name: str, nic: str, request: CaptureRequest
    ) -> AsyncGenerator[bytes, None]:
        """An empty one first, where nothing is to be refused any more: from then on its end is certain to be heard of."""
        context, asked = self._context, f"capture packets of card {nic[:64]!r} of VM {name[:64]!r}"
        await authorize(context, caller, project, ACTION, name)
        async with audited(context, caller, project, ACTION, name):
            await context.networks.check_filter(request.filter)
            if self._running >= limits.CAPTURES_MAX:
                reason = f"{limits.CAPTURES_MAX} captures run on this host already"
                raise CorralError("rate-limited", asked, reason, "wait for one to end, or end one")
        self._running += 1
        try:
            wanted = plain_text(request.filter, 128)
            vm = await begin(context, caller, project, name, ACTION, "capture packets of", f"{nic[:64]}: {wanted!r}")
            network = await context.objects.get(Network, nic_of(vm, nic, asked).network_uid)
            if network is not None and not network.spec.filtered:
                reason = f"packets of network {network.name!r} pass by the host's ends of cards"
                raise CorralError("unsupported", asked, reason, "capture in the guest, or on the network's own card")
            captured = 0
            try:
                yield b""
                async with aclosing(context.networks.capture(tap_name(vm.uid, nic), request)) as pieces:
                    async for piece in pieces:
                        captured += len(piece)
                        yield piece
            finally:
                await record(context, caller, project, ACTION, name, "ended", f"{captured} bytes were handed out")
        finally:
            self._running -= 1
