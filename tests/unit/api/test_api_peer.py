"""Who a local process is to the API."""

import socket

from corral.api.peer import GROUP_CACHE_S, LocalIdentities, Peer, peer_of
from corral.clock import ManualClock
from corral.model.identity import Role

CORRAL_GID = 4242


def _identities(clock: ManualClock | None = None, gid: int | None = CORRAL_GID) -> LocalIdentities:
    return LocalIdentities("corral", own_uid=1000, clock=clock or ManualClock(), find_group=lambda _name: gid)


def test_root_is_administrator_of_every_project() -> None:
    identity = _identities().identify(Peer(1, 0, 0, frozenset({0})))
    assert identity.name == "local:root"
    assert identity.roles == {"*": Role.ADMIN}


def test_a_member_of_the_group_is_administrator_by_supplementary_group() -> None:
    identity = _identities().identify(Peer(1, 54321, 54321, frozenset({54321, CORRAL_GID})))
    assert identity.name == "local:54321"
    assert identity.roles == {"*": Role.ADMIN}


def test_the_daemons_own_user_is_administrator() -> None:
    assert _identities(gid=None).identify(Peer(1, 1000, 1000, frozenset({1000}))).roles == {"*": Role.ADMIN}


def test_anyone_else_has_a_name_and_no_role() -> None:
    identity = _identities().identify(Peer(1, 54321, 54321, frozenset({54321})))
    assert identity.name == "local:54321"
    assert identity.roles == {}


def test_without_the_group_nobody_is_a_member_of_it() -> None:
    assert _identities(gid=None).identify(Peer(1, 54321, 54321, frozenset({54321}))).roles == {}


def test_a_group_made_later_counts_after_a_while() -> None:
    clock, groups = ManualClock(), {"corral": None}
    identities = LocalIdentities("corral", own_uid=1000, clock=clock, find_group=lambda name: groups[name])
    peer = Peer(1, 54321, 54321, frozenset({CORRAL_GID}))
    assert identities.identify(peer).roles == {}
    groups["corral"] = CORRAL_GID  # type: ignore[assignment]
    assert identities.identify(peer).roles == {}
    clock.advance(GROUP_CACHE_S + 1)
    assert identities.identify(peer).roles == {"*": Role.ADMIN}


def test_the_kernel_tells_who_is_at_the_other_end() -> None:
    import os

    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        peer = peer_of(here)
    assert peer is not None
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.groups == frozenset({os.getegid(), *os.getgroups()})


def test_nothing_is_known_over_tcp() -> None:
    with socket.socket(socket.AF_INET) as connection:
        assert peer_of(connection) is None
    assert peer_of(None) is None
