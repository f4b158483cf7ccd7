"""Sessions with a running guest from outside: its screen and keys, its clock, passwords, files. They write no state, only audit."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from corral.errors import CorralError
from corral.hypervisor.reach import Display, DisplayAddress, GuestDetails, GuestReader, GuestWriter
from corral.model.answers import GuestAnswer
from corral.model.keys import Chord, parse_chords, parse_text
from corral.model.limits import GUEST_PATH_MAX_CHARS
from corral.model.reach import (
    ClockAnswer,
    DisplayAnswer,
    GuestFileSystemAnswer,
    GuestUserAnswer,
    SendKeysRequest,
    SetClockRequest,
    SetPasswordRequest,
)
from corral.model.vm import Vm
from corral.services import rules
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.passwords import check_password
from corral.services.talk import asking, begin

HOLD_MS: Final = 100  # QEMU's own for keys that nobody says a time for
TEXT_HOLD_MS: Final = 10
# Between two combinations, so that the second is not down before the first is up: the keyboard's queue is short.
GAP_S: Final = 0.02
BLOCKED_HINT: Final = (
    "the guest's administrator may have blocked it: see block-rpcs (BLACKLIST_RPC) of qemu-ga in the guest"
)
NANO: Final = 10**9
FILE_MODE_MAX: Final = 0o777
DETAIL_MAX_CHARS: Final = 256


class GuestService:
    """What goes straight to the hypervisor, or through it to the guest's agent."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # ---- screen and keys -------------------------------------------------------------------------------------------

    async def screenshot(self, caller: Caller, project: str, name: str) -> bytes:
        """The first screen as PNG."""
        async with self._talking(caller, project, name, "vm.screenshot", "take a screenshot of") as vm:
            return await self._context.hypervisor.screens.screenshot(vm.uid)

    async def display(self, caller: Caller, project: str, name: str) -> DisplayAnswer:
        """Where its graphical console listens on this host."""
        await authorize(self._context, caller, project, "vm.read", name)
        vm = await self._context.objects.require(Vm, project, name)
        with asking(f"look for the display of VM {name!r}"):
            return _display(await self._context.hypervisor.screens.display(vm.uid))

    async def open_vnc(self, caller: Caller, project: str, name: str) -> Display:
        """The bytes of its VNC server. Several may look at one screen."""
        async with self._talking(caller, project, name, "vm.vnc", "open VNC to") as vm:
            address = await self._context.hypervisor.screens.display(vm.uid)
            if address is not None and address.kind != "vnc":
                reason = f"its graphical console speaks {address.kind.upper()}, not VNC"
                hint = f"on its host: remote-viewer {_uri(address)}"
                raise CorralError("unsupported", f"open VNC to VM {name!r}", reason, hint)
            return await self._context.hypervisor.screens.open_display(vm.uid)

    async def send_keys(self, caller: Caller, project: str, name: str, request: SendKeysRequest) -> None:
        """Press them one after the other. What was typed is not written down: it may be a password."""
        async with self._talking(caller, project, name, "vm.send-key", "press keys of") as vm:
            chords, typed = parse_chords(request.keys), parse_text(request.text)
            if not chords and not typed:
                raise CorralError("invalid-argument", "", "no keys", "name keys, or give text")
            await self._press(vm, chords, request.hold_ms or HOLD_MS)
            await self._press(vm, typed, request.hold_ms or TEXT_HOLD_MS)

    async def _press(self, vm: Vm, chords: Sequence[Chord], hold_ms: int) -> None:
        for chord in chords:
            await self._context.hypervisor.screens.press(vm.uid, chord, hold_ms)
            await asyncio.sleep(hold_ms / 1000 + GAP_S)

    async def inject_nmi(self, caller: Caller, project: str, name: str) -> None:
        async with self._talking(caller, project, name, "vm.nmi", "inject an NMI into") as vm:
            await self._context.hypervisor.screens.inject_nmi(vm.uid)

    # ---- the guest agent -------------------------------------------------------------------------------------------

    async def details(self, caller: Caller, project: str, name: str) -> GuestAnswer:
        """What the guest agent says of its system, now."""
        async with self._reading(caller, project, name, "vm.guest", "ask the guest agent of") as vm:
            facts = await self._context.hypervisor.guest_facts(vm.uid)
            more = await self._context.hypervisor.guests.details(vm.uid)
        return GuestAnswer(
            hostname=facts.hostname,
            os=facts.os,
            addresses=facts.addresses,
            **_details(more),
        )

    async def clock(self, caller: Caller, project: str, name: str) -> ClockAnswer:
        async with self._reading(caller, project, name, "vm.guest", "ask the clock of") as vm:
            return await self._clock(vm)

    async def set_clock(self, caller: Caller, project: str, name: str, request: SetClockRequest) -> ClockAnswer:
        """Set it, and say what it shows then."""
        async with self._talking(caller, project, name, "vm.clock", "set the clock of", agent=True) as vm:
            if (request.source == "time") != (request.time is not None):
                raise CorralError("invalid-argument", "", "`time` goes with the source `time`", "give both, or neither")
            wished_s = request.time.timestamp() if request.time is not None else time.time()
            if wished_s < 0:
                raise CorralError("invalid-argument", "", "a time before 1970", "choose a later one")
            wished_ns = None if request.source == "rtc" else round(wished_s * NANO)
            await self._context.hypervisor.guests.set_time(vm.uid, wished_ns)
            return await self._clock(vm)

    async def _clock(self, vm: Vm) -> ClockAnswer:
        before = time.time_ns()
        guest = await self._context.hypervisor.guests.time_ns(vm.uid)
        after = time.time_ns()
        between = (before + after) // 2
        return ClockAnswer(
            guest_time=_moment(guest),
            host_time=_moment(between),
            offset_s=round((guest - between) / NANO, 3),
            uncertainty_s=round((after - before) / 2 / NANO, 3),
        )

    async def set_password(self, caller: Caller, project: str, name: str, request: SetPasswordRequest) -> None:
        """The guest gets a hash; nothing of it is written down but whose it is."""
        detail = f"user {request.user}"
        async with self._talking(caller, project, name, "vm.password", "set a password in", detail, agent=True) as vm:
            password = request.password.get_secret_value()
            check_password(password)
            hashed = await self._context.hash_password(password)
            await self._context.hypervisor.guests.set_password(vm.uid, request.user, hashed)

    # ---- files -----------------------------------------------------------------------------------------------------

    async def open_read(self, caller: Caller, project: str, name: str, path: str, *, tree: bool) -> GuestReader:
        """A file of the guest's, or with `tree` a directory as a tar archive."""
        shown = path[:DETAIL_MAX_CHARS]
        async with self._talking(caller, project, name, "vm.copy", f"copy {shown} from", shown, agent=True) as vm:
            _check_path(path)
            return await self._context.hypervisor.guests.open_read(vm.uid, path, tree=tree)

    async def open_write(
        self, caller: Caller, project: str, name: str, path: str, file_name: str, mode: int, *, tree: bool
    ) -> GuestWriter:
        """A file to be written to `path`, or in that directory under `file_name`."""
        shown = path[:DETAIL_MAX_CHARS]
        async with self._talking(caller, project, name, "vm.copy", f"copy {shown} to", shown, agent=True) as vm:
            _check_path(path)
            if file_name in ("", ".", "..") or "/" in file_name or not file_name.isprintable():
                raise CorralError(
                    "invalid-argument", "", f"{file_name!r} is not the name of a file", "give another name"
                )
            if not 0 <= mode <= FILE_MODE_MAX:
                raise CorralError("invalid-argument", "", "a mode is permission bits", "0644, for example")
            return await self._context.hypervisor.guests.open_write(vm.uid, path, file_name, mode, tree=tree)

    # ---- how -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _talking(
        self, caller: Caller, project: str, name: str, action: str, verb: str, detail: str = "", *, agent: bool = False
    ) -> AsyncIterator[Vm]:
        """An audited session: it is written down before the guest hears anything, and again if it fails."""
        vm = await begin(self._context, caller, project, name, action, verb, detail)
        async with audited(self._context, caller, project, action, name):
            if agent:
                rules.check_awake(vm, verb)
            with answered(f"{verb} VM {name!r}"):
                yield vm

    @asynccontextmanager
    async def _reading(self, caller: Caller, project: str, name: str, action: str, verb: str) -> AsyncIterator[Vm]:
        """As the other, but reading what anybody with a role may see is not written down."""
        await authorize(self._context, caller, project, action, name)
        vm = await self._context.objects.require(Vm, project, name)
        rules.check_awake(vm, verb)
        with answered(f"{verb} VM {name!r}"):
            yield vm


