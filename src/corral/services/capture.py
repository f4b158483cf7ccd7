"""Packets of one card of a running VM, for whoever has the right to read what others send. Written down at both ends."""

from collections.abc import AsyncGenerator
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
        context, asked = self._context, f"capture packets of card {nic[:64]!r} of VM {name[:64]!r}"
        await authorize(context, caller, project, ACTION, name)
        async with audited(context, caller, project, ACTION, name):
            await context.networks.check_filter(request.filter)
            if self._running >= limits.CAPTURES_MAX:
                reason = f"{limits.CAPTURES_MAX} captures run on this host already"
                raise CorralError("rate-limited", asked, reason, "wait for one to end, or end one")
        wanted = plain_text(request.filter, 128)
        vm = await begin(context, caller, project, name, ACTION, "capture packets of", f"{nic[:64]}: {wanted!r}")
        network = await context.objects.get(Network, nic_of(vm, nic, asked).network_uid)
        if network is not None and not network.spec.filtered:
            reason = f"packets of network {network.name!r} pass by the host's ends of cards"
            raise CorralError("unsupported", asked, reason, "capture in the guest, or on the network's own card")
        return self._pieces(caller, project, name, tap_name(vm.uid, nic), request)

    async def _pieces(
        self, caller: Caller, project: str, name: str, device: str, request: CaptureRequest
    ) -> AsyncGenerator[bytes, None]:
        captured = 0
        self._running += 1
        pieces = self._context.networks.capture(device, request)
        try:
            async for piece in pieces:
                captured += len(piece)
                yield piece
        finally:
            self._running -= 1
            await pieces.aclose()
            await record(self._context, caller, project, ACTION, name, "ended", f"{captured} bytes were handed out")
