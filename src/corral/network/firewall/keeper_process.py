"""Holds the firewall's tables. A process of its own, of nothing but Python's library and libnftables.

A table with nftables' flag `owner` belongs to the netlink socket that made it: nobody else changes it, `nft flush ruleset`
passes it by, and it is gone with the socket. The daemon may stop and come back; this process stays. When it dies, the floor
remains, an ordinary table that lets nothing by which the owned ones have not checked; when somebody flushes that one, this
process puts it back. Ports of bridges that it knows rules for it lifts out of their isolation.

Run as `python -I -S keeper_process.py SOCKET PREAMBLE`, in the network namespace that it is to keep. Exit status 4: another
one keeps this socket; 5: the tables cannot be made.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROTOCOL = 1
TAKEN_STATUS = 4
REFUSED_STATUS = 5
REQUEST_S = 30.0
LOOK_MS = 30_000
LINE_MAX_BYTES = 1 << 22
CHUNK_BYTES = 1 << 16
SEEN_MAX_BYTES = 1 << 25
# asm-generic/socket.h: SO_RCVBUFFORCE
_RECEIVE_BUFFER_FORCE = 33
# libnftables(3): NFT_CTX_OUTPUT_JSON, which also has it read JSON where it can; NFT_CTX_OUTPUT_HANDLE is not wanted.
_JSON = 1 << 4
# mallopt(3): M_MXFAST.
_SMALLEST_BINS = 1
_LARGE_BYTES = 1 << 20
# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h, linux/rtnetlink.h
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NETLINK_NETFILTER, _NFTABLES_GROUP, _NFTABLES_SUBSYS = 12, 7, 10
_INET, _BRIDGE = 1, 7
_REQUEST, _BATCH_BEGIN, _BATCH_END, _DELETE_TABLE = 1, 16, 17, 2
_DELETED = (_DELETE_TABLE, 5, 8, 11, 14)
_TABLE_ATTRIBUTE = 1
_LINK_GROUP, _NEW_LINK, _NAME_ATTRIBUTE = 1, 16, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_IFINFO_BYTES, _NFGEN_BYTES = 16, 4
SYS_NET = Path("/sys/class/net")


class Tables:
    """libnftables' context: whatever it makes with `owner` is this process's own."""

    def __init__(self) -> None:
        library = ctypes.CDLL("libnftables.so.1")
        library.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
        self._library = library
        self._context = ctypes.c_void_p(library.nft_ctx_new(0))
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_output_set_flags(self._context, _JSON)
        self._memory = ctypes.CDLL(None)
        # Freed pieces are joined at once: by and by it takes a quarter of the time that a large transaction is read in.
        self._memory.mallopt(_SMALLEST_BINS, 0)

    def run(self, text: bytes) -> tuple[bool, bytes]:
        """Whether it was done, wholly; what it answered, or why not."""
        done = self._library.nft_run_cmd_from_buffer(self._context, ctypes.c_char_p(text)) == 0
        answer: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        return done, answer if done else error

    def tidy(self) -> None:
        """What a large transaction was made of goes back to the host."""
        self._memory.malloc_trim(0)


class Keeper:
    def __init__(self, tables: Tables, rules_seen: socket.socket, port: int) -> None:
        self.tables = tables
        self.version, self.epoch = "", 0
        self.floor, self.floor_names = b"", frozenset[str]()
        self.taps, self.bridges = frozenset[str](), frozenset[str]()
        self.restored = 0
        self.rules_seen, self.port = rules_seen, port
        self.links_seen = _listen(socket.NETLINK_ROUTE, _LINK_GROUP)

    # ---- asked by the daemon ----

    def answer(self, connection: socket.socket) -> None:
        """One request: a line of JSON, and as many bytes as it says."""
        stream = connection.makefile("rb")
        request = json.loads(stream.readline(LINE_MAX_BYTES))
        payload = stream.read(request["bytes"])
        floor = stream.read(request.get("floor_bytes", 0))
        if len(payload) + len(floor) < request["bytes"] + request.get("floor_bytes", 0):
            return  # whoever asked is gone before it had said all
        if request["do"] == "load":
            reply, body = self.load(request, payload, floor)
        else:
            reply, body = {"done": True}, b""
        reply |= {"pid": os.getpid(), "protocol": PROTOCOL, "version": self.version, "epoch": self.epoch}
        reply |= {"bytes": len(body), "restored": self.restored}
        connection.sendall(json.dumps(reply).encode() + b"\n" + body)
        if len(payload) > _LARGE_BYTES:
            self.tables.tidy()

    def load(self, request: dict[str, Any], text: bytes, floor: bytes) -> tuple[dict[str, Any], bytes]:
        done, said = self.tables.run(text)
        if not done:
            return {"done": False}, said
        self.version, self.epoch = request["version"], request["epoch"]
        self.floor, self.floor_names = floor, frozenset(request["floor"])
        known = self.taps | self.bridges
        self.taps, self.bridges = frozenset(request["taps"]), frozenset(request["bridges"])
        for name in (self.taps | self.bridges) - known:  # the others are told of when they change
            self.settle(name)
        return {"done": True}, b""

    def leave(self) -> None:
        for name in self.floor_names:
            for family in (_INET, _BRIDGE):
                delete_table(family, name)

    # ---- seen in the kernel ----

    def see_rules(self) -> None:
        """Somebody deleted something: of the floor, it is put back."""
        lost = self.floor_lost(overflow=True)
        while lost and self.floor:
            self.tables.run(self.floor)
            self.restored += 1
            lost = self.floor_lost(overflow=False)

    def floor_lost(self, *, overflow: bool) -> bool:
        """`overflow`: what it says of more than could be kept. What this process has just done itself may be too much."""
        lost = False
        for kind, port, data in _messages(self.rules_seen):
            if kind is None:
                lost = lost or overflow
            elif port != self.port and kind >> 8 == _NFTABLES_SUBSYS and kind & 0xFF in _DELETED:
                table = dict(_attributes(data[_NFGEN_BYTES:])).get(_TABLE_ATTRIBUTE, b"")
                lost = lost or _text(table) in self.floor_names
        return lost

    def see_links(self) -> None:
        for kind, _, data in _messages(self.links_seen):
            if kind is None:
                self.settle_all()
            elif kind == _NEW_LINK:
                self.settle(_text(dict(_attributes(data[_IFINFO_BYTES:])).get(_NAME_ATTRIBUTE, b"")))

    def settle_all(self) -> None:
        for name in (*self.bridges, *self.taps):
            self.settle(name)

    def settle(self, name: str) -> None:
        """A bridge hands its packets to the host's rules; a port whose rules are loaded reaches its neighbours."""
        if name in self.taps:
            _write(SYS_NET / name / "brport/isolated", b"0")
        elif name in self.bridges:
            for flag in ("nf_call_iptables", "nf_call_ip6tables"):
                _write(SYS_NET / name / "bridge" / flag, b"1")