@contextmanager
def answered(asked: str) -> Iterator[None]:
    """As `asking`; and where the agent said no, why that may be."""
    with asking(asked):
        try:
            yield
        except CorralError as error:
            if error.code != "guest-agent-error" or error.hint:
                raise
            raise CorralError(error.code, error.asked, error.reason, BLOCKED_HINT, error.context) from error


def _check_path(path: str) -> None:
    if not path.startswith("/") or len(path) > GUEST_PATH_MAX_CHARS or not path.isprintable():
        raise CorralError(
            "invalid-argument",
            f"the guest's path {path[:64]!r}",
            f"a path begins with '/' and has at most {GUEST_PATH_MAX_CHARS} printable characters",
            "write it from the root: web:/etc/hosts",
        )


def _moment(time_ns: int) -> datetime:
    """Raises `guest-agent-error` for a time that no calendar has: guests may say what they like."""
    try:
        return datetime.fromtimestamp(time_ns / NANO, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise CorralError("guest-agent-error", "guest-get-time", f"{time_ns} ns is no time") from error


def _details(told: GuestDetails) -> dict[str, Any]:
    """The fields of the answer that are the agent's further facts."""
    users = tuple(
        GuestUserAnswer(
            name=user.name,
            logged_in_at=None if user.logged_in_at_s is None else _moment(round(user.logged_in_at_s * NANO)),
        )
        for user in told.users
    )
    return {
        "os_id": told.os_id,
        "os_version": told.os_version,
        "kernel": told.kernel,
        "machine": told.machine,
        "time": None if told.time_ns is None else _moment(told.time_ns),
        "timezone": told.timezone,
        "utc_offset_s": told.utc_offset_s,
        "users": users,
        "file_systems": tuple(GuestFileSystemAnswer(**asdict(each)) for each in told.file_systems),
        "agent_version": told.agent_version,
        "untold": told.untold,
    }


def _display(address: DisplayAddress | None) -> DisplayAnswer:
    return DisplayAnswer(kind="none") if address is None else DisplayAnswer(kind=address.kind, uri=_uri(address))


def _uri(address: DisplayAddress) -> str:
    """As remote-viewer and vncviewer take it. A port on every address is reached through the loopback one."""
    if address.socket:
        return f"{address.kind}+unix://{address.socket}"
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    shown = f"[{host}]" if ":" in host else host
    if not address.port and address.tls_port:
        return f"{address.kind}://{shown}?tls-port={address.tls_port}"
    return f"{address.kind}://{shown}:{address.port}"
