"""Who is at the other end of a Unix socket: the kernel's word (SO_PEERCRED, SO_PEERGROUPS), as an identity."""

import array
import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from corral.clock import Clock, SystemClock
from corral.model.identity import Identity, Role
from corral.security.policy import ALL_PROJECTS

# asm-generic/socket.h; Python's socket module does not name it. The reply is an array of gid_t.
SO_PEERGROUPS: Final = 59
_UCRED: Final = struct.Struct("iII")  # unix(7): pid, uid, gid
# socket.getsockopt gives at most 1024 bytes; a process in more groups is answered from the group database.
_GROUPS_MAX_BYTES: Final = 1024
GROUP_CACHE_S: Final = 10.0


class PeerSocket(Protocol):
    """The part of a socket that is needed here; asyncio's transports hand out such a thing."""

    @property
    def family(self) -> int: ...

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A process at the moment it connected."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]


def peer_of(connection: PeerSocket | None) -> Peer | None:
    """The process at the other end, or None where the transport is not a Unix socket."""
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid, gid, frozenset((gid, *_peer_groups(connection, uid, gid))))


def _peer_groups(connection: PeerSocket, uid: int, gid: int) -> tuple[int, ...]:
    try:
        return tuple(array.array("I", connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _GROUPS_MAX_BYTES)))
    except OSError:  # ERANGE: more groups than fit, or ENOPROTOOPT: a kernel before 4.13
        try:
            return tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
        except KeyError:
            return ()


def group_id(name: str) -> int | None:
    """The gid of a group, or None if the machine has no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


class LocalIdentities:
    """root, members of the admin group and, for a daemon of an ordinary user, that user are administrators of every
    project; anyone else on this machine has a name and no rights. What rights allow is decided in the services."""

    def __init__(
        self,
        admin_group: str,
        *,
        own_uid: int | None = None,
        clock: Clock | None = None,
        find_group: Callable[[str], int | None] = group_id,
    ) -> None:
        self._admin_group = admin_group
        self._own_uid = os.geteuid() if own_uid is None else own_uid
        self._clock = clock or SystemClock()
        self._find_group = find_group
        self._admin_gid: int | None = None
        self._looked_up_at: float | None = None

    def identify(self, peer: Peer) -> Identity:
        admin = peer.uid in (0, self._own_uid) or self._current_admin_gid() in peer.groups
        return Identity(name=f"local:{_user_name(peer.uid)}", roles={ALL_PROJECTS: Role.ADMIN} if admin else {})

    def _current_admin_gid(self) -> int | None:
        """Looked up again now and then: the group may be made while the daemon runs."""
        now = self._clock.monotonic_s()
        if self._looked_up_at is None or now - self._looked_up_at > GROUP_CACHE_S:
            self._admin_gid = self._find_group(self._admin_group)
            self._looked_up_at = now
        return self._admin_gid


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