def _write(path: Path, wanted: bytes) -> None:
    """Only what differs: each change is told of, and would be looked at again."""
    with contextlib.suppress(OSError):
        if path.read_bytes().strip() != wanted:
            path.write_bytes(wanted)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def delete_table(family: int, name: str) -> None:
    """Past libnftables, which reads what everybody has before it deletes, and begins anew whenever some of it changes."""
    text = name.encode() + b"\0"
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(text), _TABLE_ATTRIBUTE) + text + bytes(-len(text) % 4)
    batch = struct.pack("=BBH", 0, 0, socket.htons(_NFTABLES_SUBSYS))
    messages = (
        (_BATCH_BEGIN, batch),
        (_NFTABLES_SUBSYS << 8 | _DELETE_TABLE, struct.pack("=BBH", family, 0, 0) + attribute),
        (_BATCH_END, batch),
    )
    packed = (_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST, 0, 0) + body for kind, body in messages)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as asking:
        asking.sendto(b"".join(packed), (0, 0))


def _listen(protocol: int, group: int) -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    # What a large transaction of this process's own tells should fit: a loss is taken for somebody's deletions.
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, SEEN_MAX_BYTES)
    listener.bind((0, 0))
    listener.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    listener.setblocking(False)
    return listener


def _port_of(rules_seen: socket.socket, preamble: str) -> int:
    """The netlink port of the tables' own socket, as their making was told of; others make tables, too."""
    words = frozenset(preamble.split())
    for kind, port, data in _messages(rules_seen):
        if kind == _NFTABLES_SUBSYS << 8:
            table = dict(_attributes(data[_NFGEN_BYTES:])).get(_TABLE_ATTRIBUTE, b"")
            if _text(table) in words:
                return port
    sys.exit(REFUSED_STATUS)


def _messages(seen: socket.socket) -> Iterator[tuple[int | None, int, bytes]]:
    """Everything that waits: its type, whose doing it is, its content; None where the kernel could not keep it all."""
    while True:
        try:
            data = seen.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS
            yield None, 0, b""
            continue
        while len(data) >= _HEADER.size:
            length, kind, _, _, port = _HEADER.unpack_from(data)
            yield kind, port, data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def serve(listener: socket.socket, keeper: Keeper, path: Path) -> None:
    """Until the socket is taken away: with it goes everything."""
    poll, look_at = select.poll(), 0.0
    for sock in (listener, keeper.rules_seen, keeper.links_seen):
        poll.register(sock, select.POLLIN)
    while True:
        for number, _ in poll.poll(LOOK_MS):
            if number == keeper.rules_seen.fileno():
                keeper.see_rules()
            elif number == keeper.links_seen.fileno():
                keeper.see_links()
            else:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(REQUEST_S)
                    # Whoever asks nonsense, or leaves, gets no answer; the tables stay.
                    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                        keeper.answer(connection)
        if time.monotonic() > look_at:
            if not path.exists():
                return keeper.leave()
            look_at = time.monotonic() + LOOK_MS / 1000


def main(path: str, preamble: str) -> None:
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(TAKEN_STATUS)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    rules_seen = _listen(_NETLINK_NETFILTER, _NFTABLES_GROUP)
    tables = Tables()
    done, said = tables.run(preamble.encode())
    if not done:
        sys.stderr.buffer.write(said)
        sys.exit(REFUSED_STATUS)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Bound under another name first: whoever can connect finds it listening.
    fresh = Path(path + ".new")
    fresh.unlink(missing_ok=True)
    os.umask(0o177)
    listener.bind(str(fresh))
    listener.listen(16)
    fresh.rename(path)
    serve(listener, Keeper(tables, rules_seen, _port_of(rules_seen, preamble)), Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:3])
